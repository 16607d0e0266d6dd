"""/_ping, /version, /info, /events."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

from knarr.api import reply, streams
from knarr.api.versions import API_VERSION, MINIMUM_API_VERSION
from knarr.api.wire.containers import parse_time, timestamp
from knarr.errors import Unsupported
from knarr.types import Platform

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from knarr.engine.engine import Engine
    from knarr.engine.events import Event

__all__ = ["routes"]

PATIENCE = 15.0  # seconds between looks whether a listener is still there
EVENT_FILTERS = {
    "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret",
    "service", "type", "volume",
}  # fmt: skip
_LATER = (
    ("/build", "building an image"),
    ("/system/df", "disk usage"),
    ("/session", "BuildKit's session"),
    ("/grpc", "BuildKit's session"),
)


def routes(engine: Engine) -> list[web.RouteDef]:
    """The routes of the engine itself."""
    architecture = Platform.host().architecture
    system_name = _system_name()

    async def ping(request: web.Request) -> web.StreamResponse:
        headers = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache", "Builder-Version": ""}
        text = "" if request.method == "HEAD" else "OK"
        return web.Response(text=text, headers=headers)

    async def version(_: web.Request) -> web.StreamResponse:
        kernel = platform.release()
        common = {
            "Version": engine.version,
            "ApiVersion": API_VERSION,
            "MinAPIVersion": MINIMUM_API_VERSION,
            "Os": "linux",
            "Arch": architecture,
            "KernelVersion": kernel,
            "GitCommit": "",
            "GoVersion": "",
            "BuildTime": "",
        }
        details = {**common, "Experimental": "false", "PythonVersion": platform.python_version()}
        supervisor = {"Name": "knarr-supervisor", "Version": engine.supervisor.version, "Details": {}}
        return reply.reply(
            {
                "Platform": {"Name": "knarr"},
                "Components": [{"Name": "Engine", "Version": engine.version, "Details": details}, supervisor],
                **common,
            }
        )

    async def info(_: web.Request) -> web.StreamResponse:
        return reply.reply(_info(engine, system_name))

    async def events(request: web.Request) -> web.StreamResponse:
        filters = reply.filters(request.query, EVENT_FILTERS)
        since, until = (parse_time(request.query.get(name, "")) for name in ("since", "until"))
        wanted = _matcher(filters)
        return await streams.json_stream(
            request, _events(engine, since, until, wanted, lambda: not streams.gone(request))
        )

    async def auth(_: web.Request) -> web.StreamResponse:
        raise Unsupported(
            "logging in through the daemon is not supported by knarr yet: "
            "write the credentials to ~/.docker/config.json, or name a credential helper there"
        )

    async def prune_builds(_: web.Request) -> web.StreamResponse:
        return reply.reply({"CachesDeleted": None, "SpaceReclaimed": 0})  # nothing is ever built; system prune asks

    return [
        web.get("/_ping", ping),
        web.head("/_ping", ping),
        web.get("/version", version),
        web.get("/info", info),
        web.get("/events", events),
        web.post("/auth", auth),
        web.post("/build/prune", prune_builds),
        *(web.route("*", path, _refusal(what)) for path, what in _LATER),
    ]


def _refusal(what: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def refuse(_: web.Request) -> web.StreamResponse:
        raise Unsupported(f"{what} is not supported by knarr yet")

    return refuse


async def _events(
    engine: Engine, since: int, until: int, wanted: Callable[[Event], bool], wanted_still: Callable[[], bool]
) -> AsyncIterator[dict[str, Any]]:
    bus = engine.events
    listener = bus.join()
    try:
        last = 0
        if since:
            for event in bus.past(since, until or time.time_ns(), wanted):
                last = event["timeNano"]
                yield event
        while wanted_still():
            left = (until - time.time_ns()) / 1e9 if until else PATIENCE
            if left <= 0:
                return
            try:
                event = await asyncio.wait_for(listener.get(), min(left, PATIENCE))
            except asyncio.TimeoutError:
                continue
            if event["timeNano"] > last and wanted(event) and not (until and event["timeNano"] > until):
                yield event
    finally:
        bus.leave(listener)


def _matcher(filters: dict[str, list[str]]) -> Callable[[Event], bool]:
    def wanted(event: Event) -> bool:
        actor = event["Actor"]
        attributes = actor["Attributes"]
        for name, values in filters.items():
            if not values:
                continue
            if name == "type":
                found = event["Type"] in values
            elif name == "event":
                found = any(event["Action"] == value or event["Action"].startswith(value + ":") for value in values)
            elif name == "scope":
                found = event["scope"] in values
            elif name == "label":
                found = all(_has_label(attributes, value) for value in values)
            elif name == "image":
                known = (
                    (actor["ID"], attributes.get("name", ""))
                    if event["Type"] == "image"
                    else (attributes.get("image", ""),)
                )
                found = any(value in known or any(one.partition(":")[0] == value for one in known) for value in values)
            else:
                found = event["Type"] == name and any(
                    actor["ID"] == value
                    or attributes.get("name") == value.removeprefix("/")
                    or (len(value) >= 4 and actor["ID"].startswith(value))
                    for value in values
                )
            if not found:
                return False
        return True

    return wanted


def _has_label(attributes: dict[str, str], wanted: str) -> bool:
    key, separator, value = wanted.partition("=")
    return key in attributes and (not separator or attributes[key] == value)


def _system_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def _info(engine: Engine, system_name: str) -> dict[str, Any]:
    config = engine.config
    unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    facts = engine.facts()
    facts.pop("Python")
    return {
        "ID": engine.config.engine_id,
        **facts,
        "Images": sum(1 for _ in engine.images.catalog),
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", "overlayfs, mounted detached"], ["Native Overlay Diff", "true"]],
        "DockerRootDir": config.data_root,
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null"],
            "Authorization": None,
            "Log": ["json-file"],
        },
        "MemoryLimit": True,
        "SwapLimit": True,
        "CpuCfsPeriod": True,
        "CpuCfsQuota": True,
        "CPUShares": True,
        "CPUSet": True,
        "PidsLimit": True,
        "IPv4Forwarding": _on("/proc/sys/net/ipv4/ip_forward"),
        "Debug": False,
        "OomKillDisable": not unified,
        "SystemTime": timestamp(time.time_ns()),
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if unified else "1",
        "KernelVersion": platform.release(),
        "OperatingSystem": system_name,
        "OSVersion": "",
        "OSType": "linux",
        "Architecture": platform.machine(),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {
            "InsecureRegistryCIDRs": ["127.0.0.0/8", "::1/128"],
            "IndexConfigs": {},
            "Mirrors": [],
        },
        "NCPU": os.cpu_count(),
        "MemTotal": memory,
        "GenericResources": None,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": socket.gethostname(),
        "Labels": [],
        "ExperimentalBuild": False,
        "ServerVersion": engine.version,
        "Runtimes": {"knarr": {"path": "knarr-runtime"}},
        "DefaultRuntime": "knarr",
        "Swarm": {
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "NodeID": "",
            "NodeAddr": "",
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": "knarr-runtime",
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": ""},
        "InitCommit": {"ID": ""},
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
        "Warnings": [],
    }


def _on(path: str) -> bool:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip() == "1"
    except OSError:
        return False
