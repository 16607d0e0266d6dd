"""--subnet, --gateway, --ip-range and --aux-address as IPAM.Config (Engine API) of a network."""

import ipaddress

from knarr.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def config(
    subnets: "list[str]", gateways: "list[str]", ranges: "list[str]", auxiliary: "dict[str, str]"
) -> "list[dict[str, Any]]":
    """One item for each subnet. Raises InvalidArgument in Docker's words."""
    if len(subnets) < len(ranges) or len(subnets) < len(gateways):
        raise InvalidArgument("every ip-range or gateway must have a corresponding subnet")
    networks = [ipaddress.ip_network(_read(subnet, "subnet"), strict=False) for subnet in subnets]
    for number, network in enumerate(networks):
        if any(network.version == other.version and network.overlaps(other) for other in networks[:number]):
            raise InvalidArgument("multiple overlapping subnet configuration is not supported")
    pools: list[dict[str, Any]] = [{"Subnet": subnet} for subnet in subnets]

    def of(text: str, what: str) -> "dict[str, Any]":
        inner = ipaddress.ip_network(_read(text, what), strict=False)
        for network, pool in zip(networks, pools, strict=True):
            if inner.version == network.version and inner.network_address in network:
                return pool
        raise InvalidArgument(f"no matching subnet for {what} {text}")

    for text in ranges:
        pool = of(text, "range")
        if "IPRange" in pool:
            raise InvalidArgument(
                f"cannot configure multiple ranges ({text}, {pool['IPRange']}) on the same subnet ({pool['Subnet']})"
            )
        pool["IPRange"] = text
    for text in gateways:
        pool = of(text, "gateway")
        if "Gateway" in pool:
            raise InvalidArgument(
                f"cannot configure multiple gateways ({text}, {pool['Gateway']}) for the same subnet ({pool['Subnet']})"
            )
        pool["Gateway"] = text
    for name, text in auxiliary.items():
        of(text, "aux-address").setdefault("AuxiliaryAddresses", {})[name] = text
    return pools


def _read(text: str, what: str) -> str:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        raise InvalidArgument(f"invalid {what} {text}: it is no address or subnet") from None
    return text
