"""What a request for a network asks for, held against what there is: everything is refused before anything is made."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

from knarr.engine.networks import entries, lan
from knarr.errors import InvalidArgument, NotFound, PermissionDenied, Unsupported

__all__ = ["BRIDGE_NAME", "HOST_BINDING", "ICC", "MASQUERADE", "MTU", "Request", "check", "is_on"]

BRIDGE_NAME = "com.docker.network.bridge.name"
ICC = "com.docker.network.bridge.enable_icc"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
HOST_BINDING = "com.docker.network.bridge.host_binding_ipv4"
MTU = lan.MTU
OPTIONS = {BRIDGE_NAME, ICC, MASQUERADE, HOST_BINDING, MTU}
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_INTERFACE = re.compile(r"[^/:\s]{1,15}")
_TRUE, _FALSE = {"1", "t", "T", "true", "True", "TRUE"}, {"0", "f", "F", "false", "False", "FALSE"}
MTU_RANGE = range(68, 65536)


@dataclass(slots=True)
class Request:
    """A network to make."""

    name: str
    driver: str = "bridge"
    internal: bool = False
    attachable: bool = False
    subnet: str = ""  # CIDR; empty to have one chosen
    gateway: str = ""
    address_range: str = ""
    auxiliary: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)


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
    served = [port for entry in entries.declared(asked.options) for port in entry["ports"]]
    if asked.internal and any(port["host_port"] is not None for port in served):
        raise InvalidArgument("an internal network's load-balanced entry cannot be published")
    _check_addresses(asked)


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
            _ipv4(value, HOST_BINDING)
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


def _check_addresses(asked: Request) -> None:
    if not asked.subnet:
        for value, what in ((asked.gateway, "gateway"), (asked.address_range, "ip-range")):
            if value:
                raise InvalidArgument(f"invalid network config: {what} {value} needs a subnet")
        if asked.auxiliary:
            raise InvalidArgument("invalid network config: auxiliary addresses need a subnet")
        return
    network = _network(asked.subnet, "subnet")
    if network.prefixlen > 30:
        raise InvalidArgument(f"invalid network config: subnet {network} has no room for a gateway and a container")
    asked.subnet = str(network)
    if asked.address_range:
        inner = _network(asked.address_range, "ip-range")
        if not inner.subnet_of(network):
            raise InvalidArgument(f"invalid network config: ip-range {inner} is not within the subnet {network}")
        asked.address_range = str(inner)
    given = [(asked.gateway, "gateway")] if asked.gateway else []
    for address, what in [*given, *((value, f"auxiliary address {key}") for key, value in asked.auxiliary.items())]:
        found = _ipv4(address, what)
        if found not in network or found in (network.network_address, network.broadcast_address):
            raise InvalidArgument(f"invalid network config: {what} {address} is no address of a host in {network}")


def _network(text: str, what: str) -> ipaddress.IPv4Network:
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        raise InvalidArgument(f"invalid network config: invalid {what} {text}: invalid CIDR block notation") from None
    if interface.version == 6:
        raise Unsupported(f"IPv6 networks are not supported by knarr yet: {what} {text}")
    if "/" not in text:
        raise InvalidArgument(f"invalid network config: invalid {what} {text}: invalid CIDR block notation")
    if interface.ip != interface.network.network_address:
        raise InvalidArgument(f"invalid network config: invalid {what} {text}: it should be {interface.network}")
    return interface.network


def _ipv4(text: str, what: str) -> ipaddress.IPv4Address:
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        raise InvalidArgument(f"invalid {what}: {text!r} is no IPv4 address") from None


def is_on(options: dict[str, str], name: str, *, default: bool) -> bool:
    """A switch among a network's options."""
    return options[name] in _TRUE if name in options else default
