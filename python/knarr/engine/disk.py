"""What takes up room on the disk. Whoever asks while it is being counted gets the count under way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from knarr.errors import KnarrError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from knarr.engine.containers.containers import Containers
    from knarr.engine.images.images import Images
    from knarr.engine.volumes.volumes import Volumes

__all__ = ["Disk"]


class Disk:
    """Counts bytes. Belongs to the event loop."""

    def __init__(self, containers: Containers, images: Images, volumes: Volumes) -> None:
        self._containers = containers
        self._images = images
        self._volumes = volumes
        self._under_way: dict[str, asyncio.Task[Any]] = {}

    async def containers(self) -> dict[str, tuple[int, int]]:
        """By ID: (bytes that it has written, bytes of its whole root file system), without those that go meanwhile."""
        found: dict[str, tuple[int, int]] = await self._once("containers", self._count_containers)
        return found

    async def volumes(self) -> dict[str, int]:
        """Bytes by name, of volumes whose files are ours."""
        found: dict[str, int] = await self._once("volumes", self._count_volumes)
        return found

    def layers(self) -> int:
        """Bytes of all layers of all images, each of them once."""
        chains = {layer.chain_id for image in self._images.catalog for layer in image.layers}
        return sum(self._images.layer_size(chain) for chain in chains)

    async def _count_containers(self) -> dict[str, tuple[int, int]]:
        found = {}
        for container in self._containers.all():
            try:
                found[container.record.id] = await self._containers.sizes(container)
            except (KnarrError, OSError):
                if not container.removing:
                    raise
        return found

    async def _count_volumes(self) -> dict[str, int]:
        found = {}
        for record in self._volumes.ours():
            try:
                found[record.name] = await self._volumes.usage(record.name)
            except (KnarrError, OSError):
                if record in self._volumes.every():
                    raise
        return found

    async def _once(self, what: str, count: Callable[[], Awaitable[Any]]) -> Any:
        task = self._under_way.get(what)
        if task is None:

            async def work() -> Any:
                try:
                    return await count()
                finally:
                    del self._under_way[what]

            task = self._under_way[what] = asyncio.get_running_loop().create_task(work())
        return await asyncio.shield(task)
