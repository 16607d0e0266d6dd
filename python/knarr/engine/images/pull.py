"""Pulls: each image is fetched once, however many wait for it.

A pull runs as a task of its own, in a thread for whatever blocks. Whoever asks for the same reference, platform
and credentials while it runs waits for the same task, each with a reporter of his own. When the last one has
gone the pull is told to end; what it has fetched stays for the next attempt.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

from knarr._core import Progress
from knarr.engine.images.progress import Message, Reporter
from knarr.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from knarr.credentials import Credential
    from knarr.engine.images.catalog import Image
    from knarr.types import Platform, Reference

    Emit = Callable[[Message], Awaitable[None]]

POLL_SECONDS = 0.1


class Pull:
    """One running pull. `opening` and `closing` are what every client is told before and after the layers."""

    def __init__(self) -> None:
        self.progress = Progress()
        self.opening: list[Message] = []
        self.closing: list[Message] = []
        self.waiting = 0
        self.cancelled = False
        self.task: asyncio.Task[Image] | None = None

    def cancel(self) -> None:
        self.cancelled = True
        self.progress.cancel()

    async def follow(self, emit: Emit | None) -> Image:
        """Wait for the end, telling a client what happens."""
        task = self.task
        assert task is not None
        reporter, told = Reporter(), 0
        self.waiting += 1
        try:
            while True:
                await asyncio.wait({task}, timeout=POLL_SECONDS if emit else None)
                if emit:
                    for message in self.opening[told:]:
                        await emit(message)
                    told = len(self.opening)
                    for message in reporter.messages(self.progress.snapshot()):
                        await emit(message)
                if task.done():
                    image = task.result()
                    if emit:
                        for message in self.closing:
                            await emit(message)
                    return image
        finally:
            self.waiting -= 1
            if not self.waiting and not task.done():
                self.cancel()


class Pulls:
    """The pulls that run now."""

    def __init__(
        self, start: Callable[[Reference, Platform | None, Credential | None, Pull], Awaitable[Image]]
    ) -> None:
        self._start = start
        self._running: dict[tuple[str, str, str], Pull] = {}

    async def join(
        self, reference: Reference, platform: Platform | None, credential: Credential | None, emit: Emit | None
    ) -> Image:
        """Pull, or wait for the pull of the same that runs already."""
        key = (str(reference), str(platform), _fingerprint(credential))
        while (pull := self._running.get(key)) and pull.cancelled and pull.task:
            await asyncio.wait({pull.task})
        if pull is None:
            pull = self._running[key] = Pull()
            pull.task = asyncio.get_running_loop().create_task(
                self._run(key, reference, platform, credential, pull), name=f"pull {reference}"
            )
            pull.task.add_done_callback(_failure_is_told)
        return await pull.follow(emit)

    async def close(self) -> None:
        """End every pull, and wait until it has ended."""
        running = list(self._running.values())
        for pull in running:
            pull.cancel()
        tasks = [pull.task for pull in running if pull.task]
        if tasks:
            await asyncio.wait(tasks)

    async def _run(
        self,
        key: tuple[str, str, str],
        reference: Reference,
        platform: Platform | None,
        credential: Credential | None,
        pull: Pull,
    ) -> Image:
        try:
            return await self._start(reference, platform, credential, pull)
        except asyncio.CancelledError:
            raise Unavailable(f"the pull of {reference.familiar} was cancelled") from None
        finally:
            del self._running[key]


def _failure_is_told(task: asyncio.Task[Image]) -> None:
    """Whoever waits gets the exception; when nobody does any more there is nobody to tell."""
    if not task.cancelled():
        task.exception()


def _fingerprint(credential: Credential | None) -> str:
    """Tells credentials apart without keeping one."""
    return hashlib.sha256("\0".join(credential).encode()).hexdigest() if credential else ""
