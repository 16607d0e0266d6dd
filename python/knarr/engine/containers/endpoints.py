"""A container's places in networks: made from what a request says, and what follows from several of them."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from knarr.engine.containers import request
from knarr.engine.containers.links import parse_link
from knarr.engine.containers.spec import ENDPOINT_SYSCTLS, endpoint_sysctls
from knarr.engine.networks import lan
from knarr.engine.networks.networks import DRIVERS
from knarr.errors import InvalidArgument, Unsupported

if TYPE_CHECKING:
    from knarr.engine.networks.networks import Networks
    from knarr.store.containers import ContainerRecord, Endpoint
    from knarr.store.networks import NetworkRecord

__all__ = [
    "add_interface",
    "dns_names",
    "exposes",
    "gateway",
    "in_order",
    "is_user_defined",
    "make",
    "may_publish",
    "publishes",
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
        "wanted_address": _wanted(networks, network, settings.get("IPAMConfig") or {}),
        "wanted_mac": mac,
        "aliases": list(dict.fromkeys(aliases)),
        "links": list(dict.fromkeys(links)),
        "driver_opts": options,
        "gw_priority": settings.get("GwPriority") or 0,
    }


def _wanted(networks: Networks, network: NetworkRecord, addresses: dict[str, Any]) -> str:
    if not any(addresses.values()):
        return ""
    if not is_user_defined(network.name):
        raise _invalid(network, "user-specified IP address is supported on user-defined networks only")
    if addresses.get("IPv6Address"):
        raise Unsupported(f"IPv6 is not supported by knarr yet: {addresses['IPv6Address']} on {network.name}")
    if addresses.get("LinkLocalIPs"):
        raise Unsupported("LinkLocalIPs are not supported by knarr: leave them out")
    text: str = addresses.get("IPv4Address") or ""
    try:
        found = str(ipaddress.IPv4Address(text))
    except ValueError:
        raise _invalid(network, f"invalid IPv4 address: {text}") from None
    networks.check_address(network, found)
    return found


def _invalid(network: NetworkRecord, what: str) -> InvalidArgument:
    return InvalidArgument(f"invalid config for network {network.name}: invalid endpoint settings:\n{what}")


def is_user_defined(name: str) -> bool:
    """Whether a network is one that somebody made."""
    return name not in DRIVERS


def in_order(record: ContainerRecord) -> list[tuple[str, Endpoint]]:
    """The endpoints that have an address, as their interfaces come: the network mode's first, then by name."""
    mode = record.host["NetworkMode"]
    found = [item for item in record.state.networks.items() if item[1]["address"]]
    return sorted(found, key=lambda item: (item[1].get("interface", ""), item[0] != mode, item[0]))


def add_interface(record: ContainerRecord, endpoint: Endpoint) -> None:
    """Give an endpoint the first name of an interface that the container has not."""
    taken = {other.get("interface") for other in record.state.networks.values() if other is not endpoint}
    number = 0
    while f"eth{number}" in taken:
        number += 1
    endpoint["interface"] = f"eth{number}"


def gateway(record: ContainerRecord, leaving: Endpoint | None = None) -> Endpoint | None:
    """The endpoint whose network has the default route, and the published ports: the highest GwPriority, then by name.

    An internal network has no way out. None where there is no other; one that is `leaving` does not count.
    """
    found = [item for item in in_order(record) if _leads_out(item[1]) and item[1] is not leaving]
    if not found:
        return None
    return min(found, key=lambda item: (-item[1].get("gw_priority", 0), item[0]))[1]


def _leads_out(endpoint: Endpoint) -> bool:
    return bool(endpoint["gateway"]) or endpoint.get("leads_out", False)


def may_publish(networks: Networks, record: ContainerRecord) -> bool:
    """Whether ports can be published: not where all networks are internal, or on the host's own interfaces."""
    found = [networks.by_id(endpoint["network_id"]) for endpoint in record.state.networks.values()]
    return not found or not all(network.internal or network.driver in lan.DRIVERS for network in found)


def exposes(record: ContainerRecord) -> bool:
    """Whether ports that are exposed mean anything: not where all networks are on the host's own interfaces."""
    found = record.state.networks.values()
    return not found or not all(endpoint.get("lan") for endpoint in found)


def publishes(record: ContainerRecord) -> bool:
    """Whether published ports lead to the container now: not while its way out is on an interface of the host's."""
    way_out = gateway(record)
    return way_out is None or not way_out.get("lan")


def dns_names(record: ContainerRecord, endpoint: Endpoint) -> list[str]:
    """What the container is called on a user-defined network; the first is its name."""
    names = [record.name, *endpoint["aliases"], record.id[:12], record.config["Hostname"]]
    return list(dict.fromkeys(filter(None, names)))
