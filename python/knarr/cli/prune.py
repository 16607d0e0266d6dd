"""`knarr system prune`."""

from knarr.cli.command import FLAG, LIST, Command, Option
from knarr.cli.terminal import show
from knarr.errors import InvalidArgument, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client


def warning(options: "dict[str, Any]") -> str:
    """What is about to happen."""
    lines = ["This will remove:", "  - all stopped containers", "  - all networks not used by at least one container"]
    if options["volumes"]:
        lines.append("  - all anonymous volumes not used by at least one container")
    if options["all"]:
        lines.append("  - all images without at least one container associated to them")
    else:
        lines.append("  - all dangling images")
    lines.append("  - unused build cache")
    if options["filter"]:
        lines += ["", "  Items to be pruned will be filtered with:"]
        lines += [f"  - {item}" for item in sorted(options["filter"])]
    return "\n".join([*lines, ""])


def _prune(client: "Client", options: "dict[str, Any]", _arguments: "list[str]") -> int:
    from knarr.cli.each import confirm
    from knarr.cli.human import size
    from knarr.cli.listing import filters

    wanted = filters(options["filter"])
    if options["volumes"] and "until" in wanted:
        raise InvalidArgument('the "until" filter is not supported with "--volumes"')
    if not options["force"] and not confirm(warning(options)):
        return 0
    freed = 0
    result = client.containers.prune(wanted)
    freed += _tell("Deleted Containers:", result.get("ContainersDeleted"), result)
    try:
        result = client.networks.prune(wanted)
    except Unsupported:
        result = {}
    _tell("Deleted Networks:", result.get("NetworksDeleted"), result)
    if options["volumes"]:
        result = client.volumes.prune(wanted)
        freed += _tell("Deleted Volumes:", result.get("VolumesDeleted"), result)
    result = client.images.prune({**wanted, "dangling": ["false" if options["all"] else "true"]})
    freed += _tell("Deleted Images:", [_image(item) for item in result.get("ImagesDeleted") or ()], result)
    result = client.system.prune_builds(all=options["all"], filters=wanted)
    freed += _tell("Deleted build cache objects:", result.get("CachesDeleted"), result)
    show(f"Total reclaimed space: {size(freed)}")
    return 0


def _image(item: "dict[str, str]") -> str:
    return f"untagged: {item['Untagged']}" if "Untagged" in item else f"deleted: {item['Deleted']}"


def _tell(title: str, removed: "list[str] | None", result: "dict[str, Any]") -> int:
    """Name what went; the bytes that it gave back."""
    if removed:
        show("\n".join([title, *removed, ""]))
    return int(result.get("SpaceReclaimed") or 0)


PRUNE = Command(
    "system prune",
    _prune,
    text="Remove stopped containers, unused networks, and images that nothing names",
    example="knarr system prune -a --filter until=24h",
    maximum=0,
    options=(
        Option("-a --all", FLAG, "Remove all images that no container was made from"),
        Option("--filter", LIST, 'Only those that match (such as "until=24h" or "label=ci")'),
        Option("-f --force", FLAG, "Do not ask"),
        Option("--volumes", FLAG, "Remove anonymous volumes that no container mounts too"),
    ),
)
