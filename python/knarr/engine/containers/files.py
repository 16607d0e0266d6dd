"""Containers' files: looked at, packed, extracted to, exported, compared with their image.

What is read or written goes between a client's socket and the container in a thread of its own, by `_core.View`:
a client that is slow holds up that thread and nobody else. Only who writes to a container that does not run
holds its lock meanwhile, as a start must not mount the same directory; who sends nothing for PATIENCE seconds is
given up.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, NamedTuple

from knarr._core import View, changes
from knarr.engine.apart import apart
from knarr.engine.containers import mounting
from knarr.errors import Conflict, NotFound
from knarr.failpoints import reached

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from knarr._core import Body
    from knarr.engine.containers.container import Container, Context
    from knarr.engine.containers.mounting import Sources

    # (destination, source, layers in its place, path beneath it, recursive, read-only, recursively so)
    _Mount = tuple[str, str, list[str], str, bool, bool, bool]
    Writer = Callable[[int, int], Awaitable[None]]  # of a body: the socket, and how its end is told (CHUNKED, STREAM)

__all__ = ["CHUNKED", "MADE", "PATIENCE", "STREAM", "Files", "PathStat", "Upload"]

CHUNKED = -1  # in chunks, without the last one, which is empty
STREAM = -2  # by the end of the stream
PATIENCE = 60.0  # seconds that an upload may bring nothing
TRIES = 50  # of opening a container that is just ending

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
        paths = [path for path, *_ in self._mounts(container, None)] if mounts else []
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
        read_only = writable and container.record.host["ReadonlyRootfs"]
        if not mounts:
            return await apart(lambda: View.stopped(lower, upper, work, [], writable=writable, read_only=read_only))
        async with mounting.sources(self._context, container.record) as sources:
            found = self._mounts(container, sources)
            return await apart(lambda: View.stopped(lower, upper, work, found, writable=writable, read_only=read_only))

    def _mounts(self, container: Container, sources: Sources | None) -> list[_Mount]:
        """The mounts of a container, those above others first; without sources those of one that runs."""
        context, record = self._context, container.record
        found: list[_Mount] = []
        for point in record.mounts:
            if point["type"] == "tmpfs" and sources is not None:
                continue  # gone with the container's end
            source, recursive, read_only, layers = point["source"], point["recursive"], point["read_only"], []
            if sources is not None and point["type"] == "volume":
                volume = sources.volumes[point["name"]]
                source, recursive = volume.path, volume.recursive
                read_only = read_only or "ro" in volume.options
            elif sources is not None and point["type"] == "image":
                layers = sources.images[source]
            flags = (recursive, read_only, point["recursive_read_only"])
            found.append((point["destination"], source, layers, point.get("subpath") or "", *flags))
        taken = {mount[0] for mount in found}
        if record.state.started_ns:
            found += [
                (
                    f"/etc/{name}",
                    f"{context.bundle(record.id)}/{name}",
                    [],
                    "",
                    True,
                    record.host["ReadonlyRootfs"],
                    False,
                )
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
