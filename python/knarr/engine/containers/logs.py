"""Logging drivers: what their options mean, what the supervisor is told of a container's log, and reading it.

The supervisor writes logs and reads them (ARCHITECTURE.md, Logs); here it is decided where they are and what of
them is wanted.

    <id>-json.log             json-file
    local-logs/container.log  local
    container-cached.log      of the others, in the form of local, so that they can be read as well
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from knarr.engine.containers import syslog, tags
from knarr.errors import InvalidArgument, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from knarr.config import Config, LogDefaults
    from knarr.store.containers import ContainerRecord, LogConfig

__all__ = ["DRIVERS", "Wanted", "check", "fill", "json_path", "readable", "start_fields"]

COMMON = frozenset({"labels", "labels-regex", "env", "env-regex", "tag"})
FILES = COMMON | {"max-size", "max-file", "compress"}
# Every driver with its own options; what all of them take is in _check_mode.
DRIVERS: dict[str, frozenset[str]] = {
    "journald": COMMON,
    "json-file": FILES,
    "local": FILES,
    "none": frozenset(),
    "syslog": COMMON | {"syslog-address", "syslog-facility", "syslog-format", *syslog.TLS},
}
EVERYWHERE = frozenset({"mode", "max-buffer-size", "cache-disabled", *(f"cache-{name}" for name in FILES)})
BUFFER = 1_000_000  # bytes, in the mode non-blocking
TRUE = ("1", "t", "T", "TRUE", "true", "True")
FALSE = ("0", "f", "F", "FALSE", "false", "False")
MOST_FILES = 1000
SMALLEST = 4096  # bytes of a file: less would be rotated with every entry
LOCAL_SIZE = 20 << 20
LOCAL_FILES = 5


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries of a log are wanted, and in which form."""

    stdout: bool = True
    stderr: bool = True
    since: int = 0  # ns since the epoch; 0 for all
    until: int = 0
    tail: int | None = None  # so many from the end; None for all
    follow: bool = False
    timestamps: bool = False
    details: bool = False
    multiplexed: bool = True
    chunked: bool = True
    merge: bool = False  # entries share frames

    def fields(self) -> dict[str, Any]:
        """The same for the supervisor."""
        return asdict(self)


def fill(wanted: LogConfig, config: Config) -> None:
    """Put in what the daemon's settings say where the container does not."""
    kind = wanted.get("Type") or config.log_driver
    options = dict(wanted.get("Config") or {})
    if kind == config.log_driver:
        options = {**config.log_opts, **options}
    wanted["Type"], wanted["Config"] = kind, options


def check(wanted: LogConfig) -> None:
    """Refuse a driver that there is not, and options that it does not have, in Docker's words.

    Docker finds wrong values of some options only at the start; here the container is not made.
    """
    driver, options = wanted.get("Type") or "json-file", wanted.get("Config") or {}
    if driver == "none":
        return
    _check_mode(options)
    if driver not in DRIVERS:
        raise InvalidArgument(f"logger: no log driver named '{driver}' is registered")
    where = f"log driver {driver}" if driver == "local" else f"{driver} log driver"
    for key in options:
        if key not in DRIVERS[driver] and key not in EVERYWHERE:
            raise InvalidArgument(f"unknown log opt '{key}' for {where}")
    tags.check(options)
    if driver == "syslog":
        syslog.check(options)
    if driver in FILE_OPTIONS:
        FILE_OPTIONS[driver](options, (SMALLEST, 1))
    else:
        _local(_cache(options), (SMALLEST, 1))


def _check_mode(options: Mapping[str, str]) -> None:
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        try:
            _size(options["max-buffer-size"], 1024)
        except ValueError as error:
            raise InvalidArgument(f"error parsing option max-buffer-size: {error}") from error
    disabled = options.get("cache-disabled", "")
    if disabled and disabled not in TRUE + FALSE:
        raise InvalidArgument(f"invalid value for option cache-disabled: {disabled}")


def _cache(options: Mapping[str, str]) -> dict[str, str]:
    """The options of what is kept here of somebody else's log."""
    prefix = "cache-"
    return {name.removeprefix(prefix): value for name, value in options.items() if name.startswith(prefix)}


def json_path(record: ContainerRecord, directory: str) -> str:
    """The LogPath that Docker shows: of json-file alone."""
    return f"{directory}/{record.id}-json.log" if record.host["LogConfig"].get("Type") == "json-file" else ""


async def start_fields(record: ContainerRecord, directory: str, defaults: LogDefaults) -> dict[str, Any] | None:
    """`log` of the supervisor's `start`; None where nothing is kept."""
    wanted = record.host["LogConfig"]
    driver, options = wanted.get("Type") or "json-file", wanted.get("Config") or {}
    if driver == "none":
        return None
    file = _file(record, directory, defaults)
    remote = None
    if driver not in FILE_OPTIONS:
        if driver == "syslog":
            to = await syslog.syslog(record, options)
        else:
            to = syslog.journald(record, options, defaults.journal)
        buffer = _size(options["max-buffer-size"], 1024) if "max-buffer-size" in options else BUFFER
        remote = {"to": to, "buffer": buffer if options.get("mode") == "non-blocking" else None}
    extra = tags.attributes(record, options) if file else {}
    if options.get("tag"):
        extra["tag"] = tags.tag(record, options["tag"])
    return {"file": file, "attributes": extra, "remote": remote}


def readable(record: ContainerRecord, directory: str, defaults: LogDefaults) -> dict[str, Any]:
    """`file` of the supervisor's `logs`. Raises Unsupported where nothing is kept that could be read."""
    file = _file(record, directory, defaults)
    if file is None:
        raise Unsupported("configured logging driver does not support reading")
    return file


def _file(record: ContainerRecord, directory: str, defaults: LogDefaults) -> dict[str, Any] | None:
    """Where the log is, and how large it may become."""
    wanted = record.host["LogConfig"]
    driver = wanted.get("Type") or "json-file"
    options, bounds = wanted.get("Config") or {}, (defaults.max_size, defaults.max_file)
    if driver == "none":
        return None
    if driver == "json-file":
        return {"format": driver, "path": f"{directory}/{record.id}-json.log", **_json_file(options, bounds)}
    if driver == "local":
        return {"format": driver, "path": f"{directory}/local-logs/container.log", **_local(options, bounds)}
    if options.get("cache-disabled", "") in TRUE:
        return None
    return {"format": "local", "path": f"{directory}/container-cached.log", **_local(_cache(options), bounds)}


def _json_file(options: Mapping[str, str], bounds: tuple[int, int]) -> dict[str, Any]:
    """Docker keeps one file that grows for ever; here the settings' bounds are the default."""
    size, files = bounds
    if "max-size" in options:
        files = 1
        try:
            size = _size(options["max-size"], 1000)
        except ValueError as error:
            raise _failed(str(error)) from error
        if size <= 0:
            raise _failed("max-size must be a positive number")
    if "max-file" in options:
        files = _whole(options["max-file"], "")
        if files < 1:
            raise _failed("max-file cannot be less than 1")
    compress = _bool(options.get("compress", "false"), "")
    if compress and (files < 2 or "max-size" not in options):
        raise _failed("compress cannot be true when max-file is less than 2 or max-size is not set")
    return _bounded(size, files, compress)


def _local(options: Mapping[str, str], _bounds: tuple[int, int]) -> dict[str, Any]:
    size, files = LOCAL_SIZE, LOCAL_FILES
    if "max-size" in options:
        text = options["max-size"]
        try:
            size = _size(text, 1000)
        except ValueError as error:
            raise _failed(f"invalid value for max-size: {text}: {error}") from error
    if "max-file" in options:
        files = _whole(options["max-file"], f"invalid value for max-file: {options['max-file']}: ")
    compress = _bool(options.get("compress", "true"), "invalid boolean value for compress: ")
    if files < 0:
        raise _failed("max-file must not be negative")
    if compress and files <= 1:
        raise _failed("compression cannot be enabled when max file count is 1")
    return _bounded(size, files, compress)


FILE_OPTIONS: dict[str, Callable[[Mapping[str, str], tuple[int, int]], dict[str, Any]]] = {
    "json-file": _json_file,
    "local": _local,
}


def _bounded(size: int, files: int, compress: bool) -> dict[str, Any]:
    if files > MOST_FILES:
        raise _failed(f"max-file cannot be more than {MOST_FILES}")
    return {"max_size": max(size, SMALLEST), "max_file": max(files, 1), "compress": compress}


def _failed(reason: str) -> InvalidArgument:
    return InvalidArgument(f"failed to initialize logging driver: {reason}")


def _whole(text: str, before: str) -> int:
    try:
        return int(text, 10)
    except ValueError:
        raise _failed(f'{before}strconv.Atoi: parsing "{text}": invalid syntax') from None


def _bool(text: str, before: str) -> bool:
    """A boolean as Go reads it."""
    if text in TRUE:
        return True
    if text in FALSE:
        return False
    raise _failed(f'{before}strconv.ParseBool: parsing "{text}": invalid syntax')


def _size(text: str, base: int) -> int:
    """Bytes of a size such as 10m, with units of 1000 or 1024 (docker/go-units). Raises ValueError in its words."""
    end = max(map(text.rfind, "0123456789. "), default=-1)
    if end < 0:
        raise ValueError(f"invalid size: '{text}'")
    number, suffix = (text[:end] if text[end] == " " else text[: end + 1]), text[end + 1 :].lower()
    try:
        size = float(number)
    except ValueError:
        raise ValueError(f'strconv.ParseFloat: parsing "{number}": invalid syntax') from None
    if not 0 <= size < 1 << 62:
        raise ValueError(f"invalid size: '{text}'")
    if not suffix or suffix == "b":
        return int(size)
    power = "kmgtp".find(suffix[0]) + 1
    if not power or suffix[1:] not in ("", "b", "ib"):
        raise ValueError(f"invalid suffix: '{suffix}'")
    return min(int(size * base**power), 1 << 62)
