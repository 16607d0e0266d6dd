"""/networks: the three that there are. What changes networks is refused, clearly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from knarr.api import reply
from knarr.api.wire.containers import labels_match, timestamp
from knarr.engine.networks.networks import refuse_change

if TYPE_CHECKING:
    from knarr.engine.engine import Engine
    from knarr.store.networks import NetworkRecord

__all__ = ["routes"]

LISTED_UNTIL = 52  # lists of networks had a field for who is on them, which was always empty

FILTERS = {"dangling", "driver", "id", "label", "name", "scope", "type"}


def routes(engine: Engine) -> list[web.RouteDef]:
    """The routes of networks."""
    networks = engine.networks

    def show(record: NetworkRecord) -> dict[str, Any]:
        pools = [{"Subnet": record.subnet, "Gateway": record.gateway}] if record.subnet else None
        options = {
            "com.docker.network.bridge.default_bridge": "true",
            "com.docker.network.bridge.enable_icc": "true",
            "com.docker.network.bridge.enable_ip_masquerade": "true",
            "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",  # noqa: S104  what it is
            "com.docker.network.bridge.name": record.bridge,
            "com.docker.network.driver.mtu": "1500",
        }
        return {
            "Name": record.name,
            "Id": record.id,
            "Created": timestamp(record.created_ns),
            "Scope": "local",
            "Driver": record.driver,
            "EnableIPv4": True,
            "EnableIPv6": False,
            "IPAM": {"Driver": "default", "Options": None, "Config": pools},
            "Internal": False,
            "Attachable": False,
            "Ingress": False,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": False,
            "Options": options if record.driver == "bridge" else {},
            "Labels": record.labels,
        }

    async def listed(request: web.Request) -> web.StreamResponse:
        filters = reply.filters(request.query, FILTERS)
        found = []
        for record in networks.every():
            if (names := filters.get("name")) and not any(name in record.name for name in names):
                continue
            if (ids := filters.get("id")) and not any(record.id.startswith(value) for value in ids):
                continue
            if (drivers := filters.get("driver")) and record.driver not in drivers:
                continue
            if (kinds := filters.get("type")) and "builtin" not in kinds:
                continue
            if (scopes := filters.get("scope")) and "local" not in scopes:
                continue
            if (filters.get("dangling") or ["false"])[0] in ("1", "true") or not labels_match(
                filters.get("label", []), record.labels
            ):
                continue
            found.append(show(record) | ({"Containers": {}} if reply.version(request) < LISTED_UNTIL else {}))
        return reply.reply(found)

    async def inspect(request: web.Request) -> web.StreamResponse:
        record = networks.get(request.match_info["name"])
        return reply.reply(show(record) | {"Containers": _members(engine, record)})

    async def create(_: web.Request) -> web.StreamResponse:
        raise refuse_change("creating a network")

    async def change(request: web.Request) -> web.StreamResponse:
        record = networks.get(request.match_info["name"])
        raise refuse_change(f"changing who is on the network {record.name}")

    async def remove(request: web.Request) -> web.StreamResponse:
        record = networks.get(request.match_info["name"])
        raise refuse_change(f"{record.name} is a pre-defined network: removing it")

    async def prune(_: web.Request) -> web.StreamResponse:
        return reply.reply({"NetworksDeleted": None})  # there are none but those that stay

    return [
        web.get("/networks", listed),
        web.post("/networks/create", create),
        web.post("/networks/prune", prune),
        web.get("/networks/{name}", inspect),
        web.delete("/networks/{name}", remove),
        web.post("/networks/{name}/connect", change),
        web.post("/networks/{name}/disconnect", change),
    ]


def _members(engine: Engine, record: NetworkRecord) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for container in engine.containers.all():
        endpoint = container.record.state.networks.get(record.name)
        if endpoint is not None and container.record.state.running:
            address = f"{endpoint['address']}/{endpoint['prefix']}" if endpoint["address"] else ""
            found[container.record.id] = {
                "Name": container.record.name,
                "EndpointID": endpoint["endpoint_id"],
                "MacAddress": endpoint["mac"],
                "IPv4Address": address,
                "IPv6Address": "",
            }
    return found
