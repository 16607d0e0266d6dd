"""The volumes of an engine: `<data-root>/volumes/<name>/_data` and a record each; those of plugins have a record only.

`local` reads the local driver's options, `mounts` keeps what they name mounted, `plugins` speaks with plugins,
`foreign` has their volumes, `filling` copies what an image has into an empty volume. `moves` has the directories,
`sizes` limits them, `copies` does what is done with volumes as wholes, and `claims` keeps that and containers apart.

Order: a directory is made before it is recorded, and moved away before its record goes. So what a crash can
leave is, at the next start, a record without a directory, which was being removed and is forgotten; or a directory
without a record, which is taken in again where it holds anything (a lost database must not cost data), else removed.
A plugin's volume is recorded before the plugin makes it, and forgotten after it has removed it: where the plugin has
none, the record goes when somebody asks for the volume.

A container's anonymous volumes come and go with it. While they are made, and from the moment when its removal
is recorded, their records name the container: those that name one that is not there go at the next start.

What is made by a copy, has a size or is renamed takes its place by `moves`.

Making, filling, renaming and removing one volume wait for one another, and for no other volume's. Who needs a claim as
well has it before that.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import secrets
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from knarr._core import unmount_volume
from knarr.engine.apart import apart
from knarr.engine.volumes import local, sizes
from knarr.engine.volumes.claims import Claims
from knarr.engine.volumes.filling import Filling, check_answers
from knarr.engine.volumes.foreign import NEVER, Foreign, Shown
from knarr.engine.volumes.mounts import Mounts, mounted_below
from knarr.engine.volumes.moves import Moves
from knarr.engine.volumes.plugins import Plugins
from knarr.errors import Conflict, Failed, KnarrError, NotFound, Unsupported
from knarr.failpoints import reached
from knarr.store import volumes as records
from knarr.store.volumes import LOCAL, VolumeRecord
from knarr.types import VolumeName

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Container, Coroutine, Iterable
    from typing import Any

    from knarr._core import Store
    from knarr.config import Config
    from knarr.engine.events import Events
    from knarr.store.database import Database

__all__ = ["ANONYMOUS", "Source", "Volumes"]

log = logging.getLogger("knarr.volumes")

ANONYMOUS = "com.docker.volume.anonymous"  # a label


@dataclass(frozen=True, slots=True)
class Source:
    """What a container's mount of a volume binds."""

    path: str
    recursive: bool = True
    options: tuple[str, ...] = ()


class Volumes:
    """Belongs to the event loop; disk work is done in threads."""

    def __init__(self, config: Config, database: Database, store: Store, events: Events) -> None:
        self._directory = f"{config.data_root}/volumes"
        self._records = records.Volumes(database)
        self._store = store
        self._events = events
        self._volumes: dict[str, VolumeRecord] = {}
        self._locks: dict[str, list[asyncio.Lock]] = {}  # one lock, as often as somebody has or waits for it
        self._held: dict[str, set[str]] = {}  # by containers that are being made
        self._filling = Filling(store, f"{config.data_root}/tmp")  # noqa: S108  ours alone
        self._mounts = Mounts(self.path, config.volume_timeout)
        self._foreign = Foreign(
            Plugins(config.plugin_sockets, config.plugin_specs, config.volume_timeout), self._records
        )
        self._found: set[str] = set()  # mounted when this daemon began
        self._orphans: list[str] = []  # of plugins, whose container has gone
        self._tasks: set[asyncio.Task[None]] = set()
        self._pruning = False
        self.claims = Claims()
        self.moves = Moves(config.data_root, self._records, store)
        self.mounted_by: Callable[[str], list[str]] = lambda _: []  # containers that mount it: set by the engine
        self.holders: Callable[[str], list[str]] = lambda _: []  # snapshots of a volume: set by the engine

    def load(self, containers: Container[str]) -> None:
        """Read the records, and put in order what a crash has left; containers: the IDs of those that there are."""
        os.makedirs(self._directory, 0o701, exist_ok=True)
        loaded = self._records.load()
        self.moves.finish(loaded)
        there = [name for name in os.listdir(self._directory) if not name.startswith("@")]
        known = {record.name for record in loaded}
        odd = any(record.options for record in loaded) or any(name not in known for name in there)
        mounted = mounted_below(self._directory) if odd else set()
        for record in loaded:
            orphan = record.container and record.container not in containers and not self._needed(record.name)
            if record.driver != LOCAL:
                self._volumes[record.name] = record
                if orphan:
                    self._orphans.append(record.name)
            elif not os.path.isdir(f"{self._directory}/{record.name}"):
                log.warning("volume %s has lost its directory and is forgotten", record.name)
                self._records.delete(record.name)
            elif orphan:
                log.info("volume %s goes with container %s", record.name, record.container[:12])
                self._unmount_stray(record.name, mounted)
                self.moves.remove(record.name)
            else:
                self._volumes[record.name] = record
        for name in there:
            if name not in known:
                self._unmount_stray(name, mounted)
                self._take_in(name)
        for name, record in self._volumes.items():
            if record.driver != LOCAL:
                continue
            if name in mounted:
                self._found.add(name)
                continue
            if self.moves.waits(name):
                continue
            os.makedirs(self.path(name), 0o755, exist_ok=True)
            self._filling.resume(self.path(name))

    def _take_in(self, name: str) -> None:
        """Take in a directory without a record, or sweep it."""
        data = self.path(name)
        if self.moves.waits(name):
            return  # its file system could not be mounted: it may hold anything
        if os.path.isdir(data) and os.listdir(data):
            record = VolumeRecord(name, time.time_ns())
            self._records.insert(record)
            self._volumes[name] = record
        else:
            self._store.remove_tree(f"{self._directory}/{name}")

    def _needed(self, name: str) -> bool:
        return bool(self.using(name) or self.holders(name))

    def _unmount_stray(self, name: str, mounted: set[str]) -> None:
        if name in mounted:
            number = unmount_volume(self.path(name))
            if number:
                log.warning("%s stays mounted: %s", self.path(name), os.strerror(number))

    def settle(self) -> None:
        """Unmount and remove what nobody uses: once, when it is known who runs."""
        self._mounts.idle(self._found)
        self._foreign.settle([record for record in self._volumes.values() if record.users])
        for name in self._orphans:
            self._spawn(self._remove_orphan(name))

    async def _remove_orphan(self, name: str) -> None:
        try:
            await self.remove(name, force=True)
        except (KnarrError, OSError) as error:
            log.warning("anonymous volume %s stays: %s", name, error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait a moment for what is being unmounted."""
        await asyncio.gather(self._mounts.close(), self._foreign.close())

    # --- looking

    def path(self, name: str) -> str:
        """Where a local volume's files are, or what it names is mounted."""
        return f"{self._directory}/{name}/_data"

    def place(self, name: str) -> str:
        """Where a volume is on the host, as far as that is known; "" for a plugin's that was not mounted."""
        record = self._volumes.get(name)
        return self.path(name) if record is None or record.driver == LOCAL else self._foreign.place(name)

    def every(self) -> list[VolumeRecord]:
        """Every volume that is recorded, by name."""
        return sorted(self._volumes.values(), key=lambda record: record.name)

    def ours(self) -> list[VolumeRecord]:
        """Those whose files are in directories of ours: nothing that is mounted from elsewhere, no plugin's."""
        return [record for record in self.every() if local.own(record)]

    def known(self, name: str) -> VolumeRecord | None:
        """One volume that is recorded, if there is one."""
        return self._volumes.get(name)

    def get(self, name: str) -> VolumeRecord:
        """One volume that is recorded. Raises NotFound in Docker's words."""
        found = self._volumes.get(name)
        if found is None:
            raise NotFound(f"get {name}: no such volume")
        return found

    def own(self, name: str) -> VolumeRecord:
        """One volume whose files are in a directory of ours. Unsupported for what is mounted from elsewhere."""
        record = self.get(name)
        if record.driver != LOCAL:
            raise Unsupported(f"volume {name} is the plugin {record.driver}'s: its files are not the engine's to copy")
        if not local.own(record):
            raise Unsupported(
                f"volume {name} is what its options ({', '.join(sorted(record.options))}) mount: "
                "its files are not the engine's to copy"
            )
        return record

    def must_be_free(self, name: str) -> None:
        """Raise Conflict where a volume has that name."""
        if name in self._volumes:
            raise Conflict(f"volume {name} exists already: remove it, or choose another name")

    def using(self, name: str) -> list[str]:
        """The containers that mount a volume, those that are being made included."""
        return [*self.mounted_by(name), *self._held.get(name, ())]

    @property
    def drivers(self) -> list[str]:
        """The drivers that are in use, `local` always."""
        return sorted({LOCAL, *self._foreign.plugins.active, *(record.driver for record in self._volumes.values())})

    def shown(self, record: VolumeRecord) -> Shown:
        """A volume as it is shown without asking a plugin."""
        created = "" if record.driver == LOCAL else NEVER
        return Shown(record, self.place(record.name), created=created)

    async def listing(self) -> tuple[list[Shown], list[str]]:
        """Every volume, plugins' included, and warnings of plugins that do not tell."""
        shown = [self.shown(record) for record in self.every() if record.driver == LOCAL]
        names = {found.record.name for found in shown}
        foreign, warnings = await self._foreign.listing(self._volumes)
        shown += [found for found in foreign if found.record.name not in names]
        return sorted(shown, key=lambda found: found.record.name), warnings

    async def inspect(self, name: str) -> Shown:
        """One volume. NotFound in Docker's words, Failed where a plugin does not tell."""
        record = self._volumes.get(name)
        if record is None:
            found = await self._foreign.probe(name)
        elif record.driver == LOCAL:
            return self.shown(record)
        else:
            found = await self._foreign.show(record)
            if found is None:
                async with self._alone(name):
                    await self._purge(record)
        if found is None:
            raise NotFound(f"get {name}: no such volume")
        return found

    # --- making

    async def create(
        self,
        name: str = "",
        *,
        driver: str = "",
        labels: dict[str, str] | None = None,
        options: dict[str, str] | None = None,
        container: str = "",
    ) -> VolumeRecord:
        """Make a volume; one that exists already is given back as it is. Without a name it is anonymous.

        container: one that is being made and goes on to mount it, so that nobody removes it; see `release`. Its
        anonymous volumes go with it.
        """
        anonymous = not name
        if anonymous:
            name, driver, labels = secrets.token_hex(32), driver or LOCAL, {**(labels or {}), ANONYMOUS: ""}
        made = VolumeRecord(name, time.time_ns(), anonymous, dict(labels or {}), dict(options or {}), driver=driver)
        made.container = container if anonymous else ""
        async with self._alone(name):
            try:
                record = await self._known(name, driver)
                if record is None:
                    record = made
                    await self._make(made)
                if container:
                    self._held.setdefault(name, set()).add(container)
            except KnarrError as error:
                raise type(error)(f"create {name}: {error}") from error
        if record is made:
            self.tell("create", record)
        reached("volume.create.answer")
        return record

    async def _known(self, name: str, driver: str) -> VolumeRecord | None:
        """The volume of that name, which another driver may not have."""
        record = self._volumes.get(name)
        if record is None:
            if driver:
                return None
            found = await self._foreign.probe(name)
            if found is not None:
                await self._insert(found.record)
            return found.record if found else None
        if driver not in ("", LOCAL):
            await self._foreign.plugins.get(driver)
        if record.driver != LOCAL and await self._foreign.show(record) is None:
            if self.using(name):
                raise Conflict(
                    f"found references to volume '{name}' in driver '{record.driver}' but the volume was not found in "
                    "the driver -- you may need to remove containers referencing this volume or force remove the "
                    "volume to re-create it: volume name must be unique"
                )
            await self._purge(record)
            return None
        if driver not in ("", record.driver):
            raise Conflict(f"driver '{record.driver}' already has volume '{name}': volume name must be unique")
        return record

    async def _make(self, record: VolumeRecord) -> None:
        record.driver = record.driver or LOCAL
        if record.driver == LOCAL:
            VolumeName(record.name)
            local.check(record.options)
            await asyncio.shield(asyncio.to_thread(self.moves.make, record))
            self._volumes[record.name] = record
            return
        await self._foreign.plugins.get(record.driver)
        await self._insert(record)
        try:
            reached("volume.create.ask")
            await self._foreign.make(record)
        except BaseException:
            await asyncio.shield(self._purge(record))
            raise

    async def _insert(self, record: VolumeRecord) -> None:
        await asyncio.shield(asyncio.to_thread(self._records.insert, record))
        self._volumes[record.name] = record

    async def _purge(self, record: VolumeRecord) -> None:
        """Forget a plugin's volume."""
        if self._volumes.get(record.name) is record:
            await asyncio.shield(asyncio.to_thread(self._records.delete, record.name))
            self._volumes.pop(record.name, None)

    async def adopt_copy(self, record: VolumeRecord, staged: str) -> None:
        """Make a new volume of what is complete at `moves.staging`. Conflict where its name is taken meanwhile."""
        async with self._alone(record.name):
            self.must_be_free(record.name)
            await asyncio.shield(asyncio.to_thread(self.moves.adopt, record, staged))
            self._volumes[record.name] = record
        self.tell("create", record)

    async def replace(self, name: str, staged: str) -> None:
        """Give a volume other files, complete at `moves.staging`; its own are there then."""
        async with self._alone(name):
            self.own(name)
            await asyncio.shield(asyncio.to_thread(self.moves.replace, name, staged))

    async def rename(self, name: str, new: str) -> VolumeRecord:
        """Give a local volume another name. Conflict where a container mounts it, or the name is taken."""
        first, second = sorted((name, new))
        async with self._alone(first), self._alone(second):
            record = self.get(name)
            if record.driver != LOCAL:
                raise Unsupported(f"rename {name}: the plugin {record.driver} knows the volume by that name")
            self.must_be_free(new)
            if users := self.using(name):
                raise Conflict(f"rename {name}: volume is in use - [{', '.join(users)}]")
            if self.holders(new):
                raise Conflict(f"rename {name}: there are snapshots of a volume {new}, which is not there any more")
            if not local.own(record):
                await self._mounts.release(name)
            renamed = replace(record, name=new, was=name, anonymous=False, container="")
            await asyncio.shield(asyncio.to_thread(self.moves.rename, record, renamed))
            del self._volumes[name]
            self._volumes[new] = renamed
        return renamed

    def tell(self, action: str, record: VolumeRecord, **attributes: str) -> None:
        """Tell that something happened to a volume."""
        self._events.emit("volume", action, record.name, {"driver": record.driver, **attributes})

    def release(self, names: Iterable[str], container: str) -> None:
        """A container has been made, or has not: it is what keeps its volumes now."""
        for name in names:
            held = self._held.get(name, set())
            held.discard(container)
            if not held:
                self._held.pop(name, None)

    def bind(self, names: list[str], container: str) -> None:
        """Record that volumes which nobody else mounts go with a container: inside the transaction of its removal."""
        for name in names:
            if name in self._volumes and self.using(name) == [container]:
                self._bind(self._volumes[name], container)

    def unbind(self, names: Iterable[str]) -> None:
        """Record that volumes go with no container: inside the transaction that records one which mounts them."""
        for name in names:
            if name in self._volumes and self._volumes[name].container:
                self._bind(self._volumes[name], "")

    def _bind(self, record: VolumeRecord, container: str) -> None:
        record.container = container or record.container  # in memory: it may be bound, as the transaction may yet fail
        self._records.bind(record, container)

    # --- using

    async def use(self, name: str, user: str) -> Source:
        """What is bound for a mount of a volume, which is there until its user leaves. Failed in Docker's words."""
        record = self.get(name)
        wanted = local.read(record.options) if record.driver == LOCAL else None
        try:
            if record.driver != LOCAL:
                await self._foreign.use(record, user)
                return Source(self._foreign.place(name))
            if isinstance(wanted, local.Bind):
                await self._mounts.look(name, wanted)
                return Source(wanted.device, wanted.recursive, wanted.options)
            if wanted is not None:
                await self._mounts.use(name, wanted, user)
            elif sizes.asked(record.options):
                async with self._alone(name):
                    await asyncio.to_thread(self.moves.attach, name)
        except (Failed, NotFound) as error:
            raise Failed(f"error while mounting volume '{self.place(name) or name}': {error}") from error
        return Source(self.path(name))

    def leave(self, name: str, user: str) -> None:
        """Somebody uses a volume no more; what is mounted for nobody else is unmounted soon."""
        record = self._volumes.get(name)
        if record is not None and record.driver != LOCAL:
            self._foreign.leave(record, user)
        elif record is not None and not local.own(record):
            self._mounts.leave(name, user)

    def adopt(self, name: str, user: str) -> None:
        """A container that runs since before this daemon uses a volume."""
        record = self._volumes.get(name)
        if record is not None and record.driver != LOCAL:
            self._foreign.adopt(record, user)
        elif record is not None and isinstance(local.read(record.options), local.FileSystem):
            self._mounts.adopt(name, user)

    async def fill(self, name: str, lower: list[str], path: str) -> None:
        """Fill an empty volume with what an image has at a path."""
        async with self._alone(name):
            record = self.get(name)
            if local.own(record):
                await asyncio.to_thread(self._filling.fill, self.path(name), lower, path)
            elif await asyncio.to_thread(self._store.has_directory, lower, path):
                user = secrets.token_hex(32)
                source = Source(self.place(name))
                try:
                    source = await self.use(name, user)
                    await self._mounts.call(name, lambda: check_answers(source.path))
                    await apart(lambda: self._filling.fill_within(source.path, lower, path))
                except Failed as error:
                    raise Failed(f"failed to populate volume: {error}") from error
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                        raise
                    raise Failed(f"failed to populate volume: {source.path}: {error.strerror}") from error
                finally:
                    self.leave(name, user)

    # --- removing

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume that no container mounts. With force, one that does not exist is fine."""
        async with self._alone(name):
            record = self._volumes.get(name)
            if record is None:
                found = await self._foreign.probe(name)
                if found is None:
                    if force:
                        return
                    raise NotFound(f"get {name}: no such volume")
                record = found.record
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
            if record.driver != LOCAL:
                await self._remove_foreign(record, force=force)
            else:
                await self._remove_local(record)
        self.tell("destroy", record)
        reached("volume.remove.answer")

    async def _remove_foreign(self, record: VolumeRecord, *, force: bool) -> None:
        try:
            reached("volume.remove.ask")
            await self._foreign.remove(record)
        except NotFound as error:  # the plugin is not there
            if not force:
                raise Failed(f"remove {record.name}: {error}") from error
        except Failed as error:
            if force:
                await self._purge(record)
            raise Failed(f"remove {record.name}: {error}") from error
        reached("volume.remove.forget")
        await self._purge(record)

    async def _remove_local(self, record: VolumeRecord) -> None:
        if not local.own(record):
            await self._mounts.release(record.name)
        del self._volumes[record.name]
        try:
            await asyncio.shield(asyncio.to_thread(self.moves.remove, record.name))
        except Exception:
            self._volumes[record.name] = record
            raise

    async def prune(self, wanted: Callable[[VolumeRecord], bool]) -> tuple[list[str], int]:
        """Remove volumes that no container mounts and that are wanted gone: their names, and the bytes freed.

        Those that are mounted from elsewhere and those of plugins are left alone, as with Docker: they take no room.
        """
        if self._pruning:
            raise Conflict("a prune operation is already running")
        self._pruning = True
        removed, freed = [], 0
        try:
            for record in self.ours():
                if not wanted(record) or self.using(record.name):
                    continue
                size = await self.usage(record.name)
                try:
                    await self.remove(record.name, force=True)
                except Conflict:
                    continue  # it has snapshots, is being copied, or a container took it in between
                removed.append(record.name)
                freed += size
        finally:
            self._pruning = False
        return removed, freed

    async def usage(self, name: str) -> int:
        """Bytes that a volume takes whose files are ours."""
        size, _ = await asyncio.to_thread(self._store.usage, self.path(name))
        return size

    @contextlib.asynccontextmanager
    async def _alone(self, name: str) -> AsyncIterator[None]:
        """Nobody else makes, fills, renames or removes that volume meanwhile."""
        waiting = self._locks.setdefault(name, [])
        lock = waiting[0] if waiting else asyncio.Lock()
        waiting.append(lock)
        try:
            async with lock:
                yield
        finally:
            waiting.pop()
            if not waiting:
                del self._locks[name]
