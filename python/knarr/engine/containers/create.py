"""From a request to a record: nothing runs yet.

Order: the name is reserved in memory, the directory is made, volumes are made and filled, and then the
record is written. What a crash leaves behind before that is a directory without a record, swept at start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import secrets
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from knarr.engine.containers import endpoints, logs, merge, mounts, request
from knarr.engine.containers.names import random_name
from knarr.engine.volumes import sizes
from knarr.errors import Conflict, InvalidArgument, KnarrError, NotFound
from knarr.failpoints import reached
from knarr.store.containers import Config, ContainerRecord, Endpoint, HostConfig, MountPoint, State
from knarr.types import Platform

if TYPE_CHECKING:
    from collections.abc import Callable

    from knarr.engine.containers.container import Container, Context
    from knarr.engine.containers.links import Links
    from knarr.engine.images.images import Image

__all__ = ["Creation", "Request", "check_name", "taken"]

T = TypeVar("T")

log = logging.getLogger("knarr.containers")

_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")
LONGEST_NAME = 255


@dataclass(slots=True)
class Request:
    """A decoded request to make a container."""

    config: Config
    host: HostConfig
    networks: dict[str, dict[str, Any]]  # EndpointsConfig
    name: str = ""
    platform: str | None = None
    warnings: list[str] = field(default_factory=list)  # found while it was decoded
    read_only_recursive: bool = True  # what a read-only bind means that does not say


def check_name(name: str) -> str:
    """A name without its slash. Raises InvalidArgument in Docker's words."""
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise InvalidArgument(f"Invalid container name ({name[:64]}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return name.removeprefix("/")


def taken(name: str, owner: str) -> str:
    """What is said of a name that another container has."""
    return (
        f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )


class Creation:
    """Makes records of containers."""

    def __init__(self, context: Context, names: dict[str, str], find: Callable[[str], Container], links: Links) -> None:
        self._context = context
        self._names = names  # of all containers: name → ID
        self._find = find
        self._links = links

    async def create(self, asked: Request) -> tuple[ContainerRecord, list[str]]:
        """Make a record of what was asked for; warnings for its maker."""
        config, host = asked.config, asked.host
        self._normalize(config, host)
        warnings = asked.warnings + request.check(config, host)
        self._check_seccomp(host)
        if not config["Image"] and not (host["Knarr"] or {}).get("HostOverlay"):
            raise InvalidArgument("no image specified: give Config.Image")
        container_id = secrets.token_hex(32)
        name = self._reserve(asked.name, container_id)
        context = self._context
        try:
            with contextlib.ExitStack() as held:
                image: Image | None = None
                if config["Image"]:
                    image = await context.images.resolve(config["Image"], asked.platform)
                    held.enter_context(context.images.hold(image.id))
                    merge.merge(config, image.config.get("config") or {})
                record = self._record(container_id, name, config, host, image)
                if image and not asked.platform:
                    warnings += _foreign(image.platform)
                record.state.networks = self._endpoints(record, asked.networks)
                if record.host["PortBindings"] and not endpoints.may_publish(self._context.networks, record):
                    warnings.append(
                        "Published ports are discarded: all networks of the container are internal, macvlan or ipvlan"
                    )
                self._share(host)
                self._links.resolve(record)
                if host["Links"]:
                    warnings.append(
                        "Links on the default bridge network are deprecated and will be removed in a future release. "
                        "Use a custom network instead."
                    )
                sources = self._sources(host)
                if host["Binds"] or host["Mounts"]:  # these look at the host's files, which may be slow ones
                    record.mounts = await asyncio.to_thread(
                        mounts.resolve,
                        config,
                        host,
                        sources,
                        read_only_recursive=asked.read_only_recursive,
                        data_root=context.config.data_root,
                    )
                else:
                    record.mounts = mounts.resolve(config, host, sources)
                for point in record.mounts:
                    if point["type"] == "image":
                        found = await context.images.resolve(point["source"] or point["name"])
                        held.enter_context(context.images.hold(found.id))
                        point["source"] = found.id
                named = {point["name"] for point in record.mounts if point["type"] == "volume" and point["name"]}
                async with context.volumes.claims.shared(named):
                    await self._make(record, list(image.lower) if image else [])
        except BaseException:
            del self._names[name]
            raise
        return record, warnings

    def _normalize(self, config: Config, host: HostConfig) -> None:
        mode = host["NetworkMode"]
        if mode in ("", "default"):
            host["NetworkMode"] = "none" if config["NetworkDisabled"] else "bridge"
        logs.fill(host["LogConfig"], self._context.config)
        host["RestartPolicy"] = {
            "Name": host["RestartPolicy"].get("Name") or "no",
            "MaximumRetryCount": host["RestartPolicy"].get("MaximumRetryCount") or 0,
        }
        host["IpcMode"] = host["IpcMode"] or "private"
        host["CgroupnsMode"] = host["CgroupnsMode"] or "private"
        host["ShmSize"] = host["ShmSize"] or 64 * 1024 * 1024
        host["Runtime"] = host["Runtime"] or "knarr"
        if host["PidsLimit"] is not None and host["PidsLimit"] <= 0:
            host["PidsLimit"] = None
        if host["MemorySwappiness"] == -1:
            host["MemorySwappiness"] = None  # what clients send for the host's own
        if host["Memory"] > 0 and not host["MemorySwap"]:
            host["MemorySwap"] = host["Memory"] * 2
        if host["PortBindings"]:
            host["PortBindings"] = {
                port: [
                    {"HostIp": one.get("HostIp") or "", "HostPort": one.get("HostPort") or ""}
                    for one in bindings or [{}]
                ]
                for port, bindings in host["PortBindings"].items()
            }

    def _check_seccomp(self, host: HostConfig) -> None:
        profile, _ = request.security(host)
        if profile not in (None, "unconfined"):
            self._context.profiles.check(profile)

    def _reserve(self, name: str, container_id: str) -> str:
        if not name:
            name = random_name(self._names)
        else:
            name = check_name(name)
            if name in self._names:
                raise Conflict(taken(name, self._names[name]))
        self._names[name] = container_id
        return name

    def _record(
        self, container_id: str, name: str, config: Config, host: HostConfig, image: Image | None
    ) -> ContainerRecord:
        path, args = merge.command(config)
        mode = host["NetworkMode"]
        if not config["Hostname"]:
            if mode == "host" or host["UTSMode"] == "host":
                config["Hostname"] = socket.gethostname()
            elif mode.startswith("container:"):
                config["Hostname"] = self._named(self._find, mode[10:]).record.config["Hostname"]
            else:
                config["Hostname"] = container_id[:12]
        for port in host["PortBindings"] or {}:
            config["ExposedPorts"] = {**(config["ExposedPorts"] or {}), port: {}}
        return ContainerRecord(
            id=container_id,
            name=name,
            image_id=image.id if image else "",
            created_ns=time.time_ns(),
            config=config,
            host=host,
            path=path,
            args=args,
            platform=str(image.platform if image else Platform.host()),
            manifest_digest=image.manifest_digest if image else "",
            mounts=[],
            anonymous_volumes=[],
            state=State(),
        )

    def _endpoints(self, record: ContainerRecord, asked: dict[str, dict[str, Any]]) -> dict[str, Endpoint]:
        mode = record.host["NetworkMode"]
        if mode.startswith("container:"):
            other = self._named(self._find, mode[10:])  # refused now rather than at the start
            record.host["NetworkMode"] = f"container:{other.record.id}"
            if asked:
                raise InvalidArgument("conflicting options: networks and the container type network mode")
            return {}
        networks = self._context.networks
        home = self._named(networks.get, mode)
        record.host["NetworkMode"] = home.name  # which an ID may have stood for
        given = {self._named(networks.get, name).name: settings for name, settings in asked.items()}
        # The default is for those that name no network; one that a user made is joined whatever else is named.
        if not given or (home.name not in given and endpoints.is_user_defined(home.name)):
            given = {home.name: {}, **given}
        if len(given) > 1:
            for name in given:
                if not networks.has_addresses(networks.get(name)):
                    raise InvalidArgument(
                        "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
                    )
        links = record.host["Links"]
        if links and endpoints.is_user_defined(home.name):  # there they are its endpoint's, as is docker's --link
            settings = given[home.name] or {}
            given[home.name] = {**settings, "Links": [*(settings.get("Links") or ()), *links]}
            record.host["Links"] = None
        for name in given:
            endpoints.check_limit(record, networks.get(name))
        mac = record.config["MacAddress"]
        return {
            name: endpoints.make(networks, networks.get(name), settings or {}, mac if name == home.name else "")
            for name, settings in given.items()
        }

    def _share(self, host: HostConfig) -> None:
        """Turn the names of containers whose namespaces are shared into IDs."""
        for key, kind in (("PidMode", "PID"), ("IpcMode", "IPC")):
            mode: str = host[key]  # type: ignore[literal-required]
            if not mode.startswith("container:"):
                continue
            other = self._named(self._find, mode[10:]).record
            if kind == "IPC" and other.host["IpcMode"] not in ("shareable", "host"):
                raise InvalidArgument(
                    f"can't join IPC of container {other.id}: non-shareable IPC "
                    "(hint: use IpcMode:shareable for the donor container)"
                )
            host[key] = f"container:{other.id}"  # type: ignore[literal-required]

    def _sources(self, host: HostConfig) -> list[tuple[ContainerRecord, bool]]:
        found = []
        for text in host["VolumesFrom"] or ():
            name, _, mode = text.partition(":")
            if mode not in ("", "ro", "rw", "z", "Z"):
                raise InvalidArgument(f"invalid mode: {mode}")
            found.append((self._named(self._find, name).record, mode == "ro"))
        return found

    def _named(self, look_up: Callable[[str], T], name: str) -> T:
        """What a request names besides its image. InvalidArgument where there is no such thing.

        Docker's clients take a NotFound here as a missing image, which they would go and pull.
        """
        try:
            return look_up(name)
        except NotFound as error:
            raise InvalidArgument(str(error)) from error

    async def _make(self, record: ContainerRecord, lower: list[str]) -> None:
        """Make the container's directory, its volumes and its record: all of them or nothing."""
        context = self._context
        try:
            size = sizes.asked(record.host["StorageOpt"])
            await asyncio.to_thread(make_directory, context.directory(record.id), lower, size)
            for point in record.mounts:
                if point["type"] == "volume":
                    await self._make_volume(record, point)
                    if lower and not point["no_copy"]:
                        await context.volumes.fill(point["name"], lower, point["destination"])
            reached("container.create.record")
            with context.records.transaction():
                context.volumes.unbind(point["name"] for point in record.mounts)
                context.records.insert(record)
        except BaseException:
            context.volumes.release((point["name"] for point in record.mounts), record.id)
            await self._unmake(record)
            raise

    async def _make_volume(self, record: ContainerRecord, point: MountPoint) -> None:
        """Have the volume of a mount, which nobody removes until the container is there to keep it."""
        wish = point.pop("wish", None)
        try:
            volume = await self._context.volumes.create(
                point["name"],
                driver=wish["driver"] if wish else "",
                options=wish["options"] if wish else None,
                labels=wish["labels"] if wish else None,
                container=record.id,
            )
        except NotFound as error:  # of a plugin: see _named
            raise InvalidArgument(str(error)) from error
        if not point["name"]:
            point["name"] = volume.name
            record.anonymous_volumes.append(volume.name)
        if volume.driver != "local":
            point["driver"] = volume.driver
            point["mode"] = point["mode"].removeprefix("z")  # labels are for what is on a disk of ours

    async def _unmake(self, record: ContainerRecord) -> None:
        """Undo a creation. Its own error is the one to tell; what stays goes at the next start."""
        context = self._context
        for name in record.anonymous_volumes:
            try:
                await context.volumes.remove(name, force=True)
            except (KnarrError, OSError) as error:
                log.warning("anonymous volume %s stays until the next start: %s", name, error)
        try:
            await asyncio.to_thread(sizes.discard, context.store, context.directory(record.id))
        except (KnarrError, OSError) as error:
            log.warning("the directory of container %s stays until the next start: %s", record.id[:12], error)


def _foreign(platform: Platform) -> list[str]:
    """A warning where the host may be unable to run an image that nobody chose for its platform."""
    here = Platform.host()
    if (platform.os, platform.architecture) == (here.os, here.architecture):
        return []
    mismatch = f"The requested image's platform ({platform}) does not match the detected host platform ({here})"
    return [f"{mismatch} and no specific platform was requested"]


def make_directory(path: str, lower: list[str], size: int = 0) -> None:
    """The directories of a container's own files, of which it may write so many bytes (0: any number).

    Its root is what its image's is: the upper layer's shows.
    """
    reached("container.create.directory")
    os.mkdir(path, 0o710)
    os.mkdir(f"{path}/upper", 0o755)
    if lower:
        root = os.stat(lower[0])
        os.chown(f"{path}/upper", root.st_uid, root.st_gid)
        os.chmod(f"{path}/upper", root.st_mode & 0o7777)
    os.mkdir(f"{path}/work", 0o711)
    if size:
        sizes.limit_layer(path, size)
