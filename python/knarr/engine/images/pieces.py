"""Which blobs and snapshots may go: leases on what is being worked on, and the removal of the rest.

A piece stays while an image in the catalog is made of it, or while somebody holds a lease on it. Leases
are in memory: after a crash, what no record speaks of is found by `sweep`. (What an interrupted pull had
fetched is not among it: the store keeps that in ingest/ until a layer is whole.)

Locking. Everything here runs on the event loop's thread, and between two awaits nothing else does; only
the removal itself is in a thread, as a task of its own that no cancelled caller interrupts. Three rules:

- A lease is taken before the store is asked whether a piece is there. It waits while that piece is
  being removed; from then on no removal takes it.
- `remove_unused` decides what goes, and marks it as going, without an await in between.
- An archive's blobs have names only once they are in. So `nothing_removed` holds off every removal
  from before the archive is read until there are leases; what asked for removal meanwhile is tried then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from knarr.engine.images.catalog import Piece
from knarr.errors import KnarrError
from knarr.failpoints import reached

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from knarr._core import Store
    from knarr.engine.images.catalog import Catalog

log = logging.getLogger("knarr.images")


@dataclass
class Reclaimed:
    """What a removal took away."""

    snapshots: list[str] = field(default_factory=list)
    bytes: int = 0

    def add(self, other: Reclaimed) -> None:
        self.snapshots += other.snapshots
        self.bytes += other.bytes


class Lease:
    """Keeps pieces from being removed until it is closed."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._mine: set[Piece] = set()

    async def add(self, pieces: Iterable[Piece]) -> None:
        """Hold these as well, once nobody is removing one of them."""
        wanted = set(pieces) - self._mine
        await self._pieces.until_still(wanted)
        self._mine |= wanted
        self._pieces.held.update(wanted)

    def close(self) -> set[Piece]:
        """Let go; what was held, for whoever wants to try to remove it."""
        mine, self._mine = self._mine, set()
        self._pieces.held.subtract(mine)
        for piece in mine:
            if not self._pieces.held[piece]:
                del self._pieces.held[piece]
        return mine


class Pieces:
    """The blobs and snapshots of one store."""

    def __init__(self, store: Store, catalog: Catalog) -> None:
        self._store = store
        self._catalog = catalog
        self.held: Counter[Piece] = Counter()
        self._going: dict[Piece, asyncio.Task[Reclaimed]] = {}
        self._holding_off = 0
        self._postponed: set[Piece] = set()
        self._tasks: set[asyncio.Task[Reclaimed]] = set()

    @contextlib.asynccontextmanager
    async def lease(self, pieces: Iterable[Piece] = ()) -> AsyncIterator[Lease]:
        """A lease for as long as a block runs."""
        lease = Lease(self)
        try:
            await lease.add(pieces)
            yield lease
        finally:
            lease.close()

    async def until_still(self, wanted: set[Piece]) -> None:
        """Wait until none of these is being removed. Nothing runs between the return and the caller's next line."""
        while tasks := {self._going[piece] for piece in wanted & self._going.keys()}:
            await asyncio.wait(tasks)

    @contextlib.asynccontextmanager
    async def nothing_removed(self) -> AsyncIterator[None]:
        """While the block runs no piece goes."""
        self._holding_off += 1
        try:
            await self.until_still(set(self._going))
            yield
        finally:
            self._holding_off -= 1
            if not self._holding_off and self._postponed:
                postponed, self._postponed = self._postponed, set()
                self._start(postponed)

    async def remove_unused(self, candidates: Iterable[Piece]) -> Reclaimed:
        """Remove those of the candidates that nobody needs."""
        wanted = set(candidates)
        if self._holding_off:
            self._postponed |= wanted
            return Reclaimed()
        return await asyncio.shield(self._start(wanted))

    async def sweep(self) -> Reclaimed:
        """Remove everything that nobody needs."""
        return await self.remove_unused(await asyncio.to_thread(self._everything))

    def _start(self, candidates: set[Piece]) -> asyncio.Task[Reclaimed]:
        unused = {
            piece
            for piece in candidates
            if not self._catalog.uses(piece) and not self.held[piece] and piece not in self._going
        }
        task = asyncio.get_running_loop().create_task(self._remove(unused), name="remove unused blobs and snapshots")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        self._going.update(dict.fromkeys(unused, task))
        return task

    def _ended(self, task: asyncio.Task[Reclaimed]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("unused blobs and snapshots stay until the next sweep: %s", error)

    async def _remove(self, pieces: set[Piece]) -> Reclaimed:
        try:
            return await asyncio.to_thread(self._remove_now, pieces)
        finally:
            for piece in pieces:
                del self._going[piece]

    def _remove_now(self, pieces: set[Piece]) -> Reclaimed:
        gone = Reclaimed()
        for piece in sorted(pieces):
            try:
                reached("image.delete.piece")
                self._remove_piece(piece, gone)
            except (KnarrError, OSError) as error:  # nobody needs it: it must not fail what has been done
                log.warning("%s %s stays until the next sweep: %s", *piece, error)
        return gone

    def _remove_piece(self, piece: Piece, gone: Reclaimed) -> None:
        kind, name = piece
        if kind == "blob":
            size = self._store.blob_size(name)
            if size is not None:
                self._store.remove_blob(name)
                gone.bytes += size
        elif self._store.has_snapshot(name):
            size = self._store.usage(self._store.snapshot_path(name))[0]
            self._store.remove_snapshot(name)
            gone.bytes += size
            gone.snapshots.append(name)

    def _everything(self) -> set[Piece]:
        blobs = {Piece("blob", digest) for digest, _ in self._store.blobs()}
        return blobs | {Piece("snapshot", name) for name in self._store.snapshots()}
