"""POST /commit: a container as an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from knarr.api import reply
from knarr.api.wire import images as wire
from knarr.api.wire.create import decode_config
from knarr.engine.containers.commit import Commit

if TYPE_CHECKING:
    from knarr.engine.engine import Engine

__all__ = ["routes"]


def routes(engine: Engine) -> list[web.RouteDef]:
    """The route of commits."""
    containers = engine.containers

    async def commit(request: web.Request) -> web.StreamResponse:
        query = request.query
        body = await reply.body(request, optional=True)
        wanted = Commit(
            reference=wire.new_reference(query.get("repo", ""), query.get("tag", "")),
            config=decode_config(body) if body else None,
            changes=query.getall("changes", []),
            author=query.get("author", ""),
            comment=query.get("comment", ""),
            pause="pause" not in query or reply.flag(query, "pause"),
        )
        image = await containers.commits.commit(containers.get(query.get("container", "")), wanted)
        return reply.reply({"Id": image.id}, 201)

    return [web.post("/commit", commit)]
