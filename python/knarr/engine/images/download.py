"""Archives to import, from a URL: fetched by the daemon, as it is asked for, a bounded number of pieces ahead."""

from __future__ import annotations

import asyncio
import http.client
import threading
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

from knarr.errors import InvalidArgument, KnarrError, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    Emit = Callable[[dict[str, Any]], Awaitable[None]]

__all__ = ["pieces"]

PIECE = 256 << 10
SECONDS = 60.0  # that a server may say nothing
AHEAD = 8  # pieces that were read and not taken


async def pieces(source: str, emit: Emit) -> AsyncGenerator[bytes, None]:
    """What a URL has, in pieces; emit is given Docker's messages. InvalidArgument, Unavailable."""
    url = source if "://" in source else f"http://{source}"
    parsed = urllib.parse.urlsplit(url)
    if parsed.scheme not in ("http", "https") or not parsed.hostname:
        raise InvalidArgument(f"cannot import from {url}: it is no http or https URL")
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes | KnarrError | int] = asyncio.Queue()
    room = threading.Semaphore(AHEAD)
    given_up = threading.Event()

    def put(item: bytes | KnarrError | int) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(queue.put_nowait, item)

    threading.Thread(target=_fetch, args=(url, put, room, given_up), name="import", daemon=True).start()
    try:
        done = total = 0
        while True:
            item = await queue.get()
            if isinstance(item, KnarrError):
                raise item
            if isinstance(item, int):
                total = item
                await emit({"status": f"Downloading from {url}"})
                continue
            if not item:
                return
            yield item
            room.release()
            done += len(item)
            detail = {"current": done, **({"total": total} if total else {})}
            await emit({"status": "Importing", "progressDetail": detail})
    finally:
        given_up.set()
        room.release()


def _fetch(
    url: str,
    put: Callable[[bytes | KnarrError | int], None],
    room: threading.Semaphore,
    given_up: threading.Event,
) -> None:
    """Read it all, in a thread: its length (0 where that is not told), pieces, and an empty one at the end."""
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as response:  # noqa: S310  the scheme was looked at
            put(response.length or 0)
            piece = b"begin"
            while piece and not given_up.is_set():
                piece = response.read(PIECE)
                room.acquire()
                put(piece)
            if response.length:
                put(Unavailable(f"{url} ends {response.length} bytes too early"))
    except urllib.error.HTTPError as error:
        put(InvalidArgument(f"failed to GET {url} with status {error.code} {error.reason}: {_text(error)}"))
    except (OSError, http.client.HTTPException, ValueError) as error:
        put(Unavailable(f"cannot import from {url}: {getattr(error, 'reason', error)}"))


def _text(error: urllib.error.HTTPError) -> str:
    try:
        return error.read(1024).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException):
        return ""
