"""/containers/{name}/archive, export, changes: the files of containers."""

from __future__ import annotations

import base64
import json
import logging
from typing import TYPE_CHECKING

from aiohttp import web

from knarr.api import carry, errors, reply
from knarr.api.wire.images import rfc3339
from knarr.engine.containers.files import Upload
from knarr.errors import InvalidArgument, KnarrError, NotFound

if TYPE_CHECKING:
    from knarr.engine.containers.container import Container
    from knarr.engine.containers.files import PathStat
    from knarr.engine.engine import Engine

__all__ = ["routes"]

log = logging.getLogger("knarr.api")
TAR = "application/x-tar"
LONGEST_PATH, LONGEST_NAME = 4096, 255  # bytes, as Linux has it
STAT = "X-Docker-Container-Path-Stat"


def routes(engine: Engine) -> list[web.RouteDef]:
    """The routes of containers' files."""
    containers = engine.containers

    async def head(request: web.Request) -> web.StreamResponse:
        container = containers.get(request.match_info["name"])
        found = await containers.files.stat(container, _path(request, container))
        return web.Response(headers={STAT: _header(found)})

    async def get(request: web.Request) -> web.StreamResponse:
        container = containers.get(request.match_info["name"])
        found, work = await containers.files.pack(container, _path(request, container))
        return await carry.send(request, {"Content-Type": TAR, STAT: _header(found)}, work)

    async def put(request: web.Request) -> web.StreamResponse:
        async with carry.receive(request) as body:
            try:
                container = containers.get(request.match_info["name"])
                upload = Upload(
                    _path(request, container),
                    reply.flag(request.query, "noOverwriteDirNonDir"),
                    reply.flag(request.query, "copyUIDGID"),
                )
                await containers.files.extract(container, upload, body)
            except KnarrError as error:
                log.info("%s %s: %s", request.method, request.path, error)
                return await carry.answer(request, errors.error_response(error), body)
            return await carry.answer(request, web.Response(status=200), body)

    async def export(request: web.Request) -> web.StreamResponse:
        work = await containers.files.export(containers.get(request.match_info["name"]))
        return await carry.send(request, {"Content-Type": "application/octet-stream"}, work)

    async def changes(request: web.Request) -> web.StreamResponse:
        found = await containers.files.changes(containers.get(request.match_info["name"]))
        return reply.reply([{"Path": path, "Kind": kind} for path, kind in found] or None)

    return [
        web.head("/containers/{name}/archive", head),
        web.get("/containers/{name}/archive", get),
        web.put("/containers/{name}/archive", put),
        web.get("/containers/{name}/export", export),
        web.get("/containers/{name}/changes", changes),
    ]


def _path(request: web.Request, container: Container) -> str:
    path = request.query.get("path", "")
    if not path:
        raise InvalidArgument("bad parameter: path cannot be empty")
    if "\0" in path:
        raise InvalidArgument("bad parameter: path holds a NUL")
    if len(path.encode()) >= LONGEST_PATH or any(len(name.encode()) > LONGEST_NAME for name in path.split("/")):
        raise NotFound(
            f"Could not find the file {path[:200]}... in container {container.record.name}: its name is too long"
        )
    return path


def _header(found: PathStat) -> str:
    stat = {
        "name": found.name,
        "size": found.size,
        "mode": found.mode,
        "mtime": rfc3339(found.mtime),
        "linkTarget": found.target,
    }
    return base64.b64encode(json.dumps(stat).encode()).decode()
