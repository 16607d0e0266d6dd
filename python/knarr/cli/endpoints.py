"""--network with options, and the options beside it, as NetworkingConfig (Engine API) of a container."""

from knarr.cli import values
from knarr.cli.container_body import address
from knarr.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_OURS = ("default", "bridge", "host", "none")


def apply(options: "dict[str, Any]", body: "dict[str, Any]", host: "dict[str, Any]") -> None:
    """Put NetworkMode and EndpointsConfig into the body of ContainerCreate."""
    endpoints: dict[str, dict[str, Any]] = {}
    for item in options["network"] or ["default"]:
        name, endpoint = network(item)
        if name in endpoints:
            raise InvalidArgument(f'network "{name}" is specified multiple times')
        endpoints[name] = endpoint
    if any(_is_ours(name) for name in endpoints) and not all(_is_ours(name) for name in endpoints):
        raise InvalidArgument("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
    first = next(iter(endpoints))
    _own_options(options, first, endpoints[first])
    host["NetworkMode"] = first
    if len(endpoints) > 1 or endpoints[first]:
        body["NetworkingConfig"] = {"EndpointsConfig": endpoints}


def _is_ours(name: str) -> bool:
    return name in _OURS or name.startswith("container:")


def network(spec: str) -> "tuple[str, dict[str, Any]]":
    """The name and the EndpointSettings of "name=x,alias=y,ip=10.0.0.2"; of a bare name there are none."""
    if "=" not in spec:
        if not spec.strip():
            raise InvalidArgument("no name set for network")
        return spec, {}
    name = ""
    result: dict[str, Any] = {}
    for field in values.fields(spec):
        key, equals, value = field.partition("=")
        key, value = key.strip().lower(), value.strip()
        if not equals or not key:
            raise InvalidArgument(f"invalid field {field} of --network")
        if key == "name":
            name = value
        elif key == "alias":
            result.setdefault("Aliases", []).append(value)
        elif key in ("ip", "ip6"):
            result.setdefault("IPAMConfig", {})["IPv4Address" if key == "ip" else "IPv6Address"] = address(
                value, "--network"
            )
        elif key == "link-local-ip":
            result.setdefault("IPAMConfig", {}).setdefault("LinkLocalIPs", []).append(address(value, "--network"))
        elif key == "mac-address":
            result["MacAddress"] = _mac(value)
        elif key == "driver-opt":
            result.setdefault("DriverOpts", {}).update(values.pairs([value]))
        elif key == "gw-priority":
            result["GwPriority"] = values.integer(value, "gw-priority")
        else:
            raise InvalidArgument(f"invalid field key {key} of --network")
    if not name:
        raise InvalidArgument("network name/id is not specified")
    return name, result


def _own_options(options: "dict[str, Any]", name: str, endpoint: "dict[str, Any]") -> None:
    """--network-alias, --ip and the like are about the first network."""
    if options["network_alias"]:
        if "Aliases" in endpoint:
            raise InvalidArgument("conflicting options: cannot specify both --network-alias and per-network alias")
        if _is_ours(name):
            raise InvalidArgument("network-scoped aliases are only supported for user-defined networks")
        endpoint["Aliases"] = options["network_alias"]
    ipam = endpoint.get("IPAMConfig", {})
    for key, field in (("ip", "IPv4Address"), ("ip6", "IPv6Address")):
        if options[key]:
            if field in ipam:
                raise InvalidArgument(f"conflicting options: cannot specify both --{key} and per-network address")
            ipam[field] = address(options[key], f"--{key}")
    if options["link_local_ip"]:
        ipam["LinkLocalIPs"] = [address(item, "--link-local-ip") for item in options["link_local_ip"]]
    if ipam:
        endpoint["IPAMConfig"] = ipam
    if options["mac_address"]:
        endpoint["MacAddress"] = _mac(options["mac_address"])


def _mac(text: str) -> str:
    parts = text.strip().lower().replace("-", ":").split(":")
    if len(parts) != 6 or not all(len(part) == 2 and set(part) <= set("0123456789abcdef") for part in parts):
        raise InvalidArgument(f"{text} is not a valid mac address")
    return ":".join(parts)
