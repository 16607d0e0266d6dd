"""-v, --mount and --tmpfs (Docker's notations) as HostConfig's Binds, Mounts and Tmpfs."""

import os

from knarr.cli import values
from knarr.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BARE = ("readonly", "ro", "volume-nocopy", "bind-create-src")
_OPTIONS_OF = {"BindOptions": "bind", "VolumeOptions": "volume", "TmpfsOptions": "tmpfs", "ImageOptions": "image"}


def apply(
    volumes: "list[str]", mounts: "list[str]", tmpfs: "list[str]", body: "dict[str, Any]", host: "dict[str, Any]"
) -> None:
    """Put them into the body of ContainerCreate and its HostConfig."""
    anonymous: dict[str, dict[str, str]] = {}
    binds = []
    for item in volumes:
        bind = volume(item)
        if bind is None:
            anonymous[item] = {}
        else:
            binds.append(bind)
    if anonymous:
        body["Volumes"] = anonymous
    if binds:
        host["Binds"] = list(dict.fromkeys(binds))
    if mounts:
        host["Mounts"] = [mount(item) for item in mounts]
    if tmpfs:
        host["Tmpfs"] = {path: options for path, _, options in (item.partition(":") for item in tmpfs)}


def volume(spec: str) -> "str | None":
    """The bind of "source:target[:options]", a relative source made absolute; None for an anonymous volume's target."""
    if not spec:
        raise InvalidArgument("invalid empty volume spec")
    parts = spec.split(":")
    if not all(parts):
        raise InvalidArgument(f"invalid spec: {spec}: empty section between colons")
    if len(parts) > 3:
        raise InvalidArgument(f"invalid spec: {spec}: too many colons")
    if len(parts) == 1:
        return None
    if parts[0].startswith("."):
        parts[0] = os.path.abspath(parts[0])
    return ":".join(parts)


def mount(spec: str) -> "dict[str, Any]":
    """The Mount of "type=bind,src=/a,dst=/b,readonly"."""
    result: dict[str, Any] = {"Type": "volume"}
    for field in values.fields(spec.strip()):
        _mount_field(result, field)
    for group, kind in _OPTIONS_OF.items():
        if group in result and result["Type"] != kind:
            raise InvalidArgument(f"--mount {spec}: cannot mix '{kind}-*' options with mount type '{result['Type']}'")
    if not result.get("Target"):
        raise InvalidArgument(f"--mount {spec}: it has no target")
    bind = result.get("BindOptions", {})
    for option, word in (("ReadOnlyNonRecursive", "writable"), ("ReadOnlyForceRecursive", "readonly")):
        if bind.get(option) and not result.get("ReadOnly"):
            raise InvalidArgument(f"--mount {spec}: 'bind-recursive={word}' requires 'readonly' as well")
    if bind.get("ReadOnlyForceRecursive") and bind.get("Propagation") != "rprivate":
        raise InvalidArgument(f"--mount {spec}: 'bind-recursive=readonly' requires 'bind-propagation=rprivate' as well")
    return result


def _mount_field(result: "dict[str, Any]", field: str) -> None:
    name, equals, value = field.partition("=")
    key = name.lower()
    if name != name.strip() or value != value.strip():
        raise InvalidArgument(f"invalid option {field!r} of --mount: it has whitespace around its name or value")
    if not equals and key not in _BARE:
        raise InvalidArgument(f"invalid field '{field}' must be a key=value pair")
    if equals and not value:
        raise InvalidArgument(f"invalid value for '{key}': value is empty")
    if key == "type":
        result["Type"] = value.lower()
    elif key in ("source", "src"):
        result["Source"] = os.path.abspath(value) if value.startswith(".") else value
    elif key in ("target", "dst", "destination"):
        result["Target"] = value
    elif key in ("readonly", "ro"):
        result["ReadOnly"] = _truth(key, value, equals)
    elif key == "consistency":
        result["Consistency"] = value.lower()
    elif key.startswith("bind-"):
        _bind_option(result.setdefault("BindOptions", {}), key, value, equals)
    elif key.startswith("volume-"):
        _volume_option(result.setdefault("VolumeOptions", {}), key, value, equals)
    elif key == "idmap":
        if value != "match-user":
            raise InvalidArgument(f'invalid value for {key}: {value} (must be "match-user")')
        result.setdefault("BindOptions", {})["IDMap"] = value
    elif key == "image-subpath":
        result.setdefault("ImageOptions", {})["Subpath"] = value
    elif key == "tmpfs-size":
        result.setdefault("TmpfsOptions", {})["SizeBytes"] = values.size(value)
    elif key == "tmpfs-mode":
        if not value.isdigit() or set(value) & {"8", "9"} or int(value, 8) >= 1 << 32:
            raise InvalidArgument(f"invalid value for {key}: {value}: it is octal, such as 1777")
        result.setdefault("TmpfsOptions", {})["Mode"] = int(value, 8)
    else:
        raise InvalidArgument(f"unknown option '{key}' in '{field}'")


def _bind_option(options: "dict[str, Any]", key: str, value: str, equals: str) -> None:
    if key == "bind-propagation":
        options["Propagation"] = value.lower()
    elif key == "bind-create-src":
        options["CreateMountpoint"] = _truth(key, value, equals)
    elif key == "bind-nonrecursive":
        raise InvalidArgument("bind-nonrecursive is deprecated, use bind-recursive=disabled instead")
    elif key == "bind-recursive":
        if value not in ("enabled", "disabled", "writable", "readonly"):
            raise InvalidArgument(
                f'invalid value for {key}: {value} (must be "enabled", "disabled", "writable", or "readonly")'
            )
        if value == "disabled":
            options["NonRecursive"] = True
        elif value == "writable":
            options["ReadOnlyNonRecursive"] = True
        elif value == "readonly":
            options["ReadOnlyForceRecursive"] = True
    else:
        raise InvalidArgument(f"unknown option '{key}' of --mount")


def _volume_option(options: "dict[str, Any]", key: str, value: str, equals: str) -> None:
    if key == "volume-nocopy":
        options["NoCopy"] = _truth(key, value, equals)
    elif key == "volume-subpath":
        options["Subpath"] = value
    elif key == "volume-label":
        options.setdefault("Labels", {}).update(values.pairs([value]))
    elif key == "volume-driver":
        options.setdefault("DriverConfig", {})["Name"] = value
    elif key == "volume-opt":
        options.setdefault("DriverConfig", {}).setdefault("Options", {}).update(values.pairs([value]))
    else:
        raise InvalidArgument(f"unknown option '{key}' of --mount")


def _truth(key: str, value: str, equals: str) -> bool:
    if not equals or value in ("1", "true"):
        return True
    if value in ("0", "false"):
        return False
    raise InvalidArgument(f'invalid value for \'{key}\': {value!r} must be one of "true", "1", "false", or "0"')
