"""Images (Engine API: Image, Distribution)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web

from knarr import credentials
from knarr.api import reply
from knarr.api.errors import unforeseen
from knarr.api.wire import images as wire
from knarr.engine.images import download
from knarr.errors import Corrupt, InvalidArgument, KnarrError
from knarr.types import Reference

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from knarr.engine.engine import Engine

    Emit = Callable[[dict[str, Any]], Awaitable[None]]

__all__ = ["routes"]

log = logging.getLogger("knarr.api")
Result = TypeVar("Result")
WATCH_SECONDS = 0.25
CHUNK = 256 << 10


def routes(engine: Engine) -> list[web.RouteDef]:
    """The endpoints of images."""
    return _Routes(engine).table()


class _Routes:
    def __init__(self, engine: Engine) -> None:
        self._images = engine.images

    def table(self) -> list[web.RouteDef]:
        name = "/images/{name:.+}"
        return [
            web.get("/images/json", self.list),
            web.post("/images/create", self.create),
            web.post("/images/load", self.load),
            web.post("/images/prune", self.prune),
            web.get("/images/search", self.search),
            web.get("/images/get", self.save),
            web.get(f"{name}/get", self.save),
            web.get(f"{name}/json", self.inspect),
            web.get(f"{name}/history", self.history),
            web.get(f"{name}/attestations", self.attestations),
            web.post(f"{name}/tag", self.tag),
            web.post(f"{name}/push", self.push),
            web.delete(name, self.remove),
            web.get("/distribution/{name:.+}/json", self.distribution),
            web.post("/auth", self.login),
        ]

    async def list(self, request: web.Request) -> web.Response:
        query, version = request.query, reply.version(request)
        manifests = version >= 47 and wire.boolean(query, "manifests")
        if version >= 54 and wire.boolean(query, "identity") and not manifests:
            raise InvalidArgument("conflicting options: identity requires manifests=1")
        shared = version >= 42 and wire.boolean(query, "shared-size")
        found = self._images.list(wire.filters(query))
        lines = [wire.summary(self._images, image, shared=shared, manifests=manifests) for image in found]
        return web.json_response([wire.SUMMARY.of(line, version) for line in lines])

    async def inspect(self, request: web.Request) -> web.Response:
        query, version = request.query, reply.version(request)
        platform = wire.platform(query.get("platform")) if version >= 49 else None
        manifests = version >= 48 and wire.boolean(query, "manifests")
        if platform and manifests:
            raise InvalidArgument("conflicting options: manifests and platform options cannot both be set")
        image = await self._images.resolve(request.match_info["name"], platform)
        document = wire.inspect(self._images, image, own=platform is not None, manifests=manifests)
        return web.json_response(wire.INSPECT.of(document, version))

    async def history(self, request: web.Request) -> web.Response:
        platform = wire.platform(request.query.get("platform")) if reply.version(request) >= 48 else None
        image = await self._images.resolve(request.match_info["name"], platform)
        return web.json_response(wire.history(self._images, image))

    async def attestations(self, request: web.Request) -> web.Response:
        query = request.query
        if len(query.getall("platform", [])) > 1:
            raise InvalidArgument("only one platform value is currently supported")
        platform = wire.platform(query.get("platform"))
        image = await self._images.resolve(request.match_info["name"], platform)
        types = {text for value in query.getall("type", []) if (text := value.strip())}
        found = self._images.details.attestations(image, types, bodies=wire.boolean(query, "statement"))
        return web.json_response(found)

    async def tag(self, request: web.Request) -> web.Response:
        repository = request.query.get("repo", "")
        await self._images.tag(request.match_info["name"], repository, request.query.get("tag", ""))
        return web.Response(status=201)

    async def remove(self, request: web.Request) -> web.Response:
        query = request.query
        platforms = wire.platforms(query.getall("platforms", [])) if reply.version(request) >= 50 else []
        name, force = request.match_info["name"], wire.boolean(query, "force")
        return web.json_response(await self._images.remove(name, force=force, platforms=platforms))

    async def prune(self, request: web.Request) -> web.Response:
        removed, freed = await self._images.prune(wire.filters(request.query))
        return web.json_response({"ImagesDeleted": removed or None, "SpaceReclaimed": freed})

    async def create(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        if query.get("fromSrc"):
            return await self._import(request, query["fromSrc"])
        if not query.get("fromImage"):
            raise InvalidArgument("fromImage is missing: name the image to pull")
        reference = wire.pull_reference(query)
        platform = wire.platform(query.get("platform"))
        auth = credentials.decode_header(request.headers.get("X-Registry-Auth", ""))
        parsed = Reference.parse(reference)
        if parsed.tag or parsed.digest:
            return await _streamed(request, lambda emit: self._images.pull(reference, platform, auth, emit))
        return await _streamed(request, lambda emit: self._images.pull_all(reference, platform, auth, emit))

    async def _import(self, request: web.Request, source: str) -> web.StreamResponse:
        query = request.query
        reference = wire.new_reference(query.get("repo", ""), query.get("tag", ""))
        platform = wire.platform(query.get("platform"))
        message = query.get("message") or f"Imported from {source}"

        async def work(emit: Emit) -> None:
            if source == "-":
                archive: AsyncIterator[bytes] = request.content.iter_chunked(CHUNK)
            else:
                archive = download.pieces(source, emit)
            image = await self._images.import_archive(
                archive, reference, changes=query.getall("changes", []), message=message, platform=platform
            )
            await emit({"status": image.id})

        return await _streamed(request, work)

    async def push(self, request: web.Request) -> web.StreamResponse:
        reference = wire.push_reference(request.match_info["name"], request.query.get("tag", ""))
        platform = wire.platform(request.query.get("platform")) if reply.version(request) >= 46 else None
        auth = credentials.decode_header(request.headers.get("X-Registry-Auth", ""))
        return await _streamed(request, lambda emit: self._images.push(reference, platform, auth, emit))

    async def search(self, request: web.Request) -> web.Response:
        query = request.query
        limit = wire.limit(query.get("limit", ""))
        auth = credentials.decode_header(request.headers.get("X-Registry-Auth", ""))
        return web.json_response(await self._images.search(query.get("term", ""), limit, wire.filters(query), auth))

    async def distribution(self, request: web.Request) -> web.Response:
        auth = credentials.decode_header(request.headers.get("X-Registry-Auth", ""))
        return web.json_response(await self._images.distribution(request.match_info["name"], auth))

    async def login(self, request: web.Request) -> web.Response:
        domain, auth = wire.login(await reply.body(request))
        token = await self._images.login(domain, auth)
        return web.json_response({"Status": "Login Succeeded", "IdentityToken": token})

    async def save(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info.get("name")
        names = [name] if name else [part for value in request.query.getall("names", []) for part in value.split(",")]
        pieces = self._images.save(names, _platforms(request))
        response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
        try:
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    if not response.prepared:
                        await response.prepare(request)
                    await response.write(piece)
        except KnarrError as error:
            if not response.prepared or request.transport is None:
                raise
            log.warning("%s %s: %s", request.method, request.path, error)
            request.transport.abort()  # half an archive must not look like a whole one
            raise ConnectionAbortedError(str(error)) from error
        await response.write_eof()
        return response

    async def load(self, request: web.Request) -> web.StreamResponse:
        platforms = _platforms(request)
        quiet = "quiet" not in request.query or wire.boolean(request.query, "quiet")

        async def load(emit: Emit) -> None:
            async def tell(message: dict[str, Any]) -> None:
                if not quiet or "stream" in message:
                    await emit(message)

            try:
                await self._images.load(request.content.iter_chunked(CHUNK), tell, platforms)
            except Corrupt as error:  # what was sent, and nothing of ours
                raise InvalidArgument(str(error)) from error

        return await _streamed(request, load)


def _platforms(request: web.Request) -> list[str]:
    """The platforms of a load or a save."""
    version, values = reply.version(request), request.query.getall("platform", [])
    if version < 48:
        return []
    if version < 52 and len(values) > 1:
        raise InvalidArgument(
            "multiple platform parameters are not supported in this API version; use API version 1.52 or later"
        )
    return wire.platforms(values)


async def _streamed(request: web.Request, work: Callable[[Emit], Coroutine[Any, Any, Any]]) -> web.StreamResponse:
    """Docker's stream of JSON messages.

    An error before the first message has a status of its own; after that it is the last message. When the
    client goes away the work is cancelled.
    """
    response = web.StreamResponse(headers={"Content-Type": "application/json"})

    async def emit(message: dict[str, Any]) -> None:
        if not response.prepared:
            await response.prepare(request)
        await response.write(json.dumps(message).encode() + b"\r\n")

    try:
        await _while_connected(request, work(emit))
    except KnarrError as error:
        if not response.prepared:
            raise
        log.info("%s %s: %s", request.method, request.path, error)
        await emit({"errorDetail": {"message": str(error)}, "error": str(error)})
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception as error:
        if not response.prepared:
            raise
        told = str(unforeseen(error, f"{request.method} {request.path}"))
        await emit({"errorDetail": {"message": told}, "error": told})
    if not response.prepared:
        await response.prepare(request)
    await response.write_eof()
    return response


async def _while_connected(request: web.Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Do some work for as long as the client is there. ConnectionResetError when it has gone."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=WATCH_SECONDS)
            if request.transport is None or request.transport.is_closing():
                break
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    if task.cancelled():
        raise ConnectionResetError("the client has gone")
    return task.result()
