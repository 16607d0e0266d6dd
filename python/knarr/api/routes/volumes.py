"""/volumes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aiohttp import web
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from knarr.api import reply
from knarr.api.wire.containers import labels_match
from knarr.api.wire.pruning import FILTERS as PRUNE_FILTERS
from knarr.api.wire.pruning import prunable
from knarr.api.wire.volumes import volume
from knarr.errors import InvalidArgument, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

    from knarr.engine.engine import Engine
    from knarr.store.volumes import VolumeRecord

__all__ = ["routes"]

FILTERS = {"dangling", "driver", "label", "name"}
TRUE = {"1", "t", "T", "true", "True", "TRUE"}
FALSE = {"0", "f", "F", "false", "False", "FALSE"}


class _VolumeConfig(TypedDict, total=False):
    Name: str
    Driver: str
    DriverOpts: dict[str, str]
    Labels: dict[str, str]


_CONFIG: TypeAdapter[_VolumeConfig] = TypeAdapter(_VolumeConfig)


def _tests(engine: Engine, name: str, values: list[str]) -> list[Callable[[VolumeRecord], bool]]:
    """What a filter of a list asks of a volume. InvalidArgument in Docker's words."""
    if name == "label":
        return [lambda record: labels_match(values, record.labels)]
    if name == "driver":
        return [lambda record: record.driver in values]
    if name == "name":
        return [lambda record: any(value == record.name or _matches(value, record.name) for value in values)]
    wanted = {value in ("1", "true") for value in values if value in ("0", "1", "false", "true")}
    if len(wanted) != 1:
        raise InvalidArgument(f"invalid filter '{name}=[{' '.join(values)}]'")
    return [lambda record: bool(engine.volumes.using(record.name)) is (False in wanted)]


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return False


def _all(values: list[str]) -> bool:
    """Whether a prune takes named volumes as well. InvalidArgument in Docker's words."""
    if len(values) > 1:
        raise InvalidArgument(f"invalid filter 'all=[{' '.join(values)}]': only one value is expected")
    if values and values[0] not in TRUE | FALSE:
        raise InvalidArgument(f"invalid filter 'all': strconv.ParseBool: parsing \"{values[0]}\": invalid syntax")
    return bool(values) and values[0] in TRUE


def routes(engine: Engine) -> list[web.RouteDef]:
    """The routes of volumes."""
    volumes = engine.volumes

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
        return reply.reply(volume(volumes.shown(record)), 201)

    async def listed(request: web.Request) -> web.StreamResponse:
        filters = reply.filters(request.query, FILTERS)
        wanted = [test for name, values in filters.items() if values for test in _tests(engine, name, values)]
        shown, warnings = await volumes.listing()
        found = [volume(one) for one in shown if all(test(one.record) for test in wanted)]
        return reply.reply({"Volumes": found, "Warnings": warnings or None})

    async def inspect(request: web.Request) -> web.StreamResponse:
        return reply.reply(volume(await volumes.inspect(request.match_info["name"])))

    async def remove(request: web.Request) -> web.StreamResponse:
        await volumes.remove(request.match_info["name"], force=reply.flag(request.query, "force"))
        return reply.empty()

    async def prune(request: web.Request) -> web.StreamResponse:
        filters = reply.filters(request.query, {"all", *PRUNE_FILTERS} - {"until"})
        every = _all(filters.get("all", []))
        may_go = prunable(filters)
        removed, freed = await volumes.prune(
            lambda record: (every or record.anonymous) and may_go(record.created_ns, record.labels)
        )
        engine.events.emit("volume", "prune", "", {"reclaimed": str(freed)})
        return reply.reply({"VolumesDeleted": removed, "SpaceReclaimed": freed})

    return [
        web.post("/volumes/create", create),
        web.get("/volumes", listed),
        web.post("/volumes/prune", prune),
        web.get("/volumes/{name}", inspect),
        web.delete("/volumes/{name}", remove),
    ]
