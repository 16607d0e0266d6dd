"""`knarr save`: images as an archive, in a file or on stdout."""

import os

from knarr.cli import terminal
from knarr.cli.command import LIST, TEXT, Command, Option
from knarr.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from knarr.client import Client


def _save(client: "Client", options: "dict[str, Any]", names: "list[str]") -> int:
    output = options["output"]
    if not output and terminal.is_terminal(terminal.STDOUT):
        raise InvalidArgument("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    if output:
        _check(output)
    archive = client.images.save(names, platforms=platforms(options["platform"]))
    if not output:
        for piece in archive:
            terminal.write(terminal.STDOUT, piece)
        return 0
    _write(output, archive)
    return 0


def platforms(given: "list[str]") -> "list[str]":
    """--platform may be given several times, and hold several between commas."""
    return [one for text in given for one in text.split(",") if one]


def _check(path: str) -> None:
    """Refuse what cannot become the archive, before anything is asked of the engine."""
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        raise InvalidArgument(f"invalid output path: directory {directory!r} does not exist")
    if os.path.isdir(path):
        raise InvalidArgument(f"invalid output path: {path!r} must be a regular file, not a directory")


def _write(path: str, archive: "Iterator[bytes]") -> None:
    """Write beside it and rename at the end, so that half an archive never has the name. A pipe is written as it is."""
    if os.path.exists(path) and not os.path.isfile(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        for piece in archive:
            terminal.write(descriptor, piece)
        os.close(descriptor)
        return
    path = os.path.realpath(path)
    partial = os.path.join(os.path.dirname(path), f".knarr-save-{os.getpid()}")
    try:
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                for piece in archive:
                    terminal.write(descriptor, piece)
            finally:
                os.close(descriptor)
            os.rename(partial, path)
        except OSError as error:
            raise InvalidArgument(f"cannot write {path}: {error.strerror}") from error
    except BaseException:
        if os.path.exists(partial):
            os.unlink(partial)
        raise


SAVE = Command(
    "save",
    _save,
    text="Save one or more images to an archive (written to stdout unless -o is given)",
    usage="IMAGE [IMAGE...]",
    example="knarr save -o image.tar debian:12",
    minimum=1,
    complete="images",
    options=(
        Option("-o --output", TEXT, "Write to a file, instead of stdout"),
        Option("--platform", LIST, "Save only these platforms, such as linux/amd64,linux/arm64"),
    ),
)
