"""Bodies that Rust carries between a client's socket and a container, so that Python sees none of their bytes.

Uploads: `Front` (hijack.py) keeps the body of such a request back. aiohttp is given the head alone, with no body
announced, and its handler takes the socket from here; what was read of the body already goes with it. Downloads: the
head is sent by aiohttp, and the socket is lent out until the body's last chunk, which is aiohttp's again.

An upload whose head does not come at once is aiohttp's altogether, and pumped to Rust through a pair of sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web

from knarr._core import Body
from knarr.engine.apart import apart
from knarr.engine.containers.files import CHUNKED, PATIENCE, STREAM
from knarr.errors import KnarrError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from knarr.engine.containers.files import Writer

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

__all__ = ["Kept", "answer", "keep", "kept", "receive", "send", "unclaimed"]

log = logging.getLogger("knarr.api")

FORGIVEN = 1 << 30  # bytes that are read and forgotten behind an error, for the client to see it
UNCLAIMED_PATIENCE = 5.0  # seconds that a body which nobody wants may bring nothing
_OURS = re.compile(rb"PUT (?:/v[0-9.]+)?/(?:containers|volumes)/[^/ ?]+/archive[ ?]")
_FRAMING = re.compile(rb"\r\n(content-length|transfer-encoding|expect): *([^\r\n]*)", re.IGNORECASE)


class Kept(NamedTuple):
    """A request's body that aiohttp does not know of."""

    length: int  # bytes, or CHUNKED
    begun: bytes  # what was read of it
    expects: bool  # the client waits to be told to go on


kept: dict[asyncio.BaseProtocol, Kept] = {}  # by aiohttp's protocol of the connection


def keep(data: bytes) -> tuple[bytes, Kept] | None:
    """The head for aiohttp, and the body that is kept back, of the beginning of a request; None for any other request.

    Also None where the head is incomplete, or says of its body what nobody understands: aiohttp then says so.
    """
    if not data.startswith(b"PUT ") or not _OURS.match(data):
        return None
    head, separator, begun = data.partition(b"\r\n\r\n")
    if not separator:
        return None
    fields = {name.lower(): value.strip() for name, value in _FRAMING.findall(head)}
    length = fields.get(b"content-length")
    if fields.get(b"transfer-encoding", b"").lower() == b"chunked" and length is None:
        size = CHUNKED
    elif b"transfer-encoding" not in fields and length is not None and length.isdigit() and len(length) < 19:
        size = int(length)
    else:
        return None
    bare = _FRAMING.sub(b"", head) + b"\r\nContent-Length: 0\r\n\r\n"
    return bare, Kept(size, begun, fields.get(b"expect", b"").lower() == b"100-continue")


@contextlib.asynccontextmanager
async def receive(request: web.Request) -> AsyncIterator[Body]:
    """The body of a request, for Rust to read."""
    body = kept.pop(request.protocol, None)
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client has gone")
    if body is not None:
        if body.expects:
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        descriptor = transport.get_extra_info("socket").fileno()
        yield Body(descriptor, body.length, body.begun, PATIENCE)
        return
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    pumping = asyncio.ensure_future(_pump_in(request, ours))
    try:
        with theirs:
            yield Body(theirs.fileno(), STREAM, b"", PATIENCE)
    finally:
        pumping.cancel()
        await asyncio.wait({pumping})
        ours.close()


async def _pump_in(request: web.Request, ours: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # nobody wants any more of it
        async for piece in request.content.iter_any():
            await loop.sock_sendall(ours, piece)
        ours.shutdown(socket.SHUT_WR)


async def answer(request: web.Request, response: web.StreamResponse, body: Body) -> web.StreamResponse:
    """The answer to an upload; what the client still sends of it is read and forgotten."""
    transport = request.transport
    if not body.ended:
        await _forgive(request, response, body)
    elif transport is not None and isinstance(transport, asyncio.Transport):
        transport.resume_reading()
        rest = body.rest()
        if rest:
            protocol = transport.get_protocol()
            assert isinstance(protocol, asyncio.Protocol)
            protocol.data_received(rest)
    return response


async def _forgive(request: web.Request, response: web.StreamResponse, body: Body) -> None:
    """Answer before the end of an upload. A client that is cut off while it sends may never look for the answer."""
    response.force_close()
    await response.prepare(request)
    await response.write_eof()
    with contextlib.suppress(KnarrError):
        await apart(lambda: body.drain(FORGIVEN))


async def send(request: web.Request, headers: dict[str, str], work: Writer) -> web.StreamResponse:
    """An answer whose body `work` writes to a socket."""
    response = web.StreamResponse(headers=headers)
    response.enable_chunked_encoding()
    await response.prepare(request)
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client has gone")
    try:
        await _lent(transport, work)
    except KnarrError as error:
        log.info("%s %s: %s", request.method, request.path, error)
        transport.abort()  # half an archive must not look like a whole one
        raise ConnectionResetError(str(error)) from error
    await response.write_eof()
    return response


async def _lent(transport: asyncio.WriteTransport, work: Writer) -> None:
    while transport.get_write_buffer_size():  # noqa: ASYNC110  asyncio tells aiohttp, and not us
        await asyncio.sleep(0.005)
    descriptor = os.dup(transport.get_extra_info("socket").fileno())
    try:
        await work(descriptor, CHUNKED)
    finally:
        os.close(descriptor)


@web.middleware
async def unclaimed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Close a connection whose request has a body that nobody took, after what comes of it."""
    response = await handler(request)
    body = kept.pop(request.protocol, None)
    transport = request.transport
    if body is None or transport is None:
        return response
    if body.expects:  # told of an error, the client sends none
        response.force_close()
    else:
        descriptor = transport.get_extra_info("socket").fileno()
        await _forgive(request, response, Body(descriptor, body.length, body.begun, UNCLAIMED_PATIENCE))
    return response
