"""The body of POST /containers/create, in every version of it.

What a field means is the engine's matter; here it is decoded: fields that the request's version does not have are
ignored, as Docker does, but with a warning; fields that no version has are refused by name, however deep.
"""

from __future__ import annotations

import os
import types
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter
from typing_extensions import TypedDict, is_typeddict

from knarr.api.wire.shape import NEWEST, Shape
from knarr.engine.containers.create import Request
from knarr.errors import InvalidArgument
from knarr.store.containers import CONFIG_DEFAULTS, HOST_DEFAULTS, Config, HostConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["create_request", "decode_host", "endpoint_settings"]

CREATE = Shape(
    since={
        "Healthcheck.StartInterval": 44,
        "HostConfig.Annotations": 43,
        "HostConfig.CgroupnsMode": 41,
        "HostConfig.ConsoleSize": 42,
        "HostConfig.Mounts.BindOptions.CreateMountpoint": 42,
        "HostConfig.Mounts.BindOptions.NonRecursive": 40,
        "HostConfig.Mounts.TmpfsOptions.Options": 46,
        "HostConfig.Umask": 56,
        "NetworkingConfig.EndpointsConfig.*.GwPriority": 48,
        "NetworkingConfig.EndpointsConfig.*.MacAddress": 44,
    },
    until={"HostConfig.KernelMemory": 42, "HostConfig.KernelMemoryTCP": 52},
)
# What would be dangerous to ignore: refused in versions before, in Docker's words.
_NEEDS = {"HostConfig.Mounts.BindOptions.ReadOnlyForceRecursive": 44, "HostConfig.Mounts.VolumeOptions.Subpath": 45}
_REFUSED = Shape(since=_NEEDS)
# Defaults that were others before a version.
_IPC_PRIVATE, _CGROUPS_PRIVATE, _OPTIONS_CHECKED, _READ_ONLY_RECURSIVE, _MANY_ENDPOINTS, _NO_MAC = (
    40,
    41,
    42,
    44,
    44,
    52,
)
_MAC_WARNED = 44
_PORTS_WARNED = 52
_VOLUMES_WARNED = 48
_IMAGES_MOUNTED = 48


class _Addresses(TypedDict, total=False):
    IPv4Address: str
    IPv6Address: str
    LinkLocalIPs: list[str] | None


class _Endpoint(TypedDict, total=False):
    """EndpointSettings. What inspect says of a running container is taken, as clients send it back, and not used."""

    IPAMConfig: _Addresses | None
    Links: list[str] | None
    Aliases: list[str] | None
    MacAddress: str
    DriverOpts: dict[str, str] | None
    GwPriority: int
    NetworkID: str
    EndpointID: str
    Gateway: str
    IPAddress: str
    IPPrefixLen: int
    IPv6Gateway: str
    GlobalIPv6Address: str
    GlobalIPv6PrefixLen: int
    DNSNames: list[str] | None


class _Networking(TypedDict, total=False):
    EndpointsConfig: dict[str, _Endpoint | None] | None


class _Body(Config, total=False):
    HostConfig: HostConfig | None
    NetworkingConfig: _Networking | None


_CONFIG: TypeAdapter[Config] = TypeAdapter(Config)
_HOST: TypeAdapter[HostConfig] = TypeAdapter(HostConfig)
_NETWORKING: TypeAdapter[_Networking] = TypeAdapter(_Networking)
_ENDPOINT: TypeAdapter[_Endpoint] = TypeAdapter(_Endpoint)
_HINTS: dict[Any, dict[str, Any]] = {}


def create_request(body: dict[str, Any], name: str, platform: str | None, version: int = NEWEST) -> Request:
    """Decode a request. Raises InvalidArgument, pydantic's ValidationError."""
    for path in _REFUSED.ignored(body, version):
        raise InvalidArgument(f"{'.'.join(path.split('.')[-2:])} needs API v1.{_NEEDS[path]} or newer")
    warnings = [f"{path} is not part of API v1.{version} and was ignored" for path in CREATE.ignored(body, version)]
    body = _known(CREATE.of(body, version), _Body, "")
    host = body.pop("HostConfig", None) or {}
    if not isinstance(host, dict):
        raise InvalidArgument("invalid request: HostConfig must be an object")
    networking = _NETWORKING.validate_python(body.pop("NetworkingConfig", None) or {}, strict=True)
    for key in ("Cmd", "Entrypoint", "Shell"):
        if isinstance(body.get(key), str):
            body[key] = [body[key]]
    for key in ("CapAdd", "CapDrop"):
        if isinstance(host.get(key), str):
            host[key] = [host[key]]
    asked = Request(
        config=_CONFIG.validate_python({**CONFIG_DEFAULTS, **body}, strict=True),
        host=decode_host(host),
        networks={key: dict(value or {}) for key, value in (networking.get("EndpointsConfig") or {}).items()},
        name=name,
        platform=platform,
        warnings=warnings,
        read_only_recursive=version >= _READ_ONLY_RECURSIVE,
    )
    _former_defaults(asked.host, version)
    _former_mounts(asked.host, version)
    _mac(asked, version)
    if version < _MANY_ENDPOINTS and len(asked.networks) > 1:
        raise InvalidArgument(
            f"Container cannot be created with multiple network endpoints: {', '.join(asked.networks)}"
        )
    _warn(asked, version)
    return asked


def endpoint_settings(given: Any) -> dict[str, Any]:
    """EndpointSettings of a request to connect. Raises InvalidArgument, pydantic's ValidationError."""
    if given is None:
        return {}
    return dict(_ENDPOINT.validate_python(_known(given, _Endpoint, "EndpointConfig"), strict=True))


def decode_config(given: Mapping[str, Any]) -> Config:
    """A whole Config from what was given of one. Raises InvalidArgument, pydantic's ValidationError."""
    found = {key: value for key, value in given.items() if value is not None}
    for key in ("Cmd", "Entrypoint", "Shell"):
        if isinstance(found.get(key), str):
            found[key] = [found[key]]
    return _CONFIG.validate_python({**CONFIG_DEFAULTS, **_known(found, Config, "")}, strict=True)


def decode_host(given: Mapping[str, Any]) -> HostConfig:
    """A whole HostConfig from what was given of one. Raises pydantic's ValidationError."""
    full = {**HOST_DEFAULTS, **{key: value for key, value in given.items() if value is not None}}
    return _HOST.validate_python(full, strict=True)


def _known(given: Any, hint: Any, path: str) -> Any:
    """A document without nulls and without empty fields that are not known. InvalidArgument for others, by name."""
    if is_typeddict(hint):
        if not isinstance(given, dict):
            return given  # of a wrong type, which is told later
        hints = _HINTS.get(hint)
        if hints is None:
            hints = _HINTS[hint] = get_type_hints(hint)
        found = {}
        for key, value in given.items():
            place = f"{path}.{key}" if path else key
            if key in hints:
                if value is not None:
                    found[key] = _known(value, hints[key], place)
            elif value not in ("", 0, False, None, [], {}):
                raise InvalidArgument(f"{place} is not a field that knarr knows: leave it out (it was {value!r:.200})")
        return found
    origin, within = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, Union):
        return _known(given, next(one for one in within if one is not type(None)), path)
    if origin is list and isinstance(given, list):
        return [_known(item, within[0], path) for item in given]
    if origin is dict and isinstance(given, dict):
        return {key: _known(value, within[1], f"{path}.{key}") for key, value in given.items()}
    return given


def _former_defaults(host: HostConfig, version: int) -> None:
    if version < _IPC_PRIVATE and not host["IpcMode"]:
        host["IpcMode"] = "shareable"
    if (
        version < _CGROUPS_PRIVATE
        and not host["CgroupnsMode"]
        and not os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    ):
        host["CgroupnsMode"] = "host"


def _former_mounts(host: HostConfig, version: int) -> None:
    """Options of another type of mount were once ignored."""
    for mount in host["Mounts"] or ():
        kind = mount.get("Type")
        if kind == "image" and version < _IMAGES_MOUNTED:
            raise InvalidArgument('Mount type "Image" needs API v1.48 or newer')
        if version < _OPTIONS_CHECKED and kind != "volume":
            mount.pop("VolumeOptions", None)
        if version < _OPTIONS_CHECKED and kind != "tmpfs":
            mount.pop("TmpfsOptions", None)


def _mac(asked: Request, version: int) -> None:
    """The address of the container as a whole, which newer clients give to an endpoint."""
    mac = asked.config["MacAddress"]
    if not mac:
        return
    if version >= _NO_MAC:
        raise InvalidArgument(
            "container-wide MAC address no longer supported; use endpoint-specific MAC address instead"
        )
    if asked.host["NetworkMode"] in ("host", "none") or asked.host["NetworkMode"].startswith("container:"):
        raise InvalidArgument("conflicting options: mac-address and the network mode")
    for endpoint in asked.networks.values():
        if endpoint.get("MacAddress") not in (None, "", mac):
            raise InvalidArgument(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main network, "
                "or be left empty"
            )
    if version >= _MAC_WARNED:
        asked.warnings.append(
            "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
        )


def _warn(asked: Request, version: int) -> None:
    empty = [port for port, bindings in (asked.host["PortBindings"] or {}).items() if not bindings]
    if empty and version >= _PORTS_WARNED:
        asked.warnings.append(
            f"Following container port(s) have an empty list of port-bindings: {', '.join(empty)}. "
            "Such bindings will be discarded in a future version."
        )
    if asked.host["VolumeDriver"] and version >= _VOLUMES_WARNED:
        for mount in asked.host["Mounts"] or ():
            driver = ((mount.get("VolumeOptions") or {}).get("DriverConfig") or {}).get("Name")
            if mount.get("Type") == "volume" and not driver:
                asked.warnings.append(
                    "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via "
                    "'mount'. Use '--mount type=volume,volume-driver=...' instead"
                )
                return
