"""What a container's mounts of volumes and images bind, and for how long it is kept there.

A volume is used from before a container's start to the storing of its end, in the container's ID; and for the moment
in which somebody opens the files of one that does not run, whose copies of the mounts then keep what they need.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knarr.errors import Conflict

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
