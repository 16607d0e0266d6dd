"""Bodies that are written piece by piece: events, answers that come later.

Multiplexed output is framed as the API describes it (ContainerAttach, Stream format): one byte for the stream
(1 stdout, 2 stderr), three zeros, four bytes of length in network order.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["MULTIPLEXED", "RAW", "frame", "gone", "json_stream", "stream"]

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
_NUMBERS = {"stdout": 1, "stderr": 2}


def frame(stream_name: str, data: bytes) -> bytes:
    """One frame of a multiplexed stream."""
    return struct.pack(">BxxxL", _NUMBERS[stream_name], len(data)) + data


def gone(request: web.Request) -> bool:
    """Whether the client has hung up: nobody tells a handler, which may have nothing to write for hours."""
    return request.transport is None or request.transport.is_closing()


async def stream(request: web.Request, content_type: str) -> web.StreamResponse:
    """A response whose headers have been sent and whose body follows in chunks."""
    response = web.StreamResponse(headers={"Content-Type": content_type})
    response.enable_chunked_encoding()
    await response.prepare(request)
    return response


async def json_stream(request: web.Request, items: AsyncIterator[dict[str, Any]]) -> web.StreamResponse:
    """JSON objects, a line each, as they come."""
    response = await stream(request, "application/json")
    async for item in items:
        await response.write(json.dumps(item, separators=(",", ":")).encode() + b"\n")
    await response.write_eof()
    return response
