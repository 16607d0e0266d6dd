"""`engine.containers`: every container of one engine, and what can be done with them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from typing import TYPE_CHECKING, Any

from knarr.engine.containers import connect, launch, logs, mounting, processes
from knarr.engine.containers.balancing import Balancing
from knarr.engine.containers.commit import Commits
from knarr.engine.containers.container import Container, Context, Exit
from knarr.engine.containers.create import Creation, Request, check_name, taken
from knarr.engine.containers.execs import Execs, Streams
from knarr.engine.containers.files import Files
from knarr.engine.containers.health import Monitors
from knarr.engine.containers.lifecycle import Lifecycle
from knarr.engine.containers.links import Links
from knarr.engine.containers.removal import Removal
from knarr.engine.containers.spec import cgroup
from knarr.engine.containers.stats import Sampler
from knarr.engine.containers.still import Still
from knarr.engine.containers.update import update
from knarr.errors import Conflict, InvalidArgument, NotFound
from knarr.failpoints import reached

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from knarr.store.containers import ContainerRecord
    from knarr.store.networks import NetworkRecord

__all__ = ["Containers"]

log = logging.getLogger("knarr.containers")

UNKNOWN_EXIT = 255
UNKNOWN_ERROR = "exit code unknown: the container ended while neither keeper nor supervisor was there"


class Containers:
    """Belongs to the event loop."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._containers: dict[str, Container] = {}  # by ID, oldest first
        self._names: dict[str, str] = {}  # name → ID, and names that are being taken
        self._links = Links(self.get)
        self._creation = Creation(context, self._names, self.get, self._links)
        self._removal = Removal(context, self._forget)
        self.execs = Execs(context, self.get)
        self.files = Files(context)
        self._health = Monitors(context, self.execs)
        self.balancing = Balancing(context, self.get, self.all)
        self._lifecycle = Lifecycle(context, self.get, self._removal.auto, self._health, self._links, self.balancing)
        self._still = Still(self._lifecycle)
        self.commits = Commits(context, self.files, self._still)
        self._removal.lifecycle = self._lifecycle
        self.sampler = Sampler(context.supervisor)
        self._pruning = asyncio.Lock()
        self._loaded = False

    # --- finding

    def get(self, name: str) -> Container:
        """A container by ID, name, or a prefix of its ID. Raises NotFound in Docker's words."""
        found = self._containers.get(name)
        if found is not None:
            return found
        known = self._names.get(name.removeprefix("/"))
        if known is not None and known in self._containers:
            return self._containers[known]
        if name:
            matches = [found for key, found in self._containers.items() if key.startswith(name)]
            if len(matches) == 1:
                return matches[0]
            if matches:
                raise InvalidArgument(f"Multiple IDs found with provided prefix: {name}")
        raise NotFound(f"No such container: {name}")

    def all(self) -> list[Container]:
        """Every container, oldest first."""
        return list(self._containers.values())

    def using_image(self, image_id: str) -> list[str]:
        """The IDs of the containers that were made from an image, or mount it."""
        return [
            key
            for key, found in self._containers.items()
            if found.record.image_id == image_id
            or any(point["type"] == "image" and point["source"] == image_id for point in found.record.mounts)
        ]

    def using_volume(self, name: str) -> list[str]:
        """The IDs of the containers that mount a volume."""
        return [
            key
            for key, found in self._containers.items()
            if any(point["type"] == "volume" and point["name"] == name for point in found.record.mounts)
        ]

    def running_with_volume(self, name: str) -> list[str]:
        """The IDs of those of them that run."""
        return [key for key in self.using_volume(name) if self._containers[key].record.state.running]

    @contextlib.asynccontextmanager
    async def still(self, volume: str) -> AsyncIterator[None]:
        """While the block runs no container that runs writes to a volume."""
        async with contextlib.AsyncExitStack() as held:
            for key in self.running_with_volume(volume):
                container = self._containers.get(key)
                points = container.record.mounts if container else ()
                mine = [point for point in points if point["type"] == "volume" and point["name"] == volume]
                if container and not all(point["read_only"] for point in mine):
                    await held.enter_async_context(self._still.one(container))
            yield

    def is_running(self, container_id: str) -> bool:
        """Whether a container runs; False for one that does not exist."""
        found = self._containers.get(container_id)
        return found is not None and found.record.state.running

    # --- making, starting, ending

    async def create(self, asked: Request) -> tuple[ContainerRecord, list[str]]:
        """Make a container; its record, and warnings."""
        record, warnings = await self._creation.create(asked)
        container = Container(record)
        self._containers[record.id] = container
        self._context.volumes.release((point["name"] for point in record.mounts), record.id)
        self._links.add(record)
        self._context.announce(container, "create")
        reached("container.create.answer")
        return record, warnings

    async def start(self, name: str) -> None:
        """Start it. NotModified where it runs already."""
        await self._lifecycle.start(self.get(name))

    async def stop(self, name: str, stop_signal: str, timeout: int | None) -> None:
        """Stop it. NotModified where it does not run."""
        await self._lifecycle.stop(self.get(name), stop_signal, timeout)

    async def restart(self, name: str, stop_signal: str, timeout: int | None) -> None:
        """Stop and start it."""
        await self._lifecycle.restart(self.get(name), stop_signal, timeout)

    async def kill(self, name: str, kill_signal: str) -> None:
        """Send it a signal."""
        await self._lifecycle.kill(self.get(name), kill_signal)

    async def pause(self, name: str) -> None:
        """Freeze it."""
        await self._lifecycle.pause(self.get(name))

    async def unpause(self, name: str) -> None:
        """Thaw it."""
        await self._lifecycle.unpause(self.get(name))

    async def remove(self, name: str, *, force: bool, volumes: bool) -> None:
        """Remove it."""
        await self._removal.remove(self.get(name), force=force, volumes=volumes)

    async def update(self, name: str, given: dict[str, Any]) -> list[str]:
        """Give it other limits or another restart policy: fields of HostConfig. Warnings for whoever asked."""
        return await update(self._context, self.get(name), given)

    async def unlink(self, name: str) -> None:
        """Take away a link, named "container/alias"."""
        parent, _, alias = name.strip("/").rpartition("/")
        if not parent:
            self.get(alias)
            raise InvalidArgument("Conflict, cannot remove the default link name of the container")
        try:
            container = self.get(parent)
        except NotFound as error:  # Docker knows a link as one more name of a container
            raise NotFound(f"No such container: {name}") from error
        async with container.lock:
            self._links.remove(container.record, alias)
            self._context.records.update_record(container.record)
            if container.record.state.running:
                launch.write_hosts(self._context, container.record, self._links)

    async def connect(self, name: str, network: NetworkRecord, settings: dict[str, Any]) -> None:
        """Put it on a network, as EndpointSettings say."""
        await connect.connect(self._context, self._links, self.get(name), network, settings)

    async def disconnect(self, name: str, network: NetworkRecord) -> None:
        """Take it off a network."""
        container = self.get(name)
        if network.entries:
            await self.balancing.leave(container)
        try:
            await connect.disconnect(self._context, self._links, container, network)
        finally:
            await self.balancing.stay(container)

    def on_network(self, network_id: str) -> list[tuple[str, str]]:
        """(name, ID) of the containers that have an endpoint in a network now: those that run, or are started."""
        return [
            (found.record.name, found.record.id)
            for found in self._containers.values()
            for endpoint in found.record.state.networks.values()
            if endpoint["network_id"] == network_id and endpoint["endpoint_id"]
        ]

    async def rename(self, name: str, new: str) -> None:
        """Give it another name."""
        container = self.get(name)
        new = new.strip().removeprefix("/")
        if not new:
            raise InvalidArgument("Neither old nor new names may be empty")
        old = container.record.name
        if new == old:
            raise InvalidArgument("Renaming a container with the same name as its current name")
        try:
            check_name(f"/{new}")
        except InvalidArgument as error:
            raise InvalidArgument(f"Error when allocating new name: {error}") from None
        if new in self._names:
            raise Conflict(f"Error when allocating new name: {taken(new, self._names[new])}")
        reached("container.rename.record")
        self._context.records.rename(container.record, new)
        self._names[new] = container.record.id
        del self._names[old]
        self._context.announce(container, "rename", oldName=f"/{old}")
        await connect.rename(self._context, container.record)
        reached("container.rename.answer")

    def wait(self, name: str, condition: str) -> Awaitable[Exit]:
        """Something to await for the end that a condition means: not-running, next-exit, removed."""
        container = self.get(name)
        state = container.record.state
        if condition == "removed":
            return container.removal()
        if condition == "next-exit":
            return container.next_exit()
        if condition not in ("", "not-running"):
            raise InvalidArgument(f'invalid condition: "{condition}"')
        if state.running or state.status == "restarting":
            return container.next_exit()
        done: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        done.set_result(Exit(state.exit_code))
        return done

    async def resize(self, name: str, rows: int, columns: int) -> None:
        """Set the size of its terminal."""
        container = self.get(name)
        if not container.record.state.running:
            raise Conflict(f"container {container.record.id} is not running")
        if not container.record.config["Tty"]:
            return  # there is no terminal whose size it could be: Docker has no word for it
        await self._context.supervisor.call("resize", container=container.record.id, rows=rows, cols=columns)
        self._context.announce(container, "resize", height=str(rows), width=str(columns))

    async def attach(self, name: str, streams: Streams) -> None:
        """Hand a client's connection to the supervisor."""
        container = self.get(name)
        await self._context.supervisor.call(
            "attach", fds=(streams.fd,), container=container.record.id, **streams.fields()
        )
        self._context.announce(container, "attach")

    def attachable(self, name: str) -> Container:
        """The container to attach to. Conflict where its state forbids it."""
        container = self.get(name)
        if container.record.state.status == "paused":
            raise Conflict(f"container {container.record.id} is paused, unpause the container before attach")
        if container.record.state.status == "restarting":
            raise Conflict(f"container {container.record.id} is restarting, wait until the container is running")
        return container

    # --- looking

    def log_file(self, container: Container) -> dict[str, Any]:
        """Where its log is, for `logs` and `attach`. Unsupported where there is none, Conflict where it is going."""
        if container.removing:
            raise Conflict("can not get logs from container which is dead or marked for removal")
        record = container.record
        return logs.readable(record, self._context.directory(record.id), self._context.config.log)

    async def logs(self, container: Container, file: dict[str, Any], wanted: logs.Wanted, fd: int) -> None:
        """Have a client be sent what has been logged. Its connection stays the caller's to close."""
        await self._context.supervisor.call(
            "logs", fds=(fd,), container=container.record.id, file=file, **wanted.fields()
        )

    async def top(self, name: str, arguments: str) -> tuple[list[str], list[list[str]]]:
        """Its processes: (titles, rows)."""
        processes.check(arguments)
        container = self.get(name)
        record = container.record
        if record.state.status == "restarting":
            raise Conflict(f"container {record.id} is restarting, wait until the container is running")
        if not record.state.running:
            raise Conflict(f"container {record.id} is not running")
        group = cgroup(record, self._context.config.engine_id)
        found = await asyncio.to_thread(processes.processes, group, arguments)
        self._context.announce(container, "top")
        return found

    async def sizes(self, container: Container) -> tuple[int, int]:
        """(bytes that it has written, bytes of its whole root file system)."""
        upper = f"{self._context.directory(container.record.id)}/upper"
        written, _ = await asyncio.to_thread(self._context.store.usage, upper)
        image = self._context.images.catalog.get(container.record.image_id)
        return written, written + (image.size if image else 0)

    async def prune(self, wanted: Callable[[ContainerRecord], bool]) -> tuple[list[str], int]:
        """Remove those that do not run and are wanted gone: their IDs, and the bytes freed. One at a time."""
        if self._pruning.locked():
            raise Conflict("a prune operation is already running")
        async with self._pruning:
            removed, freed = await self._prune(wanted)
        self._context.events.emit("container", "prune", "", {"reclaimed": str(freed)})
        return removed, freed

    async def _prune(self, wanted: Callable[[ContainerRecord], bool]) -> tuple[list[str], int]:
        removed, freed = [], 0
        for container in self.all():
            state = container.record.state
            if state.running or state.status == "restarting" or container.removing or not wanted(container.record):
                continue
            written, _ = await self.sizes(container)
            try:
                await self._removal.remove(container)
            except (Conflict, NotFound):
                continue  # it was started or removed in between
            removed.append(container.record.id)
            freed += written
        return removed, freed

    # --- what the supervisor tells

    def event(self, event: dict[str, Any]) -> None:
        """An event of the supervisor's."""
        kind = event["event"]
        if kind == "exec_exit":
            self.execs.exited(event)
            return
        container = self._containers.get(event["container"])
        if kind == "exit":
            if container is None:
                self._context.supervisor.tell("forget", container=event["container"])
                self._removal.sweep(event["container"])
                return
            self.execs.container_ended(container)
            self._lifecycle.exited(container, event)
        elif kind == "detach" and container is not None:
            if event.get("exec"):
                self.execs.detached(event)
            else:
                self._context.announce(container, "detach")

    # --- the daemon's start and end

    def load(self) -> None:
        """Read the records, and sweep what belongs to none. Before the supervisor is reached."""
        context = self._context
        for record in context.records.load():
            if not os.path.isdir(context.directory(record.id)):
                log.warning("container %s has lost its directory and is forgotten", record.id[:12])
                context.records.delete(record.id)
                continue
            self._containers[record.id] = Container(record)
            self._links.add(record)
            self._names[record.name] = record.id
        os.makedirs(f"{context.config.data_root}/containers", 0o710, exist_ok=True)
        os.makedirs(f"{context.config.run_root}/containers", 0o700, exist_ok=True)
        for name in os.listdir(f"{context.config.data_root}/containers"):
            if name not in self._containers:
                log.info("sweeping the half-made container %s", name[:12])
                context.store.remove_tree(f"{context.config.data_root}/containers/{name}")

    async def reconcile(self, listed: list[dict[str, Any]]) -> None:
        """Bring the records in line with what the supervisor has: whenever a connection to it was made."""
        context = self._context
        there = {item["container"]: item for item in listed}
        for container_id, item in there.items():
            container = self._containers.get(container_id)
            if container is None:
                log.warning("the supervisor has container %s that no record speaks of: ending it", container_id[:12])
                if item["status"] == "running":
                    context.supervisor.tell("signal", container=container_id, signal=int(signal.SIGKILL))
                continue
            if item["status"] == "running" and not container.lock.locked():
                async with container.lock:
                    await self._lifecycle.take_over(container, item)
        for container in self.all():
            state = container.record.state
            if not state.running:
                continue
            if container.record.id in there:
                for endpoint in state.networks.values():
                    context.networks.restore(endpoint)
                mounting.adopt(context, container.record)
                self._health.adopt(container)
            elif not container.lock.locked():
                log.warning("container %s is gone, and with it its exit code", container.record.id[:12])
                self._lifecycle.lost(container, UNKNOWN_EXIT, UNKNOWN_ERROR)
        if not self._loaded:
            self._loaded = True
            await asyncio.to_thread(self._sweep_bundles, set(there))

    def _sweep_bundles(self, there: set[str]) -> None:
        root = f"{self._context.config.run_root}/containers"
        for name in os.listdir(root):
            if name not in self._containers and name not in there:
                shutil.rmtree(f"{root}/{name}", ignore_errors=True)

    def resume(self) -> None:
        """Start what restart policies ask for, thaw and remove what waits for that: once, at the daemon's start."""
        for container in self.all():
            state = container.record.state
            if state.running:
                if state.status == "paused" and state.pause_passes:
                    self._lifecycle.thaw_later(container)
                continue
            if container.record.host["AutoRemove"] and (state.finished_ns or state.exit_code):
                self._lifecycle.remove_later(container)
            elif state.started_ns and self._lifecycle.wants_restart(container, daemon_start=True):
                self._lifecycle.start_by_policy(container)
            elif state.status == "restarting":
                state.status = "exited"
                self._context.states.store(container.record, at="container.resume.record")

    async def close(self) -> None:
        """Finish what is under way. Containers run on."""
        self.sampler.close()
        await self._health.close()
        self.balancing.close()
        await self._lifecycle.close(self.all())
        await self._removal.close()

    def _forget(self, container: Container) -> None:
        self._containers.pop(container.record.id, None)
        self._names.pop(container.record.name, None)
        self._links.forget(container.record)
        self.execs.container_gone(container)
