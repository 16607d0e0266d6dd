"""`knarr network connect|create|disconnect|ls|prune|rm`."""

from knarr.cli import human
from knarr.cli.command import FLAG, INT, LIST, TEXT, Command, Option
from knarr.cli.each import QUIET, each
from knarr.cli.terminal import say, show
from knarr.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client

HEADERS = {
    "ID": "NETWORK ID",
    "Name": "NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
    "CreatedAt": "CREATED AT",
}
_RAW = {"network_id": "ID", "name": "Name", "driver": "Driver", "scope": "Scope"}


def _create(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    from knarr.cli.values import pairs

    ipam: dict[str, Any] = {"Driver": options["ipam_driver"], "Options": pairs(options["ipam_opt"])}
    if any(options[key] for key in ("subnet", "gateway", "ip_range", "aux_address")):
        from knarr.cli import subnets

        auxiliary = pairs(options["aux_address"])
        ipam["Config"] = subnets.config(options["subnet"], options["gateway"], options["ip_range"], auxiliary)
    made = client.networks.create(
        Name=arguments[0],
        Driver=options["driver"],
        Internal=options["internal"],
        Attachable=options["attachable"],
        EnableIPv4=options["ipv4"],
        EnableIPv6=options["ipv6"],
        IPAM=ipam,
        Options={**pairs(options["opt"]), **_egress(options["egress"])},
        Labels=pairs(options["label"]),
    )
    if made.get("Warning"):
        say(f"WARNING: {made['Warning']}")
    show(made["Id"])
    return 0


def _egress(lists: "list[str]") -> "dict[str, str]":
    return {"knarr.egress": ",".join(lists)} if lists else {}


def _connect(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    from knarr.cli.container_body import address
    from knarr.cli.values import pairs

    network, container = arguments
    settings: dict[str, Any] = {}
    if options["alias"]:
        settings["Aliases"] = options["alias"]
    addresses = {
        field: address(options[key], f"--{key}")
        for key, field in (("ip", "IPv4Address"), ("ip6", "IPv6Address"))
        if options[key]
    }
    if addresses:
        settings["IPAMConfig"] = addresses
    if options["driver_opt"]:
        settings["DriverOpts"] = pairs(options["driver_opt"])
    if options["gw_priority"]:
        settings["GwPriority"] = options["gw_priority"]
    client.networks.connect(network, container, settings)
    return 0


def _disconnect(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    network, container = arguments
    client.networks.disconnect(network, container, force=options["force"])
    return 0


def _remove(client: "Client", options: "dict[str, Any]", names: "list[str]") -> int:
    def remove(name: str) -> object:
        try:
            client.networks.remove(name)
        except NotFound:
            if not options["force"]:
                raise
            return QUIET
        return None

    return each(names, remove)


def _prune(client: "Client", options: "dict[str, Any]", _arguments: "list[str]") -> int:
    from knarr.cli.each import confirm
    from knarr.cli.listing import filters

    if not options["force"] and not confirm("This will remove all custom networks not used by at least one container."):
        return 0
    removed = client.networks.prune(filters(options["filter"])).get("NetworksDeleted")
    if removed:
        show("Deleted Networks:")
        for name in removed:
            show(name)
        show("")
    return 0


def _list(client: "Client", options: "dict[str, Any]", _arguments: "list[str]") -> int:
    from knarr.cli.listing import filters, wants_ids, write

    networks = client.networks.list(filters(options["filter"]))
    networks.sort(key=lambda network: str(network["Name"]))
    full = options["no_trunc"]
    if wants_ids(options):
        for network in networks:
            show(network["Id"] if full else human.short_id(network["Id"]))
        return 0
    raw = {"network_id": "ID"} if options["quiet"] else _RAW
    rows = [_row(network, full=full) for network in networks]
    write(rows, HEADERS, ["ID", "Name", "Driver", "Scope"], options["format"], raw)
    return 0


def _row(network: "dict[str, Any]", *, full: bool) -> "dict[str, Any]":
    labels = network.get("Labels") or {}
    return {
        "ID": network["Id"] if full else human.short_id(network["Id"]),
        "Name": network["Name"],
        "Driver": network.get("Driver", ""),
        "Scope": network.get("Scope", ""),
        "IPv4": "true" if network.get("EnableIPv4", True) else "false",
        "IPv6": "true" if network.get("EnableIPv6") else "false",
        "Internal": "true" if network.get("Internal") else "false",
        "Labels": ",".join(sorted(f"{key}={value}" for key, value in labels.items())),
        "Label": lambda name: labels.get(name, ""),
        "CreatedAt": human.exact_time(network.get("Created", "")),
    }


_LIST_OPTIONS = (
    Option("-f --filter", LIST, "Only those that match (driver=bridge, name=x ...)"),
    Option("--format", TEXT, "Format: table, json, or a Go template"),
    Option("--no-trunc", FLAG, "Don't cut long values"),
    Option("-q --quiet", FLAG, "Only show IDs"),
)
LIST_NETWORKS = Command(
    "network ls",
    _list,
    text="List networks",
    example="knarr network ls",
    maximum=0,
    options=_LIST_OPTIONS,
)
CREATE = Command(
    "network create",
    _create,
    text="Create a network",
    usage="NETWORK",
    example="knarr network create --subnet 10.5.0.0/24 backend",
    minimum=1,
    maximum=1,
    options=(
        Option("-d --driver", TEXT, "Driver to manage the network: bridge, macvlan or ipvlan", default="bridge"),
        Option("--subnet", LIST, "Subnet in CIDR format"),
        Option("--gateway", LIST, "The host's address in a subnet; with macvlan and ipvlan, a router's"),
        Option("--ip-range", LIST, "Choose containers' addresses from this part of a subnet"),
        Option("--aux-address", LIST, "Addresses that are never chosen, as name=address"),
        Option("--internal", FLAG, "No way out of the network"),
        Option("--egress", LIST, "What its containers may reach beyond it, and nothing else (pypi.org:443,10.0.0.0/8)"),
        Option("--attachable", FLAG, "Kept and shown; every network can be joined by hand"),
        Option("--ipv4", FLAG, "Enable IPv4 (default true)", default=None),
        Option("--ipv6", FLAG, "Enable IPv6", default=None),
        Option("--ipam-driver", TEXT, "Driver that chooses addresses", default="default"),
        Option("--ipam-opt", LIST, "Options of that driver"),
        Option("--label", LIST, "Set metadata"),
        Option("-o --opt", LIST, "Driver options (such as parent=eth0 for macvlan and ipvlan)"),
    ),
)
CONNECT = Command(
    "network connect",
    _connect,
    text="Put a container on a network",
    usage="NETWORK CONTAINER",
    example="knarr network connect --alias db backend postgres",
    minimum=2,
    maximum=2,
    complete="networks",
    options=(
        Option("--alias", LIST, "One more name of the container on the network"),
        Option("--driver-opt", LIST, "Driver options for the network"),
        Option("--gw-priority", INT, "The highest of a container's networks has its default route"),
        Option("--ip", TEXT, "IPv4 address (such as 10.5.0.9)"),
        Option("--ip6", TEXT, "IPv6 address"),
    ),
)
DISCONNECT = Command(
    "network disconnect",
    _disconnect,
    text="Take a container off a network",
    usage="NETWORK CONTAINER",
    example="knarr network disconnect backend postgres",
    minimum=2,
    maximum=2,
    complete="networks",
    options=(Option("-f --force", FLAG, "Even where the container does not answer"),),
)
REMOVE = Command(
    "network rm",
    _remove,
    text="Remove one or more networks",
    usage="NETWORK [NETWORK...]",
    example="knarr network rm backend",
    minimum=1,
    complete="networks",
    options=(Option("-f --force", FLAG, "No error where a network does not exist"),),
)
PRUNE = Command(
    "network prune",
    _prune,
    text="Remove all networks that no container is on",
    example="knarr network prune -f",
    maximum=0,
    options=(
        Option("--filter", LIST, "Only those that match (until=24h, label=x ...)"),
        Option("-f --force", FLAG, "Do not ask"),
    ),
)
