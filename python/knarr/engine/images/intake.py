"""Archives on their way in: spooled below the data root, read into blobs, checked, unpacked.

Order, so that nothing of a bad archive stays: removals are held off while the archive's files become blobs and
until the images in it have leases; whatever no image was made of goes at the end, however it ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
from typing import TYPE_CHECKING

from knarr._core import Progress
from knarr.engine.images.archive import Archive, blob_reader
from knarr.engine.images.catalog import Piece
from knarr.engine.images.progress import Message, layer_message
from knarr.errors import InvalidArgument, KnarrError, Unavailable
from knarr.failpoints import reached

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from knarr._core import Store
    from knarr.engine.images.archive import Found
    from knarr.engine.images.catalog import Image
    from knarr.engine.images.ledger import Ledger
    from knarr.engine.images.pieces import Lease, Pieces
    from knarr.engine.images.threads import Threads
    from knarr.types import Platform

    Emit = Callable[[Message], Awaitable[None]]

CHUNK = 1 << 20
POLL_SECONDS = 0.1


class Intake:
    """Loads archives into one store."""

    def __init__(self, store: Store, ledger: Ledger, pieces: Pieces, threads: Threads, spool: str) -> None:
        self._store = store
        self._ledger = ledger
        self._pieces = pieces
        self._threads = threads
        self._spool = spool

    async def load_stream(
        self, stream: AsyncIterator[bytes], platforms: Sequence[Platform], emit: Emit | None
    ) -> list[tuple[Image, Found]]:
        """Load an archive that comes in pieces. Unavailable where there is no room for it."""
        async with self.spooled(stream) as path:
            return await self.load(path, platforms, emit)

    @contextlib.asynccontextmanager
    async def spooled(self, stream: AsyncIterator[bytes]) -> AsyncIterator[str]:
        """An archive that comes in pieces, as a file for a while. Errors of the block do not name that file."""
        path = os.path.join(self._spool, f"load-{secrets.token_hex(8)}.tar")
        try:
            await self._write(stream, path)
            yield path
        except KnarrError as error:
            if path not in str(error):
                raise
            raise type(error)(
                str(error).replace(f"archive {path}", "the archive").replace(path, "the archive")
            ) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    async def load(self, path: str, platforms: Sequence[Platform], emit: Emit | None) -> list[tuple[Image, Found]]:
        """Load every image of an archive. Corrupt, naming what is wrong with it; NotFound for the platform."""
        candidates: set[Piece] = set()
        try:
            async with contextlib.AsyncExitStack() as stack:
                lease = await self._read(path, platforms, candidates, stack)
                return [await self._take(found, emit) for found in lease]
        finally:
            await self._pieces.remove_unused(candidates)

    async def _read(
        self, path: str, platforms: Sequence[Platform], candidates: set[Piece], stack: contextlib.AsyncExitStack
    ) -> list[Found]:
        """Read the archive in and lease what its images need; everything it brought is noted in `candidates`."""
        async with self._pieces.nothing_removed():
            before = {digest for digest, _ in await asyncio.to_thread(self._store.blobs)}
            try:
                reached("image.load.read")
                entries = await self._threads.run(lambda: self._store.read_archive(path))
            except BaseException:
                after = {digest for digest, _ in await asyncio.to_thread(self._store.blobs)}
                candidates |= {Piece("blob", digest) for digest in after - before}
                raise
            candidates |= {Piece("blob", digest) for _, digest, _ in entries}
            archive = Archive(entries, self._store.blob, blob_reader(self._store.blob_path))
            images = await self._threads.run(lambda: archive.images(platforms))
            lease: Lease = await stack.enter_async_context(self._pieces.lease())
            for found in images:
                candidates |= found.candidate.pieces
                await lease.add(found.candidate.pieces)
            return images

    async def _take(self, found: Found, emit: Emit | None) -> tuple[Image, Found]:
        new, progress = found.candidate, Progress()
        reached("image.load.unpack")
        work = asyncio.ensure_future(
            self._threads.run(lambda: self._store.unpack(list(new.layers), progress), progress.cancel)
        )
        told: dict[str, int] = {}
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=POLL_SECONDS)
                for digest, phase, done, total in progress.snapshot() if emit else ():
                    if emit and phase == "extracting" and told.get(digest) != done:
                        told[digest] = done
                        await emit(layer_message("Loading layer", digest[7:19], {"current": done, "total": total}))
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait({work})
        return await self._ledger.record(new, work.result(), found.references, None), found

    async def _write(self, stream: AsyncIterator[bytes], path: str) -> None:
        """Spool a stream; writes are made in a thread, since a full page cache blocks them."""
        size = waiting = 0
        pending: list[bytes] = []
        try:
            reached("image.load.spool")
            file = await asyncio.to_thread(open, path, "xb", 0)
            with contextlib.closing(file):
                async for chunk in stream:
                    pending.append(chunk)
                    waiting += len(chunk)
                    if waiting >= CHUNK:
                        reached("image.load.write")
                        await asyncio.to_thread(_write_all, file.fileno(), b"".join(pending))
                        size += waiting
                        pending, waiting = [], 0
                await asyncio.to_thread(_write_all, file.fileno(), b"".join(pending))
                size += waiting
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise Unavailable(
                    f"no room for the archive: {error.strerror} below {self._spool} after {size} bytes; make room there"
                ) from error
            raise
        if not size:
            raise InvalidArgument("the request holds no archive: send a tar file as its body")


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
