"""Threads for what takes long: pulls and loads, apart from the loop's own pool, which short work needs."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")
THREADS = 16


class Threads:
    """Runs blocking work. Whoever waits and is cancelled still waits for the end: the work holds leases."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="images")

    async def run(self, work: Callable[[], Result], cancel: Callable[[], None] | None = None) -> Result:
        """The result of `work`, done in a thread; `cancel` asks it to end soon."""
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        cancelled: asyncio.CancelledError | None = None
        while not future.done():
            try:
                await asyncio.wait({future})
            except asyncio.CancelledError as error:
                cancelled = error
                if cancel:
                    cancel()
        if cancelled:
            future.exception()  # known: it was told to end
            raise cancelled
        return future.result()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
