"""Who uses a volume's files: any number of starts at once, or one that copies or changes it whole; and who reads."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterator

__all__ = ["Claims"]


class Claims:
    """By names of volumes. Belongs to the event loop.

    A start holds `shared` from before it looks at its mounts until its container is known to run. Whoever holds
    `exclusive` therefore knows, from the records, every container that can write.
    """

    def __init__(self) -> None:
        self._starts: dict[str, int] = {}
        self._owned: set[str] = set()
        self._readers: dict[str, int] = {}
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def shared(self, names: Collection[str]) -> AsyncIterator[None]:
        """While a container is being made or started."""
        if self._owned:
            await self._until(lambda: self._owned.isdisjoint(names))
        for name in names:
            self._starts[name] = self._starts.get(name, 0) + 1
        try:
            yield
        finally:
            for name in names:
                self._starts[name] -= 1
                if not self._starts[name]:
                    del self._starts[name]
            self._tell()

    @contextlib.asynccontextmanager
    async def exclusive(self, *names: str) -> AsyncIterator[None]:
        """While nothing may be started that mounts them."""
        wanted = set(names)
        await self._until(lambda: self._owned.isdisjoint(wanted))
        self._owned |= wanted
        try:
            await self._until(lambda: wanted.isdisjoint(self._starts))
            yield
        finally:
            self._owned -= wanted
            self._tell()

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """While it is read for as long as somebody else likes: nobody waits for that, but it may not go meanwhile."""
        self._readers[name] = self._readers.get(name, 0) + 1
        try:
            yield
        finally:
            self._readers[name] -= 1
            if not self._readers[name]:
                del self._readers[name]

    def being_copied(self, name: str) -> bool:
        """Whether somebody needs its files to stay where they are."""
        return name in self._owned or name in self._readers

    def being_read(self, name: str) -> bool:
        """The same, for one who holds it exclusively."""
        return name in self._readers

    async def _until(self, free: Callable[[], bool]) -> None:
        while not free():
            await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
