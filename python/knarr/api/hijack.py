"""Requests that take the connection over: attach, and the start of an exec.

After the answer's headers the connection is no HTTP any more, and Python does not carry its bytes: the socket goes to
the supervisor, with whatever was read from it already. aiohttp gives a connection away only without those bytes, so
these two requests are recognised by their first line and read here; everything else passes through to aiohttp.

A connection is in one of four states: idle; busy with a request of aiohttp's, whose body is not looked into; collecting
a request of ours; or ours, and not read from any more. `busy` holds the aiohttp protocols of the second kind: an entry
is made with the first bytes of a request, and taken away by `idle`, a middleware, when the request was handled.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from knarr.api import reply
from knarr.api.errors import status_of
from knarr.api.streams import MULTIPLEXED, RAW, frame
from knarr.engine.containers import detach
from knarr.engine.containers.execs import Streams
from knarr.engine.containers.logs import Wanted
from knarr.errors import InvalidArgument, KnarrError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.typedefs import Middleware

    from knarr.engine.engine import Engine

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

__all__ = ["Front", "Versions", "idle"]

log = logging.getLogger("knarr.api")

HEAD_LIMIT = 64 * 1024
BODY_LIMIT = 64 * 1024
_OURS = re.compile(rb"POST (?:/v\d{1,4}\.\d{1,4})?/(?:containers/[^/ ?]+/attach|exec/[^/ ?]+/start)[ ?]")
_PATH = re.compile(r"(?:/v(?P<major>\d+)\.(?P<minor>\d+))?/(?P<noun>containers|exec)/(?P<name>[^/]+)/")
_LONGEST_LINE = 4096
_REASONS = {
    200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 409: "Conflict", 413: "Payload Too Large",
    500: "Internal Server Error", 501: "Not Implemented", 503: "Service Unavailable",
}  # fmt: skip


@dataclass(slots=True)
class _Request:
    noun: str
    name: str
    version: tuple[int, int]
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    rest: bytes  # what came after the request


class Front(asyncio.Protocol):
    """Stands before aiohttp's protocol of one connection."""

    def __init__(
        self,
        engine: Engine,
        inner: asyncio.Protocol,
        tasks: set[asyncio.Task[None]],
        versions: Versions,
        busy: set[asyncio.BaseProtocol],
    ) -> None:
        self._engine = engine
        self._inner = inner
        self._tasks = tasks
        self._versions = versions
        self._busy = busy
        self._transport: asyncio.Transport
        self._buffer = b""
        self._taken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._inner.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._busy.discard(self._inner)
        self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def eof_received(self) -> bool | None:
        return None if self._taken else self._inner.eof_received()

    def data_received(self, data: bytes) -> None:
        if self._inner in self._busy:
            self._inner.data_received(data)
            return
        if self._buffer:
            self._buffer += data
        elif not data.startswith(b"POST "):
            self._pass_on(data)
            return
        else:
            self._buffer = data
        if b"\r\n" not in self._buffer[:_LONGEST_LINE] and len(self._buffer) < _LONGEST_LINE:
            return  # the first line is still on its way
        if not _OURS.match(self._buffer):
            whole, self._buffer = self._buffer, b""
            self._pass_on(whole)
            return
        self._collect()

    def _pass_on(self, data: bytes) -> None:
        self._busy.add(self._inner)
        self._inner.data_received(data)

    def _collect(self) -> None:
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            if len(head) > HEAD_LIMIT:
                self._refuse(InvalidArgument("the request's headers are too long"), close=True)
            return
        request = _parse(head, rest)
        if isinstance(request, KnarrError):
            self._refuse(request, close=True)
            return
        if request is None:
            return  # the body is still on its way
        self._buffer = b""
        self._taken = True
        self._transport.pause_reading()
        task = asyncio.get_running_loop().create_task(self._serve(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, request: _Request) -> None:
        try:
            refusal = self._versions(request.version)
            if refusal:
                self._refuse(InvalidArgument(refusal))
            elif request.noun == "exec":
                await self._exec(request)
            else:
                await self._attach(request)
        except KnarrError as error:
            self._refuse(error)
        except Exception as error:
            log.exception("attaching failed")
            self._refuse(error, close=True)

    # --- answers

    def _refuse(self, error: Exception, *, close: bool = False) -> None:
        self._answer(status_of(error), json.dumps({"message": str(error)}).encode() + b"\n", close=close)

    def _answer(self, status: int, body: bytes = b"", *, close: bool = False) -> None:
        """An ordinary answer; the connection goes on in HTTP unless it is closed."""
        head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}\r\nApi-Version: {self._versions.newest}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        head += "Connection: close\r\n\r\n" if close else "\r\n"
        if self._transport.is_closing():
            return
        self._transport.write(head.encode() + body)
        self._buffer = b""
        self._taken = False
        if close:
            self._transport.close()
        else:
            self._transport.resume_reading()

    def _hand_over(self, request: _Request, *, multiplexed: bool) -> int:
        """Send the headers of a taken connection; a descriptor of its socket, which is the caller's to close."""
        kind = MULTIPLEXED if multiplexed and request.version >= (1, 42) else RAW
        if "upgrade" in request.headers:
            head = f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {kind}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        else:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n"
        head += f"Api-Version: {self._versions.newest}\r\nOstype: linux\r\n\r\n"
        descriptor = os.dup(self._transport.get_extra_info("socket").fileno())
        self._transport.write(head.encode())
        return descriptor

    # --- what is asked for

    async def _attach(self, request: _Request) -> None:
        query = request.query
        containers = self._engine.containers
        container = containers.attachable(request.name)
        config = container.record.config
        terminal = config["Tty"]
        keys = detach.parse(query.get("detachKeys") or detach.DEFAULT) if terminal else []
        with_logs, live = reply.flag(query, "logs"), reply.flag(query, "stream")
        stdout, stderr = reply.flag(query, "stdout"), reply.flag(query, "stderr")
        descriptor = self._hand_over(request, multiplexed=not terminal)
        try:
            if with_logs:
                await self._write_logs(container.record.id, stdout=stdout, stderr=stderr, terminal=terminal)
            if live:
                await containers.attach(
                    container.record.id,
                    Streams(
                        fd=descriptor,
                        stdin=reply.flag(query, "stdin") and config["OpenStdin"],
                        stdout=stdout,
                        stderr=stderr,
                        multiplexed=not terminal,
                        detach_keys=keys,
                        initial=base64.b64encode(request.rest).decode(),
                    ),
                )
        except KnarrError as error:
            # The headers are out: all that can be done is to say it where the output would be.
            self._write_error(error, multiplexed=not terminal)
        finally:
            os.close(descriptor)
            self._transport.close()

    async def _write_logs(self, container_id: str, *, stdout: bool, stderr: bool, terminal: bool) -> None:
        wanted = Wanted(stdout=stdout, stderr=stderr)
        async for batch in self._engine.containers.logs(container_id, wanted, on=False):
            for entry in batch:
                data = entry.text.encode(errors="replace")
                self._transport.write(data if terminal else frame(entry.stream, data))
            # asyncio tells aiohttp when it may go on writing, and not us
            while self._transport.get_write_buffer_size() and not self._transport.is_closing():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def _exec(self, request: _Request) -> None:
        execs = self._engine.containers.execs
        made = execs.get(request.name)
        body = reply.parse(request.body, optional=True)
        detached = bool(body.get("Detach"))
        size = _size(body.get("ConsoleSize"))
        if detached:
            await execs.start(made, None, size)
            self._answer(200)
            return
        self._engine.containers.get(made.container_id).must_run()
        if made.started:
            await execs.start(made, None, size)  # says what is wrong with that
        keys = detach.parse(made.detach_keys or detach.DEFAULT) if made.tty else []
        descriptor = self._hand_over(request, multiplexed=not made.tty)
        streams = Streams(
            fd=descriptor,
            stdin=made.stdin,
            stdout=made.stdout,
            stderr=made.stderr,
            multiplexed=not made.tty,
            detach_keys=keys,
            initial=base64.b64encode(request.rest).decode(),
        )
        try:
            await execs.start(made, streams, size)
        except KnarrError as error:
            self._write_error(error, multiplexed=not made.tty)
        finally:
            os.close(descriptor)
            self._transport.close()

    def _write_error(self, error: KnarrError, *, multiplexed: bool) -> None:
        text = f"{error}\r\n".encode()
        self._transport.write(frame("stderr", text) if multiplexed else text)


def idle(busy: set[asyncio.BaseProtocol]) -> Middleware:
    """The middleware that says when aiohttp has done with a request."""

    @web.middleware
    async def leave(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        finally:
            busy.discard(request.protocol)

    return leave


class Versions:
    """Which API versions are served."""

    def __init__(self, newest: str, refusal: Callable[[tuple[int, int]], str]) -> None:
        self.newest = newest
        self._refusal = refusal

    def __call__(self, version: tuple[int, int]) -> str:
        """Why a version is not served; empty where it is."""
        return self._refusal(version)


def _size(value: Any) -> list[int] | None:
    if value in (None, []):
        return None
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not all(isinstance(cells, int) and 0 <= cells <= 65535 for cells in value)
    ):
        raise InvalidArgument("ConsoleSize must be [height, width]")
    return value


def _parse(head: bytes, rest: bytes) -> _Request | KnarrError | None:
    """The request; None while its body is incomplete."""
    lines = head.decode("latin-1").split("\r\n")
    target = lines[0].split(" ")[1]
    path, _, query = target.partition("?")
    match = _PATH.match(path)
    if match is None:
        return InvalidArgument(f"cannot read the path {path}")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, separator, value = line.partition(":")
        if not separator:
            return InvalidArgument(f"cannot read the header {line[:80]!r}")
        headers[name.strip().lower()] = value.strip()
    if "chunked" in headers.get("transfer-encoding", "").lower():
        found = _unchunk(rest)
        if found is None or isinstance(found, KnarrError):
            return found
        body, rest = found
    else:
        text = headers.get("content-length", "0")
        if not (text.isascii() and text.isdigit()) or int(text) > BODY_LIMIT:
            return InvalidArgument(f"Content-Length {text[:40]} is not acceptable here")
        if len(rest) < int(text):
            return None
        body, rest = rest[: int(text)], rest[int(text) :]
    version = (int(match["major"]), int(match["minor"])) if match["major"] else (1, 999)
    pairs = dict(parse_qsl(query, keep_blank_values=True))
    return _Request(match["noun"], unquote(match["name"]), version, pairs, headers, body, rest)


def _unchunk(data: bytes) -> tuple[bytes, bytes] | KnarrError | None:
    """(body, what comes after it) of a chunked body; None while it is incomplete."""
    body = b""
    while True:
        line, separator, data = data.partition(b"\r\n")
        if not separator:
            return None
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            return InvalidArgument("cannot read a chunk's length")
        if size + len(body) > BODY_LIMIT:
            return InvalidArgument(f"the body is longer than {BODY_LIMIT} bytes")
        if len(data) < size + 2:
            return None
        body += data[:size]
        data = data[size + 2 :]
        if not size:
            return body, data
