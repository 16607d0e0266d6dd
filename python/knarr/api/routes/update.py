"""/containers/{id}/update."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from knarr.api import reply
from knarr.api.wire.update import decode

if TYPE_CHECKING:
    from knarr.engine.engine import Engine

__all__ = ["routes"]


def routes(engine: Engine) -> list[web.RouteDef]:
    """The route of updates."""

    async def update(request: web.Request) -> web.StreamResponse:
        given = decode(await reply.body(request), reply.version(request))
        warnings = await engine.containers.update(request.match_info["name"], given)
        return reply.reply({"Warnings": warnings or None})

    return [web.post("/containers/{name}/update", update)]
