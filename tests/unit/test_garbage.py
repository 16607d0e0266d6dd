"""Full rounds of the collector come in quiet moments, and only where they are due."""

import asyncio
import contextlib
import gc
import time

import pytest

from knarr import garbage


@pytest.fixture
def rounds(monkeypatch):
    """The full rounds that were made; the thresholds are put back."""
    made = []
    before = gc.get_threshold()
    monkeypatch.setattr(garbage, "EVERY", 0.05)
    monkeypatch.setattr(gc, "collect", lambda: made.append(True))
    yield made
    gc.set_threshold(*before)
    gc.unfreeze()


async def watched(work):
    task = asyncio.create_task(garbage.watch())
    await work()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def idle():
    await asyncio.sleep(0.2)


async def busy():
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        until = time.process_time() + 0.01
        while time.process_time() < until:
            pass
        await asyncio.sleep(0)


@pytest.mark.parametrize(("pending", "work", "expected"), [(10, idle, True), (9, idle, False), (10, busy, False)])
def test_a_full_round(rounds, monkeypatch, pending, work, expected):
    monkeypatch.setattr(gc, "get_count", lambda: (0, 0, pending))
    monkeypatch.setattr(garbage, "QUIET", 0.2)
    asyncio.run(watched(work))
    assert bool(rounds) == expected


def test_what_was_loaded_is_left_out(rounds):
    before = gc.get_threshold()
    garbage.settle()
    assert gc.get_freeze_count() > 1000
    assert gc.get_threshold() == (*before[:2], garbage.LATEST)
    assert rounds == [True]
