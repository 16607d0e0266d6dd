"""`knarr system df`."""

from knarr.cli import human
from knarr.cli.command import FLAG, TEXT, Command, Option
from knarr.cli.terminal import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.cli.template_functions import Kinds
    from knarr.client import Client

HEADERS = {"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"}
_ACTIVE = ("running", "paused", "restarting")
_IMAGES = {
    "Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID", "CreatedSince": "CREATED", "Size": "SIZE",
    "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE", "Containers": "CONTAINERS",
}  # fmt: skip
_CONTAINERS = {
    "ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "LocalVolumes": "LOCAL VOLUMES", "Size": "SIZE",
    "RunningFor": "CREATED", "Status": "STATUS", "Names": "NAMES",
}  # fmt: skip
_VOLUMES = {"Name": "VOLUME NAME", "Links": "LINKS", "Size": "SIZE"}
_RAW = {"type": "Type", "total": "TotalCount", "active": "Active", "size": "Size", "reclaimable": "Reclaimable"}
_BUILDS = {
    "ID": "CACHE ID", "CacheType": "CACHE TYPE", "Size": "SIZE", "CreatedSince": "CREATED",
    "LastUsedSince": "LAST USED", "UsageCount": "USAGE", "Shared": "SHARED",
}  # fmt: skip


def summary(usage: "dict[str, Any]") -> "list[dict[str, str]]":
    """A row for each kind of thing."""
    images, containers, volumes = (usage.get(name) or [] for name in ("Images", "Containers", "Volumes"))
    unused = [image for image in images if not image["Containers"]]
    layers = usage.get("LayersSize", 0)
    needed = sum(image["Size"] - image["SharedSize"] for image in images if image["Containers"])  # as docker counts it
    idle = [container for container in containers if container["State"] not in _ACTIVE]
    unmounted = [volume for volume in volumes if not volume["UsageData"]["RefCount"]]
    return [
        _row("Images", images, unused, layers, layers - needed),
        _row("Containers", containers, idle, _written(containers), _written(idle)),
        _row("Local Volumes", volumes, unmounted, _kept(volumes), _kept(unmounted)),
        _row("Build Cache", [], [], 0, 0),
    ]


def _written(containers: "list[dict[str, Any]]") -> int:
    return sum(container.get("SizeRw") or 0 for container in containers)


def _kept(volumes: "list[dict[str, Any]]") -> int:
    return sum(max(volume["UsageData"]["Size"], 0) for volume in volumes)


def _row(kind: str, every: "list[Any]", idle: "list[Any]", size: int, freed: int) -> "dict[str, str]":
    reclaimable = human.size(freed)
    return {
        "Type": kind,
        "TotalCount": str(len(every)),
        "Active": str(len(every) - len(idle)),
        "Size": human.size(size),
        "Reclaimable": f"{reclaimable} ({freed * 100 // size}%)" if size else reclaimable,
    }


def details(usage: "dict[str, Any]", *, full: bool) -> "Kinds":
    """Rows of everything that there is, by kind."""
    from knarr.cli import ps, volumes
    from knarr.cli.template_functions import Kinds, Row

    return Kinds(
        Images=[Row(_image(image, full=full)) for image in usage.get("Images") or ()],
        Containers=[
            Row(ps.row({**container, "SizeRootFs": 0}, full=full)) for container in usage.get("Containers") or ()
        ],
        Volumes=[Row(volumes.row(volume)) for volume in usage.get("Volumes") or ()],
        BuildCache=[],
    )


def _image(image: "dict[str, Any]", *, full: bool) -> "dict[str, Any]":
    repository, _, tag = (image.get("RepoTags") or ["<none>:<none>"])[0].rpartition(":")
    return {
        "Repository": repository,
        "Tag": tag,
        "ID": image["Id"] if full else human.short_id(image["Id"]),
        "Digest": "",
        "CreatedSince": human.ago(image["Created"]) if image["Created"] > 0 else "N/A",
        "CreatedAt": human.local_time(image["Created"]),
        "Size": human.size(image["Size"], 3),
        "SharedSize": human.size(image["SharedSize"]),
        "UniqueSize": human.size(image["Size"] - image["SharedSize"]),
        "Containers": str(image["Containers"]),
    }


def _df(client: "Client", options: "dict[str, Any]", _arguments: "list[str]") -> int:
    from knarr.cli.listing import write

    form = options["format"]
    usage = client.system.disk_usage()
    if not options["verbose"]:
        write(summary(usage), HEADERS, list(HEADERS), form, _RAW)
        return 0
    found = details(usage, full=bool(form) and not form.startswith("table"))
    if form and form != "table":
        _show(found, form)
        return 0
    for title, kind, headers in (
        ("Images space usage:", "Images", _IMAGES),
        ("Containers space usage:", "Containers", _CONTAINERS),
        ("Local Volumes space usage:", "Volumes", _VOLUMES),
        ("Build cache usage: 0B", "BuildCache", _BUILDS),
    ):
        show(f"{title}\n" if kind == "Images" else f"\n{title}\n")
        write(found[kind], headers, list(headers), None)
    return 0


def _show(found: "Kinds", form: str) -> None:
    """All of it at once: as JSON, raw, or by a template."""
    from knarr.cli import documents, images, ps, volumes
    from knarr.cli.listing import raw_lines
    from knarr.cli.template_functions import to_json

    if form == "raw":
        for kind, word, fields in (
            ("Images", "Image", images.raw_fields(digests=True)),
            ("Containers", "Container", {**ps.RAW, "size": "Size"}),
            ("Volumes", "Volume", volumes.RAW),
        ):
            for row in found[kind]:
                for line in (f"type: {word}", *raw_lines([row], fields)):
                    show(line)
        return
    template = documents.compiled(form.removeprefix("table").strip(" "))
    show(to_json(found) if template is None else template.render(found))


DF = Command(
    "system df",
    _df,
    text="Show what images, containers and volumes take on the disk",
    example="knarr system df -v",
    maximum=0,
    options=(
        Option("--format", TEXT, "Format: table, json, or a Go template"),
        Option("-v --verbose", FLAG, "Show each of them"),
    ),
)
