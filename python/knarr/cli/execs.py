"""`knarr exec`."""

from knarr.cli import terminal
from knarr.cli.command import FLAG, LIST, TEXT, Command, Option
from knarr.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client


def _exec(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    container, command = arguments[0], arguments[1:]
    tty, detach, stdin = options["tty"], options["detach"], options["interactive"]
    if tty and stdin and not detach and not terminal.is_terminal(terminal.STDIN):
        raise InvalidArgument("the input device is not a TTY: leave -t out, or run it from a terminal")
    body: dict[str, Any] = {"Cmd": command}
    if not detach:
        body |= {"AttachStdout": True, "AttachStderr": True}
        if stdin:
            body["AttachStdin"] = True
    for key, field in (
        ("tty", "Tty"),
        ("user", "User"),
        ("workdir", "WorkingDir"),
        ("privileged", "Privileged"),
        ("detach_keys", "DetachKeys"),
    ):
        if options[key]:
            body[field] = options[key]
    if options["env"] or options["env_file"]:
        from knarr.cli.container_body import environment

        body["Env"] = environment(options["env"], options["env_file"])
    size = list(terminal.size() or ()) if tty else None
    if size:
        body["ConsoleSize"] = size
    if detach:
        client.execs.start(client.execs.create(container, body), tty=tty)
        return 0
    from knarr.cli import session, signals

    keys = session.detach_keys(options["detach_keys"])
    exec_id = client.execs.create(container, body)
    stream = client.receive_upgrade(client.execs.send_start(exec_id, tty=tty, size=size))
    with terminal.Raw(wanted=tty and stdin) as raw:
        if tty:
            signals.end_orderly()
            session.follow_size(lambda rows, columns: client.execs.resize(exec_id, rows, columns), raw)
        ended = session.Session(stream, tty=tty, stdin=stdin, detach_keys=keys).run()
    if ended == session.DETACHED:
        return 0
    code = client.execs.inspect(exec_id)["ExitCode"]
    return 255 if code is None else int(code) & 255


EXEC = Command(
    "exec",
    _exec,
    text="Run a command in a running container",
    usage="CONTAINER COMMAND [ARG...]",
    example="knarr exec -it web sh",
    minimum=2,
    tail=True,
    complete="running",
    options=(
        Option("-d --detach", FLAG, "Run the command in the background"),
        Option("-i --interactive", FLAG, "Keep STDIN open"),
        Option("-t --tty", FLAG, "Allocate a pseudo-TTY"),
        Option("-e --env", LIST, "Set environment variables"),
        Option("--env-file", LIST, "Read in a file of environment variables"),
        Option("-w --workdir", TEXT, "Working directory inside the container"),
        Option("-u --user", TEXT, "Username or UID (format: <name|uid>[:<group|gid>])"),
        Option("--privileged", FLAG, "Give extended privileges to the command"),
        Option("--detach-keys", TEXT, "The key sequence for detaching (default ctrl-p,ctrl-q)"),
    ),
)
