"""/containers: everything but attach and logs, which take the connection over (api/hijack.py)."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from aiohttp import web

from knarr.api import reply, streams
from knarr.api.wire import containers as wire
from knarr.api.wire import listing
from knarr.api.wire.create import create_request
from knarr.api.wire.pruning import FILTERS as PRUNE_FILTERS
from knarr.api.wire.pruning import prunable
from knarr.errors import InvalidArgument, KnarrError

if TYPE_CHECKING:
    from knarr.engine.engine import Engine

__all__ = ["routes"]

PATIENCE = 15.0  # seconds between looks whether a client that waits is still there
SHORTEST_BODY = 7  # bytes of a body that may hold nothing: what is longer asks for something, and is refused
MOST_CELLS = 65535  # rows or columns of a terminal


def routes(engine: Engine) -> list[web.RouteDef]:
    """The routes of containers."""
    containers = engine.containers
    lines = listing.Listing(engine)

    async def create(request: web.Request) -> web.StreamResponse:
        query = request.query
        platform = query.get("platform") or None
        wanted = create_request(await reply.body(request), query.get("name", ""), platform, reply.version(request))
        record, warnings = await containers.create(wanted)
        return reply.reply({"Id": record.id, "Warnings": warnings}, 201)

    async def start(request: web.Request) -> web.StreamResponse:
        if len(await request.read()) > SHORTEST_BODY:
            raise InvalidArgument(
                "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
            )
        if request.query.get("checkpoint"):
            raise InvalidArgument("checkpoint is only supported in experimental mode")
        await containers.start(_name(request))
        return reply.empty()

    async def stop(request: web.Request) -> web.StreamResponse:
        await containers.stop(_name(request), request.query.get("signal", ""), reply.integer(request.query, "t"))
        return reply.empty()

    async def restart(request: web.Request) -> web.StreamResponse:
        await containers.restart(_name(request), request.query.get("signal", ""), reply.integer(request.query, "t"))
        return reply.empty()

    async def kill(request: web.Request) -> web.StreamResponse:
        name = _name(request)
        try:
            await containers.kill(name, request.query.get("signal", ""))
        except KnarrError as error:
            raise type(error)(f"cannot kill container: {name}: {error}") from error
        return reply.empty()

    async def pause(request: web.Request) -> web.StreamResponse:
        await containers.pause(_name(request))
        return reply.empty()

    async def unpause(request: web.Request) -> web.StreamResponse:
        await containers.unpause(_name(request))
        return reply.empty()

    async def rename(request: web.Request) -> web.StreamResponse:
        await containers.rename(_name(request), request.query.get("name", ""))
        return reply.empty()

    async def resize(request: web.Request) -> web.StreamResponse:
        rows, columns = _cells(request, "h", "height"), _cells(request, "w", "width")
        await containers.resize(_name(request), rows, columns)
        return reply.empty(200)

    async def wait(request: web.Request) -> web.StreamResponse:
        ended = asyncio.ensure_future(containers.wait(_name(request), request.query.get("condition", "")))
        try:
            if ended.done():
                return reply.reply({"StatusCode": ended.result().code})
            # The headers go out at once: a client that has them knows that no end can escape it.
            response = await streams.stream(request, "application/json")
            while not (await asyncio.wait({ended}, timeout=PATIENCE))[0]:
                if streams.gone(request):
                    return response
            answer = {"StatusCode": ended.result().code}
            await response.write(json.dumps(answer).encode() + b"\n")
            await response.write_eof()
            return response
        finally:
            ended.cancel()

    async def remove(request: web.Request) -> web.StreamResponse:
        query = request.query
        if reply.flag(query, "link"):
            await containers.unlink(_name(request))
            return reply.empty()
        await containers.remove(_name(request), force=reply.flag(query, "force"), volumes=reply.flag(query, "v"))
        return reply.empty()

    async def inspect(request: web.Request) -> web.StreamResponse:
        container = containers.get(_name(request))
        sizes = await containers.sizes(container) if reply.flag(request.query, "size") else None
        return reply.reply(wire.INSPECT.of(wire.inspect(engine, container, sizes), reply.version(request)))

    async def listed(request: web.Request) -> web.StreamResponse:
        body = await lines.containers(request.query, reply.version(request))
        return web.Response(body=body, content_type="application/json")

    async def top(request: web.Request) -> web.StreamResponse:
        titles, rows = await containers.top(_name(request), request.query.get("ps_args", ""))
        return reply.reply({"Titles": titles, "Processes": rows})

    async def prune(request: web.Request) -> web.StreamResponse:
        may_go = prunable(reply.filters(request.query, PRUNE_FILTERS))
        removed, freed = await containers.prune(lambda record: may_go(record.created_ns, record.config["Labels"] or {}))
        return reply.reply({"ContainersDeleted": removed or None, "SpaceReclaimed": freed})

    return [
        web.post("/containers/create", create),
        web.get("/containers/json", listed),
        web.post("/containers/prune", prune),
        web.post("/containers/{name}/start", start),
        web.post("/containers/{name}/wait", wait),
        web.delete("/containers/{name:.+}", remove),
        web.get("/containers/{name}/json", inspect),
        web.post("/containers/{name}/stop", stop),
        web.post("/containers/{name}/restart", restart),
        web.post("/containers/{name}/kill", kill),
        web.post("/containers/{name}/pause", pause),
        web.post("/containers/{name}/unpause", unpause),
        web.post("/containers/{name}/rename", rename),
        web.post("/containers/{name}/resize", resize),
        web.get("/containers/{name}/top", top),
    ]


def _cells(request: web.Request, key: str, word: str) -> int:
    text = request.query.get(key, "")
    if not (text.isascii() and text.isdigit()):
        raise InvalidArgument(f'invalid resize {word} "{text}": invalid syntax')
    if int(text) > MOST_CELLS:
        raise InvalidArgument(f'invalid resize {word} "{text}": value out of range')
    return int(text)


def _name(request: web.Request) -> str:
    return request.match_info["name"]
