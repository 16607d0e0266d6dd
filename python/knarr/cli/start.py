"""`knarr start` and `knarr attach`."""

from knarr.cli import terminal
from knarr.cli.command import FLAG, TEXT, Command, Option
from knarr.cli.each import each
from knarr.errors import Conflict, InvalidArgument, KnarrError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client


def _start(client: "Client", options: "dict[str, Any]", names: "list[str]") -> int:
    for key in ("checkpoint", "checkpoint_dir"):
        if options[key]:
            option = "--" + key.replace("_", "-")
            raise InvalidArgument(f'"{option}" is only supported on a Docker daemon with experimental features enabled')
    if not (options["attach"] or options["interactive"]):
        return each(names, lambda name: client.containers.start(name, options["detach_keys"]))
    if len(names) > 1:
        raise InvalidArgument("you cannot start and attach multiple containers at once")
    details = client.containers.inspect(names[0])
    container = details["Id"]
    stdin = bool(options["interactive"] and details["Config"].get("OpenStdin"))
    tty = bool(details["Config"].get("Tty"))
    condition = "removed" if details["HostConfig"].get("AutoRemove") else "next-exit"
    return _foreground(client, options, container, tty=tty, stdin=stdin, condition=condition, start=True)


def _attach(client: "Client", options: "dict[str, Any]", names: "list[str]") -> int:
    details = client.containers.inspect(names[0])
    state = details["State"]
    if not state.get("Running"):
        raise Conflict("cannot attach to a stopped container, start it first")
    if state.get("Paused"):
        raise Conflict("cannot attach to a paused container, unpause it first")
    if state.get("Restarting"):
        raise Conflict("cannot attach to a restarting container, wait until it is running")
    stdin = bool(not options["no_stdin"] and details["Config"].get("OpenStdin"))
    tty = bool(details["Config"].get("Tty"))
    if tty and not options["no_stdin"] and not terminal.is_terminal(terminal.STDIN):
        raise InvalidArgument("the input device is not a TTY: attach with --no-stdin, or from a terminal")
    condition = "removed" if details["HostConfig"].get("AutoRemove") else "not-running"
    return _foreground(client, options, details["Id"], tty=tty, stdin=stdin, condition=condition, start=False)


def _foreground(
    client: "Client", options: "dict[str, Any]", container: str, *, tty: bool, stdin: bool, condition: str, start: bool
) -> int:
    from knarr.cli import session, signals

    keys = session.detach_keys(options["detach_keys"])
    proxy = (
        signals.Forward(client, container, started=not start) if options["sig_proxy"] and not tty else signals.Nothing()
    )
    with proxy:
        attach = client.containers.send_attach(container, stdin=stdin, detach_keys=options["detach_keys"])
        wait = session.Wait(client, container, condition)
        stream = client.receive_upgrade(attach)
        if start:
            client.containers.start(container)
        proxy.started()
        with terminal.Raw(wanted=tty and stdin) as raw:
            if tty:
                signals.end_orderly()
                _redraw(client, container)
                session.follow_size(lambda rows, columns: client.containers.resize(container, rows, columns), raw)
            ended = session.Session(stream, tty=tty, stdin=stdin, detach_keys=keys, wait=wait).run()
        return 0 if ended == session.DETACHED else wait.code()


def _redraw(client: "Client", container: str) -> None:
    """Give the terminal another size for a moment: programs draw their screen, and shells their prompt, anew."""
    size = terminal.size()
    if size is not None:
        try:
            client.containers.resize(container, size[0] + 1, size[1] + 1)
        except KnarrError:
            return  # it has ended meanwhile, which the wait tells


_DETACH = Option("--detach-keys", TEXT, "The key sequence for detaching (default ctrl-p,ctrl-q)")
START = Command(
    "start",
    _start,
    text="Start one or more stopped containers",
    usage="CONTAINER [CONTAINER...]",
    example="knarr start -ai shell",
    minimum=1,
    complete="stopped",
    options=(
        Option("-a --attach", FLAG, "Attach STDOUT and STDERR, and forward signals"),
        Option("-i --interactive", FLAG, "Attach the container's STDIN"),
        Option("--checkpoint", TEXT, "Refused: restoring needs an engine with experimental features"),
        Option("--checkpoint-dir", TEXT, "Refused, as --checkpoint"),
        Option("--sig-proxy", FLAG, "Pass received signals on to the process", default=True, hidden=True),
        _DETACH,
    ),
)
ATTACH = Command(
    "attach",
    _attach,
    text="Attach this terminal's input and output to a running container",
    usage="CONTAINER",
    example="knarr attach shell",
    minimum=1,
    maximum=1,
    complete="running",
    options=(
        Option("--no-stdin", FLAG, "Do not attach STDIN"),
        Option("--sig-proxy", FLAG, "Pass received signals on to the process", default=True),
        _DETACH,
    ),
)
