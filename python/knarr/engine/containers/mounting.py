"""What a container's mounts of volumes and images bind, and for how long it is kept there.

A volume is used from before a container's start to the storing of its end, in the container's ID; and for the moment
in which somebody opens the files of one that does not run, whose copies of the mounts then keep what they need.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knarr.engine.apart import apart
from knarr.engine.containers import mounts
from knarr.engine.volumes.mounts import unescape
from knarr.errors import Conflict, Failed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from knarr.engine.containers.container import Context
    from knarr.engine.volumes.volumes import Source
    from knarr.store.containers import ContainerRecord, MountPoint

__all__ = ["Sources", "adopt", "announce", "leave", "sources", "use"]


@dataclass(frozen=True, slots=True)
class Sources:
    """What there is to bind."""

    volumes: dict[str, Source]  # by name
    images: dict[str, list[str]]  # by ID: the layers, the top-most first


def _names(record: ContainerRecord) -> Iterator[str]:
    return iter({point["name"]: None for point in record.mounts if point["type"] == "volume"})


async def use(context: Context, record: ContainerRecord, user: str = "") -> Sources:
    """Have everything there that a container mounts, for the container itself or another user: all of it or nothing."""
    user = user or record.id
    volumes, images = {}, {}
    passed = [point for point in record.mounts if point["propagation"].removeprefix("r") in ("shared", "slave")]
    if passed:
        await apart(lambda: _check_propagation(passed, context.config.data_root))
    try:
        for name in _names(record):
            volumes[name] = await context.volumes.use(name, user)
        for point in record.mounts:
            if point["type"] == "image" and point["source"] not in images:
                images[point["source"]] = await _layers(context, point)
    except BaseException:
        for name in volumes:
            context.volumes.leave(name, user)
        raise
    return Sources(volumes, images)


def _check_propagation(points: list[MountPoint], data_root: str) -> None:
    """Refuse what no mount can be passed on to or from. Failed in Docker's words. Blocks."""
    for point in points:
        place, kinds = _mount_of(os.path.realpath(point["source"]))
        shared, slave = "shared" in kinds, "master" in kinds
        if "shared" in point["propagation"] and not shared:
            raise Failed(f"path {point['source']} is mounted on {place} but it is not a shared mount")
        if "slave" in point["propagation"] and not (shared or slave or mounts.surrounds(point["source"], data_root)):
            raise Failed(f"path {point['source']} is mounted on {place} but it is not a shared or slave mount")


def _mount_of(path: str) -> tuple[str, set[str]]:
    """Where what a path is on is mounted, and what it passes mounts on to or from: `shared`, `master`."""
    best, kinds = "", set()
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields = line.split(" ")
            place = unescape(fields[4])
            if len(place) >= len(best) and f"{path.rstrip('/')}/".startswith(f"{place.rstrip('/')}/"):
                best, kinds = place, {field.partition(":")[0] for field in fields[6 : fields.index("-")]}
    return best, kinds


async def _layers(context: Context, point: MountPoint) -> list[str]:
    image = await context.images.resolve(point["source"])
    if not image.lower:
        raise Conflict(f"image {point['name']} has no layers: there is nothing to mount of it")
    return list(image.lower)


def adopt(context: Context, record: ContainerRecord) -> None:
    """A container runs since before this daemon."""
    for name in _names(record):
        context.volumes.adopt(name, record.id)


def leave(context: Context, record: ContainerRecord, user: str = "") -> None:
    """A container has ended, or was not started."""
    for name in _names(record):
        context.volumes.leave(name, user or record.id)


def announce(context: Context, record: ContainerRecord, action: str) -> None:
    """Tell that a container's volumes were mounted or unmounted for it."""
    for point in record.mounts:
        if point["type"] == "volume":
            attributes = {"container": record.id, "driver": point.get("driver", "local")}
            if action == "mount":
                attributes |= {
                    "destination": point["destination"],
                    "propagation": point["propagation"],
                    "read/write": "false" if point["read_only"] else "true",
                }
            context.events.emit("volume", action, point["name"], attributes)


@contextlib.asynccontextmanager
async def sources(context: Context, record: ContainerRecord) -> AsyncIterator[Sources]:
    """What a container mounts, for as long as the block lasts."""
    user = secrets.token_hex(32)
    found = await use(context, record, user)
    try:
        yield found
    finally:
        leave(context, record, user)
