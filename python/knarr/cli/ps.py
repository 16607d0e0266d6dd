"""ps, top, port."""

from knarr.cli import human
from knarr.cli.command import FLAG, INT, LIST, TEXT, Command, Option
from knarr.cli.terminal import say, show
from knarr.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client

HEADERS = {
    "ID": "CONTAINER ID",
    "Names": "NAMES",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Ports": "PORTS",
    "State": "STATE",
    "Status": "STATUS",
    "Size": "SIZE",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Networks": "NETWORKS",
    "HealthStatus": "HEALTH STATUS",
    "Platform": "PLATFORM",
}
RAW = {
    "container_id": "ID",
    "image": "Image",
    "command": "Command",
    "created_at": "CreatedAt",
    "state": "State",
    "status": "Status",
    "names": "Names",
    "labels": "Labels",
    "ports": "Ports",
}
_COLUMNS = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"]


def _ps(client: "Client", options: "dict[str, Any]", _arguments: "list[str]") -> int:
    from knarr.cli.listing import filters, write

    limit = 1 if options["latest"] else options["last"] if options["last"] > 0 else None
    form = options["format"]
    containers = client.containers.list(
        all=options["all"] or limit is not None,
        limit=limit,
        size=options["size"] or bool(form and _shows_size(form)),
        filters=filters(options["filter"]),
    )
    if options["quiet"]:
        if form and form != "table":
            say("WARNING: Ignoring custom format, because both --format and --quiet are set.")
        word = "container_id: " if form == "raw" else ""
        for container in containers:
            show(word + (container["Id"] if options["no_trunc"] else human.short_id(container["Id"])))
        return 0
    columns = [*_COLUMNS, "Size"] if options["size"] else _COLUMNS
    raw = {**RAW, "size": "Size"} if options["size"] else RAW
    write([row(container, full=options["no_trunc"]) for container in containers], HEADERS, columns, form, raw)
    return 0


def _shows_size(form: str) -> bool:
    """Whether a template shows sizes, which are asked for only then: by name, or all that there is as JSON."""
    compact = form.replace(" ", "")
    return ".Size" in form or any(text in compact for text in ("json.}", "json$}", "{.|json", "{$|json"))


def row(container: "dict[str, Any]", *, full: bool) -> "dict[str, Any]":
    """What a template may say of one entry of ContainerList."""
    labels = container.get("Labels") or {}
    mounts = container.get("Mounts") or []
    names = [name.lstrip("/") for name in container.get("Names") or []]
    command = container.get("Command", "")
    if not full:
        names = [name for name in names if "/" not in name][:1]
        command = human.shorten(command, 20)
    mounted = [mount.get("Name") or mount.get("Source", "") for mount in mounts]
    status = container.get("Status", "")
    return {
        "ID": container["Id"] if full else human.short_id(container["Id"]),
        "Names": ",".join(names),
        "Image": _image(container, full=full),
        "Command": '"' + command.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"',
        "CreatedAt": human.local_time(container["Created"]),
        "RunningFor": human.ago(container["Created"]),
        "Ports": ports(container.get("Ports") or []),
        "State": container.get("State", ""),
        "Status": status,
        "Size": _size(container),
        "Labels": ",".join(sorted(f"{key}={value}" for key, value in labels.items())),
        "Label": lambda name: labels.get(name, ""),
        "Mounts": ",".join(name if full else human.shorten(name, 15) for name in mounted),
        "LocalVolumes": str(sum(1 for mount in mounts if mount.get("Driver") == "local")),
        "Networks": ",".join((container.get("NetworkSettings") or {}).get("Networks") or {}),
        "HealthStatus": (container.get("Health") or {}).get("Status") or "",
        "Platform": _platform(container),
    }


def _image(container: "dict[str, Any]", *, full: bool) -> str:
    image = container.get("Image") or "<no image>"
    if full:
        return str(image)
    if human.short_id(image) == human.short_id(container.get("ImageID", "")):
        return human.short_id(image)
    return str(image).partition("@")[0]


def _platform(container: "dict[str, Any]") -> "Any":
    platform = (container.get("ImageManifestDescriptor") or {}).get("platform")
    if not platform:
        return None
    from knarr.cli.template_functions import Shown

    result = Shown(platform)
    result.text = "/".join(filter(None, (platform.get(name) for name in ("os", "architecture", "variant"))))
    return result


def _size(container: "dict[str, Any]") -> str:
    own = human.size(container.get("SizeRw") or 0, 3)
    whole = container.get("SizeRootFs") or 0
    return f"{own} (virtual {human.size(whole, 3)})" if whole else own


def ports(given: "list[dict[str, Any]]") -> str:
    """Such as "0.0.0.0:8080->80/tcp, 90-92/tcp": neighbours of one kind together."""
    groups: list[list[Any]] = []  # [address, protocol, first, last]
    moved = []
    for port in sorted(given, key=lambda p: (p["PrivatePort"], p.get("IP", ""), p.get("PublicPort", 0), p["Type"])):
        private, protocol, address = port["PrivatePort"], port["Type"], port.get("IP", "")
        if address and port.get("PublicPort") != private:
            moved.append(f"{_host(address)}:{port.get('PublicPort', 0)}->{private}/{protocol}")
            continue
        for group in groups:
            if group[:2] == [address, protocol] and group[3] + 1 == private:
                group[3] = private
                break
        else:
            groups.append([address, protocol, private, private])
    shown = []
    for address, protocol, first, last in groups:
        numbers = str(first) if first == last else f"{first}-{last}"
        shown.append(f"{_host(address)}:{numbers}->{numbers}/{protocol}" if address else f"{numbers}/{protocol}")
    return ", ".join(shown + moved)


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _top(client: "Client", _options: "dict[str, Any]", arguments: "list[str]") -> int:
    processes = client.containers.top(arguments[0], " ".join(arguments[1:]) or None)
    show(human.table([processes["Titles"], *(processes.get("Processes") or [])], least=20))
    return 0


def _port(client: "Client", _options: "dict[str, Any]", arguments: "list[str]") -> int:
    published = client.containers.inspect(arguments[0])["NetworkSettings"].get("Ports") or {}
    if len(arguments) == 1:
        for port in sorted(published, key=lambda name: (int(name.partition("/")[0]), name)):
            for binding in published[port] or []:
                show(f"{port} -> {_host(binding['HostIp'])}:{binding['HostPort']}")
        return 0
    wanted = arguments[1] if "/" in arguments[1] else f"{arguments[1]}/tcp"
    if not published.get(wanted):
        raise NotFound(f"no public port '{wanted}' published for {arguments[0]}")
    for binding in published[wanted]:
        show(f"{_host(binding['HostIp'])}:{binding['HostPort']}")
    return 0


PS = Command(
    "ps",
    _ps,
    text="List containers",
    example="knarr ps -a --filter status=exited --format '{{.Names}}: {{.Status}}'",
    maximum=0,
    options=(
        Option("-a --all", FLAG, "Show all containers (default: those that run)"),
        Option("-f --filter", LIST, "Only those that match (name=web, status=exited, label=a=b ...)"),
        Option("--format", TEXT, "Format: table, json, or a Go template"),
        Option("-n --last", INT, "Show the last so many created containers, whatever their state", default=-1),
        Option("-l --latest", FLAG, "Show the latest created container, whatever its state"),
        Option("--no-trunc", FLAG, "Don't cut long values"),
        Option("-q --quiet", FLAG, "Only show IDs"),
        Option("-s --size", FLAG, "Show sizes on disk"),
    ),
)
TOP = Command(
    "top",
    _top,
    text="Show the processes of a container",
    usage="CONTAINER [ps OPTIONS]",
    example="knarr top web -o pid,comm",
    minimum=1,
    tail=True,
    complete="alive",
)
PORT = Command(
    "port",
    _port,
    text="List the published ports of a container",
    usage="CONTAINER [PRIVATE_PORT[/PROTO]]",
    example="knarr port web 80",
    minimum=1,
    maximum=2,
    complete=("alive",),
)
