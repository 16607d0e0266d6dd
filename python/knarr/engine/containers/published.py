"""Published ports: where on the host each is to be, of which family.

A binding without an address of the host's is on the default one of the network that leads out. That is usually 0.0.0.0,
which stands for all addresses of both families, as far as the container has them: one host port on 0.0.0.0 and [::].
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from knarr.engine.containers import request
from knarr.engine.networks.creation import HOST_BINDING
from knarr.engine.networks.networks import DEFAULT
from knarr.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from knarr.engine.containers.container import Context
    from knarr.store.containers import ContainerRecord, Endpoint

__all__ = ["chosen", "ports"]

EVERYWHERE, EVERYWHERE6 = "0.0.0.0", "::"  # noqa: S104  Docker's default, published on purpose


def ports(context: Context, record: ContainerRecord, ways_out: Mapping[int, Endpoint]) -> list[dict[str, Any]]:
    """The ports as the supervisor is asked for them; none where no network leads out, but on interfaces of the host's.

    ways_out: by the version of the protocol, 4 and 6, the endpoint whose address is published. Raises InvalidArgument
    for a binding of a family that the container has not.
    """
    usual = {version: _usual(context, endpoint) for version, endpoint in ways_out.items() if not endpoint.get("lan")}
    if not usual:
        return []
    bindings = dict(record.host["PortBindings"] or {})
    if record.host["PublishAllPorts"]:
        for port in record.config["ExposedPorts"] or {}:
            bindings.setdefault(port, [{}])
    found = []
    for port, places in bindings.items():
        protocol, number = request.parse_port(port)
        for place in places or [{}]:
            first, last = request.host_ports(place.get("HostPort") or "0")
            addresses = _addresses(record, port, place.get("HostIp") or "", usual, ways_out)
            for address in addresses:
                item = {
                    "protocol": protocol,
                    "host_ip": address,
                    "host_port": first,
                    "host_port_last": last,
                    "container_port": number,
                }
                found.append(item if address is addresses[0] else {**item, "same_port": True})
    return found


def chosen(answer: list[dict[str, Any]]) -> list[list[Any]]:
    """The ports that the supervisor has published, as a container's state has them."""
    return [[port["protocol"], port["host_ip"], port["host_port"], port["container_port"]] for port in answer]


def _usual(context: Context, endpoint: Endpoint) -> str:
    network = context.networks.by_id(endpoint["network_id"])
    return network.options.get(HOST_BINDING, context.config.ip if network.name == DEFAULT else EVERYWHERE)


def _addresses(
    record: ContainerRecord, port: str, given: str, usual: dict[int, str], ways_out: Container[int]
) -> list[str]:
    """The addresses of the host that a binding is on."""
    if not given:
        found = []
        for version, address in usual.items():
            if address == EVERYWHERE:
                found.append(EVERYWHERE if version == 4 else EVERYWHERE6)
            elif ipaddress.ip_address(address).version == version:
                found.append(address)
        if found:
            return found
        given = next(iter(usual.values()))
    host = request.host_address(given)
    if host.version not in usual:
        if host.version in ways_out:
            return []  # it is reached at its own address, on an interface of the host's
        raise InvalidArgument(
            f"port binding of {port} on {given}: the container {record.name} has no IPv{host.version} address on a "
            f"network that leads out: connect it to one with IPv{host.version}, or publish on an "
            f"IPv{10 - host.version} address of the host"
        )
    return [str(host)]
