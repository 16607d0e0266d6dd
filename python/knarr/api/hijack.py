"""Requests that take the connection over: attach, the start of an exec, and logs.

After the answer's headers the connection is no HTTP any more, and Python does not carry its bytes: the socket goes to
the supervisor, with whatever was read from it already. aiohttp gives a connection away only without those bytes, so
these requests are recognised by their first line and read here; everything else passes through to aiohttp.

A connection is in one of four states: idle; busy with a request of aiohttp's, whose body is not looked into; collecting
a request of ours; or ours, and not read from any more. `Connections` knows which are of the second kind.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import json
import logging
import os
import re
import termios
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from knarr.api import carry, logs, reply, versions
from knarr.api.errors import status_of, told, unforeseen
from knarr.api.prompt import Answer
from knarr.api.streams import MULTIPLEXED, RAW, frame
from knarr.engine.containers import detach
from knarr.engine.containers.execs import Streams
from knarr.errors import InvalidArgument, KnarrError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

    from knarr.api.connections import Connections
    from knarr.api.prompt import Table
    from knarr.engine.engine import Engine

__all__ = ["Front"]

log = logging.getLogger("knarr.api")

HEAD_LIMIT = 64 * 1024
BODY_LIMIT = 64 * 1024
INCOMPLETE_LIMIT = HEAD_LIMIT + 8 * BODY_LIMIT  # of a request on its way; chunks may be small
HALF_CLOSED_SECONDS = 1.0  # that an answer has to be sent to a client which has closed its side already
TAKEN_OFF_SECONDS = 2.0  # that a client may take to read the headers, on a machine that has other things to do
_METHODS = (b"POST ", b"GET ")  # of ours
_OURS = re.compile(
    rb"(?:POST (?:/v[0-9.]+)?/(?:containers/[^/ ?]+/attach|exec/[^/ ?]+/start)"
    rb"|GET (?:/v[0-9.]+)?/containers/[^/ ?]+/logs)[ ?]"
)
_PATH = re.compile(r"(?:/v(?P<version>[0-9.]+))?/(?P<noun>containers|exec)/(?P<name>[^/]+)/(?P<action>\w+)")
_BUFFERING = "docker-sdk-python"  # the User-Agent of docker-py, see _taken_off
_HEXADECIMAL = re.compile(rb"[0-9A-Fa-f]{1,8}")
_LONGEST_LINE = 4096


@dataclass(slots=True)
class _Request:
    noun: str
    name: str
    action: str
    protocol: str  # such as HTTP/1.1
    version: str  # as the path has it; empty where it names none
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
        connections: Connections,
        prompt: Table,
    ) -> None:
        self._engine = engine
        self._inner = inner
        self._tasks = tasks
        self._connections = connections
        self._prompt = prompt
        self._transport: asyncio.Transport
        self._buffer = b""
        self._taken = False
        self._counted = False
        self._encouraged = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._inner.connection_made(transport)
        self._counted = self._connections.take()
        if self._counted:
            self._connections.made(self._inner, transport)
        else:
            self._refuse(Unavailable("too many connections to the daemon: close some, or try again later"), close=True)

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.lost(self._inner)
        carry.kept.pop(self._inner, None)
        if self._counted:
            self._connections.give()
        self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def eof_received(self) -> bool | None:
        if self._taken or self._inner not in self._connections.busy:
            return None
        # Most have gone altogether, which only a write would tell; some wait for an answer.
        asyncio.get_running_loop().call_later(HALF_CLOSED_SECONDS, self._transport.close)
        return True

    def data_received(self, data: bytes) -> None:
        if self._inner in self._connections.busy:
            self._inner.data_received(data)
            return
        if self._buffer:
            data = self._buffer + data
        if self._answered(data):
            return
        self._connections.begins(self._inner, self._transport)
        if self._buffer:
            self._buffer = data
        elif not data.startswith(_METHODS) and not any(method.startswith(data) for method in _METHODS):
            self._pass_on(self._keep_back(data))
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

    def _answered(self, data: bytes) -> bool:
        """Answer what can be answered at once; a client that does not read its answers is aiohttp's to hold back."""
        found = None if self._transport.get_write_buffer_size() else self._prompt.find(data)
        if found is None:
            return False
        if found.function is None:  # the body is still on its way
            self._connections.begins(self._inner, self._transport)
            self._buffer = data
            return True
        self._connections.begun(self._inner)
        self._buffer = b""
        what = data.partition(b" HTTP/")[0].decode("latin-1")
        try:
            answer = found.function(found.asked)
        except Exception as error:  # noqa: BLE001  logged there where it is ours, and told
            self._refuse(told(error, what))
            return True
        if isinstance(answer, Answer):
            self._transport.write(answer.encoded())
        else:
            self._take(self._await(answer, what))
        return True

    async def _await(self, answer: Awaitable[Answer], what: str) -> None:
        try:
            self._answer(await answer)
        except Exception as error:  # noqa: BLE001  as above
            self._refuse(told(error, what))

    def _take(self, serving: Coroutine[Any, Any, None]) -> None:
        """Serve a request of ours; nothing more is read meanwhile."""
        self._taken = True
        self._transport.pause_reading()
        task = asyncio.get_running_loop().create_task(serving)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _pass_on(self, data: bytes) -> None:
        self._connections.busy.add(self._inner)
        self._inner.data_received(data)

    def _keep_back(self, data: bytes) -> bytes:
        """What aiohttp is to see of a request's beginning: the head alone where Rust reads the body (carry.py)."""
        found = carry.keep(data)
        if found is None:
            return data
        head, carry.kept[self._inner] = found
        self._transport.pause_reading()
        return head

    def _collect(self) -> None:
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            if len(head) > HEAD_LIMIT:
                self._refuse(InvalidArgument("the request's headers are too long"), close=True)
            return
        request = _parse(head, rest)
        if request is None:  # the body is still on its way
            if len(self._buffer) > INCOMPLETE_LIMIT:
                request = InvalidArgument(f"the body is longer than {BODY_LIMIT} bytes")
            elif not self._encouraged and b"\r\nexpect: 100-continue\r\n" in head.lower() + b"\r\n":
                self._encouraged = True
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if isinstance(request, KnarrError):
            self._refuse(request, close=True)
        if not isinstance(request, _Request):
            return
        self._buffer = b""
        self._encouraged = False
        self._connections.begun(self._inner)
        self._take(self._serve(request))

    async def _serve(self, request: _Request) -> None:
        close = request.protocol == "HTTP/1.0" or "close" in request.headers.get("connection", "").lower()
        try:
            refusal = versions.refusal(request.version)
            if refusal:
                self._refuse(InvalidArgument(refusal), close=close)
            elif request.noun == "exec":
                await self._exec(request)
            elif request.action == "logs":
                await self._logs(request)
            else:
                await self._attach(request)
        except KnarrError as error:
            self._refuse(error, close=close)
        except Exception as error:  # noqa: BLE001  logged there, and told
            self._refuse(unforeseen(error, f"{request.noun} {request.name}"), close=True)

    # --- answers

    def _refuse(self, error: Exception, *, close: bool = False) -> None:
        body = json.dumps({"message": str(error)}).encode() + b"\n"
        self._answer(Answer(body, status_of(error)), close=close)

    def _answer(self, answer: Answer, *, close: bool = False) -> None:
        """An ordinary answer; the connection goes on in HTTP unless it is closed."""
        if self._transport.is_closing():
            return
        self._transport.write(answer.encoded(close=close))
        self._buffer = b""
        self._taken = False
        if close:
            self._transport.close()
        else:
            self._transport.resume_reading()

    async def _hand_over(self, request: _Request, *, multiplexed: bool, body: str = "") -> int:
        """Send the headers of a taken connection; a descriptor of its socket, which is the caller's to close."""
        kind = RAW  # which a client without `Upgrade` is told of either, as Docker does
        if body:
            if multiplexed and _at_least(request.version, (1, 42)):
                kind = MULTIPLEXED
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{body}Connection: close\r\n"
        elif "upgrade" in request.headers:
            if multiplexed and _at_least(request.version, (1, 42)):
                kind = MULTIPLEXED
            head = f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {kind}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        else:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n"
        head += f"{versions.HEADER_LINES}\r\n"
        self._transport.write(head.encode())
        descriptor = os.dup(self._transport.get_extra_info("socket").fileno())
        if _BUFFERING in request.headers.get("user-agent", ""):
            await _taken_off(descriptor)
        return descriptor

    # --- what is asked for

    async def _attach(self, request: _Request) -> None:
        query = request.query
        containers = self._engine.containers
        container = containers.attachable(request.name)
        config = container.record.config
        terminal = config["Tty"]
        keys = detach.parse(query.get("detachKeys") or detach.DEFAULT)
        with_logs, live = reply.flag(query, "logs"), reply.flag(query, "stream")
        stdout, stderr = reply.flag(query, "stdout"), reply.flag(query, "stderr")
        history = containers.log_file(container) if with_logs else None
        descriptor = await self._hand_over(request, multiplexed=not terminal)
        try:
            if with_logs or live:
                await containers.attach(
                    container.record.id,
                    Streams(
                        fd=descriptor,
                        stdin=reply.flag(query, "stdin") and config["OpenStdin"],
                        stdout=stdout,
                        stderr=stderr,
                        multiplexed=not terminal,
                        detach_keys=keys if terminal else [],
                        initial=base64.b64encode(request.rest).decode(),
                        history=history,
                        live=live,
                    ),
                )
        except KnarrError as error:
            # The headers are out: all that can be done is to say it where the output would be.
            self._write_error(error, "stderr", multiplexed=not terminal)
        finally:
            os.close(descriptor)
            self._transport.close()

    async def _logs(self, request: _Request) -> None:
        containers = self._engine.containers
        container = containers.get(request.name)
        terminal = container.record.config["Tty"]
        chunked = request.protocol != "HTTP/1.0"
        wanted = logs.wanted(request.query, terminal=terminal, chunked=chunked)
        file = containers.log_file(container)
        body = "Transfer-Encoding: chunked\r\n" if chunked else "Cache-Control: no-store\r\n"
        descriptor = await self._hand_over(request, multiplexed=not terminal, body=body)
        try:
            await containers.logs(container, file, wanted, descriptor)
        except KnarrError as error:
            # The headers are out, and a body that just ends says that something is wrong.
            log.warning("reading the log of container %s: %s", container.record.id[:12], error)
        finally:
            os.close(descriptor)
            self._transport.close()

    async def _exec(self, request: _Request) -> None:
        execs = self._engine.containers.execs
        made = execs.get(request.name)
        if request.body:
            reply.must_be_json(request.headers.get("content-type", ""))
        body = reply.parse(request.body, optional=True)
        detached = bool(body.get("Detach"))
        size = _size(body.get("ConsoleSize"))
        if detached:
            await execs.start(made, None, size)
            self._answer(Answer(b""))
            return
        self._engine.containers.get(made.container_id).must_run()
        if made.started:
            await execs.start(made, None, size)  # says what is wrong with that
        keys = detach.parse(made.detach_keys or detach.DEFAULT) if made.tty else []
        descriptor = await self._hand_over(request, multiplexed=not made.tty)
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
            self._write_error(error, "stdout", multiplexed=not made.tty)
        except OSError as error:
            self._write_error(unforeseen(error, f"exec {made.id}"), "stdout", multiplexed=not made.tty)
        finally:
            os.close(descriptor)
            self._transport.close()

    def _write_error(self, error: KnarrError, stream: str, *, multiplexed: bool) -> None:
        """Say it where the output would be, on the stream on which Docker says it."""
        text = f"{error}\r\n".encode()
        self._transport.write(frame(stream, text) if multiplexed else text)


def _at_least(version: str, wanted: tuple[int, int]) -> bool:
    return not version or versions.parse(version) >= wanted


async def _taken_off(descriptor: int) -> None:
    """Wait until the client has read what was written to its Unix socket, a while at most (SIOCOUTQ of unix(7)).

    docker-py reads the headers through a buffer and goes on without it, so that output which arrives together with
    them is lost on it.
    """
    end = asyncio.get_running_loop().time() + TAKEN_OFF_SECONDS
    while any(fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))):
        if asyncio.get_running_loop().time() > end:
            return
        await asyncio.sleep(0.0005)


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
    _, target, protocol = ([*lines[0].split(" "), "", ""])[:3]
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
    pairs = dict(parse_qsl(query, keep_blank_values=True))
    name = unquote(match["name"])
    return _Request(match["noun"], name, match["action"], protocol, match["version"] or "", pairs, headers, body, rest)


def _unchunk(data: bytes) -> tuple[bytes, bytes] | KnarrError | None:
    """(body, what comes after it) of a chunked body; None while it is incomplete."""
    body = b""
    while True:
        line, separator, data = data.partition(b"\r\n")
        if not separator:
            return None
        digits = line.partition(b";")[0].strip()
        if not _HEXADECIMAL.fullmatch(digits):
            return InvalidArgument("cannot read a chunk's length")
        size = int(digits, 16)
        if size + len(body) > BODY_LIMIT:
            return InvalidArgument(f"the body is longer than {BODY_LIMIT} bytes")
        if len(data) < size + 2:
            return None
        body += data[:size]
        data = data[size + 2 :]
        if not size:
            return body, data
