"""`knarr run` and `knarr create`.

The requests of a run in the foreground, and what they wait for:

    create            → the ID
    attach, wait      sent together on connections of their own, before the start: neither output nor exit is missed
    start             when the attach has been answered
    the stream        until it ends; then the answer to the wait is the exit code
"""

import os

from knarr.cli import terminal
from knarr.cli.command import FLAG, TEXT, Command, CountError, Option, OptionConflict, UsageError
from knarr.cli.container_body import build
from knarr.cli.container_options import CONTAINER_OPTIONS
from knarr.errors import Conflict, InvalidArgument, KnarrError, NotFound, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Self

    from knarr.client import Client

_REMOVAL_SECONDS = 5.0
FAILED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127
_NOT_FOUND_WORDS = ("executable file not found", "no such file or directory")
_NOT_EXECUTABLE_WORDS = ("permission denied", "is a directory")


def _create(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    try:
        container, _ = create_container(client, options, *_split(options, arguments, "create"))
    except UsageError as error:
        error.command = CREATE
        raise
    terminal.show(container)
    return 0


def _run(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    try:
        return _run_container(client, options, arguments)
    except UsageError as error:
        error.command = RUN
        raise
    except KnarrError as error:
        terminal.say(f"knarr: {error}")
        return exit_code(error)


def exit_code(error: KnarrError) -> int:
    """125, 126 or 127, by the words of an error of the start (they are Docker's)."""
    message = str(error).lower()
    if any(words in message for words in _NOT_FOUND_WORDS):
        return NOT_FOUND
    if any(words in message for words in _NOT_EXECUTABLE_WORDS):
        return NOT_EXECUTABLE
    return FAILED


def _split(options: "dict[str, Any]", arguments: "list[str]", verb: str) -> "tuple[str, list[str]]":
    """The image and the command; under --host-overlay there is no image."""
    if options["host_overlay"]:
        if not arguments:
            raise CountError(f"'knarr {verb} --host-overlay' requires a command")
        return "", arguments
    if not arguments:
        command = RUN if verb == "run" else CREATE
        raise CountError(f"'knarr {verb}' requires at least 1 argument\n\nUsage:  {command.usage()}")
    return arguments[0], arguments[1:]


def _run_container(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    image, command = _split(options, arguments, "run")
    detach_keys = options["detach_keys"]
    if options["tty"] and options["interactive"] and not options["detach"] and not terminal.is_terminal(terminal.STDIN):
        raise OptionConflict("the input device is not a TTY: leave -t out, or run it from a terminal")
    if detach_keys:
        from knarr.cli import session

        session.detach_keys(detach_keys)  # before anything is made
    container, body = create_container(client, options, image, command)
    attached = [stream for stream in ("Stdin", "Stdout", "Stderr") if body.get("Attach" + stream)]
    if not attached:
        client.containers.start(container)
        terminal.show(container)
        return 0
    from knarr.cli import session, signals

    keys = session.detach_keys(detach_keys)
    condition = "removed" if options["rm"] else "next-exit"
    tty = bool(body.get("Tty"))
    proxy = signals.Forward(client, container) if options["sig_proxy"] else signals.Nothing()
    with proxy:
        attach = client.containers.send_attach(
            container,
            stdin="Stdin" in attached,
            stdout="Stdout" in attached,
            stderr="Stderr" in attached,
            detach_keys=detach_keys,
        )
        wait = session.Wait(client, container, condition)
        stream = client.receive_upgrade(attach)
        _start(client, container, options, wait)
        proxy.started()
        with terminal.Raw(wanted=tty and "Stdin" in attached) as raw:
            if tty and not options["sig_proxy"]:
                signals.end_orderly()
            if tty:
                session.follow_size(lambda rows, columns: client.containers.resize(container, rows, columns), raw)
            ended = session.Session(
                stream,
                tty=tty,
                stdin="Stdin" in attached,
                output=len(attached) > ("Stdin" in attached),
                detach_keys=keys,
                wait=wait,
            ).run()
        return 0 if ended == session.DETACHED else wait.code()


def _start(client: "Client", container: str, options: "dict[str, Any]", wait: "Any") -> None:
    try:
        client.containers.start(container)
    except KnarrError:
        if options["rm"] and wait.connection is not None:
            wait.settle(_REMOVAL_SECONDS)  # the engine removes what could not be started: its name is free then
        raise


def create_container(
    client: "Client", options: "dict[str, Any]", image: str, command: "list[str]"
) -> "tuple[str, dict[str, Any]]":
    """Create it, its image pulled first where that is wanted; (its ID, the request's body)."""
    if options["pull"] not in ("always", "missing", "never", ""):
        raise UsageError(f'invalid pull option: \'{options["pull"]}\': must be one of "always", "missing" or "never"')
    try:
        body = build(options, image, command)
    except UsageError:
        raise
    except (InvalidArgument, Unsupported) as error:
        raise UsageError(str(error)) from error
    if body.get("Tty"):
        size = terminal.size()
        if size is not None:
            body["HostConfig"]["ConsoleSize"] = list(size)
    with _CidFile(options["cidfile"]) as cidfile:
        if options["pull"] == "always" and image:
            _pull(client, options, image)
        try:
            asked = client.containers.send_create(body, options["name"], options["platform"])
            if not options.get("detach", True):
                from knarr.cli import session, signals  # noqa: F401  while the engine is busy with our request
            created = client.receive(asked).json()
        except NotFound as error:
            if not image or options["pull"] == "never" or not _is_missing(str(error)):
                raise
            if not options["quiet"]:
                of_platform = f" for {options['platform']}" if "does not match" in str(error) else ""
                terminal.say(f"Unable to find image '{_familiar(image)}'{of_platform} locally")
            _pull(client, options, image)
            created = client.containers.create(body, options["name"], options["platform"])
        for warning in created.get("Warnings") or ():
            terminal.say(f"WARNING: {warning}")
        cidfile.write(created["Id"])
    return created["Id"], body


def _pull(client: "Client", options: "dict[str, Any]", image: str) -> None:
    from knarr.cli.pull import pull_image

    pull_image(client, image, platform=options["platform"], quiet=options["quiet"], descriptor=terminal.STDERR)


def _is_missing(message: str) -> bool:
    """Whether an error says that there is no such image, or none of the platform that is wanted."""
    return "no such image" in message.lower() or "does not match the specified platform" in message


def _familiar(image: str) -> str:
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else f"{image}:latest"


class _CidFile:
    """The file of --cidfile: must not exist before, and does not exist after a failure."""

    def __init__(self, path: "str | None") -> None:
        self._path = path
        self._descriptor = -1
        self._written = False

    def __enter__(self) -> "Self":
        if self._path:
            try:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            except FileExistsError:
                raise Conflict(
                    f"container ID file found, make sure the other container isn't running or delete {self._path}"
                ) from None
            except OSError as error:
                raise InvalidArgument(
                    f"failed to create the container ID file {self._path}: {error.strerror}"
                ) from error
        return self

    def write(self, container: str) -> None:
        """Write the ID."""
        if self._path:
            terminal.write(self._descriptor, container.encode())
            self._written = True

    def __exit__(self, *_: object) -> None:
        if self._path:
            os.close(self._descriptor)
            if not self._written:
                os.unlink(self._path)


RUN = Command(
    "run",
    _run,
    text="Create and run a new container from an image",
    usage="IMAGE [COMMAND] [ARG...]",
    example="knarr run --rm -it -v $PWD:/work -w /work debian:12 bash",
    tail=True,
    complete="images",
    options=(
        Option("-d --detach", FLAG, "Run in the background and print the container's ID"),
        Option("--sig-proxy", FLAG, "Pass received signals on to the process", default=True),
        Option("--detach-keys", TEXT, "The key sequence for detaching (default ctrl-p,ctrl-q)"),
        *CONTAINER_OPTIONS,
    ),
)
CREATE = Command(
    "create",
    _create,
    text="Create a new container",
    usage="IMAGE [COMMAND] [ARG...]",
    example="knarr create --name web -p 8080:80 nginx",
    tail=True,
    complete="images",
    options=CONTAINER_OPTIONS,
)
