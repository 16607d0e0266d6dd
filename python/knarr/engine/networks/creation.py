"""What a request for a network asks for, held against what there is: everything is refused before anything is made."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

from knarr.engine.networks import egress, entries, lan
from knarr.errors import InvalidArgument, NotFound, PermissionDenied, Unsupported

__all__ = [
    "BRIDGE_NAME",
    "HOST_BINDING",
    "ICC",
    "MASQUERADE",
    "MTU",
    "Addresses",
    "Request",
    "check",
    "is_on",
    "version_of",
]

BRIDGE_NAME = "com.docker.network.bridge.name"
ICC = "com.docker.network.bridge.enable_icc"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
HOST_BINDING = "com.docker.network.bridge.host_binding_ipv4"
MTU = lan.MTU
OPTIONS = {BRIDGE_NAME, ICC, MASQUERADE, HOST_BINDING, MTU, egress.EGRESS}
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_INTERFACE = re.compile(r"[^/:\s]{1,15}")
_TRUE, _FALSE = {"1", "t", "T", "true", "True", "TRUE"}, {"0", "f", "F", "false", "False", "FALSE"}
MTU_RANGE = range(68, 65536)
MTU_MIN_IPV6 = 1280  # a link with less has no IPv6 (RFC 8200, section 5)

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(slots=True)
class Addresses:
    """What is asked of one family's addresses."""

    subnet: str = ""  # CIDR; empty to have one chosen
    gateway: str = ""
    address_range: str = ""
    auxiliary: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Request:
    """A network to make."""

    name: str
    driver: str = "bridge"
    internal: bool = False
    attachable: bool = False
    ipv4: Addresses | None = field(default_factory=Addresses)  # None: without
    ipv6: Addresses | None = None
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)  # what of the request means nothing


def check(asked: Request) -> None:
    """Raise for what cannot be, whatever other networks there are."""
    if not _NAME.fullmatch(asked.name):
        raise InvalidArgument(
            f"invalid network name: {asked.name!r} includes invalid characters, "
            "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    if asked.driver in ("host", "null"):
        raise PermissionDenied(f'only one instance of "{asked.driver}" network is allowed')
    if asked.driver == "overlay":
        raise Unsupported(f"the network driver {asked.driver} is not supported by knarr: it needs a swarm")
    if asked.driver in lan.DRIVERS:
        lan.check_options(asked.driver, asked.options)
        _check_mtu(asked.options)
    elif asked.driver == "bridge":
        _check_options(asked.options)
    else:
        known = ", ".join(("bridge", *lan.DRIVERS))
        raise NotFound(f'plugin "{asked.driver}" not found (the network drivers that knarr has: {known})')
    _check_families(asked)
    _check_entries(asked)


def _check_families(asked: Request) -> None:
    if asked.ipv4 is None and asked.ipv6 is None:
        raise InvalidArgument("IPv4 or IPv6 must be enabled")
    if asked.ipv4 is not None:
        _check_addresses(asked.ipv4, 4)
    if asked.ipv6 is not None:
        _check_addresses(asked.ipv6, 6)
        if int(asked.options.get(MTU, MTU_MIN_IPV6)) < MTU_MIN_IPV6:
            raise InvalidArgument(f"{MTU}: IPv6 needs {MTU_MIN_IPV6} bytes at least, not {asked.options[MTU]}")


def _check_entries(asked: Request) -> None:
    declared = entries.declared(asked.options) if asked.driver == "bridge" else []
    served = [port for entry in declared for port in entry["ports"]]
    ipv4, ipv6 = asked.ipv4 is not None, asked.ipv6 is not None
    entries.check_ports(asked.name, served, ipv4=ipv4, ipv6=ipv6, internal=asked.internal)


def _check_options(options: dict[str, str]) -> None:
    _check_mtu(options)
    for name, value in options.items():
        if name.startswith(entries.OPTION):
            continue  # read by `entries.declared`
        if name not in OPTIONS:
            raise Unsupported(
                f"the option {name} of a bridge network is not supported by knarr: leave it out "
                f"(those that are: {', '.join(sorted(OPTIONS))})"
            )
        if name in (ICC, MASQUERADE) and value not in _TRUE | _FALSE:
            raise InvalidArgument(f'failed to parse {name} value: "{value}": it is true or false')
        if name == HOST_BINDING:
            _address(value, HOST_BINDING)
        if name == egress.EGRESS:
            egress.rules(value)
        if name == BRIDGE_NAME and not _INTERFACE.fullmatch(value):
            raise InvalidArgument(
                f"invalid {BRIDGE_NAME} {value!r}: an interface's name has 1 to 15 characters, no / and no :"
            )


def _check_mtu(options: dict[str, str]) -> None:
    value = options.get(MTU)
    if value is not None and not (value.isascii() and value.isdigit() and int(value) in MTU_RANGE):
        raise InvalidArgument(
            f'failed to parse {MTU} value: "{value}": it is from {MTU_RANGE.start} to {MTU_RANGE.stop - 1} bytes'
        )


def _check_addresses(asked: Addresses, version: int) -> None:
    if not asked.subnet:
        for value, what in ((asked.gateway, "gateway"), (asked.address_range, "ip-range")):
            if value:
                raise InvalidArgument(f"invalid network config: {what} {value} needs a subnet")
        if asked.auxiliary:
            raise InvalidArgument("invalid network config: auxiliary addresses need a subnet")
        return
    network = _network(asked.subnet, "subnet")
    if network.max_prefixlen - network.prefixlen < 2:
        raise InvalidArgument(f"invalid network config: subnet {network} has no room for a gateway and a container")
    if network.version == 6 and (network.is_multicast or network.is_link_local or network.is_loopback):
        raise InvalidArgument(f"invalid network config: subnet {network} is not one of unicast addresses")
    asked.subnet = str(network)
    if asked.address_range:
        inner = _network(asked.address_range, "ip-range")
        if inner.version != version:
            raise InvalidArgument(
                f"invalid network config: invalid ip-range {inner}: parent subnet is an IPv{version} block"
            )
        if not (inner.network_address in network and inner.prefixlen >= network.prefixlen):
            raise InvalidArgument(f"invalid network config: ip-range {inner} is not within the subnet {network}")
        asked.address_range = str(inner)
    if asked.gateway:
        asked.gateway = _of_host(asked.gateway, "gateway", network)
    asked.auxiliary = {
        key: _of_host(value, f"auxiliary address {key}", network) for key, value in asked.auxiliary.items()
    }


def _of_host(text: str, what: str, network: IPNetwork) -> str:
    """An address of the network that is not the network's own, in its usual form."""
    found = _address(text, what)
    last = network.broadcast_address if network.version == 4 else None
    if found not in network or found in (network.network_address, last):
        raise InvalidArgument(f"invalid network config: {what} {text} is no address of a host in {network}")
    return str(found)


def _network(text: str, what: str) -> IPNetwork:
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        raise InvalidArgument(f"invalid network config: invalid {what} {text}: invalid CIDR block notation") from None
    if "/" not in text or "%" in text:
        raise InvalidArgument(f"invalid network config: invalid {what} {text}: invalid CIDR block notation")
    if interface.ip != interface.network.network_address:
        raise InvalidArgument(f"invalid network config: invalid {what} {text}: it should be {interface.network}")
    return interface.network


def _address(text: str, what: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        found = None
    if found is None or "%" in text:
        raise InvalidArgument(f"invalid {what}: {text!r} is no IP address")
    return found


def version_of(subnet: str) -> int:
    """4 or 6, by what a subnet of a request says. InvalidArgument where it says neither."""
    return _network(subnet, "subnet").version


def is_on(options: dict[str, str], name: str, *, default: bool) -> bool:
    """A switch among a network's options."""
    return options[name] in _TRUE if name in options else default
