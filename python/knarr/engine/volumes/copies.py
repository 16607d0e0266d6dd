"""Volumes as wholes: cloned, kept as snapshots, renamed, exported, imported. Beyond Docker's API.

A snapshot is a copy of a volume under a name: `<data-root>/volume-snapshots/<volume>/<snapshot>/_data`, the time of
which directory is when it was made. Nothing else knows of it: it is there when it has its name, and nobody mounts it.
A volume that has snapshots is not removed. All this is for volumes that are directories of ours (`Volumes.own`); other
volumes of the local driver can be given another name, no more.

Whatever becomes (part of) a volume is made complete and synced beside the volumes first (`volumes/@<hex>`), and takes
its place in one step (`Volumes.adopt_copy`, `Volumes.replace`); what a crash leaves there goes at the next start.

While a volume is cloned or a snapshot is made of it, the containers that write to it are frozen, as for a commit, and
no other is started with it; without `pause` it is copied as it happens to be. An export is always that, as it lasts as
long as its reader likes: of a snapshot it is exact.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from knarr._core import clone_volume, fill_volume, pack_volume
from knarr.engine.apart import apart
from knarr.engine.volumes import sizes
from knarr.errors import Conflict, InvalidArgument, NotFound
from knarr.failpoints import reached
from knarr.store.volumes import VolumeRecord
from knarr.types import VolumeName

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from knarr._core import Body, Store
    from knarr.engine.volumes.volumes import Volumes

    Still = Callable[[str], contextlib.AbstractAsyncContextManager[None]]

__all__ = ["PACKINGS", "Copies", "Snapshot"]

PACKINGS = ("", "gzip", "zstd")


class Snapshot(NamedTuple):
    """A copy of a volume."""

    volume: str
    name: str
    created_ns: int
    place: str  # its files


class Copies:
    """Belongs to the event loop; disk work is done in threads of its own (`apart`), as it may take long."""

    def __init__(self, data_root: str, store: Store, volumes: Volumes) -> None:
        self._root = f"{data_root}/volume-snapshots"
        self._volumes = volumes
        self._store = store
        self.still: Still  # freezes the containers that write to a volume: set by the engine
        self.running: Callable[[str], list[str]]  # IDs of the running containers that mount a volume: set by the engine

    # --- clones

    async def clone(self, name: str, new: str, *, snapshot: str = "", pause: bool = True) -> VolumeRecord:
        """Make a volume that is what another is, or was; with its labels and options."""
        volumes = self._volumes
        new = VolumeName(new)
        volumes.must_be_free(new)
        origin = volumes.own(name)
        record = VolumeRecord(new, time.time_ns(), labels=dict(origin.labels), options=dict(origin.options))
        async with self._source(name, snapshot, pause=pause) as source, self._staged(origin.options) as staged:
            reached("volume.clone.copy")
            await self._copy(source, f"{staged}/_data")
            await volumes.adopt_copy(record, staged)
        reached("volume.clone.answer")
        return record

    # --- snapshots

    async def snapshot(self, name: str, snapshot: str = "", *, pause: bool = True) -> Snapshot:
        """Keep what a volume is now, under a name; by default that is the date."""
        volumes = self._volumes
        origin = volumes.own(name)
        snapshot = _snapshot_name(snapshot) if snapshot else self._dated(name)
        self._must_be_new(name, snapshot)
        async with self._source(name, "", pause=pause) as source, self._staged({}) as staged:
            reached("volume.snapshot.copy")
            await self._copy(source, f"{staged}/_data")
            async with self._snapshots_of(name):
                self._must_be_new(name, snapshot)
                await asyncio.shield(asyncio.to_thread(self._keep, name, snapshot, staged))
        volumes.tell("snapshot", origin, snapshot=snapshot)
        reached("volume.snapshot.answer")
        return self.find(name, snapshot)

    def _keep(self, name: str, snapshot: str, staged: str) -> None:
        parent = f"{self._root}/{name}"
        os.makedirs(parent, 0o700, exist_ok=True)
        os.utime(staged)
        reached("volume.snapshot.rename")
        os.rename(staged, f"{parent}/{snapshot}")
        _sync(parent)

    def snapshots(self, name: str) -> list[Snapshot]:
        """The snapshots of a volume, the oldest first."""
        self._volumes.get(name)
        return self._found(name)

    def _found(self, name: str) -> list[Snapshot]:
        found = []
        with contextlib.suppress(FileNotFoundError), os.scandir(f"{self._root}/{name}") as entries:
            for entry in entries:
                created = entry.stat(follow_symlinks=False).st_mtime_ns
                found.append(Snapshot(name, entry.name, created, f"{entry.path}/_data"))
        return sorted(found, key=lambda snapshot: (snapshot.created_ns, snapshot.name))

    def find(self, name: str, snapshot: str) -> Snapshot:
        """One snapshot. NotFound."""
        for found in self.snapshots(name):
            if found.name == snapshot:
                return found
        raise NotFound(f"get {name}@{snapshot}: no such snapshot (`knarr volume snapshots {name}` lists them)")

    def holders(self, name: str) -> list[str]:
        """The names of a volume's snapshots, for which it is not removed."""
        return [snapshot.name for snapshot in self._found(name)]

    async def remove_snapshot(self, name: str, snapshot: str) -> None:
        """Forget a snapshot."""
        async with self._snapshots_of(name):
            origin, found = self._volumes.get(name), self.find(name, snapshot)
            reached("volume.snapshot.remove")
            await apart(lambda: self._store.remove_tree(os.path.dirname(found.place)))
            with contextlib.suppress(OSError):  # it has others
                os.rmdir(f"{self._root}/{name}")
        self._volumes.tell("snapshot-destroy", origin, snapshot=snapshot)

    async def restore(self, name: str, snapshot: str) -> None:
        """Make a volume what it was. Conflict while a container that runs mounts it."""
        volumes = self._volumes
        origin = volumes.own(name)
        async with volumes.claims.exclusive(name):
            self._must_rest(name, "restore")
            async with self._snapshots_of(name):
                found = self.find(name, snapshot)
                async with self._staged(origin.options) as staged:
                    reached("volume.restore.copy")
                    await self._copy(found.place, f"{staged}/_data")
                    await volumes.replace(name, staged)
        volumes.tell("restore", origin, snapshot=snapshot)
        reached("volume.restore.answer")

    # --- names

    async def rename(self, name: str, new: str) -> None:
        """Give a volume another name, and its snapshots with it. Conflict while any container mounts it."""
        volumes = self._volumes
        new = VolumeName(new)
        volumes.get(name)
        if new == name:
            raise InvalidArgument(f"rename {name}: it has that name already")
        async with volumes.claims.exclusive(name, new), self._snapshots_of(name, new):
            self._must_not_be_read(name, "rename")
            renamed = await volumes.rename(name, new)
        volumes.tell("rename", renamed, oldName=name)
        reached("volume.rename.answer")

    # --- archives

    def export(self, name: str, snapshot: str = "", packing: str = "") -> Callable[[int, int], Awaitable[None]]:
        """What writes a volume, or a snapshot of it, as a tar archive. InvalidArgument for no compression."""
        if packing not in PACKINGS:
            raise InvalidArgument(f'invalid compression "{packing}": it is one of gzip and zstd')
        self._volumes.own(name)
        place = self.find(name, snapshot).place if snapshot else self._volumes.path(name)

        async def write(descriptor: int, framing: int) -> None:
            with self._volumes.claims.reading(name):
                await apart(lambda: pack_volume(place, descriptor, framing, packing))

        return write

    async def fill(self, name: str, body: Body) -> VolumeRecord:
        """Make a volume of an archive: a new one, or one that is empty and that no running container mounts."""
        volumes = self._volumes
        name = VolumeName(name)
        async with volumes.claims.exclusive(name):
            known = volumes.known(name)
            if known is not None:
                volumes.own(name)
                self._must_rest(name, "import to")
                if await asyncio.to_thread(os.listdir, volumes.path(name)):
                    raise Conflict(
                        f"import to {name}: volume is not empty: import to a new one, and rename it in its place"
                    )
            async with self._staged(known.options if known else {}) as staged:
                reached("volume.import.fill")
                await apart(lambda: fill_volume(f"{staged}/_data", body))
                if known is None:
                    known = VolumeRecord(name, time.time_ns())
                    await volumes.adopt_copy(known, staged)
                else:
                    await volumes.replace(name, staged)
        volumes.tell("import", known)
        reached("volume.import.answer")
        return known

    # --- what these share

    @contextlib.asynccontextmanager
    async def _source(self, name: str, snapshot: str, *, pause: bool) -> AsyncIterator[str]:
        """Files to copy, which stay as they are while the block runs."""
        async with contextlib.AsyncExitStack() as held:
            if snapshot:
                await held.enter_async_context(self._snapshots_of(name))
                yield self.find(name, snapshot).place
                return
            if pause:
                await held.enter_async_context(self._volumes.claims.exclusive(name))
                await held.enter_async_context(self.still(name))
            held.enter_context(self._volumes.claims.reading(name))
            self._volumes.own(name)  # it may have gone before the claim was ours
            yield self._volumes.path(name)

    @contextlib.asynccontextmanager
    async def _staged(self, options: dict[str, str]) -> AsyncIterator[str]:
        """A volume's directory in the making; what of it has not been taken away goes at the end."""
        staged = self._volumes.moves.staging()
        size = sizes.asked(options)
        try:
            await apart(lambda: sizes.make(staged, size))
            yield staged
        finally:
            await apart(lambda: sizes.try_to_discard(self._store, staged))

    async def _copy(self, source: str, target: str) -> None:
        await apart(lambda: clone_volume(source, target))

    def _snapshots_of(self, *names: str) -> contextlib.AbstractAsyncContextManager[None]:
        """While the block runs, none of their snapshots comes or goes but by its holder."""
        return self._volumes.claims.exclusive(*(f"{name}@" for name in names))

    def _must_not_be_read(self, name: str, doing: str) -> None:
        if self._volumes.claims.being_read(name):
            raise Conflict(f"{doing} {name}: volume is being exported or copied: try again when that has ended")

    def _must_rest(self, name: str, doing: str) -> None:
        self._must_not_be_read(name, doing)
        users = self.running(name)
        if users:
            raise Conflict(
                f"{doing} {name}: volume is in use by running containers - [{', '.join(users)}]: stop them first"
            )

    def _must_be_new(self, name: str, snapshot: str) -> None:
        if os.path.lexists(f"{self._root}/{name}/{snapshot}"):
            raise Conflict(f"volume {name} has a snapshot {snapshot} already: remove it, or choose another name")

    def _dated(self, name: str) -> str:
        dated = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        taken = set(self.holders(name))
        return next(found for found in (dated, *(f"{dated}-{n}" for n in range(2, 10_000))) if found not in taken)


def _snapshot_name(text: str) -> str:
    try:
        return VolumeName(text)
    except InvalidArgument:
        raise InvalidArgument(
            f"invalid snapshot name {text[:64]!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, at least two characters"
        ) from None


def _sync(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
