"""/_ping, /version, /info."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from aiohttp import web

from knarr.api import reply
from knarr.api.prompt import Answer, Asked, route
from knarr.api.versions import API_VERSION, MINIMUM_API_VERSION
from knarr.api.wire.info import INFO, info
from knarr.errors import Unsupported
from knarr.types import Platform

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from knarr.engine.engine import Engine

__all__ = ["routes"]

TEXT = "text/plain; charset=utf-8"
PING_HEADERS = {
    "Builder-Version": "",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
    "Swarm": "inactive",
}
_LATER = (
    ("/build", "building an image"),
    ("/session", "BuildKit's session"),
    ("/grpc", "BuildKit's session"),
)


def routes(engine: Engine) -> list[web.RouteDef]:
    """The routes of the engine itself."""
    architecture = Platform.host().architecture

    def ping(_: Asked) -> Answer:
        return Answer(b"OK", kind=TEXT, headers=PING_HEADERS)

    def ping_briefly(_: Asked) -> Answer:
        return Answer(b"", kind=TEXT, headers=PING_HEADERS)

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
        route("GET", "/_ping", ping),
        route("HEAD", "/_ping", ping_briefly),
        web.get("/version", version),
        web.get("/info", show),
        web.post("/build/prune", prune_builds),
        *(web.route("*", path, _refusal(what)) for path, what in _LATER),
    ]


def _refusal(what: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def refuse(_: web.Request) -> web.StreamResponse:
        raise Unsupported(f"{what} is not supported by knarr yet")

    return refuse
