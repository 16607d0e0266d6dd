"""/_ping, /version, /info."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from aiohttp import web

from knarr.api import reply
from knarr.api.ping import HEADERS
from knarr.api.versions import API_VERSION, MINIMUM_API_VERSION
from knarr.api.wire.info import INFO, info
from knarr.errors import Unsupported
from knarr.types import Platform

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from knarr.engine.engine import Engine

__all__ = ["routes"]

_LATER = (
    ("/build", "building an image"),
    ("/session", "BuildKit's session"),
    ("/grpc", "BuildKit's session"),
)


def routes(engine: Engine) -> list[web.RouteDef]:
    """The routes of the engine itself."""
    architecture = Platform.host().architecture

    async def ping(request: web.Request) -> web.StreamResponse:
        if request.method == "HEAD":
            return web.Response(text="", headers={**HEADERS, "Content-Length": "0"})
        return web.Response(text="OK", headers=HEADERS)

    async def version(_: web.Request) -> web.StreamResponse:
        kernel = platform.release()
        common = {
            "Version": engine.version,
            "ApiVersion": API_VERSION,
            "MinAPIVersion": MINIMUM_API_VERSION,
            "Os": "linux",
            "Arch": architecture,
            "KernelVersion": kernel,
            "GitCommit": "",
            "GoVersion": "",
            "BuildTime": "",
        }
        details = {**common, "Experimental": "false", "PythonVersion": platform.python_version()}
        supervisor = {"Name": "knarr-supervisor", "Version": engine.supervisor.version, "Details": {}}
        return reply.reply(
            {
                "Platform": {"Name": "knarr"},
                "Components": [{"Name": "Engine", "Version": engine.version, "Details": details}, supervisor],
                **common,
            }
        )

    async def show(request: web.Request) -> web.StreamResponse:
        return reply.reply(INFO.of(info(engine), reply.version(request)))

    async def prune_builds(_: web.Request) -> web.StreamResponse:
        return reply.reply({"CachesDeleted": None, "SpaceReclaimed": 0})  # nothing is ever built; system prune asks

    return [
        web.get("/_ping", ping),
        web.head("/_ping", ping),
        web.get("/version", version),
        web.get("/info", show),
        web.post("/build/prune", prune_builds),
        *(web.route("*", path, _refusal(what)) for path, what in _LATER),
    ]


def _refusal(what: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def refuse(_: web.Request) -> web.StreamResponse:
        raise Unsupported(f"{what} is not supported by knarr yet")

    return refuse
