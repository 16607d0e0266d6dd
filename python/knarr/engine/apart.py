"""Blocking work in threads of their own, for what may take as long as somebody else likes."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["apart"]

T = TypeVar("T")


async def apart(work: Callable[[], T]) -> T:
    """The result of blocking work that may take as long as somebody else likes, in a thread of its own.

    It goes on where the caller is cancelled.
    """
    done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    threading.Thread(target=_run, args=(work, done), name="apart", daemon=True).start()
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
