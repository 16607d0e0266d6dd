"""The OCI runtime specification of a container (config.md, config-linux.md of runtime-spec 1.2).

Pure but for the host's devices, which a privileged container gets: everything else comes from the
record. The system call profile is not in it: it is resolved and cached by itself (seccomp.py).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knarr.engine.containers import resources as limits
from knarr.engine.containers.capabilities import capabilities
from knarr.engine.containers.merge import environment
from knarr.engine.containers.policy import DEFAULT_SYSCTLS, MASKED_PATHS, READONLY_PATHS, SHM_SIZE
from knarr.engine.containers.request import security
from knarr.errors import InvalidArgument

if TYPE_CHECKING:
    from knarr.engine.containers.mounting import Sources
    from knarr.store.containers import ContainerRecord, HostConfig, MountPoint

__all__ = ["ENDPOINT_SYSCTLS", "Surroundings", "cgroup", "compose", "endpoint_sysctls", "process"]

VERSION = "1.2.0"
ENDPOINT_SYSCTLS = "com.docker.network.endpoint.sysctls"
_NO_DEVICES = ["nosuid", "noexec", "nodev"]


@dataclass(slots=True)
class Surroundings:
    """What a specification needs to know that is not in the record."""

    engine_id: str
    directory: str  # of hosts, hostname and resolv.conf
    sources: Sources  # of volumes and images
    groups: list[int]  # GroupAdd, resolved
    pid_of: int  # the process whose PID namespace is joined; 0 for none
    ipc_of: int = 0  # the process whose IPC namespace and /dev/shm are shared; 0 for none


def cgroup(record: ContainerRecord, engine_id: str) -> str:
    """The path of its control group in every hierarchy: below the engine's own, or CgroupParent."""
    parent = record.host["CgroupParent"].strip("/") or f"knarr-{engine_id}"
    return f"/{parent}/{record.id}"


def compose(record: ContainerRecord, around: Surroundings) -> dict[str, Any]:
    """The specification. May read /dev: for threads where the container is privileged or has devices."""
    host = record.host
    nodes, rules = limits.devices(host)
    linux: dict[str, Any] = {
        "cgroupsPath": cgroup(record, around.engine_id),
        "namespaces": _namespaces(host, around),
        "resources": limits.resources(host, rules),
        "maskedPaths": _paths(host, host["MaskedPaths"], MASKED_PATHS),
        "readonlyPaths": _paths(host, host["ReadonlyPaths"], READONLY_PATHS),
        "sysctl": _sysctls(record),
    }
    if nodes:
        linux["devices"] = nodes
    propagations = {point["propagation"].removeprefix("r") for point in record.mounts if point["type"] == "bind"}
    for wanted in ("shared", "slave"):
        if wanted in propagations:  # such a mount can only receive where the root does not cut it off
            linux["rootfsPropagation"] = wanted
            break
    spec: dict[str, Any] = {
        "ociVersion": VERSION,
        "root": {"path": "rootfs", "readonly": host["ReadonlyRootfs"]},
        "process": process(record, around.groups),
        "mounts": _mounts(record, around),
        "linux": linux,
    }
    if host["UTSMode"] != "host":
        spec["hostname"] = record.config["Hostname"]
        if record.config["Domainname"]:
            spec["domainname"] = record.config["Domainname"]
    annotations = dict(host["Annotations"] or {})
    if host["Init"]:
        annotations["knarr.init"] = "true"
    if annotations:
        spec["annotations"] = annotations
    return spec


def process(record: ContainerRecord, groups: list[int]) -> dict[str, Any]:
    """The `process` of the container itself; an exec's begins as a copy of it."""
    host, config = record.host, record.config
    have = list(capabilities(host))
    _, no_new_privileges = security(host)
    user: dict[str, Any] = {"uid": 0, "gid": 0}
    if groups:
        user["additionalGids"] = groups
    if host["Umask"] is not None:
        user["umask"] = host["Umask"]
    found: dict[str, Any] = {
        "terminal": config["Tty"],
        "user": user,
        "args": [record.path, *record.args],
        "env": environment(config),
        "cwd": config["WorkingDir"] or "/",
        "capabilities": {"bounding": have, "effective": have, "permitted": have},
        "noNewPrivileges": no_new_privileges,
        "oomScoreAdj": host["OomScoreAdj"],
    }
    if host["Ulimits"]:
        found["rlimits"] = limits.rlimits(host)
    return found


def _namespaces(host: HostConfig, around: Surroundings) -> list[dict[str, str]]:
    found = [{"type": "mount"}]
    if host["NetworkMode"] != "host":
        found.append({"type": "network"})
    if host["UTSMode"] != "host":
        found.append({"type": "uts"})
    if host["PidMode"].startswith("container:"):
        found.append({"type": "pid", "path": f"/proc/{around.pid_of}/ns/pid"})
    elif host["PidMode"] != "host":
        found.append({"type": "pid"})
    if host["IpcMode"].startswith("container:"):
        found.append({"type": "ipc", "path": f"/proc/{around.ipc_of}/ns/ipc"})
    elif host["IpcMode"] != "host":
        found.append({"type": "ipc"})
    if host["CgroupnsMode"] != "host":
        found.append({"type": "cgroup"})
    return found


def _paths(host: HostConfig, asked: list[str] | None, default: list[str]) -> list[str]:
    if asked is not None:
        return asked
    return [] if host["Privileged"] else default


def _sysctls(record: ContainerRecord) -> dict[str, str]:
    host = record.host
    own_network = host["NetworkMode"] != "host" and not host["NetworkMode"].startswith("container:")
    found = {**(DEFAULT_SYSCTLS if own_network else {}), **(host["Sysctls"] or {})}
    for endpoint in record.state.networks.values():
        found |= endpoint_sysctls(endpoint.get("driver_opts") or {}, endpoint.get("interface", "eth0"))
    return found


def endpoint_sysctls(options: dict[str, str], interface: str = "eth0") -> dict[str, str]:
    """Kernel parameters of an endpoint's own interface. InvalidArgument for others."""
    found = {}
    for item in filter(None, options.get(ENDPOINT_SYSCTLS, "").split(",")):
        name, separator, value = item.strip().partition("=")
        parts = name.split(".", 4)
        if not separator or len(parts) != 5 or parts[0] != "net" or parts[3] != "IFNAME":
            raise InvalidArgument(
                f"invalid {ENDPOINT_SYSCTLS} setting '{item}': it is like net.ipv4.conf.IFNAME.log_martians=1"
            )
        found[f"net.{parts[1]}.{parts[2]}.{interface}.{parts[4]}"] = value
    return found


def _mounts(record: ContainerRecord, around: Surroundings) -> list[dict[str, Any]]:
    host = record.host
    read_only = [] if host["Privileged"] else ["ro"]
    shm = host["ShmSize"] or SHM_SIZE
    found: list[dict[str, Any]] = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": _NO_DEVICES},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*_NO_DEVICES, *read_only]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*_NO_DEVICES, *read_only]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": _NO_DEVICES},
    ]
    if host["IpcMode"] == "host":
        if os.path.isdir("/dev/mqueue"):  # not every host has it mounted
            found[-1] = _bind("/dev/mqueue", "/dev/mqueue", [*_NO_DEVICES, "rbind", "rprivate"])
        found.append(_bind("/dev/shm", "/dev/shm", [*_NO_DEVICES, "rbind", "rprivate"]))  # noqa: S108
    elif host["IpcMode"].startswith("container:"):
        shared = f"/proc/{around.ipc_of}/root/dev/shm"
        found.append(_bind("/dev/shm", shared, [*_NO_DEVICES, "rbind", "rprivate"]))  # noqa: S108
    elif host["IpcMode"] != "none":
        found.append(
            {
                "destination": "/dev/shm",  # noqa: S108  the container's, not the host's
                "type": "tmpfs",
                "source": "shm",
                "options": [*_NO_DEVICES, "mode=1777", f"size={shm}"],
            }
        )
    own = {point["destination"] for point in record.mounts}
    found = [mount for mount in found if mount["destination"] not in own]
    file_options = ["rbind", "rprivate", *(["ro"] if host["ReadonlyRootfs"] else [])]
    asked = [_user_mount(point, around) for point in record.mounts]
    asked += [
        _bind(f"/etc/{name}", f"{around.directory}/{name}", file_options)
        for name in ("resolv.conf", "hostname", "hosts")
        if f"/etc/{name}" not in own
    ]
    # A mount below another one must come after it.
    asked.sort(key=lambda mount: mount["destination"].count("/"))
    return found + asked


def _bind(destination: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": destination, "type": "bind", "source": source, "options": options}


def _user_mount(point: MountPoint, around: Surroundings) -> dict[str, Any]:
    if point["type"] == "tmpfs":
        return {
            "destination": point["destination"],
            "type": "tmpfs",
            "source": "tmpfs",
            "options": point["options"],
        }
    source, recursive = point["source"], point["recursive"]
    more: tuple[str, ...] = ()
    if point["type"] == "volume":
        volume = around.sources.volumes[point["name"]]
        source, recursive, more = volume.path, volume.recursive, volume.options
    options = ["rbind" if recursive else "bind", point["propagation"] or "rprivate", *more]
    if id_map := point.get("id_map"):
        options.append(f"knarr.idmap={id_map}")
    if point.get("subpath"):
        options.append(f"knarr.beneath={point['subpath']}")
    if point["read_only"]:
        options.append("rro" if point["recursive_read_only"] else "ro")
    found = _bind(point["destination"], source, options)
    if point["type"] == "image":
        found["knarrLayers"] = around.sources.images[source]
    return found
