"""/volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from knarr.api import reply
from knarr.api.wire.containers import labels_match
from knarr.api.wire.pruning import FILTERS as PRUNE_FILTERS
from knarr.api.wire.pruning import prunable
from knarr.api.wire.volumes import volume
from knarr.errors import Unsupported

if TYPE_CHECKING:
    from knarr.engine.engine import Engine
    from knarr.store.volumes import VolumeRecord

__all__ = ["routes"]

FILTERS = {"dangling", "driver", "label", "name"}
TRUE = {"1", "t", "true", "True", "TRUE"}


class _VolumeConfig(TypedDict, total=False):
    Name: str
    Driver: str
    DriverOpts: dict[str, str]
    Labels: dict[str, str]


_CONFIG: TypeAdapter[_VolumeConfig] = TypeAdapter(_VolumeConfig)


def routes(engine: Engine) -> list[web.RouteDef]:
    """The routes of volumes."""
    volumes = engine.volumes

    def show(record: VolumeRecord) -> dict[str, Any]:
        return volume(volumes, record)

    async def create(request: web.Request) -> web.StreamResponse:
        body = {key: value for key, value in (await reply.body(request, optional=True)).items() if value is not None}
        for key in body.keys() - _VolumeConfig.__annotations__.keys():
            raise Unsupported(f"{key} is not a field of a volume that knarr knows: leave it out")
        wanted = _CONFIG.validate_python(body, strict=True)
        record = await volumes.create(
            wanted.get("Name", ""),
            driver=wanted.get("Driver", ""),
            labels=wanted.get("Labels"),
            options=wanted.get("DriverOpts"),
        )
        return reply.reply(show(record), 201)

    async def listed(request: web.Request) -> web.StreamResponse:
        filters = reply.filters(request.query, FILTERS)
        found = []
        for record in volumes.every():
            if not labels_match(filters.get("label", []), record.labels):
                continue
            if (names := filters.get("name")) and not any(name in record.name for name in names):
                continue
            if (drivers := filters.get("driver")) and "local" not in drivers:
                continue
            if (dangling := filters.get("dangling")) and (dangling[0] in TRUE) == bool(volumes.using(record.name)):
                continue
            found.append(show(record))
        return reply.reply({"Volumes": found, "Warnings": None})

    async def inspect(request: web.Request) -> web.StreamResponse:
        return reply.reply(show(volumes.get(request.match_info["name"])))

    async def remove(request: web.Request) -> web.StreamResponse:
        await volumes.remove(request.match_info["name"], force=reply.flag(request.query, "force"))
        return reply.empty()

    async def prune(request: web.Request) -> web.StreamResponse:
        filters = reply.filters(request.query, PRUNE_FILTERS | {"all"})
        every = any(value in TRUE for value in filters.get("all", ()))
        may_go = prunable(filters)
        removed, freed = await volumes.prune(
            lambda record: (every or record.anonymous) and may_go(record.created_ns, record.labels)
        )
        engine.events.emit("volume", "prune", "", {"reclaimed": str(freed)})
        return reply.reply({"VolumesDeleted": removed or None, "SpaceReclaimed": freed})

    return [
        web.post("/volumes/create", create),
        web.get("/volumes", listed),
        web.post("/volumes/prune", prune),
        web.get("/volumes/{name}", inspect),
        web.delete("/volumes/{name}", remove),
    ]
