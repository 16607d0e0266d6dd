"""`knarr network lb`: one address, and ports of the host's, for all containers of a service."""

from knarr.cli.command import FLAG, LIST, TEXT, Command, Option
from knarr.cli.terminal import show
from knarr.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client

SERVICE = "com.docker.compose.service"
HEADERS = {"Name": "NAME", "Address": "ADDRESS", "Ports": "PORTS", "Labels": "LABELS", "Members": "MEMBERS"}


def _balance(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    network, *rest = arguments
    making = options["publish"] or options["port"] or options["label"] or options["ip"] or options["ip6"]
    if not rest:
        if making or options["rm"]:
            raise InvalidArgument("network lb: which entry? Give its name after the network's")
        return _list(client, network, options["format"])
    (name,) = rest
    if options["rm"]:
        client.networks.remove_entry(network, name)
        show(name)
        return 0
    from knarr.cli.values import pairs

    published = [text if ":" in text else f":{text}" for text in options["publish"]]
    made = client.networks.add_entry(
        network,
        Name=name,
        Labels=pairs(options["label"]) or {SERVICE: name},
        Ports=[*published, *options["port"]],
        Address=options["ip"],
        IPv6Address=options["ip6"],
    )
    for address in filter(None, (made["Address"], made["IPv6Address"])):
        show(address)
    return 0


def _list(client: "Client", network: str, template: str) -> int:
    from knarr.cli.listing import write

    rows = [
        {
            "Name": entry["Name"],
            "Address": ", ".join(filter(None, (entry["Address"], entry["IPv6Address"]))),
            "Ports": ", ".join(entry["Ports"]),
            "Labels": ",".join(f"{key}={value}" for key, value in sorted(entry["Labels"].items())),
            "Members": ", ".join(member["Name"] for member in entry["Members"]),
        }
        for entry in client.networks.entries(network)
    ]
    write(rows, HEADERS, list(HEADERS), template)
    return 0


BALANCE = Command(
    "network lb",
    _balance,
    text="Have one address and port stand for all containers of a service, or list and remove such entries",
    usage="NETWORK [NAME]",
    example="knarr network lb -p 8080:80 backend web",
    minimum=1,
    maximum=2,
    complete="networks",
    options=(
        Option("-p --publish", LIST, "Publish a port of theirs on the host, as [[IP:]HOST:]PORT[/PROTOCOL]"),
        Option("--port", LIST, "A port of theirs for the network alone"),
        Option("--label", LIST, f"Which containers: those with all of these labels (default {SERVICE}=NAME)"),
        Option("--ip", TEXT, "The entry's IPv4 address (default: one is chosen)"),
        Option("--ip6", TEXT, "The entry's IPv6 address, where the network has these (default: one is chosen)"),
        Option("--rm", FLAG, "Remove the entry"),
        Option("--format", TEXT, "Format of the list: table, json, or a Go template"),
    ),
)
