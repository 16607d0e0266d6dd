"""GET /containers/{id}/attach/ws: a container's streams over a WebSocket (RFC 6455).

What a container writes goes out in binary messages, as it comes and with no frames of Docker's within; what comes in
messages of either kind is its input. A WebSocket cannot be handed to the supervisor, which knows bytes alone: it gets
one end of a pair of sockets, and here they are carried between the other and the client. Both directions wait for
whoever reads too slowly, so that nothing piles up here; what a client does not take, the supervisor keeps or drops.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from knarr.api import reply
from knarr.engine.containers import detach
from knarr.engine.containers.execs import Streams
from knarr.errors import InvalidArgument, KnarrError

if TYPE_CHECKING:
    from knarr.engine.engine import Engine

__all__ = ["routes"]

READ = 64 * 1024
MESSAGE_LIMIT = 4 * 1024 * 1024
FLAGS_SINCE = 42  # before, stdin, stdout and stderr were all attached
BINARY_SINCE = 28  # before, messages were text


def routes(engine: Engine) -> list[web.RouteDef]:
    """The route of attach over a WebSocket."""
    containers = engine.containers

    async def attach(request: web.Request) -> web.StreamResponse:
        query, version = request.query, reply.version(request)
        container = containers.attachable(request.match_info["name"])
        config = container.record.config
        keys = detach.parse(query.get("detachKeys") or detach.DEFAULT) if config["Tty"] else []

        def wanted(name: str) -> bool:
            return version < FLAGS_SINCE or reply.flag(query, name)

        stdin, stdout, stderr = wanted("stdin") and config["OpenStdin"], wanted("stdout"), wanted("stderr")
        history = containers.log_file(container) if reply.flag(query, "logs") else None
        client = web.WebSocketResponse(max_msg_size=MESSAGE_LIMIT)
        if not client.can_prepare(request).ok:
            raise InvalidArgument("attach/ws takes the handshake of a WebSocket, and this request is none")
        await client.prepare(request)
        carrier = _Carrier(client, text=version < BINARY_SINCE)
        live = reply.flag(query, "stream")
        if not live and history is None:
            await client.close()
            return client
        ours, theirs = socket.socketpair()
        try:
            streams = Streams(
                fd=theirs.fileno(),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                multiplexed=False,
                detach_keys=keys,
                initial="",
                history=history,
                live=live,
            )
            await containers.attach(container.record.id, streams)
        except KnarrError as error:  # the handshake is over: it is said where the output would be
            ours.close()
            await carrier.say(f"{error}\r\n".encode())
            await client.close()
            return client
        finally:
            theirs.close()
        await carrier.carry(ours)
        return client

    return [web.get("/containers/{name}/attach/ws", attach)]


class _Carrier:
    """Carries bytes between a client and one end of a pair of sockets."""

    def __init__(self, client: web.WebSocketResponse, *, text: bool) -> None:
        self._client = client
        self._text = text

    async def say(self, data: bytes) -> None:
        """Send bytes, once the client has taken most of those before. ConnectionError where it has gone."""
        if self._text:
            await self._client.send_str(data.decode(errors="replace"))
        else:
            await self._client.send_bytes(data)

    async def carry(self, ours: socket.socket) -> None:
        """Until the container has said everything, or the client has gone."""
        reader, writer = await asyncio.open_connection(sock=ours, limit=READ)
        ends = {asyncio.ensure_future(self._out(reader)), asyncio.ensure_future(self._in(writer))}
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in done:
                with contextlib.suppress(ConnectionError):  # of either: then the other has nobody to serve
                    end.result()
        finally:
            for end in ends:
                end.cancel()
            writer.transport.abort()
            await self._client.close()

    async def _out(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(READ):
            await self.say(data)

    async def _in(self, writer: asyncio.StreamWriter) -> None:
        async for message in self._client:
            if message.type is WSMsgType.BINARY:
                writer.write(message.data)
            elif message.type is WSMsgType.TEXT:
                writer.write(message.data.encode())
            await writer.drain()
