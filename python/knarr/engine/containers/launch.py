"""What a start needs: the bundle on the run root, and the supervisor's `start` request."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from typing import TYPE_CHECKING, Any

from knarr.engine.containers import endpoints, logs, netfiles, published, request
from knarr.engine.containers.capabilities import capabilities
from knarr.engine.containers.spec import Surroundings, compose
from knarr.engine.networks import egress
from knarr.errors import Conflict, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from knarr.engine.containers.container import Container, Context
    from knarr.engine.containers.links import Links
    from knarr.engine.containers.mounting import Sources
    from knarr.store.containers import ContainerRecord, Endpoint

__all__ = ["bundle", "dns", "groups", "interface", "seccomp_path", "start_fields", "write_hosts"]

BLOCK_DEVICES = ("BlkioWeightDevice", *request.BLOCK_RATES)
OVERLAY_SIZE = 1 << 30  # bytes that a throw-away upper layer may hold


async def bundle(
    context: Context, record: ContainerRecord, find: Callable[[str], Container], links: Links, sources: Sources
) -> None:
    """Write `config.json` and the files that are bound into /etc.

    All on the run root, which is no disk, and so from the event loop; only a container with devices reads /dev,
    in a thread.
    """
    extra = await asyncio.to_thread(groups, context, record) if record.host["GroupAdd"] else []
    host = record.host
    directory = context.bundle(record.id)
    around = Surroundings(
        context.config.engine_id,
        directory,
        sources,
        extra,
        pid_of=_shared(host["PidMode"], "PID", find),
        ipc_of=_shared(host["IpcMode"], "IPC", find),
    )
    if host["Privileged"] or host["Devices"] or any(host[field] for field in BLOCK_DEVICES):  # type: ignore[literal-required]
        spec = await asyncio.to_thread(compose, record, around)
    else:
        spec = compose(record, around)
    at_home = _at_home(record, find)
    files = {
        "config.json": json.dumps(spec, separators=(",", ":")),
        "hostname": record.config["Hostname"] + "\n",
        "hosts": _hosts(context, at_home, links, running=at_home is not record),
        "resolv.conf": _resolv_conf(context, at_home),
    }
    os.makedirs(directory, 0o700, exist_ok=True)
    netfiles.write(directory, files)


def write_hosts(context: Context, record: ContainerRecord, links: Links) -> None:
    """Write again what a running container finds its way by."""
    files = {"hosts": _hosts(context, record, links, running=True), "resolv.conf": _resolv_conf(context, record)}
    netfiles.write(context.bundle(record.id), files)


def _hosts(context: Context, record: ContainerRecord, links: Links, *, running: bool = False) -> str:
    gateways = _host_gateways(context, record) if _wants_gateway(record) else []
    return netfiles.hosts(record, gateways, links.lines(record, running=running))


def _host_gateways(context: Context, record: ContainerRecord) -> list[str]:
    """The host's addresses as the container reaches it, at most one of a family."""
    found = []
    for version, endpoint in endpoints.gateways(record).items():
        if not endpoint.get("lan"):  # there the gateway is somebody else
            found.append(endpoint["gateway"] if version == 4 else endpoint["gateway6"])
    return found or context.networks.gateways()


def _at_home(record: ContainerRecord, find: Callable[[str], Container]) -> ContainerRecord:
    """The container whose network it is: with a network that is shared come its names."""
    mode = record.host["NetworkMode"]
    if not mode.startswith("container:"):
        return record
    try:
        return _at_home(find(mode[10:]).record, find)
    except NotFound as error:
        raise Conflict(f"cannot join network namespace: {error}") from error


def _resolv_conf(context: Context, record: ContainerRecord) -> str:
    named = [name for name, _ in endpoints.in_order(record)]
    return netfiles.resolv_conf(
        record,
        context.config.dns,
        own_network=bool(named),
        ipv6=any(endpoint.get("address6") for endpoint in record.state.networks.values()),
        resolver=endpoints.is_limited(record) or any(endpoints.is_user_defined(name) for name in named),
    )


def _shared(mode: str, kind: str, find: Callable[[str], Container]) -> int:
    """The process of the container whose namespace is shared; 0 for none. Conflict where it does not run."""
    if not mode.startswith("container:"):
        return 0
    try:
        other = find(mode[10:]).record
    except NotFound as error:
        raise Conflict(f"cannot join {kind} namespace: {error}") from error
    if not other.state.running:
        raise Conflict(f"cannot join {kind} namespace of a non running container: {other.id}")
    return other.state.pid


def _wants_gateway(record: ContainerRecord) -> bool:
    return any(entry.endswith(("=host-gateway", ":host-gateway")) for entry in record.host["ExtraHosts"] or ())


def seccomp_path(context: Context, record: ContainerRecord) -> str | None:
    """The file of the container's system call profile; None for unconfined."""
    profile, _ = request.security(record.host)
    if profile == "unconfined":
        return None
    return context.profiles.path(profile, frozenset(capabilities(record.host)))


async def start_fields(context: Context, record: ContainerRecord, find: Callable[[str], Container]) -> dict[str, Any]:
    """The fields of the request."""
    config, host = record.config, record.host
    rows, columns = host["ConsoleSize"] or (0, 0)
    return {
        "container": record.id,
        "bundle": context.bundle(record.id),
        "rootfs": await _rootfs(context, record),
        "user": config["User"] or None,
        "seccomp": seccomp_path(context, record),
        "network": _network(context, record, find),
        "terminal": config["Tty"],
        "size": [rows, columns] if config["Tty"] and rows and columns else None,
        "stdin": config["OpenStdin"],
        "stdin_once": config["StdinOnce"],
        "log": await logs.start_fields(record, context.directory(record.id), context.config.log),
    }


async def _rootfs(context: Context, record: ContainerRecord) -> dict[str, Any]:
    ours = record.host["Knarr"] or {}
    if ours.get("HostOverlay"):
        return {"lower": ["/"], "tmpfs_size": ours.get("OverlaySize") or OVERLAY_SIZE}
    image = await context.images.resolve(record.image_id)
    directory = context.directory(record.id)
    return {"lower": list(image.lower), "upper": f"{directory}/upper", "work": f"{directory}/work"}


def _network(context: Context, record: ContainerRecord, find: Callable[[str], Container]) -> dict[str, Any]:
    mode = record.host["NetworkMode"]
    if mode.startswith("container:"):
        other = find(mode[10:]).record
        if not other.state.running:
            raise Conflict(f"cannot join network of a non running container: {other.id}")
        return {"mode": "container", "container": other.id}
    if mode == "host":
        return {"mode": mode}
    joined = endpoints.in_order(record)
    if not joined:
        return {"mode": "none"}
    rules = egress.of(record.host["Annotations"])
    return {
        "mode": "bridge",
        **({} if rules is None else {"egress": rules}),
        "interfaces": [interface(context, record, name, endpoint) for name, endpoint in joined],
        **endpoints.ways_out(record),
        "ports": published.ports(context, record, endpoints.gateways(record)),
        "dns": dns(context, record),
    }


def interface(context: Context, record: ContainerRecord, network: str, endpoint: Endpoint) -> dict[str, Any]:
    """An endpoint, as the supervisor is told of it."""
    addresses = {"address": f"{endpoint['address']}/{endpoint['prefix']}"} if endpoint["address"] else {}
    if endpoint.get("address6"):
        addresses["address6"] = f"{endpoint['address6']}/{endpoint['prefix6']}"
    return {
        "name": endpoint["interface"],
        **context.networks.place(endpoint["network_id"]),
        **addresses,
        "mac": endpoint["mac"] or None,
        "network": endpoint["network_id"],
        "network_name": network,
        "names": endpoints.dns_names(record, endpoint) if endpoints.is_user_defined(network) else [],
        "links": dict(text.split(":")[::-1] for text in endpoint.get("links") or ()),
    }


def dns(context: Context, record: ContainerRecord) -> list[str]:
    """The servers that names beyond the networks are asked of; none for the host's own."""
    return record.host["Dns"] or list(context.config.dns)


def groups(context: Context, record: ContainerRecord) -> list[int]:
    """The numbers of GroupAdd; names are looked up in the container's own /etc/group."""
    asked = record.host["GroupAdd"] or []
    known: dict[str, int] | None = None
    found = []
    for group in asked:
        if group.isascii() and group.isdigit():
            found.append(int(group))
            continue
        if known is None:
            known = _group_file(context, record)
        if group not in known:
            raise InvalidArgument(f"unable to find group {group}: no matching entries in group file")
        found.append(known[group])
    return found


def _group_file(context: Context, record: ContainerRecord) -> dict[str, int]:
    image = context.images.catalog.get(record.image_id)
    layers = [f"{context.directory(record.id)}/upper", *(image.lower if image else ())]
    if not record.image_id:
        layers = ["/"]
    for layer in layers:
        text = _read_below(layer)
        if text is not None:
            entries = (line.split(":") for line in text.splitlines())
            return {entry[0]: int(entry[2]) for entry in entries if len(entry) > 2 and entry[2].isdigit()}
    return {}


def _read_below(layer: str) -> str | None:
    """etc/group of one layer, following no link: it is the image's, and not to be trusted."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    opened: list[int] = []
    try:
        for name in (layer, "etc", "group"):
            opened.append(os.open(name, flags, dir_fd=opened[-1] if opened else None))
        if not stat.S_ISREG(os.fstat(opened[-1]).st_mode):
            return None
        return os.read(opened[-1], 1 << 20).decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InvalidArgument(
            f"GroupAdd: /etc/group of the image cannot be read ({error.strerror}): give numbers"
        ) from error
    finally:
        for fd in opened:
            os.close(fd)
