"""Starting, stopping, and what follows when a container ends.

A start holds the container's lock from the first file to the stored record, and so does the storing of an
end: an exit that is announced while its start is still being stored waits its turn.
An exit is forgotten by the supervisor only after it has been stored.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from knarr.engine.containers import connect, endpoints, launch, mounting, published, signals, update
from knarr.engine.supervisor import NotExecutable, SupervisorLost
from knarr.errors import Conflict, Failed, KnarrError, NotFound, NotModified, Unavailable
from knarr.failpoints import reached

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from knarr.engine.containers.balancing import Balancing
    from knarr.engine.containers.container import Container, Context, Exit
    from knarr.engine.containers.health import Monitors
    from knarr.engine.containers.links import Links
    from knarr.store.containers import ContainerRecord

__all__ = ["Lifecycle"]

log = logging.getLogger("knarr.containers")

STOP_TIMEOUT = 10  # seconds between the stop signal and SIGKILL
KILL_TIMEOUT = 30.0  # seconds that an end by SIGKILL may take
BACKOFF_FIRST, BACKOFF_LAST = 0.1, 60.0  # seconds between restarts by policy
STEADY = 10.0  # seconds of running after which the back-off begins anew
UNKNOWN = "exit code unknown: nobody was there to be told it"
_ENDING = {2, 3, 9, 15}  # signals by which people end a program


class Lifecycle:
    """What happens to containers over time."""

    def __init__(
        self,
        context: Context,
        find: Callable[[str], Container],
        remove: Callable[[Container], Awaitable[None]],
        health: Monitors,
        links: Links,
        balancing: Balancing,
    ) -> None:
        self._context = context
        self._find = find
        self._remove = remove
        self._health = health
        self._links = links
        self._balancing = balancing
        self._tasks: set[asyncio.Task[None]] = set()

    # --- starting

    async def start(self, container: Container) -> None:
        """Start a container. NotModified where it runs already."""
        async with container.lock:
            self._may_start(container)
            self._begin_anew(container)
            await self._start(container)

    def _begin_anew(self, container: Container) -> None:
        """Forget what its restart policy has done so far: somebody wants it to run."""
        self._cancel_restart(container)
        container.backoff = 0.0
        container.record.state.restart_count = 0
        container.record.state.manually_stopped = False

    def _may_start(self, container: Container) -> None:
        if container.removing:
            raise Conflict("container is marked for removal and cannot be started")
        status = container.record.state.status
        if status == "paused":
            raise Conflict("cannot start a paused container, try unpause instead")
        if status == "running":
            raise NotModified(f"container {container.record.id} is already running")

    async def _start(self, container: Container) -> None:
        """Start it, with its lock held; after whoever copies one of its volumes."""
        volumes = {point["name"] for point in container.record.mounts if point["type"] == "volume"}
        async with self._context.volumes.claims.shared(volumes):
            await self._start_now(container)

    async def _start_now(self, container: Container) -> None:
        context, record = self._context, container.record
        if container.writes:
            await asyncio.wait(container.writes)
        context.states.settle(record)
        try:
            self._join_networks(record)
            sources = await mounting.use(context, record)
            try:
                reached("container.start.bundle")
                await launch.bundle(context, record, self._find, self._links, sources)
                fields = await launch.start_fields(context, record, self._find)
                answer = await self._ask_to_start(record.id, fields)
            except BaseException:
                mounting.leave(context, record)
                raise
        except BaseException as error:
            self._leave_networks(container)
            if isinstance(error, Exception):
                self._start_failed(container, error)
            raise
        self._started(record, answer)
        self._health.started(container)
        context.states.store(record, at="container.start.record")
        self._announce_networks(container, "connect")
        mounting.announce(context, record, "mount")
        for linking in self._links.linking(record.id):
            launch.write_hosts(context, linking, self._links)
        context.announce(container, "start")
        reached("container.start.answer")

    def _join_networks(self, record: ContainerRecord) -> None:
        for endpoint in record.state.networks.values():
            endpoint.pop("interface", None)
            endpoint.pop("pending", None)
            try:
                self._context.networks.join(endpoint)
            except KnarrError as error:
                raise type(error)(f"failed to set up container networking: {error}") from error
        for _, endpoint in endpoints.in_order(record):
            endpoints.add_interface(record, endpoint)

    async def _ask_to_start(self, container_id: str, fields: dict[str, Any]) -> dict[str, Any]:
        supervisor = self._context.supervisor
        reached("container.start.ask")
        try:
            return await supervisor.call("start", **fields)
        except SupervisorLost as lost:
            # It died over this: the next one knows whether the container came to be.
            await supervisor.ready()
            try:
                return await supervisor.call("describe", container=container_id)
            except NotFound:
                raise lost from None

    def _start_failed(self, container: Container, error: Exception) -> None:
        state = container.record.state
        state.exit_code = error.exit_code if isinstance(error, NotExecutable) else 128
        state.error = str(error)
        if state.status == "restarting":
            state.status = "exited"
        self._context.states.store(container.record, at="container.fail.record")
        log.info("container %s did not start: %s", container.record.id[:12], error)
        if container.record.host["AutoRemove"]:
            self._spawn(self._remove(container))

    # --- stopping

    async def stop(self, container: Container, signal: str = "", timeout: int | None = None) -> None:
        """Send the stop signal, and SIGKILL after the timeout (seconds; below 0: never).

        NotModified where it does not run.
        """
        state = container.record.state
        restarting = state.status == "restarting"
        if restarting:
            async with container.lock:  # with which it may have been started just now
                self._give_up_restarting(container)
        if state.running:
            await self._end(container, signal, timeout)
        elif not restarting:
            raise NotModified(f"container {container.record.id} is already stopped")
        self._context.announce(container, "stop")
        reached("container.stop.answer")

    async def restart(self, container: Container, signal: str = "", timeout: int | None = None) -> None:
        """Stop it where it runs, then start it."""
        container.restarting = True
        try:
            if container.record.state.running:
                await self._end(container, signal, timeout)
                self._context.announce(container, "stop")
        finally:
            container.restarting = False
        async with container.lock:
            self._begin_anew(container)
            if not container.record.state.running:
                self._may_start(container)
                await self._start(container)
        self._context.announce(container, "restart")

    async def _end(self, container: Container, signal: str, timeout: int | None) -> None:
        config = container.record.config
        number = signals.number(signal or config["StopSignal"] or "SIGTERM")
        if timeout is None:
            timeout = config["StopTimeout"] if config["StopTimeout"] is not None else STOP_TIMEOUT
        self._stopped_by_hand(container)
        ended = container.next_exit()
        paused = container.record.state.status == "paused"
        await self._balancing.leave(container)
        try:
            reached("container.stop.signal")
            await self._signal(container, number)
            if paused:
                await self._thaw(container)
            await asyncio.wait_for(asyncio.shield(ended), None if timeout < 0 else timeout)
        except asyncio.TimeoutError:
            await self._kill(container, ended)
        except NotFound:
            await self._wait_for_end(container, ended)

    async def kill(self, container: Container, signal: str = "") -> None:
        """Send a signal; SIGKILL by default, whose effect is waited for."""
        number = signals.number(signal or "SIGKILL")
        record = container.record
        if not record.state.running:
            raise Conflict(f"container {record.id} is not running")
        stop = record.config["StopSignal"]
        if number in _ENDING or (stop and number == signals.number(stop)):
            self._stopped_by_hand(container)
        try:
            if number == 9:
                await self._kill(container, container.next_exit())
            else:
                await self._signal(container, number)
        except NotFound:
            raise Conflict(f"container {record.id} is not running") from None

    async def _kill(self, container: Container, ended: asyncio.Future[Exit]) -> None:
        try:  # the supervisor thaws what it kills
            reached("container.kill.signal")
            await self._signal(container, 9)
        except NotFound:
            log.debug("container %s ended before SIGKILL", container.record.id)
        await self._wait_for_end(container, ended)

    async def _wait_for_end(self, container: Container, ended: asyncio.Future[Exit]) -> None:
        try:
            await asyncio.wait_for(asyncio.shield(ended), KILL_TIMEOUT)
        except asyncio.TimeoutError:
            raise Conflict(
                f"container {container.record.id} did not end within {KILL_TIMEOUT:.0f} s of SIGKILL: "
                f"process {container.record.state.pid} is stuck in the kernel"
            ) from None

    async def kill_and_wait(self, container: Container) -> None:
        """Make sure that it does not run: for removals by force."""
        self._stopped_by_hand(container)
        async with container.lock:
            self._give_up_restarting(container)
        if container.record.state.running:
            await self._kill(container, container.next_exit())

    async def _signal(self, container: Container, number: int) -> None:
        supervisor = self._context.supervisor
        try:
            await supervisor.call("signal", container=container.record.id, signal=number)
        except SupervisorLost:  # once more, of the next one: a signal that comes twice does no harm here
            await supervisor.call("signal", container=container.record.id, signal=number)
        self._context.announce(container, "kill", signal=str(number))

    def _stopped_by_hand(self, container: Container) -> None:
        if not container.record.state.manually_stopped:
            container.record.state.manually_stopped = True
            if container.record.host["RestartPolicy"].get("Name") not in (None, "", "no"):
                self._context.states.store(container.record, at="container.stop.record")

    # --- pausing

    async def pause(self, container: Container, *, passing: bool = False) -> None:
        """Freeze it; `passing`: for as long as something lasts that ends with this daemon."""
        async with container.lock:
            record = container.record
            if record.state.status == "paused":
                raise Conflict(f"container {record.id} is already paused")
            if record.state.status == "restarting":
                raise Conflict(f"container {record.id} is restarting, wait until the container is running")
            if not record.state.running:
                raise Conflict(f"container {record.id} is not running")
            await self._health.paused(container)
            if not passing:
                await self._balancing.leave(container)
            try:
                record.state.pause_passes = passing
                if passing:
                    reached("container.freeze.record")
                    self._context.records.update_state(record)
                reached("container.pause.ask")
                await self._context.supervisor.call("pause", container=record.id)
            except BaseException as error:
                self._health.resumed(container)
                await self._balancing.stay(container)
                if isinstance(error, NotFound):
                    raise Conflict(f"container {record.id} is not running") from None
                raise
            record.state.status = "paused"
            self._context.states.store(record, at="container.pause.record")
        self._context.announce(container, "pause")
        reached("container.pause.answer")

    async def unpause(self, container: Container) -> None:
        """Thaw it."""
        if container.record.state.status != "paused":
            raise Failed(f"Container {container.record.id} is not paused")
        try:
            await self._thaw(container)
        except NotFound:
            raise Failed(f"Container {container.record.id} is not paused") from None
        self._context.announce(container, "unpause")
        reached("container.unpause.answer")

    async def _thaw(self, container: Container) -> None:
        async with container.lock:
            record = container.record
            if record.state.status != "paused":
                return
            reached("container.unpause.ask")
            await self._context.supervisor.call("unpause", container=record.id)
            record.state.status, record.state.pause_passes = "running", False
            self._health.resumed(container)
            self._context.states.store(record, at="container.unpause.record")

    # --- ends

    def exited(self, container: Container, event: dict[str, Any]) -> None:
        """An exit was announced."""
        self._spawn(self._exited(container, event))

    async def _exited(self, container: Container, event: dict[str, Any]) -> None:
        async with container.lock:
            state = container.record.state
            if state.finished_ns == event["finished_at"] and not state.running:
                self._context.supervisor.tell("forget", container=container.record.id)
                return
            error = "" if event["known"] else event.get("error") or UNKNOWN
            self._store_exit(container, event["code"], error, event["finished_at"], oom=bool(event.get("oom")))
            remove = self._after_exit(container)
        if remove:
            await self._remove(container)

    def _store_exit(self, container: Container, code: int, error: str, finished_ns: int, *, oom: bool = False) -> None:
        """Write down how it ended, with its lock held."""
        state = container.record.state
        state.status, state.pid, state.exit_code, state.error = "exited", 0, code, error
        state.oom_killed, state.finished_ns = oom, finished_ns
        state.ports = []
        self._health.ended(container)
        self._leave_networks(container)
        mounting.leave(self._context, container.record)
        self._context.states.store(
            container.record, at="container.exit.record", then=lambda: self._stored(container.record.id)
        )
        if oom:
            self._context.announce(container, "oom")
        self._announce_networks(container, "disconnect")
        mounting.announce(self._context, container.record, "unmount")
        duration = max(0, finished_ns - state.started_ns) // 1_000_000_000
        self._context.announce(container, "die", exitCode=str(code), execDuration=str(duration))

    def _stored(self, container_id: str) -> None:
        reached("container.exit.forget")
        self._context.supervisor.tell("forget", container=container_id)

    def _after_exit(self, container: Container) -> bool:
        """Restart it, or say whether it is to be removed. Waiters learn of the end here."""
        if not container.restarting and self.wants_restart(container):
            self._schedule_restart(container)
            container.ended()  # whoever waits for an end has seen one, as with Docker
            return False
        container.ended()
        return container.record.host["AutoRemove"] and not container.restarting and not container.removing

    def wants_restart(self, container: Container, *, daemon_start: bool = False) -> bool:
        """Whether its policy asks for it to run again."""
        if container.removing:
            return False
        record, state = container.record, container.record.state
        policy = record.host["RestartPolicy"].get("Name") or "no"
        if policy == "always":
            return daemon_start or not state.manually_stopped
        if state.manually_stopped:
            return False
        if policy == "unless-stopped":
            return True
        if policy == "on-failure":
            most = record.host["RestartPolicy"].get("MaximumRetryCount") or 0
            return state.exit_code != 0 and (not most or state.restart_count < most)
        return False

    def _schedule_restart(self, container: Container) -> None:
        state = container.record.state
        ran = (state.finished_ns - state.started_ns) / 1e9
        if ran > STEADY or not container.backoff:
            container.backoff = BACKOFF_FIRST
        else:
            container.backoff = min(container.backoff * 2, BACKOFF_LAST)
        state.status = "restarting"
        state.restart_count += 1
        self._context.states.store(container.record, at="container.exit.restart")
        container.timer = asyncio.get_running_loop().create_task(self._restart_later(container))

    async def _restart_later(self, container: Container) -> None:
        await asyncio.sleep(container.backoff)
        async with container.lock:
            container.timer = None
            if container.record.state.status != "restarting" or container.removing:
                return
            try:
                await self._start(container)
            except KnarrError as error:
                log.warning("container %s could not be restarted: %s", container.record.id[:12], error)
                if isinstance(error, Unavailable) and self.wants_restart(container):
                    self._schedule_restart(container)  # by no fault of its own
                else:
                    container.ended()

    def _cancel_restart(self, container: Container) -> None:
        if container.timer is not None:
            container.timer.cancel()
            container.timer = None

    def _give_up_restarting(self, container: Container) -> None:
        self._cancel_restart(container)
        state = container.record.state
        if state.status == "restarting":
            state.status = "exited"
            state.manually_stopped = True
            self._context.states.store(container.record, at="container.stop.policy")
            container.ended()

    def _leave_networks(self, container: Container) -> None:
        for endpoint in container.record.state.networks.values():
            self._context.networks.leave(endpoint)

    def _announce_networks(self, container: Container, action: str) -> None:
        context, record = self._context, container.record
        for endpoint in record.state.networks.values():
            connect.announce(context, record, context.networks.by_id(endpoint["network_id"]), action)

    # --- tasks

    def start_by_policy(self, container: Container) -> None:
        """Start a container whose policy says so, at the daemon's start."""
        self._spawn(self._start_by_policy(container))

    async def _start_by_policy(self, container: Container) -> None:
        try:
            await self.start(container)
        except NotModified:
            return
        except KnarrError as error:
            log.warning("container %s could not be started again: %s", container.record.id[:12], error)

    def thaw_later(self, container: Container) -> None:
        """Thaw a container that a daemon before this one had paused for a moment."""
        self._spawn(self._thaw_later(container))

    async def _thaw_later(self, container: Container) -> None:
        try:
            await self.unpause(container)
        except (KnarrError, OSError) as error:
            log.warning("container %s stays paused: %s", container.record.id[:12], error)

    async def take_over(self, container: Container, listed: dict[str, Any]) -> None:
        """Bring the record of a container that runs in line with what the supervisor has, with its lock held."""
        context, record = self._context, container.record
        state = record.state
        if state.limits_pending:
            await update.finish(context, record)
        if any("pending" in endpoint for endpoint in state.networks.values()):
            await connect.finish(context, self._links, record)
        status = "paused" if listed["paused"] else "running"
        if (state.pid, state.status) == (listed["pid"], status):
            return
        log.info("container %s is %s and was not written down as that: taken over", record.id[:12], status)
        if state.pid != listed["pid"]:
            try:
                answer = await context.supervisor.ask("describe", container=record.id)
            except NotFound:
                return  # it has ended in the meantime: its exit is about to be announced
            self._started(record, answer)
            mounting.adopt(context, record)
            for endpoint in state.networks.values():
                found = answer["interfaces"].get(endpoint["network_id"])
                if found is not None:
                    context.networks.resume(endpoint, found["address"], found.get("address6"))
                    endpoint["interface"] = found["name"]
            state.status = status
            self._health.started(container)
        state.status = status
        context.states.store(record, at="container.reconcile.record")

    def _started(self, record: ContainerRecord, answer: dict[str, Any]) -> None:
        """Take in what the supervisor tells of a container that has started."""
        state = record.state
        state.status, state.pid, state.started_ns = "running", answer["pid"], answer["started_at"]
        state.exit_code, state.error, state.oom_killed, state.finished_ns = 0, "", False, 0
        state.limits_pending = False
        state.ports = published.chosen(answer["ports"])

    def lost(self, container: Container, code: int, error: str) -> None:
        """It is not there any more, and nobody can tell how it ended."""
        self.exited(
            container,
            {"code": code, "known": False, "finished_at": time.time_ns(), "oom": False, "error": error},
        )

    def remove_later(self, container: Container) -> None:
        """Remove a container that asked for it."""
        self._spawn(self._remove(container))

    def _spawn(self, work: Awaitable[None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except KnarrError as error:
                log.warning("%s", error)
            except Exception:
                log.exception("work on a container failed")

        coroutine: Coroutine[Any, Any, None] = guarded()
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self, containers: list[Container]) -> None:
        """End the timers, and finish what is being stored."""
        for container in containers:
            self._cancel_restart(container)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=10)
        self._context.states.close()
