"""Containers that are frozen while something is copied of them, and go on afterwards.

That a container is frozen for this only is in its record before it is: a daemon that finds it so thaws it. Where
several copies overlap, the first freezes and the last thaws.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from knarr.errors import KnarrError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from knarr.engine.containers.container import Container
    from knarr.engine.containers.lifecycle import Lifecycle

__all__ = ["Still"]


class Still:
    """Belongs to the event loop."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._holders: dict[str, int] = {}  # of containers that were frozen here, by ID
        self._turn = asyncio.Lock()  # over freezing and thawing

    @contextlib.asynccontextmanager
    async def one(self, container: Container) -> AsyncIterator[None]:
        """While the block runs the container writes nothing, where it runs. One that is paused stays so."""
        key = container.record.id
        async with self._turn:
            held = key in self._holders or await self._freeze(container)
            if held:
                self._holders[key] = self._holders.get(key, 0) + 1
        try:
            yield
        finally:
            if held:
                async with self._turn:
                    self._holders[key] -= 1
                    if not self._holders[key]:
                        del self._holders[key]
                        if container.record.state.status == "paused":
                            await self._lifecycle.unpause(container)

    async def _freeze(self, container: Container) -> bool:
        if container.record.state.status != "running":
            return False
        try:
            await self._lifecycle.pause(container, passing=True)
        except KnarrError:
            if container.record.state.running:
                raise
            return False  # it has ended by itself
        return True
