"""/events."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

from aiohttp import web

from knarr.api import reply, streams
from knarr.api.wire.containers import parse_time
from knarr.api.wire.events import FILTERS, matcher, shown
from knarr.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from knarr.engine.engine import Engine
    from knarr.engine.events import Event

__all__ = ["routes"]

PATIENCE = 15.0  # seconds between looks whether a listener is still there
_LINES = "application/jsonl"
_SEQUENCE = "application/json-seq"
_FORMS = (_LINES, "application/x-ndjson", _SEQUENCE)


def routes(engine: Engine) -> list[web.RouteDef]:
    """The route of events."""

    async def events(request: web.Request) -> web.StreamResponse:
        query, version = request.query, reply.version(request)
        since, until = (_time(query.get(name, ""), name) for name in ("since", "until"))
        if until and until < since:
            raise InvalidArgument(f"`since` time ({query['since']}) cannot be after `until` time ({query['until']})")
        wanted = matcher(reply.filters(query, FILTERS))
        form = _form(request, version)
        begin = b"\x1e" if form == _SEQUENCE else b""
        response = await streams.stream(request, form)
        async for event in _events(engine, since, until, wanted, lambda: not streams.gone(request)):
            line = shown(event, version)
            if line is not None:
                await response.write(begin + json.dumps(line, separators=(",", ":")).encode() + b"\n")
        await response.write_eof()
        return response

    return [web.get("/events", events)]


def _time(text: str, name: str) -> int:
    try:
        return parse_time(text)
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid value for '{name}': {error}") from error


def _form(request: web.Request, version: int) -> str:
    """The content type: what the client accepts of the forms there are, else the version's own."""
    accepted = [part.partition(";")[0].strip() for part in request.headers.get("Accept", "").split(",")]
    own = _LINES if version >= 52 else "application/json"
    return next((form for form in accepted if form in _FORMS), own)


async def _events(
    engine: Engine, since: int, until: int, wanted: Callable[[Event], bool], wanted_still: Callable[[], bool]
) -> AsyncIterator[Event]:
    """Past events where either end was given, and those to come unless the end has passed."""
    bus = engine.events
    listener = bus.join()
    try:
        now = time.time_ns()
        if since or until:
            for event in bus.past(since, until or now, wanted):
                yield event
        if until and until < now:
            return
        while wanted_still():
            left = (until - time.time_ns()) / 1e9 if until else PATIENCE
            if left <= 0:
                return
            try:
                event = await asyncio.wait_for(listener.get(), min(left, PATIENCE))
            except asyncio.TimeoutError:
                continue
            if wanted(event):
                yield event
    finally:
        bus.leave(listener)
