"""`knarr volume clone|rename|snapshot|snapshots|restore|export|import`: volumes as wholes, which Docker does not have.

VOLUME@SNAPSHOT names a snapshot wherever one can stand: no volume's name has an @.
"""

import os

from knarr.cli import terminal
from knarr.cli.archive_file import write_whole
from knarr.cli.command import FLAG, TEXT, Command, Option
from knarr.cli.terminal import show
from knarr.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client

_HEADERS = {"Name": "SNAPSHOT", "Volume": "VOLUME", "CreatedAt": "CREATED AT", "CreatedSince": "CREATED"}
_COMPRESSIONS = {".gz": "gzip", ".tgz": "gzip", ".zst": "zstd", ".tzst": "zstd"}
_STDIN = "-"


def split(name: str) -> "tuple[str, str]":
    """(volume, snapshot or "") of VOLUME[@SNAPSHOT]."""
    volume, at, snapshot = name.partition("@")
    if not volume or (at and not snapshot):
        raise InvalidArgument(f"{name!r} names no volume: it is VOLUME, or VOLUME@SNAPSHOT for a snapshot of it")
    return volume, snapshot


def _clone(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    volume, snapshot = split(arguments[0])
    show(client.volumes.clone(volume, arguments[1], snapshot=snapshot, pause=not options["no_pause"])["Name"])
    return 0


def _rename(client: "Client", _options: "dict[str, Any]", arguments: "list[str]") -> int:
    client.volumes.rename(arguments[0], arguments[1])
    return 0


def _snapshot(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    name = arguments[1] if len(arguments) > 1 else ""
    made = client.volumes.snapshot(arguments[0], name, pause=not options["no_pause"])
    show(f"{made['Volume']}@{made['Name']}")
    return 0


def _snapshots(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    from knarr.cli import human
    from knarr.cli.listing import write

    found = client.volumes.snapshots(arguments[0])
    if options["quiet"]:
        for one in found:
            show(f"{one['Volume']}@{one['Name']}")
        return 0
    rows = []
    for one in found:
        when = human.parse_time(one["CreatedAt"])
        rows.append({**one, "CreatedAt": human.local_time(when), "CreatedSince": human.ago(when)})
    write(rows, _HEADERS, ["Name", "CreatedSince", "CreatedAt"], options["format"])
    return 0


def _restore(client: "Client", _options: "dict[str, Any]", arguments: "list[str]") -> int:
    volume, snapshot = split(arguments[0])
    if not snapshot:
        raise InvalidArgument(f"{volume} names no snapshot: `knarr volume snapshots {volume}` lists them")
    client.volumes.restore(volume, snapshot)
    show(arguments[0])
    return 0


def _export(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    volume, snapshot = split(arguments[0])
    output, compression = options["output"], options["compress"]
    if compression is None:
        suffix = os.path.splitext(output or "")[1]
        compression = _COMPRESSIONS.get(suffix, "")
    elif compression not in ("none", "gzip", "zstd"):
        raise InvalidArgument(f"invalid value {compression!r} for --compress: it is one of gzip, zstd and none")
    compression = "" if compression == "none" else compression

    def write(descriptor: int) -> None:
        response = client.volumes.export(volume, snapshot=snapshot, compression=compression)
        while piece := response.piece():
            terminal.write(descriptor, piece)

    if not output:
        if terminal.is_terminal(terminal.STDOUT):
            raise InvalidArgument("refusing to write an archive to a terminal: use -o, or redirect the output")
        write(terminal.STDOUT)
        return 0
    write_whole(output, "export volume", write)
    return 0


def _import(client: "Client", _options: "dict[str, Any]", arguments: "list[str]") -> int:
    from knarr.cli.load import pieces

    source, volume = arguments
    if source == _STDIN and terminal.is_terminal(terminal.STDIN):
        raise InvalidArgument("requested import from stdin, but stdin is a terminal: name an archive")
    archive = pieces("" if source == _STDIN else source)
    next(archive)  # opens it, so that what cannot be opened is said before anything is sent
    show(client.volumes.fill(volume, archive)["Name"])
    return 0


_NO_PAUSE = Option("--no-pause", FLAG, "Do not pause containers that write to the volume while it is copied")

CLONE = Command(
    "volume clone",
    _clone,
    text="Make a new volume with the content of another, or of a snapshot: it shares blocks where the file system can",
    usage="VOLUME[@SNAPSHOT] NEW",
    example="knarr volume clone data data-test",
    minimum=2,
    maximum=2,
    complete=("volumes",),
    options=(_NO_PAUSE,),
)
RENAME = Command(
    "volume rename",
    _rename,
    text="Rename a volume that no container uses; its snapshots go with it",
    usage="VOLUME NEW_NAME",
    example="knarr volume rename data data-old",
    minimum=2,
    maximum=2,
    complete=("volumes",),
)
SNAPSHOT = Command(
    "volume snapshot",
    _snapshot,
    text="Keep what a volume holds now as VOLUME@NAME (by default, the date and time in UTC); `volume rm` removes it",
    usage="VOLUME [NAME]",
    example="knarr volume snapshot data before-upgrade",
    minimum=1,
    maximum=2,
    complete=("volumes",),
    options=(_NO_PAUSE,),
)
SNAPSHOTS = Command(
    "volume snapshots",
    _snapshots,
    text="List the snapshots of a volume, the oldest first",
    usage="VOLUME",
    example="knarr volume snapshots data",
    minimum=1,
    maximum=1,
    complete=("volumes",),
    options=(
        Option("--format", TEXT, "Format: table, json, or a Go template"),
        Option("-q --quiet", FLAG, "Only show VOLUME@SNAPSHOT"),
    ),
)
RESTORE = Command(
    "volume restore",
    _restore,
    text="Make a volume what it was at a snapshot; no running container may use it",
    usage="VOLUME@SNAPSHOT",
    example="knarr volume restore data@before-upgrade",
    minimum=1,
    maximum=1,
)
EXPORT = Command(
    "volume export",
    _export,
    text="Write a volume or a snapshot as a tar archive; containers that use it are not paused: a snapshot is exact",
    usage="VOLUME[@SNAPSHOT]",
    example="knarr volume export -o data.tar.zst data",
    minimum=1,
    maximum=1,
    complete=("volumes",),
    options=(
        Option("-o --output", TEXT, "Write to a file, instead of stdout; .gz, .tgz, .zst and .tzst compress"),
        Option("--compress", TEXT, "gzip, zstd or none, whatever the file's name is"),
    ),
)
IMPORT = Command(
    "volume import",
    _import,
    text="Fill a new volume, or an empty one, from a tar archive (plain, gzip, bzip2, xz, zstd); - is stdin",
    usage="FILE|- VOLUME",
    example="knarr volume import data.tar.zst data",
    minimum=2,
    maximum=2,
)
