"""Health checks: a probe is an exec whose exit code says how a container does.

Each container that runs, is not paused and has a check has a monitor, a task that sleeps, probes and sleeps again. What
it finds is part of the container's state and stored with it, so that a daemon that is killed goes on where it was: the
ID of a probe under way is stored before it is started, and the next daemon ends it.

The rules are Docker's: intervals run from the end of a probe to the start of the next; failures within the start period
do not count until the first success; a container without a monitor is unhealthy until it is probed again.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from typing import TYPE_CHECKING

from knarr.engine.containers.execs import Streams
from knarr.engine.containers.healthcheck import command
from knarr.engine.supervisor import SupervisorLost
from knarr.errors import KnarrError, NotFound, Unavailable

if TYPE_CHECKING:
    from knarr.engine.containers.container import Container, Context
    from knarr.engine.containers.execs import Exec, Execs
    from knarr.store.containers import Health, Healthcheck, ProbeResult

__all__ = ["Monitors"]

log = logging.getLogger("knarr.containers")

SECOND = 1_000_000_000  # ns, as all times of a health check are
INTERVAL, TIMEOUT, START_PERIOD, START_INTERVAL = 30 * SECOND, 30 * SECOND, 0, 5 * SECOND
RETRIES = 3
KEPT = 5  # results
OUTPUT = 4096  # bytes of a probe's output that are kept
STARTING = 30.0  # seconds that a probe's start may take
DRAINING = 2.0  # seconds that the last of its output may take after its end


class Monitors:
    """The monitors of an engine's containers. Belongs to the event loop."""

    def __init__(self, context: Context, execs: Execs) -> None:
        self._context = context
        self._execs = execs
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def started(self, container: Container) -> None:
        """It has just started: everything begins anew, but for the log."""
        self._stop(container)
        config, state = container.record.config, container.record.state
        if command(config):
            kept = state.health["log"] if state.health else []
            state.health = {"status": "starting", "failing_streak": 0, "log": kept, "probe": ""}
            self.resumed(container)

    def ended(self, container: Container) -> None:
        """It does not run any more."""
        self._stop(container)

    async def paused(self, container: Container) -> None:
        """It is about to be paused: a probe under way is ended first, as none can end in a frozen container."""
        task = self._stop(container)
        if task is not None:
            await asyncio.wait({task})

    def resumed(self, container: Container) -> None:
        """Go on probing."""
        state = container.record.state
        if state.health is not None and state.status != "paused" and container.record.id not in self._tasks:
            task = asyncio.get_running_loop().create_task(self._monitor(container, state.health))
            self._tasks[container.record.id] = task

    def adopt(self, container: Container) -> None:
        """It has been running since before this daemon did."""
        self.resumed(container)

    def _stop(self, container: Container) -> asyncio.Task[None] | None:
        task = self._tasks.pop(container.record.id, None)
        if task is not None:
            task.cancel()
            assert container.record.state.health is not None  # or it would have no monitor
            container.record.state.health["status"] = "unhealthy"
        return task

    async def _monitor(self, container: Container, health: Health) -> None:
        try:
            if health["probe"]:
                await self._kill(container, health["probe"])
            while True:
                await asyncio.sleep(_pause(container, health) / SECOND)
                result = await self._probe(container, health)
                if self._tasks.get(container.record.id) is not asyncio.current_task():
                    return  # cancelled in the very moment that the probe came to its end
                if result is not None:
                    self._take(container, health, result)
        except Exception:
            log.exception("the health of container %s is not checked any more", container.record.id[:12])

    async def _probe(self, container: Container, health: Health) -> ProbeResult | None:
        """What came of one probe; None where the supervisor died over it, which says nothing of the container."""
        begun = time.time_ns()
        try:
            code, output = await self._run(container, health)
        except SupervisorLost:
            return None
        except (KnarrError, OSError) as error:
            log.info("a health check of container %s could not be run: %s", container.record.id[:12], error)
            code, output = -1, str(error)
        return {"start_ns": begun, "end_ns": time.time_ns(), "exit_code": code, "output": output}

    async def _run(self, container: Container, health: Health) -> tuple[int, str]:
        """Run one probe: (exit code or -1, output)."""
        config = container.record.config
        made = self._execs.create(
            container,
            command=command(config),
            env=None,
            user=config["User"],
            working_dir=config["WorkingDir"],
            tty=False,
            stdin=False,
            stdout=True,
            stderr=True,
            privileged=False,
            detach_keys="",
            console_size=[],
        )
        health["probe"] = made.id
        self._context.states.store(container.record, at="container.health.probe")
        output, over = _Output(), False
        try:
            await self._start(made, output)
            limit = (config["Healthcheck"] or {}).get("Timeout") or TIMEOUT
            try:
                await asyncio.wait_for(made.done.wait(), limit / SECOND)
            except asyncio.TimeoutError:
                text = f"Health check exceeded timeout ({_spoken(limit)})"
                return -1, f"{text}: {output.text()}" if output.text() else text
            over = True
            await output.drained(DRAINING)
            return -1 if made.exit_code is None else made.exit_code, output.text()
        finally:
            if not over:
                await self._kill(container, made.id)
            output.close()
            self._execs.drop(made)
            health["probe"] = ""

    async def _start(self, made: Exec, output: _Output) -> None:
        try:
            with output.other_end() as theirs:
                streams = Streams(theirs.fileno(), False, True, True, False, [], "")
                await asyncio.wait_for(self._execs.start(made, streams, None), STARTING)
        except asyncio.TimeoutError:
            raise Unavailable(f"timed out starting health check for container {made.container_id}") from None
        output.collect()

    async def _kill(self, container: Container, exec_id: str) -> None:
        """End a probe with what it has started."""
        try:
            await self._context.supervisor.call(
                "signal", container=container.record.id, exec=exec_id, signal=9, group=True
            )
        except (NotFound, SupervisorLost) as error:
            log.debug("a health check that was to be ended: %s", error)

    def _take(self, container: Container, health: Health, result: ProbeResult) -> None:
        """Note what a probe found, and tell of a change."""
        wanted = container.record.config["Healthcheck"] or {}
        before = health["status"]
        health["log"] = [*health["log"], result][-KEPT:]
        if result["exit_code"] == 0:
            health["failing_streak"], health["status"] = 0, "healthy"
        elif before != "starting" or result["start_ns"] - container.record.state.started_ns >= _start_period(wanted):
            health["failing_streak"] += 1
            if health["failing_streak"] >= (wanted.get("Retries") or RETRIES):
                health["status"] = "unhealthy"
        self._context.states.store(container.record, at="container.health.record")
        if health["status"] != before:
            self._context.announce(container, f"health_status: {health['status']}")

    async def close(self) -> None:
        """Stop; probes under way are ended."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=10)


def _start_period(wanted: Healthcheck) -> int:
    return wanted.get("StartPeriod") or START_PERIOD


def _pause(container: Container, health: Health) -> int:
    """Until the next probe, ns: within the start period at other intervals, and never beyond its end."""
    wanted = container.record.config["Healthcheck"] or {}
    left = container.record.state.started_ns + _start_period(wanted) - time.time_ns()
    if left > 0 and health["status"] == "starting":
        return min(wanted.get("StartInterval") or START_INTERVAL, left)
    return wanted.get("Interval") or INTERVAL


class _Output:
    """What a probe writes, to either of its outputs: the first OUTPUT bytes."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._data = bytearray()
        self._cut = False
        self._reader: asyncio.Task[None] | None = None

    def other_end(self) -> socket.socket:
        """The end for the supervisor, to be closed once it has it."""
        return self._theirs

    def collect(self) -> None:
        """Read until the end, or until there is more than is kept: then nobody listens any more."""
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while piece := await loop.sock_recv(self._ours, OUTPUT):
                self._data += piece
                if len(self._data) > OUTPUT:
                    del self._data[OUTPUT:]
                    self._cut = True
                    break
        except OSError as error:
            log.debug("a health check's output ended: %s", error)
        self._ours.close()

    async def drained(self, timeout: float) -> None:
        """Wait for the end of the output."""
        if self._reader is not None:
            await asyncio.wait({self._reader}, timeout=timeout)

    def text(self) -> str:
        """What has come so far."""
        return self._data.decode(errors="replace") + ("..." if self._cut else "")

    def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
        self._theirs.close()
        self._ours.close()


def _spoken(ns: int) -> str:
    """A duration in Go's words: 500ms, 1s, 1m30s."""
    if ns < SECOND:
        return f"{ns / 1_000_000:g}ms"
    minutes, seconds = divmod(ns / SECOND, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{seconds:g}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text
