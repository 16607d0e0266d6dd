"""GET /system/df: what each kind of thing takes, in the shape of before 1.52 and in the one since."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knarr.api.wire import containers, images, listing
from knarr.api.wire.shape import Shape
from knarr.api.wire.volumes import volume

if TYPE_CHECKING:
    from knarr.engine.engine import Engine

__all__ = ["KINDS", "usage"]

KINDS = ("container", "image", "volume", "build-cache")
# As in a list of images, but for the counts, which every version has here.
_IMAGE = Shape(since={"Descriptor": 48}, until={"VirtualSize": 44}, optional={"Manifests": 0})
_ACTIVE = ("running", "paused", "restarting")


async def usage(engine: Engine, kinds: set[str], version: int, *, verbose: bool) -> dict[str, Any]:
    """SystemDataUsageResponse of some kinds. Since 1.52 both shapes, the former only for those who aren't verbose."""
    former = version < 52 or not verbose
    answer: dict[str, Any] = {}
    new: dict[str, Any] = {}
    items = verbose or former
    if "image" in kinds:
        lines = _images(engine)
        size = engine.disk.layers()
        unused = [line for line in lines if not line["Containers"]]
        freed = sum(line["Size"] - line["SharedSize"] for line in unused)
        if size:
            answer["LayersSize"] = size
        answer["Images"] = [_IMAGE.of(line, version) for line in lines]
        new["ImageUsage"] = _summary(len(lines), len(unused), size, freed, answer["Images"] if items else [])
    if "container" in kinds:
        lines = await _containers(engine, version)
        idle = [line for line in lines if line["State"] not in _ACTIVE]
        size, freed = (sum(line["SizeRw"] for line in some) for some in (lines, idle))
        answer["Containers"] = lines
        new["ContainerUsage"] = _summary(len(lines), len(idle), size, freed, lines if items else [])
    if "volume" in kinds:
        lines = await _volumes(engine)
        idle = [line for line in lines if not line["UsageData"]["RefCount"]]
        size, freed = (sum(line["UsageData"]["Size"] for line in some) for some in (lines, idle))
        answer["Volumes"] = lines
        new["VolumeUsage"] = _summary(len(lines), len(idle), size, freed, lines if items else [])
    if "build-cache" in kinds:  # nothing is ever kept of a build
        answer["BuildCache"] = []
        new["BuildCacheUsage"] = {}
    if version < 52:
        return answer
    return {**answer, **new} if former else new


def _summary(total: int, idle: int, size: int, freed: int, items: list[dict[str, Any]]) -> dict[str, Any]:
    """DiskUsage of one kind: zeros and empty lists are left out."""
    fields = {
        "ActiveCount": total - idle,
        "Items": items,
        "Reclaimable": freed,
        "TotalCount": total,
        "TotalSize": size,
    }
    return {name: value for name, value in fields.items() if value}


def _images(engine: Engine) -> list[dict[str, Any]]:
    return [images.summary(engine.images, image, shared=True) for image in engine.images.list({})]


async def _containers(engine: Engine, version: int) -> list[dict[str, Any]]:
    sizes = await engine.disk.containers()
    found = []
    for container in reversed(engine.containers.all()):
        if container.record.id in sizes:
            line = containers.SUMMARY.of(listing.line(engine, container), version)
            line["SizeRw"], line["SizeRootFs"] = sizes[container.record.id]
            line.pop("ImageManifestDescriptor", None)
            found.append(line)
    return found


async def _volumes(engine: Engine) -> list[dict[str, Any]]:
    sizes = await engine.disk.volumes()
    found = []
    for record in engine.volumes.every():
        if record.name in sizes:
            users = len(engine.volumes.using(record.name))
            line = volume(engine.volumes.shown(record))
            found.append({**line, "UsageData": {"RefCount": users, "Size": sizes[record.name]}})
    return found
