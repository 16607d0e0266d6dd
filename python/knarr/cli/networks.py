"""`knarr network ls`."""

from knarr.cli import human
from knarr.cli.command import FLAG, LIST, TEXT, Command, Option
from knarr.cli.terminal import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client

HEADERS = {
    "ID": "NETWORK ID",
    "Name": "NAME",
    "Driver": "DRIVER",
    "Scope": "SCOPE",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
    "CreatedAt": "CREATED AT",
}


def _list(client: "Client", options: "dict[str, Any]", _arguments: "list[str]") -> int:
    from knarr.cli.listing import filters, write

    networks = client.networks.list(filters(options["filter"]))
    networks.sort(key=lambda network: str(network["Name"]))
    full = options["no_trunc"]
    if options["quiet"]:
        for network in networks:
            show(network["Id"] if full else human.short_id(network["Id"]))
        return 0
    rows = []
    for network in networks:
        labels = network.get("Labels") or {}
        rows.append(
            {
                "ID": network["Id"] if full else human.short_id(network["Id"]),
                "Name": network["Name"],
                "Driver": network.get("Driver", ""),
                "Scope": network.get("Scope", ""),
                "IPv6": "true" if network.get("EnableIPv6") else "false",
                "Internal": "true" if network.get("Internal") else "false",
                "Labels": ",".join(sorted(f"{key}={value}" for key, value in labels.items())),
                "CreatedAt": network.get("Created", ""),
            }
        )
    write(rows, HEADERS, ["ID", "Name", "Driver", "Scope"], options["format"])
    return 0


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
