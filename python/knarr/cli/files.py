"""diff and export: what a container has changed, and its whole root file system."""

from knarr.cli import terminal
from knarr.cli.archive_file import write_whole
from knarr.cli.command import TEXT, Command, Option
from knarr.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client

_KINDS = ("C", "A", "D")


def _diff(client: "Client", _options: "dict[str, Any]", arguments: "list[str]") -> int:
    if not arguments[0].strip():
        raise InvalidArgument("container name cannot be empty")
    for change in client.containers.changes(arguments[0]):
        terminal.show(f"{_KINDS[change['Kind']]} {change['Path']}")
    return 0


def _export(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    output = options["output"]

    def write(descriptor: int) -> None:
        response = client.containers.export(arguments[0])
        while piece := response.piece():
            terminal.write(descriptor, piece)

    if not output:
        if terminal.is_terminal(terminal.STDOUT):
            raise InvalidArgument("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        write(terminal.STDOUT)
        return 0
    write_whole(output, "export container", write)
    return 0


DIFF = Command(
    "diff",
    _diff,
    text="Show what has changed in a container's file system (A added, C changed, D deleted)",
    usage="CONTAINER",
    example="knarr diff web",
    minimum=1,
    maximum=1,
    complete=("containers",),
)
EXPORT = Command(
    "export",
    _export,
    text="Write a container's file system as a tar archive",
    usage="CONTAINER",
    example="knarr export -o web.tar web",
    minimum=1,
    maximum=1,
    complete=("containers",),
    options=(Option("-o --output", TEXT, "Write to a file, instead of stdout"),),
)
