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

from knarr._core import __version__
from knarr.api import errors
from knarr.api.hijack import idle
from knarr.errors import InvalidArgument

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from knarr.engine.engine import Engine

__all__ = ["API_VERSION", "MINIMUM_API_VERSION", "NOUNS", "create_app", "refusal"]

API_VERSION = "1.56"
MINIMUM_API_VERSION = "1.24"
NOUNS = ("system", "containers", "stats", "update", "exec", "images", "networks", "volumes")
BODY_LIMIT = 8 * 1024 * 1024  # of request bodies that are read whole; streams are not bound by it

UNVERSIONED = (1, 999)  # a path without a prefix means the newest

_PREFIX = re.compile(r"/v(\d{1,4})\.(\d{1,4})(/.*)$")
_LOW = tuple(map(int, MINIMUM_API_VERSION.split(".")))
_HIGH = tuple(map(int, API_VERSION.split(".")))


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
        version = (int(match[1]), int(match[2]))
        message = refusal(version)
        if message:
            return _refuse(message), set()
        request["version"] = version[1]
        bare: Any = _Bare(request.method, URL.build(path=match[3], encoded=True))
        return await self._inner.resolve(bare), set()

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


def refusal(version: tuple[int, int]) -> str:
    """Why a version of the API is not served, in Docker's words; empty where it is."""
    asked = f"{version[0]}.{version[1]}"
    if version == UNVERSIONED or _LOW <= version <= _HIGH:
        return ""
    if version > _HIGH:
        return f"client version {asked} is too new. Maximum supported API version is {API_VERSION}"
    return (
        f"client version {asked} is too old. Minimum supported API version is {MINIMUM_API_VERSION}, "
        "please upgrade your client to a newer version"
    )


def _refuse(message: str) -> web.UrlMappingMatchInfo:
    async def refuse(_: web.Request) -> web.StreamResponse:
        raise InvalidArgument(message)

    return web.UrlMappingMatchInfo({}, web.UrlDispatcher().add_route("*", "/", refuse))


def create_app(engine: Engine, busy: set[asyncio.BaseProtocol]) -> web.Application:
    """The application that serves an engine; what busy is, api/hijack.py says."""
    app = web.Application(middlewares=[idle(busy), errors.middleware], client_max_size=BODY_LIMIT)
    routes: list[web.RouteDef] = []
    for noun in NOUNS:
        routes += importlib.import_module(f"knarr.api.routes.{noun}").routes(engine)
    app.router.register_resource(_Versioned(routes))
    server = f"knarr/{__version__} (linux)"

    async def identify(_: web.Request, response: web.StreamResponse) -> None:
        headers = response.headers
        headers["Api-Version"] = API_VERSION
        headers["Ostype"] = "linux"
        headers["Server"] = server
        headers["Docker-Experimental"] = "false"

    app.on_response_prepare.append(identify)
    return app
