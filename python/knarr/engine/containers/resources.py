"""`linux.resources`, rlimits and devices of an OCI specification, from HostConfig."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

from knarr.engine.containers.policy import ALLOWED_DEVICES
from knarr.engine.containers.request import BLOCK_RATES
from knarr.errors import InvalidArgument

if TYPE_CHECKING:
    from knarr.store.containers import HostConfig

__all__ = ["devices", "resources", "rlimits"]

UNLIMITED = (1 << 64) - 1
CPU_PERIOD = 100_000  # microseconds
_NOT_FOR_CONTAINERS = {"pts", "shm", "fd", "mqueue", "console", "hugepages", ".lxc", ".lxd-mounts", ".udev"}


def resources(host: HostConfig, rules: list[dict[str, Any]]) -> dict[str, Any]:
    """Limits, and which devices may be used."""
    memory: dict[str, Any] = {}
    if host["Memory"]:
        memory["limit"] = host["Memory"]
        # As much swap again, unless told otherwise: Docker's rule.
        memory["swap"] = host["MemorySwap"] or host["Memory"] * 2
    elif host["MemorySwap"] == -1:
        memory["swap"] = -1
    if host["MemoryReservation"]:
        memory["reservation"] = host["MemoryReservation"]
    if host["MemorySwappiness"] not in (None, -1):
        memory["swappiness"] = host["MemorySwappiness"]
    if host["OomKillDisable"]:
        memory["disableOOMKiller"] = True
    cpu: dict[str, Any] = {}
    if host["NanoCpus"]:
        cpu["period"] = CPU_PERIOD
        cpu["quota"] = host["NanoCpus"] * CPU_PERIOD // 1_000_000_000
    for key, name in (
        ("shares", "CpuShares"),
        ("quota", "CpuQuota"),
        ("period", "CpuPeriod"),
        ("realtimePeriod", "CpuRealtimePeriod"),
        ("realtimeRuntime", "CpuRealtimeRuntime"),
        ("cpus", "CpusetCpus"),
        ("mems", "CpusetMems"),
    ):
        value = host[name]  # type: ignore[literal-required]
        if value:
            cpu[key] = value
    found: dict[str, Any] = {"devices": rules}
    if memory:
        found["memory"] = memory
    if cpu:
        found["cpu"] = cpu
    if host["PidsLimit"] is not None and host["PidsLimit"] > 0:
        found["pids"] = {"limit": host["PidsLimit"]}
    block = _block_devices(host)
    if host["BlkioWeight"]:
        block["weight"] = host["BlkioWeight"]
    if block:
        found["blockIO"] = block
    return found


def _block_devices(host: HostConfig) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if host["BlkioWeightDevice"]:
        found["weightDevice"] = [
            {**_numbers(device["Path"]), "weight": device["Weight"]} for device in host["BlkioWeightDevice"]
        ]
    for field, name in BLOCK_RATES.items():
        rates = host[field]  # type: ignore[literal-required]
        if rates:
            found[name] = [{**_numbers(rate["Path"]), "rate": rate["Rate"]} for rate in rates]
    return found


def _numbers(path: str) -> dict[str, int]:
    """The numbers of a block device."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise InvalidArgument(f'block device "{path}" of a limit: {str(error.strerror).lower()}') from error
    if not stat.S_ISBLK(found.st_mode):
        raise InvalidArgument(f'block device "{path}" of a limit: it is no block device')
    return {"major": os.major(found.st_rdev), "minor": os.minor(found.st_rdev)}


def rlimits(host: HostConfig) -> list[dict[str, Any]]:
    """Resource limits of the process."""
    return [
        {
            "type": f"RLIMIT_{limit['Name'].upper()}",
            "soft": _limit(limit.get("Soft", 0)),
            "hard": _limit(limit.get("Hard", 0)),
        }
        for limit in host["Ulimits"] or ()
    ]


def _limit(value: int) -> int:
    return UNLIMITED if value == -1 else value


def devices(host: HostConfig) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(device nodes, cgroup rules). Reads the host's /dev: for threads where there is anything to read.

    Raises InvalidArgument for a device that is not there.
    """
    if host["Privileged"]:
        nodes: list[dict[str, Any]] = []
        _walk("/dev", "/dev", nodes, top=True)
        return nodes, [{"allow": True, "access": "rwm"}]
    if not host["Devices"] and not host["DeviceCgroupRules"]:
        return [], ALLOWED_DEVICES
    nodes, rules = [], list(ALLOWED_DEVICES)
    for device in host["Devices"] or ():
        source = device.get("PathOnHost") or ""
        target = device.get("PathInContainer") or source
        access = device.get("CgroupPermissions") or "rwm"
        if not source.startswith("/") or not target.startswith("/") or set(access) - set("rwm"):
            raise InvalidArgument(f"invalid device specification: {source}:{target}:{access}")
        before = len(nodes)
        resolved = os.path.realpath(source)
        try:
            if stat.S_ISDIR(os.stat(resolved).st_mode):
                _walk(resolved, target, nodes, top=False)
            else:
                nodes.append(_node(resolved, target))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()  # Go's words: clients take their exit code from them
            raise InvalidArgument(
                f'error gathering device information while adding custom device "{source}": {reason}'
            ) from error
        if len(nodes) == before:
            raise InvalidArgument(
                f'error gathering device information while adding custom device "{source}": not a device node'
            )
        rules += [
            {"allow": True, "type": node["type"], "major": node["major"], "minor": node["minor"], "access": access}
            for node in nodes[before:]
        ]
    for text in host["DeviceCgroupRules"] or ():
        kind, numbers, access = text.split()
        rule: dict[str, Any] = {"allow": True, "type": kind, "access": access}
        for key, number in zip(("major", "minor"), numbers.split(":"), strict=True):
            if number != "*":
                rule[key] = int(number)
        rules.append(rule)
    return nodes, rules


def _walk(source: str, target: str, nodes: list[dict[str, Any]], *, top: bool) -> None:
    for entry in os.scandir(source):
        if top and entry.name in _NOT_FOR_CONTAINERS:
            continue
        path = f"{target}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            _walk(entry.path, path, nodes, top=False)
        elif not entry.is_symlink():
            kind = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
                nodes.append(_node(entry.path, path))


def _node(source: str, target: str) -> dict[str, Any]:
    found = os.stat(source)
    if stat.S_ISCHR(found.st_mode):
        kind = "c"
    elif stat.S_ISBLK(found.st_mode):
        kind = "b"
    else:
        raise InvalidArgument(
            f'error gathering device information while adding custom device "{source}": not a device node'
        )
    return {
        "type": kind,
        "path": target,
        "major": os.major(found.st_rdev),
        "minor": os.minor(found.st_rdev),
        "fileMode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
    }
