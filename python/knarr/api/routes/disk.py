"""/system/df."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from knarr.api import reply
from knarr.api.wire.disk import KINDS, usage
from knarr.errors import InvalidArgument

if TYPE_CHECKING:
    from knarr.engine.engine import Engine

__all__ = ["routes"]


def routes(engine: Engine) -> list[web.RouteDef]:
    """The route of disk usage."""

    async def df(request: web.Request) -> web.StreamResponse:
        version = reply.version(request)
        kinds = request.query.getall("type", []) if version >= 42 else []
        for kind in kinds:
            if kind not in KINDS:
                raise InvalidArgument(f"unknown object type: {kind}")
        wanted = set(kinds or KINDS)
        verbose = version >= 52 and reply.flag(request.query, "verbose")
        return reply.reply(await usage(engine, wanted, version, verbose=verbose))

    return [web.get("/system/df", df)]
