"""`knarr load`: archives, OCI layout directories, and what comes on stdin."""

import os

from knarr.cli import terminal
from knarr.cli.command import FLAG, LIST, TEXT, Command, Option
from knarr.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from knarr.client import Client

_PIECE = 1 << 20
_BLOCK = 512


def _load(client: "Client", options: "dict[str, Any]", _arguments: "list[str]") -> int:
    from knarr.cli.progress import Progress
    from knarr.cli.save import platforms
    from knarr.errors import Internal

    name = options["input"]
    if not name and terminal.is_terminal(terminal.STDIN):
        raise InvalidArgument("requested load from stdin, but stdin is a terminal: name an archive with --input")
    archive = _directory(name) if name and os.path.isdir(name) else pieces(name)
    next(archive)  # opens it, so that what cannot be opened is said before anything is sent
    with Progress(terminal.STDOUT, quiet=options["quiet"]) as progress:
        for entry in client.images.load(archive, quiet=options["quiet"], platforms=platforms(options["platform"])):
            if "error" in entry or "errorDetail" in entry:
                raise Internal(str(entry.get("error") or entry["errorDetail"].get("message")))
            progress.show(entry)
            if options["quiet"] and "stream" in entry:
                terminal.show(entry["stream"].rstrip("\n"))
    return 0


def pieces(name: "str | None") -> "Iterator[bytes]":
    """What a file, or stdin, holds; before that nothing, once it is open. InvalidArgument."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC) if name else terminal.STDIN
    except OSError as error:
        raise InvalidArgument(f"cannot open the archive {name}: {error.strerror}") from error
    yield b""
    while piece := os.read(descriptor, _PIECE):
        yield piece
    if name:
        os.close(descriptor)


def _directory(root: str) -> "Iterator[bytes]":
    """An OCI layout directory as a tar archive (POSIX ustar; sizes beyond 8 GiB as GNU tar writes them)."""
    if not os.path.exists(os.path.join(root, "oci-layout")):
        raise InvalidArgument(f"{root} is a directory without an oci-layout file: it is no OCI image layout")
    yield b""
    for directory, names, files in os.walk(root):
        names.sort()
        for file in sorted(files):
            path = os.path.join(directory, file)
            with open(path, "rb") as content:
                size = os.fstat(content.fileno()).st_size
                yield _header(os.path.relpath(path, root), size)
                left = size
                while left and (piece := content.read(min(left, _PIECE))):
                    left -= len(piece)
                    yield piece
                if left:
                    raise InvalidArgument(f"{path} became shorter while it was read")
                yield bytes(-size % _BLOCK)
    yield bytes(2 * _BLOCK)


def _header(name: str, size: int) -> bytes:
    encoded = os.fsencode(name)
    if len(encoded) > 100:
        raise InvalidArgument(f"{name}: no file of an OCI layout has so long a name")
    length = b"%011o\0" % size if size < 8 << 30 else b"\x80" + size.to_bytes(11, "big")
    header = bytearray(encoded.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + length + b"00000000000\0")
    header += b" " * 8 + b"0" + bytes(100) + b"ustar\x0000"
    header += bytes(_BLOCK - len(header))
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


LOAD = Command(
    "load",
    _load,
    text="Load images from an archive, an OCI layout directory, or stdin",
    example="knarr load -i image.tar",
    maximum=0,
    options=(
        Option("-i --input", TEXT, "The archive (docker or OCI; plain, gzip or zstd) or OCI layout directory"),
        Option("--platform", LIST, "Load only these platforms, such as linux/amd64,linux/arm64"),
        Option("-q --quiet", FLAG, "Suppress the progress"),
    ),
)
