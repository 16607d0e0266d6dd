"""Containers' files: looked at, packed, extracted to, exported, compared with their image.

What is read or written goes between a client's socket and the container in a thread of its own, by `_core.View`:
a client that is slow holds up that thread and nobody else. Only who writes to a container that does not run
holds its lock meanwhile, as a start must not mount the same directory; who sends nothing for PATIENCE seconds is
given up.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from knarr._core import View, changes
from knarr.errors import Conflict, NotFound
from knarr.failpoints import reached

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from knarr._core import Body
    from knarr.engine.containers.container import Container, Context

    Writer = Callable[[int, int], Awaitable[None]]  # of a body: the socket, and how its end is told (CHUNKED, STREAM)

__all__ = ["CHUNKED", "MADE", "PATIENCE", "STREAM", "Files", "PathStat", "Upload", "apart"]

CHUNKED = -1  # in chunks, without the last one, which is empty
STREAM = -2  # by the end of the stream
PATIENCE = 60.0  # seconds that an upload may bring nothing
TRIES = 50  # of opening a container that is just ending
T = TypeVar("T")

# What the engine makes in a root file system to mount on: no change of the container's, unless there is more to it.
MADE = [
    "dev", "dev/console", "dev/mqueue", "dev/pts", "dev/shm", "etc", "etc/hostname", "etc/hosts", "etc/resolv.conf",
    "proc", "sys", "sys/fs", "sys/fs/cgroup",
]  # fmt: skip
_FILES = ("hostname", "hosts", "resolv.conf")


class PathStat(NamedTuple):
    """What is at a path. mode is Go's io/fs.FileMode, mtime ns since the epoch; target that of a symbolic link."""

    name: str
    size: int
    mode: int
    mtime: int
    target: str


class Upload(NamedTuple):
    """How an archive is extracted."""

    path: str
    no_overwrite: bool
    as_user: bool  # whatever the archive says, owned by the container's user


async def apart(work: Callable[[], T]) -> T:
    """The result of blocking work that may take as long as somebody else likes, in a thread of its own.

    It goes on where the caller is cancelled.
    """
    done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    threading.Thread(target=_run, args=(work, done), name="files", daemon=True).start()
    try:
        return await done
    finally:
        del done  # its error refers to this frame: together they would keep mounts and sockets open


def _run(work: Callable[[], T], done: asyncio.Future[T]) -> None:
    result, failure = None, None
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001  raised where it is awaited
        failure = error
    loop = done.get_loop()
    if not loop.is_closed():
        loop.call_soon_threadsafe(_settle, done, result, failure)
    del done, failure  # for the same reason


def _settle(done: asyncio.Future[T], result: T | None, error: BaseException | None) -> None:
    if done.cancelled():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)  # type: ignore[arg-type]


class Files:
    """The files of one engine's containers. Belongs to the event loop."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def stat(self, container: Container, path: str) -> PathStat:
        """What is at a path. NotFound in Docker's words."""
        view = await self._readable(container)
        return await apart(lambda: self._stat(view, container, path))

    async def pack(self, container: Container, path: str) -> tuple[PathStat, Writer]:
        """What is at a path, and what writes it as a tar archive."""
        view = await self._readable(container)
        found = await apart(lambda: self._stat(view, container, path))
        self._context.announce(container, "archive-path")
        return found, lambda descriptor, framing: apart(lambda: view.pack(path, descriptor, framing))

    async def export(self, container: Container) -> Writer:
        """What writes the root file system as a tar archive."""
        view = await self._readable(container, mounts=False)
        self._context.announce(container, "export")
        return lambda descriptor, framing: apart(lambda: view.export(descriptor, framing))

    async def extract(self, container: Container, upload: Upload, body: Body) -> None:
        """Extract a tar archive to a directory. NotFound, InvalidArgument; Corrupt."""
        user = container.record.config["User"] if upload.as_user else ""

        def work(view: View) -> None:
            try:
                reached("container.archive.extract")
                view.extract(upload.path, body, no_overwrite=upload.no_overwrite, user=user or None)
            except NotFound as error:
                raise _missing(container, upload.path, error) from error

        for _ in range(TRIES):
            if await self._write(container, work):
                self._context.announce(container, "extract-to-dir")
                reached("container.archive.answer")
                return
            await asyncio.sleep(0.02)
        raise _restless(container)

    async def changes(self, container: Container) -> list[tuple[str, int]]:
        """(path, kind) of what differs from the image: 0 modified, 1 added, 2 deleted."""
        upper, lower = await self.layers(container)
        found = await apart(lambda: changes(upper, lower, MADE))
        return [("/" + path.decode(errors="replace"), kind) for path, kind in found]

    async def layers(self, container: Container) -> tuple[str, list[str]]:
        """A container's writable directory, and the layers below it, the top-most first. Conflict where it has none."""
        record = container.record
        if not record.image_id:
            raise Conflict(f"container {record.id} has no layers of its own: it is an overlay of the host's root")
        image = await self._context.images.resolve(record.image_id)
        return f"{self._context.directory(record.id)}/upper", list(image.lower)

    def _stat(self, view: View, container: Container, path: str) -> PathStat:
        try:
            return PathStat(*view.stat(path))
        except NotFound as error:
            raise _missing(container, path, error) from error

    async def _readable(self, container: Container, *, mounts: bool = True) -> View:
        """A view to read from; the container may start and end meanwhile."""
        for _ in range(TRIES):
            if container.record.state.running:
                view = await self._running(container, mounts=mounts)
                if view is not None:
                    return view
                await asyncio.sleep(0.02)
                continue
            async with container.lock:
                if not container.record.state.running:
                    return await self._stopped(container, writable=False, mounts=mounts)
        raise _restless(container)

    async def _write(self, container: Container, work: Callable[[View], None]) -> bool:
        """Do something with a view to write to; False where the container was just ending."""
        if container.record.state.running:
            view = await self._running(container)
            if view is None:
                return False
            await self._write_on(container, functools.partial(work, view))
            return True
        async with container.lock:
            if container.record.state.running:
                return False
            view = await self._stopped(container, writable=True)
            await apart(lambda: work(view))
        return True

    async def _write_on(self, container: Container, work: Callable[[], None]) -> None:
        """Do something that no start may come before, with a container that runs and may end meanwhile."""
        task = asyncio.ensure_future(apart(work))
        container.writes.add(task)
        task.add_done_callback(container.writes.discard)
        try:
            await asyncio.shield(task)
        finally:
            del task  # as in `apart`

    async def _running(self, container: Container, *, mounts: bool = True) -> View | None:
        """A view of a running container; None where it has ended, which the record will say soon."""
        record = container.record
        pid = record.state.pid
        paths = [path for path, *_ in self._mounts(container, running=True)] if mounts else []
        try:
            return await apart(lambda: View.running(pid, record.id, paths))
        except Conflict:
            return None

    async def _stopped(self, container: Container, *, writable: bool, mounts: bool = True) -> View:
        """A view of a container that does not run, with its lock held."""
        if container.removing:
            raise Conflict(f"container {container.record.id} is being removed")
        upper, lower = await self.layers(container)
        work = f"{self._context.directory(container.record.id)}/work"
        found = self._mounts(container, running=False) if mounts else []
        read_only = container.record.host["ReadonlyRootfs"]
        return await apart(
            lambda: View.stopped(lower, upper, work, found, writable=writable, read_only=writable and read_only)
        )

    def _mounts(self, container: Container, *, running: bool) -> list[tuple[str, str, str, bool, bool, bool]]:
        """(destination, source, path beneath it, recursive, read-only, recursively so), those above others first."""
        context, record = self._context, container.record
        found = []
        for point in record.mounts:
            if point["type"] == "tmpfs" and not running:
                continue  # gone with the container's end
            source = point["source"]
            if point["type"] == "volume":
                source = f"{context.config.data_root}/volumes/{point['name']}/_data"
            flags = (point["recursive"], point["read_only"], point["recursive_read_only"])
            found.append((point["destination"], source, point.get("subpath") or "", *flags))
        taken = {mount[0] for mount in found}
        if record.state.started_ns:
            found += [
                (f"/etc/{name}", f"{context.bundle(record.id)}/{name}", "", True, record.host["ReadonlyRootfs"], False)
                for name in _FILES
                if f"/etc/{name}" not in taken
            ]
        return sorted(found, key=lambda mount: mount[0].count("/"))


def _restless(container: Container) -> Conflict:
    return Conflict(f"container {container.record.id} is starting and ending all the time: try again")


def _missing(container: Container, path: str, error: NotFound) -> NotFound:
    if "Could not find the file" not in str(error):
        return error
    return NotFound(f"Could not find the file {path} in container {container.record.name}")
