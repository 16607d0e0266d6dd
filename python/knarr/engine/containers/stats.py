"""What containers use, once a second for everybody who follows it.

One round measures each container that somebody waits for, whatever the number of those who wait; where nobody does
nothing is read. A client that does not read its stream does not wait, and so costs nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from knarr.errors import KnarrError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from knarr.engine.containers.container import Container
    from knarr.engine.supervisor import Supervisor

__all__ = ["Sample", "Sampler"]

log = logging.getLogger("knarr.containers")

INTERVAL = 1.0  # seconds between rounds
BATCH = 64  # containers of one request: their IDs fit into a packet


@dataclass(slots=True)
class Sample:
    """What a container used at one time."""

    number: int
    usage: dict[str, Any] | None  # the supervisor's `stats`; None of a container that does not run
    system: dict[str, int]  # of the host: `cpu` (ns of all processors since its start) and `online` processors
    bodies: dict[int, bytes] = field(default_factory=dict)  # as answers have it, by the number of the sample before


class Sampler:
    """Measures containers. Belongs to the event loop."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._waiting: dict[str, list[asyncio.Future[Sample]]] = {}
        self._running: dict[str, bool] = {}
        self._numbers = itertools.count(1)
        self._rounds: asyncio.Task[None] | None = None

    async def now(self, container: Container) -> Sample:
        """Measure a container at once. Raises Unavailable where no supervisor is."""
        identity = container.record.id
        found, system = await self._measure([identity] if container.record.state.running else [])
        return Sample(next(self._numbers), found.get(identity), system)

    async def follow(self, container: Container) -> AsyncIterator[Sample]:
        """Its samples, one a second, until it is removed."""
        while not container.removing:
            sample = await self._next(container)
            if not container.removing:
                yield sample

    async def _next(self, container: Container) -> Sample:
        future: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()
        identity = container.record.id
        self._waiting.setdefault(identity, []).append(future)
        self._running[identity] = container.record.state.running
        if self._rounds is None:
            self._rounds = asyncio.get_running_loop().create_task(self._go_round())
        return await future

    async def _go_round(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            due = loop.time() + INTERVAL
            waiting, self._waiting = self._waiting, {}
            running, self._running = self._running, {}
            found: dict[str, Any] = {}
            system: dict[str, int] = {}
            try:
                found, system = await self._measure([identity for identity in waiting if running[identity]])
            except KnarrError as error:  # those who wait are told that nothing is known, and the next round asks again
                log.warning("containers were not measured: %s", error)
            for identity, futures in waiting.items():
                sample = Sample(next(self._numbers), found.get(identity), system)
                for future in futures:
                    if not future.done():
                        future.set_result(sample)
            await asyncio.sleep(due - loop.time())
        self._rounds = None

    async def _measure(self, identities: list[str]) -> tuple[dict[str, Any], dict[str, int]]:
        found: dict[str, Any] = {}
        system: dict[str, int] = {}
        left = identities
        while left:
            answer = await self._supervisor.call("stats", containers=left[:BATCH])
            found |= answer["stats"]
            system = answer["system"]
            left = answer["rest"] + left[BATCH:]
        return found, system

    def close(self) -> None:
        """Stop measuring."""
        if self._rounds is not None:
            self._rounds.cancel()
