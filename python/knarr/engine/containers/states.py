"""Storing what becomes of containers.

What a state tells has happened already: no full disk can undo it. So where a state cannot be stored it stays in
memory and is stored later; an exit is forgotten by the supervisor only then, and the container starts
again only then. A daemon that is killed meanwhile hears of it from the supervisor.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from knarr.errors import KnarrError
from knarr.failpoints import reached

if TYPE_CHECKING:
    from collections.abc import Callable

    from knarr.store.containers import ContainerRecord, Containers

__all__ = ["States"]

log = logging.getLogger("knarr.containers")

AGAIN = 0.25  # seconds between attempts


class States:
    """The states of containers on their way into the records. Belongs to the event loop."""

    def __init__(self, records: Containers) -> None:
        self._records = records
        self._waiting: dict[str, tuple[ContainerRecord, Callable[[], None] | None]] = {}
        self._task: asyncio.Task[None] | None = None

    def store(self, record: ContainerRecord, *, at: str, then: Callable[[], None] | None = None) -> None:
        """Store a state now or, where the disk refuses it, later; `then` is called once it is stored.

        at: the fail point before it.
        """
        _, waiting = self._waiting.pop(record.id, (record, None))
        then = then or waiting
        try:
            reached(at)
            self._records.update_state(record)
        except (KnarrError, OSError) as error:
            log.warning("the state of container %s is stored later: %s", record.id[:12], error)
            self._waiting[record.id] = record, then
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._later())
        else:
            if then is not None:
                then()

    def settle(self, record: ContainerRecord) -> None:
        """Store what waits of a container. Raises Unavailable where the disk refuses it still."""
        if record.id in self._waiting:
            self._records.update_state(record)
            _, then = self._waiting.pop(record.id)
            if then is not None:
                then()

    def forget(self, container_id: str) -> None:
        """A container's record has gone."""
        self._waiting.pop(container_id, None)

    async def _later(self) -> None:
        while self._waiting:
            await asyncio.sleep(AGAIN)
            self._settle_all()
        self._task = None

    def _settle_all(self) -> None:
        for record, _ in list(self._waiting.values()):
            try:
                self.settle(record)
            except KnarrError as error:
                log.debug("the state of container %s: %s", record.id[:12], error)

    def close(self) -> None:
        """Try once more."""
        if self._task is not None:
            self._task.cancel()
        self._settle_all()
