"""Devices, ulimits and the throttling of block devices (Docker's notations) as HostConfig's fields."""

from knarr.cli import values
from knarr.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LIMITS = (
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
)
_BPS = (("device_read_bps", "BlkioDeviceReadBps"), ("device_write_bps", "BlkioDeviceWriteBps"))
_IOPS = (("device_read_iops", "BlkioDeviceReadIOps"), ("device_write_iops", "BlkioDeviceWriteIOps"))


def apply(options: "dict[str, Any]", host: "dict[str, Any]") -> None:
    """Put them into HostConfig."""
    if options["device"]:
        host["Devices"] = [device(item) for item in options["device"]]
    if options["gpus"]:
        host["DeviceRequests"] = [gpus(item) for item in options["gpus"]]
    if options["device_cgroup_rule"]:
        host["DeviceCgroupRules"] = [_rule(item) for item in options["device_cgroup_rule"]]
    if options["ulimit"]:
        limits = {limit["Name"]: limit for limit in map(ulimit, options["ulimit"])}
        host["Ulimits"] = [limits[name] for name in sorted(limits)]
    if options["blkio_weight_device"]:
        host["BlkioWeightDevice"] = [_weight(item) for item in options["blkio_weight_device"]]
    for key, field in _BPS:
        if options[key]:
            host[field] = [_throttle(item, values.size) for item in options[key]]
    for key, field in _IOPS:
        if options[key]:
            host[field] = [_throttle(item, _whole) for item in options[key]]


def gpus(spec: str) -> "dict[str, Any]":
    """The DeviceRequest of "all", "2" or "driver=x,device=0,capabilities=compute,options=a=b" (fields by commas)."""
    request: dict[str, Any] = {}
    counted = False
    for field in values.fields(spec):
        key, equals, value = field.partition("=")
        if not equals:
            key, value = "count", field
        if key == "count":
            if counted:
                raise InvalidArgument("gpu request key 'count' can be specified only once")
            counted = True
            request["Count"] = -1 if value == "all" else _count(value)
        elif key == "driver":
            request["Driver"] = value
        elif key == "device":
            request["DeviceIDs"] = value.split(",")
        elif key == "capabilities":
            request["Capabilities"] = [[*value.split(","), "gpu"]]
        elif key == "options":
            request["Options"] = values.pairs(values.fields(value))
        else:
            raise InvalidArgument(f"unexpected key '{key}' in '{field}'")
    if not counted and "DeviceIDs" not in request:
        request["Count"] = 1
    request.setdefault("Capabilities", [["gpu"]])
    return request


def _count(text: str) -> int:
    if text.removeprefix("-").isdigit():
        return int(text)
    raise InvalidArgument(f'invalid count ({text}): value must be either "all" or an integer')


def device(spec: str) -> "dict[str, str]":
    """The DeviceMapping of "/dev/x[:/dev/y][:rwm]"."""
    parts = spec.split(":")
    if len(parts) > 3 or not parts[0]:
        raise InvalidArgument(f"bad format for path: {spec}")
    target, permissions = parts[0], "rwm"
    if len(parts) == 2 and _permissions(parts[1]):
        permissions = parts[1]
    elif len(parts) > 1:
        target = parts[1]
    if len(parts) == 3:
        if not _permissions(parts[2]):
            raise InvalidArgument(f"bad mode specified: {parts[2]}")
        permissions = parts[2]
    if not target.startswith("/"):
        raise InvalidArgument(f"{target} is not an absolute path")
    return {"PathOnHost": parts[0], "PathInContainer": target, "CgroupPermissions": permissions}


def _permissions(text: str) -> bool:
    return bool(text) and set(text) <= set("rwm") and len(set(text)) == len(text)


def _rule(item: str) -> str:
    parts = item.split(" ")
    numbers = parts[1].split(":") if len(parts) == 3 else []
    if (
        len(numbers) != 2
        or parts[0] not in ("a", "c", "b")
        or not all(number == "*" or number.isdigit() for number in numbers)
        or not 0 < len(parts[2]) <= 3
        or not set(parts[2]) <= set("rwm")
    ):
        raise InvalidArgument(f"invalid device cgroup format '{item}': it is like 'c 1:3 rwm'")
    return item


def ulimit(spec: str) -> "dict[str, Any]":
    """The Ulimit of "nofile=1024:2048"; -1 for no limit."""
    name, equals, limits = spec.partition("=")
    if not equals:
        raise InvalidArgument(f"invalid ulimit argument: {spec}")
    if name not in _LIMITS:
        raise InvalidArgument(f"invalid ulimit type: {name}")
    parts = limits.split(":")
    if len(parts) > 2:
        raise InvalidArgument(f"too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`")
    soft = values.integer(parts[0], f"--ulimit {name}")
    hard = values.integer(parts[-1], f"--ulimit {name}")
    if hard != -1 and (soft == -1 or soft > hard):
        raise InvalidArgument(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return {"Name": name, "Soft": soft, "Hard": hard}


def _path(item: str) -> "tuple[str, str]":
    path, colon, value = item.partition(":")
    if not colon or not path:
        raise InvalidArgument(f"bad format: {item}")
    if not path.startswith("/dev/"):
        raise InvalidArgument(f"bad format for device path: {item}")
    return path, value


def _weight(item: str) -> "dict[str, Any]":
    path, value = _path(item)
    if not value.isdigit() or (int(value) and not 10 <= int(value) <= 1000):
        raise InvalidArgument(f"invalid weight for device: {item}")
    return {"Path": path, "Weight": int(value)}


def _whole(text: str) -> int:
    if not text.isdigit():
        raise InvalidArgument(f"{text!r} is not a positive whole number")
    return int(text)


def _throttle(item: str, convert: "Any") -> "dict[str, Any]":
    path, value = _path(item)
    try:
        return {"Path": path, "Rate": convert(value)}
    except InvalidArgument as error:
        raise InvalidArgument(
            f"invalid rate for device: {item}. The correct format is <device-path>:<number>: {error}"
        ) from error
