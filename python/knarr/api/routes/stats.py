"""/containers/{id}/stats."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from aiohttp import web

from knarr.api import reply, streams
from knarr.api.wire.stats import stats

if TYPE_CHECKING:
    from knarr.engine.containers.container import Container
    from knarr.engine.containers.stats import Sample
    from knarr.engine.engine import Engine

__all__ = ["routes"]


def routes(engine: Engine) -> list[web.RouteDef]:
    """The route of statistics."""
    sampler = engine.containers.sampler

    async def show(request: web.Request) -> web.StreamResponse:
        container = engine.containers.get(request.match_info["name"])
        query = request.query
        if "stream" not in query or reply.flag(query, "stream"):
            return await follow(request, container)
        record = container.record
        if not record.state.running or (reply.flag(query, "one-shot") and reply.version(request) >= 41):
            return reply.reply(stats(record, await sampler.now(container), None))
        before: Sample | None = None
        async for sample in sampler.follow(container):
            if before is not None:
                return reply.reply(stats(record, sample, before))
            before = sample
        return reply.reply(stats(record, await sampler.now(container), before))  # it has been removed meanwhile

    async def follow(request: web.Request, container: Container) -> web.StreamResponse:
        response = await streams.stream(request, "application/json")
        before: Sample | None = None
        async for sample in sampler.follow(container):
            if streams.gone(request):
                return response
            await response.write(_body(container, sample, before))
            before = sample
        await response.write_eof()
        return response

    return [web.get("/containers/{name}/stats", show)]


def _body(container: Container, sample: Sample, before: Sample | None) -> bytes:
    """Encoded once for all who are at the same place."""
    key = before.number if before else 0
    body = sample.bodies.get(key)
    if body is None:
        answer = stats(container.record, sample, before)
        body = sample.bodies[key] = json.dumps(answer, separators=(",", ":")).encode() + b"\n"
    return body
