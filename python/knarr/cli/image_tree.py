"""`knarr images --tree`: each image with what it has for several platforms."""

from knarr.cli import human
from knarr.cli.terminal import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HEADER = ("IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA")
_GAP = 3


def show_tree(images: "list[dict[str, Any]]", *, full: bool) -> None:
    """A block for each image: its names, its sizes, and a line for every platform. U says that a container uses it."""
    rows: list[tuple[str, ...]] = [_HEADER]
    for image in images:
        names = list(image.get("RepoTags") or []) or ["<untagged>"]
        listed = [one for one in image.get("Manifests") or [] if one.get("Kind") == "image"]
        rows += [(name, "", "", "", "") for name in names[:-1]]
        rows.append(
            _line(names[-1], image["Id"], _total(image, listed), listed, full=full, used=image["Containers"] > 0)
        )
        for number, manifest in enumerate(listed, 1):
            branch = "└─ " if number == len(listed) else "├─ "
            data = manifest["ImageData"]
            rows.append(
                _line(branch + _platform(data["Platform"]), manifest["ID"], manifest["Size"]["Total"], [manifest],
                      full=full, used=bool(data.get("Containers")))
            )  # fmt: skip
    widths = [max(len(row[column]) for row in rows) + _GAP for column in range(len(_HEADER))]
    for row in rows:
        cells = [row[0].ljust(widths[0]), row[1].ljust(widths[1])]
        cells += [cell.rjust(width - _GAP) + " " * _GAP for cell, width in zip(row[2:4], widths[2:4], strict=True)]
        show("".join([*cells, row[4]]).rstrip())


def _line(
    name: str, identity: str, total: int, listed: "list[dict[str, Any]]", *, full: bool, used: bool
) -> "tuple[str, ...]":
    content = sum(one["Size"]["Content"] for one in listed)
    shown = identity if full else human.short_id(identity)
    if listed and not any(one["Available"] for one in listed):
        return name, shown, "0B", "0B", ""
    return name, shown, human.size(total, 3), human.size(content, 3), "U" if used else ""


def _total(image: "dict[str, Any]", listed: "list[dict[str, Any]]") -> int:
    return sum(one["Size"]["Total"] for one in listed) or int(image["Size"])


def _platform(platform: "dict[str, Any]") -> str:
    return "/".join(filter(None, (platform.get("os"), platform.get("architecture"), platform.get("variant"))))
