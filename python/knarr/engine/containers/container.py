"""One container in memory: its record, its lock, and who waits for what."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knarr.errors import Conflict, Failed

if TYPE_CHECKING:
    from knarr._core import Store
    from knarr.config import Config
    from knarr.engine.containers.seccomp import Profiles
    from knarr.engine.containers.states import States
    from knarr.engine.events import Events
    from knarr.engine.images.images import Images
    from knarr.engine.networks.networks import Networks
    from knarr.engine.supervisor import Supervisor
    from knarr.engine.volumes.volumes import Volumes
    from knarr.store import containers as records
    from knarr.store.containers import ContainerRecord

__all__ = ["Container", "Context", "Exit", "Failed"]


@dataclass(slots=True)
class Context:
    """The parts of the engine that containers are made with."""

    config: Config
    records: records.Containers
    states: States
    store: Store
    events: Events
    supervisor: Supervisor
    images: Images
    networks: Networks
    volumes: Volumes
    profiles: Profiles

    def directory(self, container_id: str) -> str:
        """A container's own directory on the disk."""
        return f"{self.config.data_root}/containers/{container_id}"

    def bundle(self, container_id: str) -> str:
        """A container's directory that a reboot may lose."""
        return f"{self.config.run_root}/containers/{container_id}"

    def announce(self, container: Container, action: str, **attributes: str) -> None:
        """Emit an event of a container, with its image, name and labels."""
        record = container.record
        self.events.emit(
            "container",
            action,
            record.id,
            {**attributes, **(record.config["Labels"] or {}), "image": record.config["Image"], "name": record.name},
        )


@dataclass(frozen=True, slots=True)
class Exit:
    """How a container ended, for those who wait."""

    code: int
    error: str = ""


class Container:
    """A container. Belongs to the event loop; see the package's docstring for the lock."""

    __slots__ = (
        "backoff",
        "execs",
        "exit_waiters",
        "lock",
        "record",
        "removal_waiters",
        "removing",
        "restarting",
        "timer",
        "writes",
    )

    def __init__(self, record: ContainerRecord) -> None:
        self.record = record
        self.lock = asyncio.Lock()
        self.exit_waiters: list[asyncio.Future[Exit]] = []
        self.removal_waiters: list[asyncio.Future[Exit]] = []
        self.removing = False
        self.restarting = False  # by hand: its end is no reason for policies or --rm to act
        self.backoff = 0.0  # seconds before the next restart by policy
        self.timer: asyncio.Task[None] | None = None  # of that restart
        self.execs: set[str] = set()
        self.writes: set[asyncio.Future[None]] = (
            set()
        )  # archives on their way in, begun while it ran: no start before their end

    def next_exit(self) -> asyncio.Future[Exit]:
        """A future of its next end."""
        future: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.exit_waiters.append(future)
        return future

    def removal(self) -> asyncio.Future[Exit]:
        """A future of its removal."""
        future: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.removal_waiters.append(future)
        return future

    def ended(self) -> None:
        """Tell those who wait for its end."""
        waiters, self.exit_waiters = self.exit_waiters, []
        _settle(waiters, Exit(self.record.state.exit_code, self.record.state.error))

    def removed(self) -> None:
        """Tell those who wait for its removal, or for an end that will not come."""
        waiters = self.exit_waiters + self.removal_waiters
        self.exit_waiters, self.removal_waiters = [], []
        _settle(waiters, Exit(self.record.state.exit_code, self.record.state.error))

    def must_run(self) -> None:
        """Raise Conflict in Docker's words unless it runs, and is not paused."""
        state = self.record.state
        if state.status == "paused":
            raise Conflict(f"Container {self.record.name} is paused, unpause the container before exec")
        if not state.running:
            raise Conflict(f"container {self.record.id} is not running")


def _settle(waiters: list[asyncio.Future[Exit]], result: Exit) -> None:
    for future in waiters:
        if not future.done():
            future.set_result(result)
