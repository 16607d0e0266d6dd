"""commit and import: new images from containers, and from the archives of root file systems."""

import os

from knarr.cli import terminal
from knarr.cli.command import FLAG, LIST, TEXT, Command, Option
from knarr.errors import Internal, InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from knarr.client import Client

_PIECE = 1 << 20


def _name(reference: str) -> "tuple[str, str]":
    """(repository, tag) of a name; the engine judges it."""
    if "@" in reference:
        raise InvalidArgument(f"refusing to create a tag with a digest reference: {reference}")
    repository, colon, tag = reference.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (reference, "")


def _commit(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    pause = not options["no_pause"]
    if options["pause"] is not None:
        if options["no_pause"]:
            raise InvalidArgument("conflicting options: --no-pause and --pause cannot be used together")
        pause = options["pause"]
    repository, tag = _name(arguments[1]) if len(arguments) > 1 else ("", "")
    image = client.images.commit(
        arguments[0],
        repository,
        tag,
        comment=options["message"] or "",
        author=options["author"] or "",
        changes=options["change"],
        pause=pause,
    )
    terminal.show(image["Id"])
    return 0


def _import(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    source = arguments[0]
    repository, tag = _name(arguments[1]) if len(arguments) > 1 else ("", "")
    archive = None
    if not source.startswith(("http://", "https://")):
        archive = _archive(source)
        next(archive)  # opens it, so that what cannot be opened is said before anything is sent
        source = "-"
    messages = client.images.import_archive(
        source,
        archive,
        repository=repository,
        tag=tag,
        message=options["message"] or "",
        changes=options["change"],
        platform=options["platform"] or os.environ.get("DOCKER_DEFAULT_PLATFORM") or "",
    )
    for message in messages:
        if "error" in message:
            raise Internal(str(message["error"]))
        if message.get("status") and not message.get("progressDetail"):
            terminal.show(message["status"])
    return 0


def _archive(name: str) -> "Iterator[bytes]":
    try:
        descriptor = terminal.STDIN if name == "-" else os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidArgument(f"open {name}: {(error.strerror or '').lower()}") from error
    yield b""
    while piece := os.read(descriptor, _PIECE):
        yield piece
    if name != "-":
        os.close(descriptor)


COMMIT = Command(
    "commit",
    _commit,
    text="Create a new image from a container's changes",
    usage="CONTAINER [REPOSITORY[:TAG]]",
    example="knarr commit -c 'CMD [\"serve\"]' web web:patched",
    minimum=1,
    maximum=2,
    tail=True,
    complete="containers",
    options=(
        Option("-a --author", TEXT, 'Author (such as "Hannibal Smith <hannibal@a-team.com>")'),
        Option("-c --change", LIST, "Apply a Dockerfile instruction to the image"),
        Option("-m --message", TEXT, "Commit message"),
        Option("--no-pause", FLAG, "Do not pause the container meanwhile"),
        Option("-p --pause", FLAG, "Pause the container meanwhile (the default)", default=None, hidden=True),
    ),
)
IMPORT = Command(
    "import",
    _import,
    text="Create an image from the archive of a root file system",
    usage="file|URL|- [REPOSITORY[:TAG]]",
    example="knarr import rootfs.tar.xz base:1",
    minimum=1,
    maximum=2,
    options=(
        Option("-c --change", LIST, "Apply a Dockerfile instruction to the image"),
        Option("-m --message", TEXT, "Message for the image's history"),
        Option("--platform", TEXT, "Platform of the image (default: this machine's)"),
    ),
)
