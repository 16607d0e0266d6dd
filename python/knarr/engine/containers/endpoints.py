"""A container's places in networks: made from what a request says, and what follows from several of them."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from knarr.engine.containers import request
from knarr.engine.containers.links import parse_link
from knarr.engine.containers.spec import ENDPOINT_SYSCTLS, endpoint_sysctls
from knarr.engine.networks import egress, lan
from knarr.engine.networks.networks import DRIVERS
from knarr.errors import InvalidArgument, Unsupported

if TYPE_CHECKING:
    from knarr.engine.networks.networks import Networks
    from knarr.store.containers import ContainerRecord, Endpoint
    from knarr.store.networks import NetworkRecord

__all__ = [
    "add_interface",
    "check_limit",
    "dns_names",
    "exposes",
    "gateways",
    "has_joined",
    "in_order",
    "is_limited",
    "is_user_defined",
    "make",
    "may_publish",
    "publishes",
    "ways_out",
]


def make(networks: Networks, network: NetworkRecord, settings: dict[str, Any], mac: str = "") -> Endpoint:
    """An endpoint without an address yet, from EndpointSettings. InvalidArgument, Unsupported for what cannot be."""
    links = [":".join(parse_link(text)) for text in settings.get("Links") or ()]
    if links and not is_user_defined(network.name):
        raise _invalid(network, "links of an endpoint need a user-defined network: here HostConfig.Links has them")
    options: dict[str, str] = settings.get("DriverOpts") or {}
    for option in options:
        if option != ENDPOINT_SYSCTLS or not networks.has_addresses(network):
            raise Unsupported(f"EndpointsConfig.DriverOpts: {option} is not supported by knarr on {network.name}")
    endpoint_sysctls(options)
    mac = settings.get("MacAddress") or mac
    if mac:
        request.check_mac(mac)
        if not networks.has_addresses(network):
            raise InvalidArgument("conflicting options: mac-address and the network mode")
        if network.driver == "ipvlan":
            raise _invalid(network, "ipvlan interfaces do not support custom mac address assignment")
    aliases = settings.get("Aliases") or []
    if aliases and not is_user_defined(network.name):
        raise _invalid(network, "network-scoped aliases are only supported for user-defined networks")
    return {
        "network_id": network.id,
        "endpoint_id": "",
        "address": "",
        "prefix": 0,
        "gateway": "",
        "mac": "",
        "wanted_address": "",
        **_wanted(networks, network, settings.get("IPAMConfig") or {}),  # type: ignore[typeddict-item]
        "wanted_mac": mac,
        "aliases": list(dict.fromkeys(aliases)),
        "links": list(dict.fromkeys(links)),
        "driver_opts": options,
        "gw_priority": settings.get("GwPriority") or 0,
    }


def _wanted(networks: Networks, network: NetworkRecord, addresses: dict[str, Any]) -> dict[str, str]:
    if not any(addresses.values()):
        return {}
    if not is_user_defined(network.name):
        raise _invalid(network, "user-specified IP address is supported on user-defined networks only")
    if addresses.get("LinkLocalIPs"):
        raise Unsupported("LinkLocalIPs are not supported by knarr: leave them out")
    wanted = {}
    for field, key, of in (
        ("IPv4Address", "wanted_address", ipaddress.IPv4Address),
        ("IPv6Address", "wanted_address6", ipaddress.IPv6Address),
    ):
        text: str = addresses.get(field) or ""
        if not text:
            continue
        try:
            found = str(of(text))
        except ValueError:
            raise _invalid(network, f"invalid {field[:4]} address: {text}") from None
        networks.check_address(network, found)
        wanted[key] = found
    return wanted


def _invalid(network: NetworkRecord, what: str) -> InvalidArgument:
    return InvalidArgument(f"invalid config for network {network.name}: invalid endpoint settings:\n{what}")


def is_user_defined(name: str) -> bool:
    """Whether a network is one that somebody made."""
    return name not in DRIVERS


def in_order(record: ContainerRecord) -> list[tuple[str, Endpoint]]:
    """The endpoints that have joined, as their interfaces come: the network mode's first, then by name."""
    mode = record.host["NetworkMode"]
    found = [item for item in record.state.networks.items() if has_joined(item[1])]
    return sorted(found, key=lambda item: (item[1].get("interface", ""), item[0] != mode, item[0]))


def has_joined(endpoint: Endpoint) -> bool:
    """Whether it has an address, of whichever family."""
    return bool(endpoint["address"] or endpoint.get("address6"))


def is_limited(record: ContainerRecord) -> bool:
    """Whether the container has an egress list."""
    return egress.EGRESS in (record.host["Annotations"] or {})


def check_limit(record: ContainerRecord, network: NetworkRecord) -> None:
    """Raise InvalidArgument where a container's egress list could not be held to on a network."""
    if network.driver in lan.DRIVERS and is_limited(record):
        raise InvalidArgument(
            f"container {record.name} has an egress list, and network {network.name} is a {network.driver} network: "
            "what is sent there comes by no bridge, where a list holds"
        )


def add_interface(record: ContainerRecord, endpoint: Endpoint) -> None:
    """Give an endpoint the first name of an interface that the container has not."""
    taken = {other.get("interface") for other in record.state.networks.values() if other is not endpoint}
    number = 0
    while f"eth{number}" in taken:
        number += 1
    endpoint["interface"] = f"eth{number}"


def gateways(record: ContainerRecord, leaving: Endpoint | None = None) -> dict[int, Endpoint]:
    """For IPv4 and IPv6 (4 and 6), the endpoint whose network has the default route, and the published ports.

    The highest GwPriority, then one that leads out with both, then by name. An internal network has no way out. None
    where there is no other; one that is `leaving` does not count.
    """
    found = [item for item in in_order(record) if item[1] is not leaving]
    ways: dict[int, Endpoint] = {}
    for version in (4, 6):
        able = [item for item in found if _leads_out(item[1], version)]
        if able:
            ways[version] = min(able, key=_rank)[1]
    return ways


def _leads_out(endpoint: Endpoint, version: int) -> bool:
    """Some lead out without a gateway."""
    address, gateway = (
        (endpoint["address"], endpoint["gateway"])
        if version == 4
        else (endpoint.get("address6"), endpoint.get("gateway6"))
    )
    return bool(gateway) or bool(address and endpoint.get("leads_out"))


def _rank(item: tuple[str, Endpoint]) -> tuple[int, bool, str]:
    name, endpoint = item
    return -endpoint.get("gw_priority", 0), not (_leads_out(endpoint, 4) and _leads_out(endpoint, 6)), name


def ways_out(record: ContainerRecord, leaving: Endpoint | None = None) -> dict[str, str | None]:
    """The networks of `gateways`, as the supervisor is told of them."""
    ways = gateways(record, leaving)
    found: dict[str, str | None] = {"way_out": ways[4]["network_id"] if 4 in ways else None}
    if 6 in ways:
        found["way_out6"] = ways[6]["network_id"]
    return found


def may_publish(networks: Networks, record: ContainerRecord) -> bool:
    """Whether ports can be published: not where all networks are internal, or on the host's own interfaces."""
    found = [networks.by_id(endpoint["network_id"]) for endpoint in record.state.networks.values()]
    return not found or not all(network.internal or network.driver in lan.DRIVERS for network in found)


def exposes(record: ContainerRecord) -> bool:
    """Whether ports that are exposed mean anything: not where all networks are on the host's own interfaces."""
    found = record.state.networks.values()
    return not found or not all(endpoint.get("lan") for endpoint in found)


def publishes(record: ContainerRecord) -> bool:
    """Whether published ports lead to the container now: not while its ways out are on interfaces of the host's."""
    ways = gateways(record).values()
    return not ways or not all(endpoint.get("lan") for endpoint in ways)


def dns_names(record: ContainerRecord, endpoint: Endpoint) -> list[str]:
    """What the container is called on a user-defined network; the first is its name."""
    names = [record.name, *endpoint["aliases"], record.id[:12], record.config["Hostname"]]
    return list(dict.fromkeys(filter(None, names)))
