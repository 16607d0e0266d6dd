"""`knarr volume create|ls|rm|prune`."""

from knarr.cli import human
from knarr.cli.command import FLAG, LIST, TEXT, Command, Option
from knarr.cli.each import each
from knarr.cli.terminal import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client

HEADERS = {
    "Name": "VOLUME NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "Mountpoint": "MOUNTPOINT",
    "Labels": "LABELS",
    "Size": "SIZE",
    "Links": "LINKS",
    "Status": "STATUS",
    "Group": "GROUP",
    "Availability": "AVAILABILITY",
}
RAW = {"name": "Name", "driver": "Driver"}


def _create(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    from knarr.cli.values import pairs

    created = client.volumes.create(
        arguments[0] if arguments else "",
        driver=options["driver"],
        options=pairs(options["opt"]),
        labels=pairs(options["label"]),
    )
    show(created["Name"])
    return 0


def _list(client: "Client", options: "dict[str, Any]", _arguments: "list[str]") -> int:
    from knarr.cli.listing import filters, wants_ids, write

    volumes = client.volumes.list(filters(options["filter"])).get("Volumes") or []
    volumes.sort(key=lambda volume: str(volume["Name"]))
    if wants_ids(options):
        for volume in volumes:
            show(volume["Name"])
        return 0
    raw = {"name": "Name"} if options["quiet"] else RAW
    write([row(volume) for volume in volumes], HEADERS, ["Driver", "Name"], options["format"], raw)
    return 0


def row(volume: "dict[str, Any]") -> "dict[str, Any]":
    """What a template may say of one Volume. The last three are of volumes of a swarm's."""
    labels = volume.get("Labels") or {}
    usage = volume.get("UsageData") or {}
    size = usage.get("Size", -1)
    return {
        "Name": volume["Name"],
        "Driver": volume.get("Driver", ""),
        "Scope": volume.get("Scope", ""),
        "Mountpoint": volume.get("Mountpoint", ""),
        "Labels": ",".join(sorted(f"{key}={value}" for key, value in labels.items())),
        "Label": lambda name: labels.get(name, ""),
        "Size": "N/A" if size < 0 else human.size(size),
        "Links": str(usage["RefCount"]) if "RefCount" in usage else "N/A",
        "Status": "N/A",
        "Group": "N/A",
        "Availability": "N/A",
    }


def _remove(client: "Client", options: "dict[str, Any]", names: "list[str]") -> int:
    def remove(name: str) -> None:
        volume, at, snapshot = name.partition("@")
        if at:
            client.volumes.remove_snapshot(volume, snapshot)
        else:
            client.volumes.remove(name, force=options["force"])

    return each(names, remove)


def _prune(client: "Client", options: "dict[str, Any]", _names: "list[str]") -> int:
    from knarr.cli.each import confirm
    from knarr.cli.listing import filters

    what = "all" if options["all"] else "anonymous"
    if not options["force"] and not confirm(
        f"This will remove {what} local volumes not used by at least one container."
    ):
        return 0
    wanted = filters(options["filter"])
    if options["all"]:
        wanted["all"] = ["true"]
    result = client.volumes.prune(wanted)
    if result.get("VolumesDeleted"):
        show("Deleted Volumes:")
        for volume in result["VolumesDeleted"]:
            show(volume)
        show("")
    show(f"Total reclaimed space: {human.size(result.get('SpaceReclaimed', 0))}")
    return 0


CREATE = Command(
    "volume create",
    _create,
    text="Create a volume",
    usage="[VOLUME]",
    example="knarr volume create -o size=10g data",
    maximum=1,
    options=(
        Option("-d --driver", TEXT, "Volume driver", default="local"),
        Option("--label", LIST, "Set metadata"),
        Option("-o --opt", LIST, "Driver options (size=10g; type=tmpfs, device=tmpfs, o=size=1g ...)"),
    ),
)
LIST_VOLUMES = Command(
    "volume ls",
    _list,
    text="List volumes",
    example="knarr volume ls -q",
    maximum=0,
    options=(
        Option("-f --filter", LIST, "Only those that match (dangling=true, name=x ...)"),
        Option("--format", TEXT, "Format: table, json, or a Go template"),
        Option("-q --quiet", FLAG, "Only show names"),
    ),
)
REMOVE = Command(
    "volume rm",
    _remove,
    text="Remove one or more volumes, or snapshots of volumes",
    usage="VOLUME[@SNAPSHOT] [VOLUME[@SNAPSHOT]...]",
    example="knarr volume rm data",
    minimum=1,
    complete="volumes",
    options=(Option("-f --force", FLAG, "No error where a volume does not exist"),),
)
PRUNE = Command(
    "volume prune",
    _prune,
    text="Remove unused volumes",
    example="knarr volume prune -f",
    maximum=0,
    options=(
        Option("-a --all", FLAG, "Named volumes too, not just anonymous ones"),
        Option("--filter", LIST, "Only those that match (label=x ...)"),
        Option("-f --force", FLAG, "Do not ask"),
    ),
)
