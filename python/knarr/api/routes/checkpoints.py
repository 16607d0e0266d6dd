"""/containers/{id}/checkpoints, which answer as Docker's do without its experimental features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from knarr.errors import Unsupported

if TYPE_CHECKING:
    from knarr.engine.engine import Engine

__all__ = ["routes"]


def routes(_: Engine) -> list[web.RouteDef]:
    """The routes of checkpoints."""

    async def refuse(_: web.Request) -> web.StreamResponse:
        raise Unsupported(
            "This experimental feature is disabled by default. Start the Docker daemon in experimental mode "
            "in order to enable it."
        )

    return [
        web.get("/containers/{name}/checkpoints", refuse),
        web.post("/containers/{name}/checkpoints", refuse),
        web.delete("/containers/{name}/checkpoints/{checkpoint}", refuse),
    ]
