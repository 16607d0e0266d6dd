"""What the connections to the API have in common: how many there may be, and who has kept us waiting for too long.

A connection that does nothing costs memory and a descriptor, and may stay; one beyond the limit is told so and closed,
so that the daemon never runs out of descriptors for its work. What does not stay is a request that never gets to the
end of its head, and a connection on which none begins: these would be a way to use up the limit for nothing. All of one
kind have the same time, so the eldest is the first of its table, and one look at it every few seconds is enough.

Requests begin one a round of the loop. A crowd that asks for something at the same instant, each of which takes the
loop some milliseconds, would otherwise be served in one round, and everybody else wait for all of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.typedefs import Middleware

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

__all__ = ["Connections"]

log = logging.getLogger("knarr.api")

HEAD_SECONDS = 60.0  # from a request's first byte to the end of its head
SILENT_SECONDS = 300.0  # from a connection's beginning to its first request's, as Docker gives it
LOOK_SECONDS = 5.0
COMPLAIN_SECONDS = 60.0
PROMPT = ("/_ping", "/version")  # cost next to nothing, and are asked to see whether anybody is there


class Connections:
    """Every connection, by aiohttp's protocol of it.

    `busy` are those with a request that aiohttp is reading or serving: an entry is made with the first bytes of a
    request, and taken away by the middleware when it was handled.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0  # descriptors
        self.busy: set[asyncio.BaseProtocol] = set()
        self._heads: dict[asyncio.BaseProtocol, tuple[float, asyncio.Transport]] = {}
        self._silent: dict[asyncio.BaseProtocol, tuple[float, asyncio.Transport]] = {}
        self._complained = float("-inf")
        self._turns: deque[asyncio.Future[None]] = deque()
        self._begun = False  # whether a request has begun in this round of the loop

    def take(self, descriptors: int = 1) -> bool:
        """Count descriptors of a new connection; False, and nothing is counted, where there are too many."""
        if self.count + descriptors <= self.limit:
            self.count += descriptors
            return True
        now = asyncio.get_running_loop().time()
        if now - self._complained > COMPLAIN_SECONDS:
            self._complained = now
            log.warning("%d connections are as many as the limit of open files allows: refusing more", self.count)
        return False

    def give(self, descriptors: int = 1) -> None:
        """They are closed."""
        self.count -= descriptors

    def made(self, inner: asyncio.BaseProtocol, transport: asyncio.Transport) -> None:
        """A connection is there, and silent so far."""
        self._silent[inner] = (asyncio.get_running_loop().time(), transport)

    def begins(self, inner: asyncio.BaseProtocol, transport: asyncio.Transport) -> None:
        """The first bytes of a request have come."""
        self._silent.pop(inner, None)
        if inner not in self._heads:
            self._heads[inner] = (asyncio.get_running_loop().time(), transport)

    def begun(self, inner: asyncio.BaseProtocol) -> None:
        """The request's head is complete."""
        self._silent.pop(inner, None)
        self._heads.pop(inner, None)

    def lost(self, inner: asyncio.BaseProtocol) -> None:
        """The connection is gone."""
        self.busy.discard(inner)
        self._heads.pop(inner, None)
        self._silent.pop(inner, None)

    def middleware(self) -> Middleware:
        """Tells when aiohttp has read the head of a request, and when it has been handled."""

        @web.middleware
        async def handle(request: web.Request, handler: Handler) -> web.StreamResponse:
            inner = request.protocol
            self._heads.pop(inner, None)
            try:
                if not request.rel_url.raw_path.endswith(PROMPT):
                    await self._turn()
                return await handler(request)
            finally:
                self.busy.discard(inner)

        return handle

    async def _turn(self) -> None:
        """Wait until it is this request's turn to begin."""
        loop = asyncio.get_running_loop()
        if not self._begun:
            self._begun = True
            loop.call_soon(self._next)
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._turns.append(turn)
        await turn

    def _next(self) -> None:
        """Another round: let the next begin, in the order of their coming."""
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():  # cancelled
                turn.set_result(None)
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._begun = False

    async def watch(self) -> None:
        """Close what keeps us waiting; until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for table, patience in ((self._heads, HEAD_SECONDS), (self._silent, SILENT_SECONDS)):
                late = loop.time() - patience
                while table:
                    inner, (since, transport) = next(iter(table.items()))
                    if since > late:
                        break
                    del table[inner]
                    transport.abort()
