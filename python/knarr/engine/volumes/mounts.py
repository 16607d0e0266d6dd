"""File systems of local volumes: on the host, at `_data`, while anybody uses them.

Who uses one is a set of names: containers that run or are being started, and whoever looks at one that does not.
What is mounted is the kernel's to say: mounting again is no error, so nothing is recorded, and a daemon that finds
something mounted that nobody uses unmounts it.

A call may hang in the kernel for as long as a dead server likes. Each has a thread of its own, and there is at most
one for each volume: who comes meanwhile waits for it. Nobody waits longer than the limit; what comes of a call that
nobody waits for any more is undone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from typing import TYPE_CHECKING

from knarr._core import unmount_volume
from knarr.engine.apart import apart
from knarr.errors import Failed
from knarr.failpoints import reached

if TYPE_CHECKING:
    from collections.abc import Callable

    from knarr.engine.volumes.local import Bind, FileSystem

__all__ = ["Mounts", "mounted_below", "unescape"]

log = logging.getLogger("knarr.volumes")


class Mounts:
    """Belongs to the event loop."""

    def __init__(self, path: Callable[[str], str], limit: float) -> None:
        self._path = path
        self._limit = limit  # seconds
        self._users: dict[str, set[str]] = {}  # of volumes that are mounted, or about to be
        self._calls: dict[str, asyncio.Future[None]] = {}  # the one that is under way
        self._going: dict[str, asyncio.Task[None]] = {}  # volumes that are about to be unmounted

    async def look(self, name: str, wanted: Bind) -> None:
        """See that a directory is there. Failed in Docker's words."""
        await self.call(name, lambda: wanted.begin(self._path(name)))

    async def use(self, name: str, wanted: FileSystem, user: str) -> None:
        """Have a volume mounted until its last user leaves. Failed in Docker's words."""
        users = self._users.setdefault(name, set())
        users.add(user)
        try:
            reached("volume.mount.begin")
            await self.call(name, lambda: wanted.begin(self._path(name)))
        except BaseException:
            self.leave(name, user)
            raise

    def adopt(self, name: str, user: str) -> None:
        """Somebody uses a volume since before this daemon."""
        self._users.setdefault(name, set()).add(user)

    def leave(self, name: str, user: str) -> None:
        """Somebody uses a volume no more. It is unmounted soon where that was the last."""
        users = self._users.get(name)
        if users is not None:
            users.discard(user)
            if not users:
                self._go(name)

    async def release(self, name: str) -> None:
        """See that nothing is mounted there. Failed where it stays."""
        try:
            await asyncio.wait_for(asyncio.shield(self._go(name)), self._limit)
        except asyncio.TimeoutError:
            raise self._late(name) from None
        if name in self._users:
            raise Failed(f"volume {name} is still mounted at {self._path(name)}: see the daemon's log")

    def idle(self, names: set[str]) -> None:
        """Unmount those of them that nobody uses: at the start."""
        for name in names:
            if not self._users.setdefault(name, set()):
                self._go(name)

    def _go(self, name: str) -> asyncio.Task[None]:
        task = self._going.get(name)
        if task is None:
            task = self._going[name] = asyncio.get_running_loop().create_task(self._let_go(name))
            task.add_done_callback(lambda _: self._going.pop(name, None))
        return task

    async def _let_go(self, name: str) -> None:
        """Unmount a volume, unless somebody uses it by then."""
        while name in self._calls:
            await asyncio.wait({self._calls[name]})
        if self._users.get(name, True):
            return
        path = self._path(name)

        def work() -> None:
            reached("volume.unmount.begin")
            number = unmount_volume(path)
            if number:
                raise OSError(number, os.strerror(number), path)

        call = self._begin(name, work)
        await asyncio.wait({call})
        error = call.exception()
        if error is not None:
            log.warning("volume %s stays mounted: %s", name, error)
        elif not self._users.get(name):
            self._users.pop(name, None)

    async def call(self, name: str, work: Callable[[], None]) -> None:
        """Do blocking work for a volume, after what is under way for it."""
        end = asyncio.get_running_loop().time() + self._limit
        while name in self._calls:
            await self._until(self._calls[name], end, name)
        call = self._begin(name, work)
        await self._until(call, end, name)
        call.result()

    def _begin(self, name: str, work: Callable[[], None]) -> asyncio.Future[None]:
        call = self._calls[name] = asyncio.ensure_future(apart(work))
        call.add_done_callback(lambda done: self._over(name, done))
        return call

    def _over(self, name: str, call: asyncio.Future[None]) -> None:
        self._calls.pop(name, None)
        if not call.cancelled():
            call.exception()  # told by whoever waits, if anybody still does

    async def _until(self, call: asyncio.Future[None], end: float, name: str) -> None:
        left = end - asyncio.get_running_loop().time()
        done, _ = await asyncio.wait({call}, timeout=max(left, 0))
        if not done:
            raise self._late(name)

    def _late(self, name: str) -> Failed:
        return Failed(
            f"volume {name}: nothing came of it within {self._limit:g} s: see that what it is mounted from answers"
        )

    async def close(self) -> None:
        """Wait a moment for what is under way."""
        if self._going:
            await asyncio.wait(self._going.values(), timeout=5)


def mounted_below(directory: str) -> set[str]:
    """Which volumes of a directory have something mounted at `_data`, by the kernel's table: no disk is asked."""
    above, found = os.path.realpath(directory) + "/", set()
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            point = unescape(line.split(" ", 5)[4])
            if point.startswith(above) and point.endswith("/_data"):
                found.add(point[len(above) : -len("/_data")])
    return found


def unescape(field: str) -> str:
    """A path as /proc/self/mountinfo has it: spaces and their like are written as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field) if "\\" in field else field
