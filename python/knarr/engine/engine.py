"""The engine: the one place where the parts meet.

Order of a start: the locks of both roots (a second daemon is refused), the database, the records in memory,
sweeping, the supervisor and what it knows, and then what restart policies ask for.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from knarr._core import Store, __version__
from knarr.engine.containers import logs
from knarr.engine.containers.container import Context
from knarr.engine.containers.containers import Containers
from knarr.engine.containers.seccomp import Profiles
from knarr.engine.containers.states import States
from knarr.engine.disk import Disk
from knarr.engine.events import Events
from knarr.engine.images.images import Images
from knarr.engine.networks.networks import Networks
from knarr.engine.supervisor import Supervisor
from knarr.engine.volumes import sizes
from knarr.engine.volumes.copies import Copies
from knarr.engine.volumes.volumes import Volumes
from knarr.errors import Conflict, InvalidArgument, Unavailable
from knarr.store import containers as records
from knarr.store.database import Database

if TYPE_CHECKING:
    from knarr.config import Config

__all__ = ["Engine"]

log = logging.getLogger("knarr.engine")

CHECKPOINT_BYTES = 4 * 1024 * 1024  # of write-ahead log
CHECKPOINT_SECONDS = 5.0


class Engine:
    """One engine: a pair of roots, and everything in them. Made and used in the event loop.

    open_files: the limit of open files that containers get which do not name one.
    """

    def __init__(self, config: Config, open_files: int) -> None:
        self.config = config
        self.version = __version__
        self._locks = contextlib.ExitStack()
        self._lock_roots()
        self.database = Database(f"{config.data_root}/state.db")
        self.store = Store(config.data_root)
        self.events = Events()
        self.supervisor = Supervisor(
            config.run_root, config.data_root, self._event, self._connected, open_files=open_files
        )
        self.networks = Networks(config, self.database, self.supervisor, self.events)
        self.volumes = Volumes(config, self.database, self.store, self.events)
        self.images = Images(
            self.database,
            self.store,
            self.events,
            config,
            in_use=lambda image_id: self.containers.using_image(image_id),  # noqa: PLW0108  not there yet
            running=lambda container_id: self.containers.is_running(container_id),  # noqa: PLW0108
        )
        container_records = records.Containers(self.database)
        self.containers = Containers(
            Context(
                config=config,
                records=container_records,
                states=States(container_records),
                store=self.store,
                events=self.events,
                supervisor=self.supervisor,
                images=self.images,
                networks=self.networks,
                volumes=self.volumes,
                profiles=Profiles(config.run_root),
            )
        )
        self.volumes.mounted_by = self.containers.using_volume
        self.networks.using = self.containers.on_network
        self.copies = Copies(config.data_root, self.store, self.volumes)
        self.copies.still = self.containers.still
        self.copies.running = self.containers.running_with_volume
        self.volumes.holders = self.copies.holders
        self.disk = Disk(self.containers, self.images, self.volumes)
        self._tasks: set[asyncio.Task[None]] = set()

    def _lock_roots(self) -> None:
        config = self.config
        for root, name in ((config.data_root, "lock"), (config.run_root, "daemon.lock")):
            try:
                os.makedirs(root, 0o711, exist_ok=True)
                descriptor = os.open(f"{root}/{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                self._locks.close()
                raise Unavailable(f"{root}: cannot be used as a root of the engine: {error.strerror}") from error
            self._locks.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._locks.close()
                raise Conflict(
                    f"another knarr daemon runs on {root} (it holds {root}/{name}): stop it first, "
                    "or give this one roots of its own (--data-root, --run-root)"
                ) from None

    async def open(self) -> None:
        """Bring everything up. Raises KnarrError that says what is in the way."""
        try:
            logs.check({"Type": self.config.log_driver, "Config": self.config.log_opts})
        except InvalidArgument as error:
            raise InvalidArgument(f"failed to set log opts: {error}") from error
        self.events.bind(asyncio.get_running_loop())
        self.networks.load()
        await asyncio.to_thread(self._prepare)
        await self.supervisor.open()
        self.volumes.settle()
        await self.images.start()
        self.containers.resume()
        self.containers.balancing.follow()
        self._spawn(self._checkpoints())

    def _prepare(self) -> None:
        """Work on the disk that comes before the rest."""
        leftovers = f"{self.config.data_root}/tmp"  # noqa: S108  ours alone
        os.makedirs(leftovers, 0o700, exist_ok=True)
        for name in os.listdir(leftovers):
            try:
                sizes.discard(self.store, f"{leftovers}/{name}")
            except Conflict as error:  # somebody has mounted something in what was a volume
                log.warning("%s", error)
        self.containers.load()
        self.volumes.load({container.record.id for container in self.containers.all()})

    async def _connected(self, _: dict[str, Any]) -> None:
        """A supervisor was reached, for the first time or again."""
        await self.containers.reconcile(await self.supervisor.listed())

    def _event(self, event: dict[str, Any]) -> None:
        self.containers.event(event)

    async def _checkpoints(self) -> None:
        while True:
            await asyncio.sleep(CHECKPOINT_SECONDS)
            if self.database.wal_size() > CHECKPOINT_BYTES:
                await asyncio.to_thread(self.database.checkpoint)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Go away in order. Containers run on."""
        for task in list(self._tasks):
            task.cancel()
        await self.images.close()
        await self.containers.close()
        await self.volumes.close()
        await self.supervisor.close()
        await asyncio.to_thread(self.database.checkpoint)
        self.database.close()
        self._locks.close()

    def facts(self) -> dict[str, Any]:
        """What `GET /info` tells of the engine itself."""
        states = [container.record.state.status for container in self.containers.all()]
        return {
            "Containers": len(states),
            "ContainersRunning": states.count("running") + states.count("restarting"),
            "ContainersPaused": states.count("paused"),
            "ContainersStopped": len(states) - sum(states.count(name) for name in ("running", "restarting", "paused")),
            "NFd": len(os.listdir("/proc/self/fd")),
            "NGoroutines": len(asyncio.all_tasks()),
            "NEventsListener": self.events.listeners,
            "Python": sys.version.split()[0],
        }
