"""Volumes that plugins have: what there is of them, and for whom they are mounted.

A plugin counts who uses a volume by the IDs that Mount and Unmount are called with: ours are those of containers. An
ID is in the volume's record before Mount is asked for, and until Unmount was answered; so a daemon that finds one of a
container that does not run asks for its Unmount.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knarr.engine.volumes.plugins import Answered
from knarr.errors import Failed, KnarrError, NotFound
from knarr.failpoints import reached
from knarr.store.volumes import VolumeRecord

if TYPE_CHECKING:
    from collections.abc import Iterable

    from knarr.engine.volumes.plugins import Plugin, Plugins
    from knarr.store.volumes import Volumes as Records

__all__ = ["NEVER", "Foreign", "Shown"]

log = logging.getLogger("knarr.volumes")

NEVER = "0001-01-01T00:00:00Z"  # what Docker says of a time that a plugin does not tell


@dataclass(slots=True)
class Shown:
    """A volume as it is shown."""

    record: VolumeRecord
    place: str  # where it is on the host, or ""
    scope: str = "local"
    created: str = ""  # as its plugin tells it; empty for the record's
    status: dict[str, Any] | None = None


class Foreign:
    """Belongs to the event loop."""

    def __init__(self, plugins: Plugins, records: Records) -> None:
        self.plugins = plugins
        self._records = records
        self._places: dict[str, str] = {}  # where a volume was mounted last
        self._leaving: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._adopted: set[tuple[str, str]] = set()

    def place(self, name: str) -> str:
        """Where a volume was mounted last; "" where this daemon has not done that."""
        return self._places.get(name, "")

    async def use(self, record: VolumeRecord, user: str) -> None:
        """Have a volume mounted for somebody. Failed in Docker's words."""
        before = self._leaving.get((record.name, user))
        if before is not None:
            await asyncio.wait({before})
        plugin = await self.plugins.get(record.driver)
        self._record(record, [*(one for one in record.users if one != user), user])
        try:
            reached("volume.mount.ask")
            self._places[record.name] = await plugin.mount(record.name, user)
        except Answered:
            self._record(record, [one for one in record.users if one != user])
            raise
        except BaseException:
            self.leave(record, user)  # who knows what it has done
            raise

    def adopt(self, record: VolumeRecord, user: str) -> None:
        """Somebody uses a volume since before this daemon."""
        self._adopted.add((record.name, user))

    def leave(self, record: VolumeRecord, user: str) -> None:
        """Somebody uses a volume no more."""
        key = record.name, user
        self._adopted.discard(key)
        if user in record.users and key not in self._leaving:
            task = self._leaving[key] = asyncio.get_running_loop().create_task(self._leave(record, user))
            task.add_done_callback(lambda _: self._leaving.pop(key, None))

    async def _leave(self, record: VolumeRecord, user: str) -> None:
        try:
            plugin = await self.plugins.get(record.driver)
            reached("volume.unmount.ask")
            await plugin.unmount(record.name, user)
        except Answered as error:
            log.warning("volume %s: %s", record.name, error)
        except (KnarrError, OSError) as error:
            log.warning("volume %s stays mounted for %s until the next start: %s", record.name, user[:12], error)
            return
        try:
            self._record(record, [one for one in record.users if one != user])
        except KnarrError as error:
            log.warning("volume %s: %s", record.name, error)

    def _record(self, record: VolumeRecord, users: list[str]) -> None:
        before, record.users = record.users, users
        try:
            self._records.update(record)
        except BaseException:
            record.users = before
            raise

    def settle(self, records: Iterable[VolumeRecord]) -> None:
        """Unmount what is mounted for nobody who runs: at the start."""
        for record in records:
            for user in record.users:
                if (record.name, user) not in self._adopted:
                    self.leave(record, user)

    async def make(self, record: VolumeRecord) -> None:
        """Have a plugin make a volume, unless it has it. Failed, NotFound."""
        plugin = await self.plugins.get(record.driver)
        if await plugin.find(record.name) is None:
            await plugin.create(record.name, record.options)

    async def remove(self, record: VolumeRecord) -> None:
        """Have a plugin remove a volume."""
        for user in record.users:
            self.leave(record, user)
        for task in [task for (name, _), task in self._leaving.items() if name == record.name]:
            await asyncio.wait({task})
        plugin = await self.plugins.get(record.driver)
        await plugin.remove(record.name)
        self._places.pop(record.name, None)

    async def show(self, record: VolumeRecord) -> Shown | None:
        """A volume as its plugin tells of it; None where that has it no more. Failed in Docker's words."""
        try:
            plugin = await self.plugins.get(record.driver)
            found = await plugin.find(record.name)
        except (Failed, NotFound) as error:
            raise Failed(
                f'get {record.name}: error while checking if volume "{record.name}" exists in driver '
                f'"{record.driver}": {error}'
            ) from error
        return None if found is None else await self._shown(plugin, record, found)

    async def probe(self, name: str) -> Shown | None:
        """A volume that some plugin has, and that no record speaks of."""
        plugins = await self.plugins.every()
        found = await asyncio.gather(*(plugin.find(name, patient=False) for plugin in plugins), return_exceptions=True)
        for plugin, result in zip(plugins, found, strict=True):
            if isinstance(result, dict):
                return await self._shown(plugin, VolumeRecord(name, 0, driver=plugin.name), result)
            if isinstance(result, BaseException) and not isinstance(result, Failed):
                raise result
        return None

    async def listing(self, records: dict[str, VolumeRecord]) -> tuple[list[Shown], list[str]]:
        """What every plugin has, and warnings of those that do not tell; what is recorded of those is shown."""
        plugins = await self.plugins.every()
        found = await asyncio.gather(*(plugin.list() for plugin in plugins), return_exceptions=True)
        shown: dict[str, Shown] = {}
        warnings = []
        for plugin, result in zip(plugins, found, strict=True):
            if isinstance(result, Failed):
                warnings.append(f"list {plugin.name}: {result}")
                continue
            if isinstance(result, BaseException):
                raise result
            for item in result:
                name = item["Name"]
                record = records.get(name) or VolumeRecord(name, 0, driver=plugin.name)
                if record.driver == plugin.name and name not in shown:
                    shown[name] = await self._shown(plugin, record, item)
        told = {plugin.name for plugin, result in zip(plugins, found, strict=True) if not isinstance(result, Failed)}
        for record in records.values():
            if record.driver not in ("local", *told):
                shown[record.name] = Shown(record, self.place(record.name), created=NEVER)
        return list(shown.values()), warnings

    async def _shown(self, plugin: Plugin, record: VolumeRecord, found: dict[str, Any]) -> Shown:
        place, created, status = found.get("Mountpoint"), found.get("CreatedAt"), found.get("Status")
        return Shown(
            record,
            place if isinstance(place, str) and place else self.place(record.name),
            await plugin.scope(),
            created if isinstance(created, str) and created else NEVER,
            status if isinstance(status, dict) and status else None,
        )

    async def close(self) -> None:
        """Wait a moment for what is under way."""
        if self._leaving:
            await asyncio.wait(self._leaving.values(), timeout=5)
