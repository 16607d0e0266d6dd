"""The volumes of an engine: `<data-root>/volumes/<name>/_data` and a record each.

Order: a directory is made before it is recorded, and moved away before its record goes. So what a crash can
leave is, at the next start, a record without a directory, which was being removed and is forgotten; or a directory
without a record, which is taken in again where it holds anything (a lost database must not cost data), else removed.

A container's anonymous volumes come and go with it. While they are made, and from the moment when its removal
is recorded, their records name the container: those that name one that is not there go at the next start.

What an image has for a new volume is copied beside it (`<name>/_copied`) and moved in when it is complete; the next
start finishes that.

What is made by a copy (see `copies`), has a size (see `sizes`) or is renamed takes its place by `moves`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from knarr.engine.volumes import sizes
from knarr.engine.volumes.claims import Claims
from knarr.engine.volumes.moves import Moves
from knarr.errors import Conflict, InvalidArgument, KnarrError, NotFound, Unsupported
from knarr.failpoints import reached
from knarr.store import volumes as records
from knarr.store.volumes import VolumeRecord
from knarr.types import VolumeName

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from knarr._core import Store
    from knarr.engine.events import Events
    from knarr.store.containers import Driver
    from knarr.store.database import Database

__all__ = ["Volumes"]

log = logging.getLogger("knarr.volumes")


class Volumes:
    """Belongs to the event loop; disk work is done in threads."""

    def __init__(self, data_root: str, database: Database, store: Store, events: Events) -> None:
        self._directory = f"{data_root}/volumes"
        self._temporary = f"{data_root}/tmp"  # noqa: S108  ours alone
        self._records = records.Volumes(database)
        self._store = store
        self._events = events
        self._volumes: dict[str, VolumeRecord] = {}
        self._lock = asyncio.Lock()  # over making and removing
        self.store = store
        self.claims = Claims()
        self.moves = Moves(data_root, self._records, store)
        self.using: Callable[[str], list[str]] = lambda _: []  # containers that mount a volume: set by the engine
        self.holders: Callable[[str], list[str]] = lambda _: []  # snapshots of a volume: set by the engine

    def load(self, containers: Container[str]) -> None:
        """Read the records, and finish what was interrupted. `containers`: the IDs of those that there are."""
        os.makedirs(self._directory, 0o701, exist_ok=True)
        recorded = self._records.load()
        self.moves.finish(recorded)
        for record in recorded:
            if not os.path.isdir(f"{self._directory}/{record.name}"):
                log.warning("volume %s has lost its directory and is forgotten", record.name)
                self._records.delete(record.name)
            elif record.container and record.container not in containers and not self._held(record.name):
                log.info("volume %s goes with container %s", record.name, record.container[:12])
                self._destroy(record.name)
            else:
                self._volumes[record.name] = record
        for name in os.listdir(self._directory):
            if name in self._volumes:
                continue
            data = f"{self._directory}/{name}/_data"
            if os.path.lexists(f"{self._directory}/{name}/_disk"):
                continue  # its file system could not be mounted: it may hold anything
            if os.path.isdir(data) and os.listdir(data):
                record = VolumeRecord(name, time.time_ns())
                self._records.insert(record)
                self._volumes[name] = record
            else:
                self._store.remove_tree(f"{self._directory}/{name}")
        for name in self._volumes:
            if os.path.lexists(f"{self._directory}/{name}/_disk"):
                continue
            os.makedirs(self.path(name), 0o755, exist_ok=True)
            if os.path.isdir(f"{self._directory}/{name}/_copying"):
                shutil.rmtree(f"{self._directory}/{name}/_copying")
            if os.path.isdir(f"{self._directory}/{name}/_copied"):
                _move_in(self.path(name))

    def _held(self, name: str) -> bool:
        """Whether something else than a record needs a volume."""
        return bool(self.using(name) or self.holders(name))

    def path(self, name: str) -> str:
        """Where a volume's files are."""
        return f"{self._directory}/{name}/_data"

    def every(self) -> list[VolumeRecord]:
        """Every volume, by name."""
        return sorted(self._volumes.values(), key=lambda record: record.name)

    def known(self, name: str) -> VolumeRecord | None:
        """One volume, if it exists."""
        return self._volumes.get(name)

    def must_be_free(self, name: str) -> None:
        """Raise Conflict where a volume has that name."""
        if name in self._volumes:
            raise Conflict(f"volume {name} exists already: remove it, or choose another name")

    def tell(self, action: str, name: str, **attributes: str) -> None:
        """Tell that something happened to a volume."""
        self._events.emit("volume", action, name, {"driver": "local", **attributes})

    def get(self, name: str) -> VolumeRecord:
        """One volume. Raises NotFound in Docker's words."""
        found = self._volumes.get(name)
        if found is None:
            raise NotFound(f"get {name}: no such volume")
        return found

    async def create(
        self,
        name: str = "",
        *,
        driver: str = "",
        labels: dict[str, str] | None = None,
        options: dict[str, str] | None = None,
        anonymous: bool = False,
        container: str = "",
    ) -> VolumeRecord:
        """Make a volume; one that exists already is given back as it is. container: see `bind`."""
        if driver not in ("", "local"):
            raise NotFound(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
        if others := sorted((options or {}).keys() - {"size"}):
            raise Unsupported(
                f"volume options ({', '.join(others)}) are not supported by knarr: bind a mount of the host"
            )
        sizes.asked(options)
        name = VolumeName(name) if name else secrets.token_hex(32)
        async with self._lock:
            known = self._volumes.get(name)
            if known is not None:
                return known
            record = VolumeRecord(
                name, time.time_ns(), anonymous, dict(labels or {}), dict(options or {}), container=container
            )
            await asyncio.shield(asyncio.to_thread(self._make, record))
            self._volumes[name] = record
        self._events.emit("volume", "create", name, {"driver": "local"})
        reached("volume.create.answer")
        return record

    def _make(self, record: VolumeRecord) -> None:
        if size := sizes.asked(record.options):
            self.moves.make_sized(record, size)
            return
        try:
            reached("volume.create.directory")
            os.makedirs(self.path(record.name), 0o755, exist_ok=True)
            reached("volume.create.record")
            self._records.insert(record)
        except BaseException:
            self._store.remove_tree(f"{self._directory}/{record.name}")
            raise

    async def adopt(self, record: VolumeRecord, staged: str) -> None:
        """Make a new volume of what is complete at `staging`. Conflict where its name has been taken meanwhile."""
        async with self._lock:
            self.must_be_free(record.name)
            await asyncio.shield(asyncio.to_thread(self.moves.adopt, record, staged))
            self._volumes[record.name] = record
        self.tell("create", record.name)

    async def replace(self, name: str, staged: str) -> None:
        """Give a volume other files, complete at `staging`; its own are there then."""
        async with self._lock:
            self.get(name)
            await asyncio.shield(asyncio.to_thread(self.moves.replace, name, staged))

    async def rename(self, name: str, new: str) -> None:
        """Give a volume another name. Conflict where a container mounts it, or the name is taken."""
        async with self._lock:
            record = self.get(name)
            self.must_be_free(new)
            if users := self.using(name):
                raise Conflict(f"rename {name}: volume is in use - [{', '.join(users)}]")
            if self.holders(new):
                raise Conflict(f"rename {name}: there are snapshots of a volume {new}, which is not there any more")
            renamed = replace(record, name=new, was=name, anonymous=False, container="")
            await asyncio.shield(asyncio.to_thread(self.moves.rename, record, renamed))
            del self._volumes[name]
            self._volumes[new] = renamed

    def bind(self, names: list[str], container: str) -> None:
        """Record that volumes which nobody else mounts go with a container: inside the transaction of its removal."""
        for name in names:
            if name in self._volumes and self.using(name) == [container]:
                self._bind(self._volumes[name], container)

    def release(self, names: Iterable[str]) -> None:
        """Record that volumes go with no container: inside the transaction that records one which mounts them."""
        for name in names:
            if name in self._volumes and self._volumes[name].container:
                self._bind(self._volumes[name], "")

    def _bind(self, record: VolumeRecord, container: str) -> None:
        record.container = container or record.container  # in memory: it may be bound, as the transaction may yet fail
        self._records.bind(record, container)

    async def populate(self, name: str, lower: list[str], path: str) -> None:
        """Fill an empty volume with what an image has at a path."""
        await asyncio.to_thread(self._populate, self.path(name), lower, path)

    def _populate(self, data: str, lower: list[str], path: str) -> None:
        with os.scandir(data) as entries:
            if next(entries, None) is not None:
                return
        reached("volume.populate.copy")
        copied = f"{self._temporary}/volume-{secrets.token_hex(16)}"
        limited = sizes.limited(os.path.dirname(data))
        if limited:
            copied = f"{os.path.dirname(data)}/_copying"  # within the same limit, and perhaps another file system
        try:
            os.mkdir(copied, 0o755)
            if not self._store.copy_up(lower, path, copied):
                os.rmdir(copied)
                return
            reached("volume.populate.rename")
            os.rename(copied, f"{os.path.dirname(data)}/_copied")
        except BaseException:
            if limited:
                shutil.rmtree(copied, ignore_errors=True)  # what stays goes at the next start
            else:
                self._store.remove_tree(copied)
            raise
        _move_in(data)

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume that no container mounts. With force, one that does not exist is fine."""
        async with self._lock:
            if name not in self._volumes:
                if force:
                    return
                raise NotFound(f"get {name}: no such volume")
            users = self.using(name)
            if users:
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
            if self.claims.being_copied(name):
                raise Conflict(f"remove {name}: volume is being exported or copied: try again when that has ended")
            if snapshots := self.holders(name):
                raise Conflict(
                    f"remove {name}: volume has snapshots - [{', '.join(snapshots)}]: "
                    f"remove them first, with `knarr volume rm {' '.join(f'{name}@{one}' for one in snapshots)}`"
                )
            record = self._volumes.pop(name)
            try:
                await asyncio.shield(asyncio.to_thread(self._destroy, name))
            except Exception:
                self._volumes[name] = record
                raise
        self._events.emit("volume", "destroy", name, {"driver": "local"})
        reached("volume.remove.answer")

    def _destroy(self, name: str) -> None:
        moved, place = f"{self._temporary}/volume-{secrets.token_hex(16)}", f"{self._directory}/{name}"
        reached("volume.remove.move")
        with sizes.detached(place, lazily=True) as detached:
            os.rename(place, moved)
            try:
                reached("volume.remove.record")
                self._records.delete(name)
            except BaseException:
                os.rename(moved, place)
                raise
            detached.stay()
        try:
            reached("volume.remove.files")
            sizes.discard(self._store, moved)
        except (KnarrError, OSError) as error:
            log.warning("files of volume %s are left until the next start: %s", name, error)

    async def prune(self, wanted: Callable[[VolumeRecord], bool]) -> tuple[list[str], int]:
        """Remove the volumes that no container mounts and that are wanted gone: their names, and the bytes freed."""
        removed, freed = [], 0
        for record in self.every():
            if not wanted(record) or self.using(record.name):
                continue
            size = await self.usage(record.name)
            try:
                await self.remove(record.name, force=True)
            except Conflict:
                continue  # a container took it in between
            removed.append(record.name)
            freed += size
        return removed, freed

    async def usage(self, name: str) -> int:
        """Bytes that a volume takes."""
        size, _ = await asyncio.to_thread(self._store.usage, self.path(name))
        return size


def _move_in(data: str) -> None:
    """Move what was copied for a volume into it, and make its directory what the image's is."""
    copied = f"{os.path.dirname(data)}/_copied"
    for name in os.listdir(copied):
        if not os.path.lexists(f"{data}/{name}"):
            reached("volume.populate.move")
            os.rename(f"{copied}/{name}", f"{data}/{name}")
    found = os.stat(copied)
    os.chown(data, found.st_uid, found.st_gid)
    shutil.copystat(copied, data)
    reached("volume.populate.done")
    shutil.rmtree(copied)


def check_driver_options(driver: Driver | None) -> None:
    """Refuse a DriverConfig that asks for more than the local driver."""
    if not driver:
        return
    if driver.get("Name") not in (None, "", "local"):
        raise InvalidArgument(f'plugin "{driver["Name"]}" not found')
    if driver.get("Options"):
        raise Unsupported("VolumeOptions.DriverConfig.Options are not supported by knarr: mount on the host, then bind")
