"""/networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from knarr.api import reply
from knarr.api.wire.containers import labels_match
from knarr.api.wire.create import endpoint_settings
from knarr.api.wire.networks import create_request, entry_request, network
from knarr.api.wire.pruning import FILTERS as PRUNE_FILTERS
from knarr.api.wire.pruning import prunable
from knarr.engine.networks.networks import DRIVERS
from knarr.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

    from knarr.engine.engine import Engine
    from knarr.engine.networks.networks import Networks
    from knarr.store.networks import NetworkRecord

__all__ = ["routes"]

LISTED_UNTIL = 52  # lists of networks had a field for who is on them, which was always empty
FILTERS = {"dangling", "driver", "id", "label", "name", "scope", "type"}
TRUE = {"1", "t", "true", "True", "TRUE"}
FALSE = {"0", "f", "false", "False", "FALSE"}


def routes(engine: Engine) -> list[web.RouteDef]:
    """The routes of networks."""
    networks = engine.networks
    balancing = engine.containers.balancing

    async def listed(request: web.Request) -> web.StreamResponse:
        filters = reply.filters(request.query, FILTERS)
        for kind in filters.get("type", ()):
            if kind not in ("builtin", "custom"):
                raise InvalidArgument(f"invalid filter: 'type'='{kind}'")
        for value in filters.get("dangling", ()):
            if value not in TRUE | FALSE:
                raise InvalidArgument(f"invalid filter 'dangling={value}'")
        version = reply.version(request)
        found = [
            network(record, engine.config.ip) | ({"Containers": {}} if version < LISTED_UNTIL else {})
            for record in networks.every()
            if _matches(networks, record, filters)
        ]
        return reply.reply(found)

    async def inspect(request: web.Request) -> web.StreamResponse:
        record = networks.get(request.match_info["name"])
        if request.query.get("scope") not in (None, "", "local"):
            raise InvalidArgument(f"network {record.name} not found in the scope {request.query['scope']}")
        return reply.reply(network(record, engine.config.ip) | {"Containers": _members(engine, record)})

    async def create(request: web.Request) -> web.StreamResponse:
        asked = create_request(await reply.body(request))
        record = await networks.create(asked)
        await balancing.declare(record)
        return reply.reply({"Id": record.id, "Warning": "\n".join(asked.warnings)}, 201)

    async def remove(request: web.Request) -> web.StreamResponse:
        await networks.remove(request.match_info["name"])
        return reply.empty()

    async def connect(request: web.Request) -> web.StreamResponse:
        body = await reply.body(request)
        record = networks.get(request.match_info["name"])
        settings = endpoint_settings(body.get("EndpointConfig"))
        await engine.containers.connect(_container(body), record, settings)
        return reply.empty(200)

    async def disconnect(request: web.Request) -> web.StreamResponse:
        body = await reply.body(request)
        record = networks.get(request.match_info["name"])
        await engine.containers.disconnect(_container(body), record)
        return reply.empty(200)

    async def prune(request: web.Request) -> web.StreamResponse:
        may_go = prunable(reply.filters(request.query, PRUNE_FILTERS))
        removed = await networks.prune(lambda record: may_go(record.created_ns, record.labels))
        engine.events.emit("network", "prune", "", {"reclaimed": "0"})
        return reply.reply({"NetworksDeleted": removed or None})

    async def entries(request: web.Request) -> web.StreamResponse:
        return reply.reply(balancing.shown(networks.get(request.match_info["name"])))

    async def add_entry(request: web.Request) -> web.StreamResponse:
        record = networks.get(request.match_info["name"])
        entry = await balancing.create(record, entry_request(await reply.body(request)))
        return reply.reply(balancing.show(record, entry), 201)

    async def remove_entry(request: web.Request) -> web.StreamResponse:
        await balancing.remove(networks.get(request.match_info["name"]), request.match_info["entry"])
        return reply.empty()

    return [
        web.get("/networks", listed),
        web.post("/networks/create", create),
        web.post("/networks/prune", prune),
        web.get("/networks/{name}", inspect),
        web.delete("/networks/{name}", remove),
        web.post("/networks/{name}/connect", connect),
        web.post("/networks/{name}/disconnect", disconnect),
        web.get("/networks/{name}/lb", entries),
        web.post("/networks/{name}/lb", add_entry),
        web.delete("/networks/{name}/lb/{entry}", remove_entry),
    ]


def _container(body: dict[str, Any]) -> str:
    name = body.get("Container")
    if not isinstance(name, str) or not name:
        raise InvalidArgument("invalid request: Container must name a container")
    return name


def _matches(networks: Networks, record: NetworkRecord, filters: dict[str, list[str]]) -> bool:
    builtin = record.name in DRIVERS
    tests: dict[str, Callable[[str], bool]] = {
        "name": lambda value: value in record.name,
        "id": record.id.startswith,
        "driver": lambda value: record.driver == value,
        "type": lambda value: (value == "builtin") == builtin,
        "scope": lambda value: value == "local",
        "dangling": lambda value: (value in TRUE) == (not builtin and not networks.using(record.id)),
    }
    for name, values in filters.items():
        if name == "label":
            if not labels_match(values, record.labels):
                return False
        elif values and not any(tests[name](value) for value in values):
            return False
    return True


def _members(engine: Engine, record: NetworkRecord) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for container in engine.containers.all():
        endpoint = container.record.state.networks.get(record.name)
        if endpoint is not None and container.record.state.running:
            address = f"{endpoint['address']}/{endpoint['prefix']}" if endpoint["address"] else ""
            address6 = f"{endpoint['address6']}/{endpoint['prefix6']}" if endpoint.get("address6") else ""
            found[container.record.id] = {
                "Name": container.record.name,
                "EndpointID": endpoint["endpoint_id"],
                "MacAddress": endpoint["mac"],
                "IPv4Address": address,
                "IPv6Address": address6,
            }
    return found
