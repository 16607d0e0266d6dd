"""cp: files between a container and the local file system, by the rules of docker cp.

The rules (docs.docker.com/reference/cli/docker/container/cp), SRC first:

    a file          DEST is missing: it is made; ends with "/": an error; a file: replaced; a directory: into it
    a directory     DEST is missing: made with SRC's content; a file: an error; a directory: SRC goes into it, and with
                    "SRC/." only its content does

Bytes go between the socket and the files in Rust; what this module does is paths.
"""

import os

from knarr.cli import terminal
from knarr.cli.command import FLAG, Command, Option
from knarr.errors import InvalidArgument, KnarrError, NotFound, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from knarr.client import Client

_PIECE = 1 << 18
_CHUNKED, _STREAM = -1, -2
_DIRECTORY, _LINK, _DEVICE, _IRREGULAR = 1 << 31, 1 << 27, 1 << 26, 1 << 19  # of Go's io/fs.FileMode
_LINKS = 10


class _Pump:
    """What comes in pieces from where Rust has no socket to read it from, on one where it has: a descriptor."""

    def __init__(self, piece: "Callable[[], bytes]") -> None:
        import _socket
        import threading

        self._piece = piece
        self._failure: OSError | KnarrError | None = None
        self._ours, self._theirs = _socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> int:
        self._thread.start()
        return self._theirs.fileno()

    def __exit__(self, kind: object, *_: object) -> None:
        self._theirs.close()
        self._thread.join()
        if kind is None and self._failure is not None:
            raise self._failure  # half an archive may look like a whole one

    def _run(self) -> None:
        try:
            while piece := self._piece():
                self._ours.sendall(piece)
        except (OSError, KnarrError) as error:
            self._failure = error
        finally:
            self._ours.close()


class _Info:
    """One side of a copy. rebase: the name that was asked for, where a link has led to another."""

    __slots__ = ("directory", "exists", "path", "rebase")

    def __init__(self, path: str, *, exists: bool = False, directory: bool = False, rebase: str = "") -> None:
        self.path = path
        self.exists = exists
        self.directory = directory
        self.rebase = rebase


def _clean(path: str) -> str:
    cleaned = os.path.normpath(path) if path else "."
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def _base(path: str) -> str:
    """The last name of a path: "/" of the root, "." of nothing."""
    if not path:
        return "."
    return path.rstrip("/").rpartition("/")[2] or "/"


def _is_here(path: str) -> bool:
    return _base(path) == "."


def _keep_end(cleaned: str, original: str) -> str:
    """A cleaned path with the "/" or "/." that the original ends with."""
    if not _is_here(cleaned) and _is_here(original):
        cleaned = cleaned.rstrip("/") + "/."
    if not cleaned.endswith("/") and original.endswith("/"):
        cleaned += "/"
    return cleaned


def _split(path: str) -> "tuple[str, str]":
    """Directory and last name; the last name of "a/." is "."."""
    cleaned = _clean(path)
    if _is_here(path):
        return cleaned, "."
    return os.path.dirname(cleaned) or ".", _base(cleaned)


def _side(argument: str) -> "tuple[str, str]":
    """(container or "", path) of CONTAINER:PATH or PATH. A local path with a colon begins with "/" or "."."""
    container, colon, path = argument.partition(":")
    if argument.startswith("/") or not colon or container.startswith("."):
        return "", argument
    return container, path


def _renamed(asked: str, found: str) -> "tuple[str, str]":
    """Where a link has led to, and the name that was asked for where that is another."""
    if _is_here(asked) and not _is_here(found):
        found += "/."
    if asked.endswith("/") and not found.endswith("/"):
        found += "/"
    return found, _base(asked) if _base(asked) != _base(found) else ""


def _local_source(path: str, *, follow: bool) -> _Info:
    path = _keep_end(os.path.abspath(path), path)
    if follow:
        found, rebase = _renamed(path, os.path.realpath(path, strict=True))
    else:
        above, _, name = path.rpartition("/")
        found, rebase = f"{os.path.realpath(above or '/', strict=True)}/{name}", ""
        if path.endswith("/") and _base(path) != _base(found):
            rebase = _base(path)
    found = found.replace("//", "/")
    os.lstat(found)
    return _Info(found, exists=True, directory=os.path.isdir(found) and not _is_link(found), rebase=rebase)


def _is_link(path: str) -> bool:
    return not path.endswith(("/", "/.")) and os.path.islink(path)


def _local_target(path: str) -> _Info:
    """What is to be written to: a link is followed, and need not lead to anything."""
    asked = path
    for _ in range(_LINKS):
        if not _is_link(path):
            break
        path = os.path.join(_split(path)[0], os.readlink(path))
    else:
        raise InvalidArgument(f"too many symlinks in {asked}")
    if os.path.lexists(path):
        return _Info(path, exists=True, directory=os.path.isdir(path))
    above = _split(path)[0]
    if not os.path.isdir(above):
        raise NotFound(f"{above}: no such directory")
    return _Info(path)


def _plan(source: _Info, target: _Info) -> "tuple[str, str]":
    """(the directory to extract to, the name that the source gets there; empty for its own)."""
    directory, name = _split(target.path)
    if target.exists and target.directory:
        return target.path, ""
    if target.exists and source.directory:
        raise InvalidArgument("cannot copy directory")
    if not target.exists and not source.directory and (target.path.endswith("/") or _is_here(target.path)):
        raise InvalidArgument("no such directory")
    return directory, name


def _check_output(path: str) -> None:
    above = os.path.dirname(_clean(path))
    if above and not os.path.exists(above):
        raise InvalidArgument(f'invalid output path: directory "{above}" does not exist')
    if os.path.exists(path) and not os.path.isdir(path) and not os.path.isfile(path):
        raise InvalidArgument(f'invalid output path: "{path}" must be a directory or a regular file: got a device')


def _copy(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    for what, argument in zip(("source", "destination"), arguments, strict=True):
        if not argument:
            raise InvalidArgument(f"{what} can not be empty")
    (origin, source), (goal, target) = map(_side, arguments)
    if origin and goal:
        raise InvalidArgument("copying between containers is not supported")
    if not origin and not goal:
        raise InvalidArgument("must specify at least one container source")
    quiet = options["quiet"]
    if quiet is None:
        quiet = not terminal.is_terminal(terminal.STDOUT)
    try:
        if origin:
            said = _copy_out(client, origin, source, target, follow=options["follow_link"], quiet=quiet)
        else:
            said = _copy_in(client, goal, source, target, options, quiet=quiet)
    except OSError as error:
        raise InvalidArgument(f"{error.filename or 'cp'}: {(error.strerror or str(error)).lower()}") from error
    if said and not quiet:
        terminal.say(said)
    return 0


def _copy_out(client: "Client", container: str, source: str, target: str, *, follow: bool, quiet: bool) -> str:
    from knarr._core import Body, unpack_local
    from knarr.cli.copy_progress import OUT, CopyProgress

    if target != "-":
        target = _keep_end(os.path.abspath(target), target)
        _check_output(target)
    rebase = ""
    if follow:
        try:
            stat = client.containers.stat_path(container, source)
        except NotFound:
            stat = {"mode": 0}
        if stat["mode"] & _LINK:
            link = os.path.join(_split(source)[0], stat["linkTarget"])
            source, rebase = _renamed(source, link)
    response, stat = client.containers.get_archive(container, source)
    if target == "-":
        while piece := response.piece():
            terminal.write(terminal.STDOUT, piece)
        return ""
    found = _Info(source, exists=True, directory=bool(stat["mode"] & _DIRECTORY), rebase=rebase)
    directory, name = _plan(found, _local_target(target))
    name = name or rebase
    base = _split(source)[1]
    old = b"" if base in (".", "/") else os.fsencode(base)
    renamed = (old, os.fsencode(name)) if name else None
    connection = response.connection
    with CopyProgress(OUT, quiet=quiet):
        if connection.encrypted:
            with _Pump(response.piece) as descriptor:
                body = Body(descriptor, _STREAM, b"")
                unpack_local(directory, body, renamed)
        else:
            body = Body(connection.socket.fileno(), _CHUNKED, connection.take() if connection.buffered else b"")
            unpack_local(directory, body, renamed)
    connection.close()
    response.done = True
    size = body.count if found.directory else stat["size"]
    return _summary(size, body.count, target)


def _copy_in(
    client: "Client", container: str, source: str, target: str, options: "dict[str, Any]", *, quiet: bool
) -> str:
    from knarr._core import pack_local
    from knarr.cli.copy_progress import IN, CopyProgress

    there = _remote_target(client, container, target)
    if source == "-":
        if not there.directory:
            raise InvalidArgument(f'destination "{container}:{target}" must be a directory')
        client.containers.put_archive(container, there.path, _stdin(), copy_uid_gid=options["archive"])
        return ""
    found = _local_source(source, follow=options["follow_link"])
    content = _content(found.path)
    directory, name = _plan(found, there)
    above, base = _split(found.path)
    shown = name or found.rebase or base
    count = 0

    def send(descriptor: int) -> None:
        """Write the archive in chunks."""
        nonlocal count
        try:
            inside = "." if base == "/" else base
            count = pack_local(above, os.fsencode(inside), os.fsencode(shown), descriptor, _CHUNKED)
        except Unavailable as error:  # the engine has had enough: it says why
            raise BrokenPipeError(str(error)) from error

    with CopyProgress(IN, quiet=quiet):
        client.containers.put_archive(container, directory, send, copy_uid_gid=options["archive"])
    return _summary(content, count, f"{container}:{there.path}")


def _remote_target(client: "Client", container: str, target: str) -> _Info:
    there = _Info(target)
    try:
        stat = client.containers.stat_path(container, target)
        if stat["mode"] & _LINK:
            there.path = os.path.join(_split(target)[0], stat["linkTarget"])
            stat = client.containers.stat_path(container, there.path)
    except NotFound:
        return there  # what is missing may be made; a container that is will be missed again
    for bit, what in ((_DEVICE, "got a device"), (_IRREGULAR, "got an irregular file")):
        if stat["mode"] & bit:
            raise InvalidArgument(f'destination "{container}:{target}" must be a directory or a regular file: {what}')
    there.exists, there.directory = True, bool(stat["mode"] & _DIRECTORY)
    return there


def _stdin() -> "Iterator[bytes]":
    while piece := os.read(terminal.STDIN, _PIECE):
        yield piece


def _content(path: str) -> int:
    """Bytes of the regular files at a path."""
    if not os.path.isdir(path) or _is_link(path):
        return os.lstat(path).st_size if os.path.isfile(path) else 0
    total = 0
    waiting = [path]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def _summary(content: int, transferred: int, target: str) -> str:
    from knarr.cli.human import size

    extra = f" (transferred {size(transferred, 3)})" if content != transferred else ""
    return f"Successfully copied {size(content, 3)}{extra} to {target}"


CP = Command(
    "cp",
    _copy,
    text="Copy files between a container and the local file system; - is a tar archive on stdin or stdout",
    usage="CONTAINER:SRC_PATH DEST_PATH|- | SRC_PATH|- CONTAINER:DEST_PATH",
    example="knarr cp web:/var/log/app ./logs",
    minimum=2,
    maximum=2,
    complete=("places", "places"),
    options=(
        Option("-a --archive", FLAG, "Archive mode (copy all uid/gid information)"),
        Option("-L --follow-link", FLAG, "Always follow symbolic links in SRC_PATH"),
        Option("-q --quiet", FLAG, "Say nothing of what is copied (default where stdout is no terminal)", default=None),
    ),
)
