"""Load-balanced entries of a network: what one is, and what a request for one may say.

An entry is an address of the network's, of each family that it has, and perhaps ports of the host's, behind which all
running containers stand that are on the network, carry the entry's labels and are not unhealthy. Who that is:
`engine/containers/balancing.py`.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any, TypedDict

from knarr.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "OPTION",
    "SERVICE",
    "Entry",
    "EntryPort",
    "check_name",
    "check_ports",
    "declared",
    "key",
    "parse_port",
    "port_text",
    "shown",
]

OPTION = "knarr.lb."
"""A network's option `knarr.lb.NAME=PORTS` makes an entry for the containers of Compose's service NAME."""
SERVICE = "com.docker.compose.service"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
_PORT = re.compile(
    r"(?:(?:(?P<ip>[0-9.]+|\[[0-9a-fA-F:.]+\]):)?(?P<host>[0-9]*):)?(?P<port>[0-9]+)(?:/(?P<protocol>tcp|udp))?"
)


class EntryPort(TypedDict):
    """A port of an entry. `host_port`: 0 for any, None where it is not published; `host_ip`: None for all addresses."""

    protocol: str
    container_port: int
    host_ip: str | None
    host_port: int | None


class Entry(TypedDict):
    """An entry, as it is stored."""

    name: str
    address: str  # empty on a network without IPv4, or to have one chosen
    address6: str  # the same of IPv6
    labels: dict[str, str]
    ports: list[EntryPort]


def check_name(name: str) -> str:
    """The name, which containers of the network find the entry by. InvalidArgument."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"invalid name of a load-balanced entry: {name!r}: it begins with a letter or a digit, and has at most 63 "
            "of [a-zA-Z0-9_.-]"
        )
    return name


def parse_port(text: str) -> EntryPort:
    """`[[ip:][host port]:]port[/protocol]`, as of `-p`; without a colon it is the entry's alone. InvalidArgument."""
    found = _PORT.fullmatch(text)
    if found is None:
        raise InvalidArgument(f"invalid port {text!r} of a load-balanced entry: expected [[IP:][HOST]:]PORT[/tcp|/udp]")
    port, host, address = int(found["port"]), found["host"], found["ip"]
    for number in (port, int(host or 1)):
        if not 0 < number < 1 << 16:
            raise InvalidArgument(f"invalid port {text!r} of a load-balanced entry: {number} is not from 1 to 65535")
    try:
        address = str(ipaddress.ip_address(address.strip("[]"))) if address else None
    except ValueError:
        raise InvalidArgument(f"invalid port {text!r} of a load-balanced entry: {address} is no IP address") from None
    published = host is not None
    return {
        "protocol": found["protocol"] or "tcp",
        "container_port": port,
        "host_ip": address,
        "host_port": int(host or 0) if published else None,
    }


def check_ports(network: str, ports: Iterable[EntryPort], *, ipv4: bool, ipv6: bool, internal: bool) -> None:
    """Raise InvalidArgument where a port cannot be published, for what the network has."""
    for port in ports:
        if port["host_port"] is None:
            continue
        if internal:
            raise InvalidArgument(f"network {network} is internal: an entry of it cannot be published")
        if port["host_ip"] and not (ipv6 if ":" in port["host_ip"] else ipv4):
            raise InvalidArgument(
                f"port {port_text(port)} of a load-balanced entry: network {network} has no addresses of that family"
            )


def port_text(port: EntryPort) -> str:
    """A port as `parse_port` reads it."""
    own = f"{port['container_port']}/{port['protocol']}"
    if port["host_port"] is None:
        return own
    address = port["host_ip"] or ""
    host = f"[{address}]:" if ":" in address else f"{address}:" if address else ""
    return f"{host}{port['host_port']}:{own}"


def key(network_id: str, name: str) -> str:
    """What the supervisor calls an entry."""
    return f"{network_id[:12]}/{name}"


def declared(options: dict[str, str]) -> list[Entry]:
    """The entries that a network's options ask for, without an address yet. InvalidArgument."""
    found: list[Entry] = []
    for option, value in options.items():
        if option.startswith(OPTION):
            name = check_name(option[len(OPTION) :])
            ports = [parse_port(text.strip()) for text in value.split(",")]
            found.append({"name": name, "address": "", "address6": "", "labels": {SERVICE: name}, "ports": ports})
    return found


def shown(entry: Entry) -> dict[str, Any]:
    """An entry as the API shows it, without its members."""
    return {
        "Name": entry["name"],
        "Address": entry["address"],
        "IPv6Address": entry.get("address6", ""),
        "Labels": entry["labels"],
        "Ports": [port_text(port) for port in entry["ports"]],
    }
