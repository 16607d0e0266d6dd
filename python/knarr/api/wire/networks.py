"""Networks as the API shows them and is asked for them (Engine API: Network)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from knarr.api.wire.containers import timestamp
from knarr.engine.networks import creation
from knarr.engine.networks.entries import Entry, parse_port
from knarr.engine.networks.networks import DEFAULT
from knarr.errors import InvalidArgument, PermissionDenied, Unsupported

if TYPE_CHECKING:
    from knarr.store.networks import NetworkRecord

__all__ = ["create_request", "entry_request", "network"]


class _IpamConfig(TypedDict, total=False):
    Subnet: str
    IPRange: str
    Gateway: str
    AuxiliaryAddresses: dict[str, str] | None
    AuxAddress: dict[str, str] | None


class _Ipam(TypedDict, total=False):
    Driver: str
    Config: list[_IpamConfig] | None
    Options: dict[str, str] | None


class _Create(TypedDict, total=False):
    Name: str
    CheckDuplicate: bool
    Driver: str
    Scope: str
    Internal: bool
    Attachable: bool
    Ingress: bool
    ConfigOnly: bool
    ConfigFrom: dict[str, str] | None
    IPAM: _Ipam | None
    EnableIPv4: bool | None
    EnableIPv6: bool | None
    Options: dict[str, str] | None
    Labels: dict[str, str] | None


_CREATE: TypeAdapter[_Create] = TypeAdapter(_Create)
_NOT_DONE = {
    "Ingress": "a network for a swarm's published ports needs a swarm, which knarr has not",
    "ConfigOnly": "networks that only hold a configuration are not supported by knarr",
}


def create_request(body: dict[str, Any]) -> creation.Request:
    """Decode NetworkCreate. Raises InvalidArgument, Unsupported, pydantic's ValidationError."""
    given = {key: value for key, value in body.items() if value is not None}
    for key in given.keys() - _Create.__annotations__.keys():
        raise Unsupported(f"{key} is not a field of a network that knarr knows: leave it out")
    asked = _CREATE.validate_python(given, strict=True)
    for key, why in _NOT_DONE.items():
        if asked.get(key):
            raise Unsupported(f"{key}: {why}")
    if (asked.get("ConfigFrom") or {}).get("Network"):
        raise Unsupported(f"ConfigFrom: {_NOT_DONE['ConfigOnly']}")
    if asked.get("Scope") not in (None, "", "local"):
        raise Unsupported(f"Scope {asked['Scope']}: knarr has no swarm, every network is local")
    if not asked.get("Name"):
        raise InvalidArgument("network name is required")
    ipam = asked.get("IPAM") or {}
    if ipam.get("Driver") not in (None, "", "default"):
        raise Unsupported(f"IPAM.Driver {ipam['Driver']} is not supported by knarr: leave it out")
    for option in ipam.get("Options") or {}:
        raise Unsupported(f"IPAM.Options.{option} is not supported by knarr: leave it out")
    request = creation.Request(
        name=asked["Name"],
        driver=asked.get("Driver") or "bridge",
        internal=asked.get("Internal", False),
        attachable=asked.get("Attachable", False),
        ipv4=None if asked.get("EnableIPv4") is False else creation.Addresses(),
        ipv6=creation.Addresses() if asked.get("EnableIPv6") else None,
        labels=asked.get("Labels") or {},
        options=asked.get("Options") or {},
    )
    _add_pools(request, ipam.get("Config") or [])
    return request


def _add_pools(request: creation.Request, pools: list[_IpamConfig]) -> None:
    """Take in the subnets of a request. PermissionDenied, as Docker has it, for a second one of a family."""
    seen = set()
    for pool in pools:
        if not any(pool.values()):
            continue
        subnet = pool.get("Subnet") or ""
        version = creation.version_of(subnet) if subnet else 4
        of = request.ipv4 if version == 4 else request.ipv6
        if of is None:
            # Docker ignores it and says nothing.
            request.warnings.append(
                f"The subnet {subnet} is not used: IPv{version} is not enabled (EnableIPv{version})"
            )
            continue
        if version in seen:
            raise PermissionDenied(
                f"{request.driver} driver doesn't support multiple subnets: give one of IPv{version}"
            )
        seen.add(version)
        of.subnet = subnet
        of.gateway = pool.get("Gateway", "")
        of.address_range = pool.get("IPRange", "")
        of.auxiliary = pool.get("AuxiliaryAddresses") or pool.get("AuxAddress") or {}


class _Entry(TypedDict, total=False):
    Name: str
    Address: str
    IPv6Address: str
    Labels: dict[str, str] | None
    Ports: list[str] | None


_ENTRY: TypeAdapter[_Entry] = TypeAdapter(_Entry)


def entry_request(body: dict[str, Any]) -> Entry:
    """Decode a request for a load-balanced entry. Raises as `create_request`."""
    given = {key: value for key, value in body.items() if value is not None}
    for key in given.keys() - _Entry.__annotations__.keys():
        raise Unsupported(f"{key} is not a field of a load-balanced entry: leave it out")
    asked = _ENTRY.validate_python(given, strict=True)
    return {
        "name": asked.get("Name", ""),
        "address": asked.get("Address", ""),
        "address6": asked.get("IPv6Address", ""),
        "labels": asked.get("Labels") or {},
        "ports": [parse_port(text) for text in asked.get("Ports") or ()],
    }


def network(record: NetworkRecord, default_ip: str) -> dict[str, Any]:
    """One network, without who is on it. default_ip: where the default bridge's ports are published."""
    pools = [
        _pool(*pool)
        for pool in (
            (record.subnet, record.address_range, record.gateway, record.auxiliary),
            (record.subnet6, record.address_range6, record.gateway6, record.auxiliary6),
        )
        if pool[0]
    ]
    return {
        "Name": record.name,
        "Id": record.id,
        "Created": timestamp(record.created_ns),
        "Scope": "local",
        "Driver": record.driver,
        "EnableIPv4": record.ipv4,
        "EnableIPv6": record.ipv6,
        "IPAM": {"Driver": "default", "Options": None if record.name == DEFAULT else {}, "Config": pools or None},
        "Internal": record.internal,
        "Attachable": record.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Options": _default_options(record, default_ip) if record.name == DEFAULT else record.options,
        "Labels": record.labels,
    }


def _pool(subnet: str, address_range: str, gateway: str, auxiliary: dict[str, str]) -> dict[str, Any]:
    pool: dict[str, Any] = {"Subnet": subnet}
    if address_range:
        pool["IPRange"] = address_range
    if gateway:
        pool["Gateway"] = gateway
    if auxiliary:
        pool["AuxiliaryAddresses"] = auxiliary
    return pool


def _default_options(record: NetworkRecord, default_ip: str) -> dict[str, str]:
    return {
        "com.docker.network.bridge.default_bridge": "true",
        creation.ICC: "true",
        creation.MASQUERADE: "true",
        creation.HOST_BINDING: default_ip,
        creation.BRIDGE_NAME: record.bridge,
        creation.MTU: "1500",
    }
