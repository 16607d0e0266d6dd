"""The volumes of an engine: `<data-root>/volumes/<name>/_data` and a record each.

Order: a directory is made before it is recorded, and a record goes before its directory. So what a
crash can leave is a directory without a record: at the start it is taken in again where it holds
anything (a lost database must not cost data), else removed.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from typing import TYPE_CHECKING

from knarr.errors import Conflict, InvalidArgument, NotFound, Unsupported
from knarr.store import volumes as records
from knarr.store.volumes import VolumeRecord
from knarr.types import VolumeName

if TYPE_CHECKING:
    from collections.abc import Callable

    from knarr._core import Store
    from knarr.engine.events import Events
    from knarr.store.containers import Driver
    from knarr.store.database import Database

__all__ = ["Volumes"]


class Volumes:
    """Belongs to the event loop; disk work is done in threads."""

    def __init__(self, data_root: str, database: Database, store: Store, events: Events) -> None:
        self._directory = f"{data_root}/volumes"
        self._records = records.Volumes(database)
        self._store = store
        self._events = events
        self._volumes: dict[str, VolumeRecord] = {}
        self._lock = asyncio.Lock()  # over making and removing
        self.using: Callable[[str], list[str]] = lambda _: []  # containers that mount a volume: set by the engine

    def load(self) -> None:
        """Read the records, and take in or remove what has none."""
        os.makedirs(self._directory, 0o701, exist_ok=True)
        self._volumes = {record.name: record for record in self._records.load()}
        for name in os.listdir(self._directory):
            if name in self._volumes:
                continue
            data = f"{self._directory}/{name}/_data"
            if os.path.isdir(data) and os.listdir(data):
                record = VolumeRecord(name, time.time_ns())
                self._records.insert(record)
                self._volumes[name] = record
            else:
                self._store.remove_tree(f"{self._directory}/{name}")
        for name in self._volumes:
            os.makedirs(self.path(name), 0o755, exist_ok=True)

    def path(self, name: str) -> str:
        """Where a volume's files are."""
        return f"{self._directory}/{name}/_data"

    def every(self) -> list[VolumeRecord]:
        """Every volume, by name."""
        return sorted(self._volumes.values(), key=lambda record: record.name)

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
    ) -> VolumeRecord:
        """Make a volume; one that exists already is given back as it is."""
        if driver not in ("", "local"):
            raise NotFound(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
        if options:
            raise Unsupported(
                f"volume options ({', '.join(sorted(options))}) are not supported by knarr: bind a mount of the host"
            )
        name = VolumeName(name) if name else secrets.token_hex(32)
        async with self._lock:
            known = self._volumes.get(name)
            if known is not None:
                return known
            record = VolumeRecord(name, time.time_ns(), anonymous, dict(labels or {}))
            await asyncio.shield(asyncio.to_thread(self._make, record))
            self._volumes[name] = record
        self._events.emit("volume", "create", name, {"driver": "local"})
        return record

    def _make(self, record: VolumeRecord) -> None:
        os.makedirs(self.path(record.name), 0o755, exist_ok=True)
        self._records.insert(record)

    async def populate(self, name: str, lower: list[str], path: str) -> None:
        """Fill an empty volume with what an image has at a path."""
        await asyncio.to_thread(self._populate, self.path(name), lower, path)

    def _populate(self, data: str, lower: list[str], path: str) -> None:
        with os.scandir(data) as entries:
            if next(entries, None) is not None:
                return
        self._store.copy_up(lower, path, data)

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
            del self._volumes[name]
            await asyncio.shield(asyncio.to_thread(self._destroy, name))
        self._events.emit("volume", "destroy", name, {"driver": "local"})

    def _destroy(self, name: str) -> None:
        self._records.delete(name)
        self._store.remove_tree(f"{self._directory}/{name}")

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


def check_driver_options(driver: Driver | None) -> None:
    """Refuse a DriverConfig that asks for more than the local driver."""
    if not driver:
        return
    if driver.get("Name") not in (None, "", "local"):
        raise InvalidArgument(f'plugin "{driver["Name"]}" not found')
    if driver.get("Options"):
        raise Unsupported("VolumeOptions.DriverConfig.Options are not supported by knarr: mount on the host, then bind")
