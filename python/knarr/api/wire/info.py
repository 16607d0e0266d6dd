"""GET /info: what the engine is, what the host has, and what it lacks."""

from __future__ import annotations

import os
import platform
import re
import socket
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from knarr.api.wire.containers import timestamp
from knarr.api.wire.shape import Shape
from knarr.engine.containers.logs import DRIVERS

if TYPE_CHECKING:
    from knarr.engine.engine import Engine

__all__ = ["INFO", "info", "proxy"]

CGROUP = "/sys/fs/cgroup"
_COMMITS = ("ContainerdCommit", "RuncCommit", "InitCommit")
INFO = Shape(
    since={"FirewallBackend": 49, "CgroupVersion": 41, "DefaultAddressPools": 41, "CDISpecDirs": 44, "OSVersion": 41},
    until={
        "RegistryConfig.AllowNondistributableArtifactsCIDRs": 47,
        "RegistryConfig.AllowNondistributableArtifactsHostnames": 47,
        **{f"{name}.Expected": 49 for name in _COMMITS},
        "BridgeNfIptables": 50,
        "BridgeNfIp6tables": 50,
    },
)
# What a host may lack, in Docker's words.
_LACKING = (
    ("MemoryLimit", "WARNING: No memory limit support"),
    ("SwapLimit", "WARNING: No swap limit support"),
    ("CpuCfsPeriod", "WARNING: No cpu cfs period support"),
    ("CpuCfsQuota", "WARNING: No cpu cfs quota support"),
    ("CPUShares", "WARNING: No cpu shares support"),
    ("CPUSet", "WARNING: No cpuset support"),
)


def info(engine: Engine) -> dict[str, Any]:
    """SystemInfo, with the fields of every version."""
    config = engine.config
    facts = engine.facts()
    facts.pop("Python")
    unified = os.path.exists(f"{CGROUP}/cgroup.controllers")
    limits = _limits(unified=unified)
    release = _release()
    return {
        "ID": config.engine_id,
        **facts,
        "Images": sum(1 for _ in engine.images.catalog),
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", "overlayfs, mounted detached"], ["Native Overlay Diff", "true"]],
        "DockerRootDir": config.data_root,
        "Plugins": {
            "Volume": engine.volumes.drivers,
            "Network": ["bridge", "host", "ipvlan", "macvlan", "null"],
            "Authorization": None,
            "Log": sorted(DRIVERS),
        },
        **limits,
        "IPv4Forwarding": True,  # or it is turned on with the first bridge that needs it
        "BridgeNfIptables": False,
        "BridgeNfIp6tables": False,
        "Debug": False,
        "OomKillDisable": not unified,
        "SystemTime": timestamp(time.time_ns()),
        "LoggingDriver": config.log_driver,
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if unified else "1",
        "KernelVersion": platform.release(),
        "OperatingSystem": release.get("PRETTY_NAME", "Linux"),
        "OSVersion": release.get("VERSION_ID", ""),
        "OSType": "linux",
        "Architecture": platform.machine(),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {
            "AllowNondistributableArtifactsCIDRs": None,
            "AllowNondistributableArtifactsHostnames": None,
            "InsecureRegistryCIDRs": ["127.0.0.0/8", "::1/128"],
            "IndexConfigs": {"docker.io": {"Name": "docker.io", "Mirrors": [], "Secure": True, "Official": True}},
            "Mirrors": [],
        },
        "NCPU": os.cpu_count(),
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "GenericResources": None,
        "HttpProxy": proxy("http_proxy"),
        "HttpsProxy": proxy("https_proxy"),
        "NoProxy": os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or "",
        "Name": socket.gethostname(),
        "Labels": [],
        "ExperimentalBuild": False,
        "ServerVersion": engine.version,
        "Runtimes": {"knarr": {"path": "knarr-runtime"}},
        "DefaultRuntime": "knarr",
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": "knarr-runtime",
        **{name: {"ID": "", "Expected": ""} for name in _COMMITS},
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
        "FirewallBackend": {"Driver": "nftables"},
        "CDISpecDirs": [],
        "Warnings": [warning for name, warning in _LACKING if not limits[name]],
    }


@lru_cache(maxsize=2)
def _limits(*, unified: bool) -> dict[str, bool]:
    """Which limits the host's control groups have."""
    if unified:
        with open(f"{CGROUP}/cgroup.controllers", encoding="ascii") as file:
            have = set(file.read().split())
        swap = "memory" in have
    else:
        have = {name for names in os.listdir(CGROUP) for name in names.split(",")}
        swap = os.path.exists(f"{CGROUP}/memory/memory.memsw.limit_in_bytes")
    return {
        "MemoryLimit": "memory" in have,
        "SwapLimit": swap,
        "CpuCfsPeriod": "cpu" in have,
        "CpuCfsQuota": "cpu" in have,
        "CPUShares": "cpu" in have,
        "CPUSet": "cpuset" in have,
        "PidsLimit": "pids" in have,
    }


@lru_cache(maxsize=1)
def _release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:  # a host does not have to say what it is
        return {}


def proxy(name: str) -> str:
    """A proxy of the daemon's environment, without its password."""
    value = os.environ.get(name.upper()) or os.environ.get(name) or ""
    return re.sub(r"^([a-z]+://)?[^/@]*@", r"\1xxxxx:xxxxx@", value)
