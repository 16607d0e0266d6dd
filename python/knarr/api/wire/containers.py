"""Containers on the wire: records as inspect and list show them."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from knarr.api.wire.shape import Shape
from knarr.engine.containers import logs
from knarr.engine.containers.endpoints import dns_names, exposes, is_user_defined, publishes
from knarr.engine.containers.links import links
from knarr.engine.containers.policy import MASKED_PATHS, READONLY_PATHS
from knarr.errors import InvalidArgument

if TYPE_CHECKING:
    from knarr.engine.containers.container import Container
    from knarr.engine.engine import Engine
    from knarr.store.containers import ContainerRecord, Endpoint, Health, State

__all__ = [
    "INSPECT",
    "SUMMARY",
    "inspect",
    "labels_match",
    "mount_points",
    "state",
    "summary",
    "timestamp",
]

# Addresses of the default bridge, which older clients look for beside the networks.
_OF_BRIDGE = (
    "EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen", "IPv6Gateway",
    "MacAddress",
)  # fmt: skip
_FORMER_NETWORK: dict[str, Any] = {
    "Bridge": "", "HairpinMode": False, "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0,
    "SecondaryIPAddresses": None, "SecondaryIPv6Addresses": None, "EndpointID": "", "Gateway": "",
    "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "",
    "MacAddress": "",
}  # fmt: skip
INSPECT = Shape(
    since={
        "HostConfig.Annotations": 43,
        "HostConfig.CgroupnsMode": 41,
        "HostConfig.Umask": 56,
        "ImageManifestDescriptor": 48,
        "NetworkSettings.Networks.*.DNSNames": 44,
        "NetworkSettings.Networks.*.GwPriority": 48,
        "Storage": 52,
    },
    until={
        "Config.MacAddress": 52,
        "GraphDriver": 52,
        "HostConfig.KernelMemory": 42,
        "HostConfig.KernelMemoryTCP": 52,
        **{f"NetworkSettings.{name}": 52 for name in _FORMER_NETWORK},
    },
    sparse={
        **{
            f"Config.{name}": 0
            for name in (
                "ArgsEscaped",
                "ExposedPorts",
                "Healthcheck",
                "MacAddress",
                "NetworkDisabled",
                "Shell",
                "StopSignal",
            )
        },
        "Config.OnBuild": 52,
        **{f"HostConfig.{name}": 0 for name in ("Annotations", "Knarr", "Mounts", "StorageOpt", "Sysctls", "Tmpfs")},
        "HostConfig.KernelMemoryTCP": 42,
    },
    optional={
        "Config.StopTimeout": 0,
        "HostConfig.Init": 0,
        "HostConfig.Umask": 0,
        "ImageManifestDescriptor": 0,
    },
    former={"NetworkSettings.Networks.*.Aliases": (45, "FormerAliases")},
)
SUMMARY = Shape(
    since={
        "Health": 52,
        "HostConfig.Annotations": 46,
        "ImageManifestDescriptor": 48,
        "NetworkSettings.Networks.*.DNSNames": 44,
        "NetworkSettings.Networks.*.GwPriority": 48,
    },
    sparse={"HostConfig.Annotations": 0},
    optional={"ImageManifestDescriptor": 0},
    former={"NetworkSettings.Networks.*.Aliases": (0, "FormerAliases")},
)
ZERO_TIME = "0001-01-01T00:00:00Z"


def timestamp(ns: int) -> str:
    """RFC 3339 with nanoseconds; Docker's zero time for 0."""
    if not ns:
        return ZERO_TIME
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 1_000_000_000)) + f".{ns % 1_000_000_000:09d}Z"


def _health(found: Health) -> dict[str, Any]:
    return {
        "Status": found["status"],
        "FailingStreak": found["failing_streak"],
        "Log": [
            {
                "Start": timestamp(result["start_ns"]),
                "End": timestamp(result["end_ns"]),
                "ExitCode": result["exit_code"],
                "Output": result["output"],
            }
            for result in found["log"]
        ],
    }


def state(found: State) -> dict[str, Any]:
    """The State of inspect."""
    status = found.status
    shown = {
        "Status": status,
        "Running": status in ("running", "paused", "restarting"),
        "Paused": status == "paused",
        "Restarting": status == "restarting",
        "OOMKilled": found.oom_killed,
        "Dead": status == "dead",
        "Pid": found.pid,
        "ExitCode": found.exit_code,
        "Error": found.error,
        "StartedAt": timestamp(found.started_ns),
        "FinishedAt": timestamp(found.finished_ns),
    }
    if found.health is not None:
        shown["Health"] = _health(found.health)
    return shown


def mount_points(engine: Engine, record: ContainerRecord) -> list[dict[str, Any]]:
    """The Mounts of inspect and list."""
    found = []
    for point in record.mounts:
        if not point["listed"]:
            continue
        item: dict[str, Any] = {"Type": point["type"]}
        if point["type"] == "volume":
            item |= {"Name": point["name"], "Source": engine.volumes.place(point["name"])}
        elif point["type"] == "image":
            item |= {"Name": point["name"], "Source": point["source"]}
        else:
            item["Source"] = point["source"]
        item["Destination"] = point["destination"]
        if point["type"] == "volume":
            item["Driver"] = point.get("driver", "local")
        item |= {"Mode": point["mode"], "RW": not point["read_only"], "Propagation": point["propagation"]}
        found.append(item)
    return found


def _endpoints(record: ContainerRecord) -> dict[str, Any]:
    return {name: _endpoint(record, name, endpoint) for name, endpoint in record.state.networks.items()}


def _endpoint(record: ContainerRecord, name: str, endpoint: Endpoint) -> dict[str, Any]:
    wanted = {}
    if endpoint["wanted_address"]:
        wanted["IPv4Address"] = endpoint["wanted_address"]
    if endpoint.get("wanted_address6"):
        wanted["IPv6Address"] = endpoint["wanted_address6"]
    aliases, names = endpoint["aliases"], None
    former = aliases
    if is_user_defined(name):
        names = dns_names(record, endpoint)
        former = list(dict.fromkeys([*aliases, record.id[:12], record.config["Hostname"]]))
    return {
        "IPAMConfig": wanted or None,
        "Links": endpoint.get("links") or None,
        "Aliases": aliases or None,
        "FormerAliases": former or None,
        "MacAddress": endpoint["mac"],
        "DriverOpts": endpoint.get("driver_opts") or None,
        "GwPriority": endpoint.get("gw_priority", 0),
        "NetworkID": endpoint["network_id"],
        "EndpointID": endpoint["endpoint_id"],
        "Gateway": endpoint["gateway"],
        "IPAddress": endpoint["address"],
        "IPPrefixLen": endpoint["prefix"],
        "IPv6Gateway": endpoint.get("gateway6", ""),
        "GlobalIPv6Address": endpoint.get("address6", ""),
        "GlobalIPv6PrefixLen": endpoint.get("prefix6", 0),
        "DNSNames": names,
    }


def _ports(record: ContainerRecord) -> dict[str, Any]:
    """NetworkSettings.Ports: exposed ports, and where on the host they are."""
    shown = record.config["ExposedPorts"] if record.state.running and exposes(record) else None
    found: dict[str, Any] = dict.fromkeys(shown or {})
    for protocol, address, host_port, port in record.state.ports if publishes(record) else ():
        key = f"{port}/{protocol}"
        found[key] = [*(found.get(key) or ()), {"HostIp": address, "HostPort": str(host_port)}]
    return found


def _network_settings(record: ContainerRecord) -> dict[str, Any]:
    networks = _endpoints(record)
    running = record.state.running
    return {
        **_FORMER_NETWORK,
        **{key: networks["bridge"][key] for key in _OF_BRIDGE if "bridge" in networks},
        "SandboxID": record.id if running else "",
        "SandboxKey": f"/proc/{record.state.pid}/ns/net" if running else "",
        "Ports": _ports(record),
        "Networks": networks,
    }


def _host(engine: Engine, record: ContainerRecord) -> dict[str, Any]:
    """HostConfig as it is shown: with the paths that are hidden by default, and links by their names of now."""
    shown: dict[str, Any] = {**record.host}
    if not record.host["Privileged"]:
        for key, default in (("MaskedPaths", MASKED_PATHS), ("ReadonlyPaths", READONLY_PATHS)):
            if shown[key] is None:
                shown[key] = default
    if record.host["Links"]:
        names = {container.record.id: container.record.name for container in engine.containers.all()}
        shown["Links"] = [
            f"/{names[other]}:/{record.name}/{alias}" for other, alias in links(record) if other in names
        ] or None
    return shown


def _manifest(engine: Engine, record: ContainerRecord) -> dict[str, Any] | None:
    """The OCI descriptor of the manifest that it was made from; None where there is none, or it is gone."""
    image = engine.images.catalog.get(record.image_id)
    size = engine.images.manifest_size(image) if image else 0
    if image is None or not size:
        return None
    return {
        "mediaType": image.manifest_type,
        "digest": image.manifest_digest,
        "size": size,
        "platform": {"architecture": image.platform.architecture, "os": image.platform.os},
    }


def inspect(engine: Engine, container: Container, sizes: tuple[int, int] | None) -> dict[str, Any]:
    """GET /containers/{id}/json."""
    record = container.record
    bundle = f"{engine.config.run_root}/containers/{record.id}"
    directory = f"{engine.config.data_root}/containers/{record.id}"
    found = {
        "Id": record.id,
        "Created": timestamp(record.created_ns),
        "Path": record.path,
        "Args": record.args,
        "State": state(record.state),
        "Image": record.image_id,
        "ResolvConfPath": f"{bundle}/resolv.conf",
        "HostnamePath": f"{bundle}/hostname",
        "HostsPath": f"{bundle}/hosts",
        "LogPath": logs.json_path(record, directory),
        "Name": f"/{record.name}",
        "RestartCount": record.state.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": engine.containers.execs.of(container) or None,
        "HostConfig": _host(engine, record),
        "Storage": {"RootFS": {"Snapshot": {"Name": "overlay2"}}},
        "GraphDriver": {
            "Name": "overlay2",
            "Data": {"ID": record.id, "UpperDir": f"{directory}/upper", "WorkDir": f"{directory}/work"},
        },
        "Mounts": mount_points(engine, record),
        "Config": record.config,
        "NetworkSettings": _network_settings(record),
        "ImageManifestDescriptor": _manifest(engine, record),
    }
    if sizes is not None:
        found["SizeRw"], found["SizeRootFs"] = sizes
    return found


def summary(engine: Engine, container: Container, image_name: str) -> dict[str, Any]:
    """One line of GET /containers/json."""
    record = container.record
    command = " ".join([record.path, *(f"'{word}'" if " " in word else word for word in record.args)])
    health = record.state.health
    ports = []
    for protocol, address, host_port, port in record.state.ports if publishes(record) else ():
        ports.append({"IP": address, "PrivatePort": port, "PublicPort": host_port, "Type": protocol})
    published = {(item["PrivatePort"], item["Type"]) for item in ports}
    if record.state.running and exposes(record):
        for text in record.config["ExposedPorts"] or {}:
            number, _, protocol = text.partition("/")
            if (int(number), protocol or "tcp") not in published:
                ports.append({"PrivatePort": int(number), "Type": protocol or "tcp"})
    return {
        "Id": record.id,
        "Names": [f"/{record.name}"],
        "Image": image_name,
        "ImageID": record.image_id,
        "ImageManifestDescriptor": _manifest(engine, record),
        "Command": command,
        "Created": record.created_ns // 1_000_000_000,
        "Ports": ports,
        "Labels": record.config["Labels"] or {},
        "State": record.state.status,
        "Status": status_text(record.state),
        "Health": {"Status": health["status"], "FailingStreak": health["failing_streak"]}
        if health
        else {"Status": "none", "FailingStreak": 0},
        "HostConfig": {"NetworkMode": record.host["NetworkMode"], "Annotations": record.host["Annotations"]},
        "NetworkSettings": {"Networks": _endpoints(record)},
        "Mounts": mount_points(engine, record),
    }


def status_text(found: State) -> str:
    """The words of `docker ps`: `Up 2 minutes`, `Exited (0) 3 days ago`."""
    now = time.time_ns()
    if found.status in ("running", "paused"):
        text = f"Up {_duration(now - found.started_ns)}"
        if found.status == "paused":
            return f"{text} (Paused)"
        if found.health is None:
            return text
        health = found.health["status"]
        return f"{text} (health: starting)" if health == "starting" else f"{text} ({health})"
    if found.status == "restarting":
        return f"Restarting ({found.exit_code}) {_duration(now - found.finished_ns)} ago"
    if found.status == "created":
        return "Created"
    if found.status == "dead":
        return "Dead"
    return f"Exited ({found.exit_code}) {_duration(now - found.finished_ns)} ago"


def _duration(ns: int) -> str:
    """A span of time as people say it, by Docker's steps."""
    seconds = max(0, ns // 1_000_000_000)
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    minutes = seconds // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"


def labels_match(wanted: list[str], labels: dict[str, str]) -> bool:
    """Whether every `key` or `key=value` holds."""
    for text in wanted:
        key, separator, value = text.partition("=")
        if key not in labels or (separator and labels[key] != value):
            return False
    return True


def parse_time(text: str) -> int:
    """Nanoseconds since the epoch of `1700000000`, `1700000000.5`, an RFC 3339 time, or a span before now (`10m`)."""
    if not text or text == "0":
        return 0
    whole, _, fraction = text.partition(".")
    if whole.lstrip("-").isdigit() and (not fraction or fraction.isdigit()):
        return int(whole) * 1_000_000_000 + int((fraction or "0").ljust(9, "0")[:9])
    spans = {"s": 1, "m": 60, "h": 3600}
    total, number = 0.0, ""
    for char in text:
        if char.isdigit() or char == ".":
            number += char
        elif char in spans and number:
            total += float(number) * spans[char]
            number = ""
        else:
            break
    else:
        if not number:
            return time.time_ns() - int(total * 1e9)
    try:
        parsed = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise InvalidArgument(
            f'invalid time: "{text}": give seconds since the epoch, an RFC 3339 time, or a span such as 10m'
        ) from None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=timezone.utc)
    return int(parsed.timestamp() * 1e9)
