"""When the daemon looks for garbage that reference counts leave: objects bound in cycles.

A full round of Python's collector looks at every object there is, and nothing else goes on meanwhile: 45 to 90 ms with
a thousand containers, found in whatever request it came upon. Cycles are few (an error with its traceback, a task that
was cancelled), so full rounds are left to quiet moments, and without any come after LATEST rounds of the middle
generation instead of after 10. What is there before the first request is code, and is left out for good.
"""

from __future__ import annotations

import asyncio
import gc
import time

__all__ = ["settle", "watch"]

EVERY = 5.0  # seconds from one look to the next
QUIET = 0.02  # of a processor since the last look, by which the daemon is taken to be idle
DUE = 10  # rounds of the middle generation that make a full one worth its while
LATEST = 500


def settle() -> None:
    """Leave what has been loaded out of every later round, and full rounds to `watch`."""
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, LATEST)


async def watch() -> None:
    """Make the full rounds that are due, in quiet moments; runs until it is cancelled."""
    while True:
        used = time.process_time()
        await asyncio.sleep(EVERY)
        if time.process_time() - used < QUIET * EVERY and gc.get_count()[2] >= DUE:
            gc.collect()
