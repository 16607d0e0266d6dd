"""Removing containers.

Order: the record goes first, then the directory is moved to `<data-root>/tmp`, then it is deleted in a thread
that nobody waits for. A crash in between leaves what the sweep at the next start takes away.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from typing import TYPE_CHECKING

from knarr.engine.volumes import sizes
from knarr.errors import Conflict, KnarrError, Unavailable
from knarr.failpoints import reached

if TYPE_CHECKING:
    from collections.abc import Callable

    from knarr.engine.containers.container import Container, Context
    from knarr.engine.containers.lifecycle import Lifecycle

__all__ = ["Removal"]

log = logging.getLogger("knarr.containers")

AGAIN = 1.0  # seconds


class Removal:
    """Takes containers away."""

    def __init__(self, context: Context, forget: Callable[[Container], None]) -> None:
        self._context = context
        self._forget = forget
        self._deleting: set[asyncio.Future[None]] = set()
        self.lifecycle: Lifecycle  # set by Containers, which makes both

    async def remove(self, container: Container, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container, with force a running one, with volumes its anonymous volumes as well."""
        record = container.record
        if container.removing:
            raise Conflict(f"removal of container {record.id} is already in progress")
        self._may_remove(container, force=force)
        container.removing = True
        try:
            if force:
                await self.lifecycle.kill_and_wait(container)
            async with container.lock:
                self._may_remove(container, force=False)
                reached("container.remove.record")
                with self._context.records.transaction():
                    if volumes:
                        self._context.volumes.bind(record.anonymous_volumes, record.id)
                    self._context.records.delete(record.id)
                self._context.states.forget(record.id)
                self._forget(container)
        except BaseException:
            container.removing = False
            raise
        await asyncio.shield(self._clean(container, volumes=volumes))

    async def auto(self, container: Container) -> None:
        """Remove a container that asked for it (`--rm`), with its anonymous volumes; later where the disk refuses."""
        if container.removing:
            return
        try:
            await self.remove(container, volumes=True)
        except (Unavailable, OSError) as error:
            log.warning("container %s is removed later: %s", container.record.id[:12], error)
            asyncio.get_running_loop().call_later(AGAIN, self.lifecycle.remove_later, container)

    def _may_remove(self, container: Container, *, force: bool) -> None:
        state = container.record.state
        if force or not (state.running or state.status == "restarting"):
            return
        condition = {
            "paused": "container is paused and must be unpaused first",
            "restarting": "container is restarting: stop the container before removing or force remove",
        }.get(state.status, "container is running: stop the container before removing or force remove")
        raise Conflict(f'cannot remove container "{container.record.name}": {condition}')

    async def _clean(self, container: Container, *, volumes: bool) -> None:
        context, record = self._context, container.record
        context.supervisor.tell("forget", container=record.id)
        moved = ""
        try:
            moved = await asyncio.to_thread(self._move_away, record.id)
        except OSError as error:
            log.warning("the files of container %s stay until the next start: %s", record.id, error)
        self._delete_later(record.id, moved)
        if volumes:
            for name in record.anonymous_volumes:
                try:
                    await context.volumes.remove(name, force=True)
                except (KnarrError, OSError) as error:
                    log.warning("anonymous volume %s stays: %s", name, error)
        context.announce(container, "destroy")
        container.removed()
        reached("container.remove.answer")

    def sweep(self, container_id: str) -> None:
        """Delete the bundle of a container that has no record."""
        self._delete_later(container_id, "")

    def _delete_later(self, container_id: str, moved: str) -> None:
        work = asyncio.get_running_loop().run_in_executor(None, self._delete, container_id, moved)
        self._deleting.add(work)
        work.add_done_callback(self._deleting.discard)

    def _move_away(self, container_id: str) -> str:
        reached("container.remove.move")
        target = f"{self._context.config.data_root}/tmp/container-{container_id}"  # noqa: S108  ours alone
        try:
            os.rename(self._context.directory(container_id), target)
        except FileNotFoundError:
            return ""
        return target

    def _delete(self, container_id: str, moved: str) -> None:
        try:
            reached("container.remove.bundle")
            remove_shared(self._context.bundle(container_id))
            reached("container.remove.files")
            if moved:
                sizes.discard(self._context.store, moved)
        except (KnarrError, OSError) as error:
            log.warning("files of container %s are left until the next start: %s", container_id, error)

    async def close(self) -> None:
        """Wait for deletions that are under way."""
        if self._deleting:
            await asyncio.wait(self._deleting, timeout=30)


def remove_shared(path: str) -> None:
    """Delete a directory from which the supervisor may be deleting its own files at the same time."""
    for attempt in range(5):
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            if not os.path.lexists(path):
                return
        except OSError:
            if attempt == 4:
                raise
            time.sleep(0.02)
        else:
            return
