"""/volumes/{name}/clone, rename, snapshots, archive: what Docker's API does not have (ARCHITECTURE.md, Volumes)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aiohttp import web

from knarr.api import carry, errors, reply
from knarr.api.wire.containers import timestamp
from knarr.api.wire.volumes import volume
from knarr.errors import InvalidArgument, KnarrError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knarr.engine.engine import Engine
    from knarr.engine.volumes.copies import Snapshot

__all__ = ["routes"]

log = logging.getLogger("knarr.api")
TYPES = {"": "application/x-tar", "gzip": "application/gzip", "zstd": "application/zstd"}


def routes(engine: Engine) -> list[web.RouteDef]:
    """The routes of volumes as wholes."""
    copies = engine.copies

    async def clone(request: web.Request) -> web.StreamResponse:
        query = request.query
        record = await copies.clone(
            request.match_info["name"], _given(query, "to"), snapshot=query.get("snapshot", ""), pause=_pause(query)
        )
        return reply.reply(volume(engine.volumes.shown(record)), 201)

    async def rename(request: web.Request) -> web.StreamResponse:
        await copies.rename(request.match_info["name"], _given(request.query, "name"))
        return reply.empty()

    async def listed(request: web.Request) -> web.StreamResponse:
        return reply.reply({"Snapshots": [_snapshot(one) for one in copies.snapshots(request.match_info["name"])]})

    async def create(request: web.Request) -> web.StreamResponse:
        query = request.query
        made = await copies.snapshot(request.match_info["name"], query.get("name", ""), pause=_pause(query))
        return reply.reply(_snapshot(made), 201)

    async def remove(request: web.Request) -> web.StreamResponse:
        await copies.remove_snapshot(request.match_info["name"], request.match_info["snapshot"])
        return reply.empty()

    async def restore(request: web.Request) -> web.StreamResponse:
        await copies.restore(request.match_info["name"], request.match_info["snapshot"])
        return reply.empty()

    async def export(request: web.Request) -> web.StreamResponse:
        query = request.query
        packing = query.get("compression", "")
        work = copies.export(request.match_info["name"], query.get("snapshot", ""), packing)
        return await carry.send(request, {"Content-Type": TYPES[packing]}, work)

    async def fill(request: web.Request) -> web.StreamResponse:
        async with carry.receive(request) as body:
            try:
                record = await copies.fill(request.match_info["name"], body)
            except (KnarrError, OSError) as error:
                what = f"{request.method} {request.path}"
                told = error if isinstance(error, KnarrError) else errors.unforeseen(error, what)
                log.info("%s: %s", what, told)
                return await carry.answer(request, errors.error_response(told), body)
            return await carry.answer(request, reply.reply(volume(engine.volumes.shown(record)), 201), body)

    return [
        web.post("/volumes/{name}/clone", clone),
        web.post("/volumes/{name}/rename", rename),
        web.get("/volumes/{name}/snapshots", listed),
        web.post("/volumes/{name}/snapshots", create),
        web.delete("/volumes/{name}/snapshots/{snapshot}", remove),
        web.post("/volumes/{name}/snapshots/{snapshot}/restore", restore),
        web.get("/volumes/{name}/archive", export),
        web.put("/volumes/{name}/archive", fill),
    ]


def _given(query: Mapping[str, str], name: str) -> str:
    if not query.get(name):
        raise InvalidArgument(f"bad parameter: {name} cannot be empty")
    return query[name]


def _pause(query: Mapping[str, str]) -> bool:
    return "pause" not in query or reply.flag(query, "pause")


def _snapshot(made: Snapshot) -> dict[str, Any]:
    return {"Name": made.name, "Volume": made.volume, "CreatedAt": timestamp(made.created_ns)}
