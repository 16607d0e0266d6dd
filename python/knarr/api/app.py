"""The HTTP application: versions, routes, headers.

Every path exists with and without a `/v1.NN` prefix. The prefix is cut off once, before the routes
are looked up, so that a route is written and matched once.

The seam for nouns: each `routes/<noun>.py` offers `routes(engine) -> list[web.RouteDef]`, and its
name stands in NOUNS.
"""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

from aiohttp import web
from yarl import URL

from knarr.api import carry, errors, versions
from knarr.api.prompt import Table
from knarr.api.versions import API_VERSION, MINIMUM_API_VERSION
from knarr.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knarr.api.connections import Connections
    from knarr.engine.engine import Engine

__all__ = ["API_VERSION", "MINIMUM_API_VERSION", "NOUNS", "create_app"]

NOUNS = (
    "system", "events", "disk", "checkpoints", "containers", "stats", "update", "websocket", "exec", "images", "swarm",
    "networks", "volumes", "copies", "archives", "commit",
)  # fmt: skip
BODY_LIMIT = 8 * 1024 * 1024  # of request bodies that are read whole; streams are not bound by it

_PREFIX = re.compile(r"/v([0-9.]+)(/.*)$")


class _Bare:
    """The two things of a request that a look-up reads."""

    __slots__ = ("method", "rel_url")

    def __init__(self, method: str, rel_url: URL) -> None:
        self.method = method
        self.rel_url = rel_url


class _Versioned(web.AbstractResource):
    """All paths, below `/` and below `/v1.NN/`."""

    def __init__(self, routes: list[web.RouteDef]) -> None:
        super().__init__()
        self._inner = web.UrlDispatcher()
        self._inner.add_routes(routes)
        self._inner.freeze()

    @property
    def canonical(self) -> str:
        return "/"

    async def resolve(self, request: Any) -> tuple[Any, set[str]]:
        path = request.rel_url.raw_path
        match = _PREFIX.match(path)
        if match is None:
            return await self._inner.resolve(request), set()
        request["version"] = versions.parse(match[1])[1]
        bare: Any = _Bare(request.method, URL.build(path=match[2], encoded=True))
        found = await self._inner.resolve(bare)
        message = versions.refusal(match[1])
        if message and found.http_exception is None:
            return _refuse(message, match[1]), set()
        return found, set()

    def url_for(self, *_: str, **__: str) -> URL:
        return URL("/")

    def add_prefix(self, prefix: str) -> None:
        raise RuntimeError(f"the whole API cannot move below {prefix}")

    def get_info(self) -> Any:
        return {"path": "/"}

    def raw_match(self, path: str) -> bool:
        return path == "/"

    def __len__(self) -> int:
        return len(self._inner.routes())

    def __iter__(self) -> Iterator[web.AbstractRoute]:
        return iter(self._inner.routes())


def _refuse(message: str, version: str) -> web.UrlMappingMatchInfo:
    async def refuse(_: web.Request) -> web.StreamResponse:
        if versions.parse(version) > versions.parse(MINIMUM_API_VERSION):
            raise InvalidArgument(message)
        # Clients as old as that show what is no JSON as it is, and JSON as well.
        return web.Response(status=400, text=message + "\n", headers={"X-Content-Type-Options": "nosniff"})

    return web.UrlMappingMatchInfo({}, web.UrlDispatcher().add_route("*", "/", refuse))


def create_app(engine: Engine, connections: Connections) -> tuple[web.Application, Table]:
    """The application that serves an engine, and those of its routes that are answered at once."""
    middlewares = [connections.middleware(), carry.unclaimed, errors.middleware]
    app = web.Application(middlewares=middlewares, client_max_size=BODY_LIMIT)
    routes: list[web.RouteDef] = []
    for noun in NOUNS:
        routes += importlib.import_module(f"knarr.api.routes.{noun}").routes(engine)
    app.router.register_resource(_Versioned([_bare(route) for route in routes]))

    async def identify(_: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(versions.HEADERS)

    app.on_response_prepare.append(identify)
    return app, Table(routes)


def _bare(route: web.RouteDef) -> web.RouteDef:
    """A route without the HEAD that aiohttp adds to each GET: Docker has it where it is written down."""
    if route.method != "GET":
        return route
    return web.RouteDef(route.method, route.path, route.handler, {**route.kwargs, "allow_head": False})
