"""What the host's control groups offer, and what becomes of a request for more: Docker's words for what is discarded.

Looked at when it is first asked for; a host does not change its controllers while it runs.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knarr.errors import InvalidArgument

if TYPE_CHECKING:
    from knarr.store.containers import HostConfig

__all__ = ["Offered", "discard", "offered"]

ROOT = "/sys/fs/cgroup"
_NO = "or the cgroup is not mounted."
# (field, file of version 1's root group by which it is known, controller of version 2, what is not supported)
# Version 1's root group has no weights; where it has BFQ's counters, the groups below have BFQ's weights.
_LIMITS = (
    ("CpuShares", "cpu/cpu.shares", "cpu", f"CPU shares {_NO} Shares"),
    ("CpuPeriod", "cpu/cpu.cfs_period_us", "cpu", "CPU CFS scheduler. CPU period/quota"),
    ("CpuQuota", "cpu/cpu.cfs_quota_us", "cpu", "CPU CFS scheduler. CPU period/quota"),
    ("CpusetCpus", "cpuset/cpuset.cpus", "cpuset", f"cpuset {_NO} Cpuset"),
    ("CpusetMems", "cpuset/cpuset.mems", "cpuset", f"cpuset {_NO} Cpuset"),
    ("MemorySwappiness", "memory/memory.swappiness", "", f"memory swappiness capabilities {_NO} Memory swappiness"),
    ("OomKillDisable", "memory/memory.oom_control", "", "OomKillDisable. OomKillDisable"),
    ("BlkioWeight", "blkio/blkio.bfq.io_serviced", "io", f"Block I/O weight {_NO} Weight"),
    ("BlkioWeightDevice", "blkio/blkio.bfq.io_serviced", "io", f"Block I/O weight_device {_NO} Weight-device"),
    (
        "BlkioDeviceReadBps",
        "blkio/blkio.throttle.read_bps_device",
        "io",
        f"BPS Block I/O read limit {_NO} Block I/O BPS read limit",
    ),
    (
        "BlkioDeviceWriteBps",
        "blkio/blkio.throttle.write_bps_device",
        "io",
        f"BPS Block I/O write limit {_NO} Block I/O BPS write limit",
    ),
    (
        "BlkioDeviceReadIOps",
        "blkio/blkio.throttle.read_iops_device",
        "io",
        f"IOPS Block read limit {_NO} Block I/O IOPS read limit",
    ),
    (
        "BlkioDeviceWriteIOps",
        "blkio/blkio.throttle.write_iops_device",
        "io",
        f"IOPS Block write limit {_NO} Block I/O IOPS write limit",
    ),
)
# What Linux never has, or has no more: a value is discarded with a word.
_GONE = {
    "CpuPercent": "linux does not support CPU percent. Percent discarded.",
    "CpuCount": "linux does not support CPU count. Count discarded.",
    "KernelMemory": "Limits of kernel memory are not enforced since Linux 5.16. KernelMemory discarded.",
    "KernelMemoryTCP": "A limit of kernel TCP memory is not supported. KernelMemoryTCP discarded.",
}


@dataclass(frozen=True, slots=True)
class Offered:
    """Of one host."""

    unified: bool
    missing: frozenset[str]  # fields of HostConfig
    real_time: bool
    cpus: str  # that may be used, as a list such as 0-3,7; empty where nobody says
    mems: str


@functools.cache
def offered() -> Offered:
    """Of this host."""
    unified = os.path.exists(f"{ROOT}/cgroup.controllers")
    controllers = _read(f"{ROOT}/cgroup.controllers").split() if unified else []
    missing = {
        field
        for field, file, controller, _ in _LIMITS
        if (controller not in controllers if unified else not os.path.exists(f"{ROOT}/{file}"))
    }
    place, suffix = (ROOT, ".effective") if unified else (f"{ROOT}/cpuset", "")
    return Offered(
        unified,
        frozenset(missing),
        os.path.exists(f"{ROOT}/cpu/cpu.rt_runtime_us"),
        _read(f"{place}/cpuset.cpus{suffix}").strip(),
        _read(f"{place}/cpuset.mems{suffix}").strip(),
    )


def discard(host: HostConfig, warnings: list[str], found: Offered) -> None:
    """Take out of a request what the host does not offer, with a warning each. InvalidArgument for absent CPUs."""
    for field, _, _, words in _LIMITS:
        value = host[field]  # type: ignore[literal-required]
        if field in found.missing and (value or (field == "MemorySwappiness" and value is not None)):
            _empty(host, field)
            warning = f"Your kernel does not support {words} discarded."
            if warning not in warnings:
                warnings.append(warning)
    for field, words in _GONE.items():
        if host[field]:  # type: ignore[literal-required]
            _empty(host, field)
            warnings.append(words)
    if (host["CpuRealtimePeriod"] or host["CpuRealtimeRuntime"]) and not found.real_time:
        raise InvalidArgument("kernel does not support CPU real-time scheduler")
    if 0 < host["CpuRealtimePeriod"] < host["CpuRealtimeRuntime"]:
        raise InvalidArgument("cpu real-time runtime cannot be higher than cpu real-time period")
    for wanted, there, name in (
        (host["CpusetCpus"], found.cpus, "CPUs"),
        (host["CpusetMems"], found.mems, "memory nodes"),
    ):
        if wanted and there and not _numbers(wanted) <= _numbers(there):
            raise InvalidArgument(f"Requested {name} are not available - requested {wanted}, available: {there}")


def _empty(host: HostConfig, field: str) -> None:
    kind = type(host[field])  # type: ignore[literal-required]
    host[field] = None if field in ("MemorySwappiness", "OomKillDisable") else kind()  # type: ignore[literal-required]


_MOST = 8192  # numbers in a list: more processors than any kernel takes


def _numbers(text: str) -> set[int]:
    """The numbers of a list such as 0-3,7. InvalidArgument for one that is longer than any machine."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if high >= _MOST:
            raise InvalidArgument(f"Invalid value {text}: the numbers in it are below {_MOST}")
        found.update(range(low, high + 1))
    return found


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:
        return ""
