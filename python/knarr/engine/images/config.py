"""An image's config: checked field by field before anything else looks at it.

Source: OCI image specification, config.md, with Docker's additions (Healthcheck, OnBuild, Shell). Fields
that nobody knows are kept as they are: inspect shows them, and nothing reads them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from knarr.engine.images.document import decode
from knarr.engine.images.manifest import MAX_CONFIG
from knarr.errors import Corrupt, InvalidArgument, Unsupported
from knarr.types import Digest, Platform

_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MAX_PATH = 4096
MAX_ENTRIES = 10_000  # of any list or map in a config


@dataclass(frozen=True)
class ImageConfig:
    """A config that holds what it should: the document itself, and what was parsed from it."""

    document: dict[str, Any]
    platform: Platform
    diff_ids: tuple[Digest, ...]
    created_ns: int  # since the epoch; 0 where the image does not say


def read_config(data: bytes, layers: int | None, what: str) -> ImageConfig:
    """Check an image's config against the number of its layers. Corrupt, naming the field."""
    document = decode(data, what, MAX_CONFIG)
    system, architecture = _text(document, "os", what), _text(document, "architecture", what)
    if not system or not architecture:
        raise Corrupt(f"{what}: os or architecture is missing")
    if system.lower() != "linux":
        raise Unsupported(f"{what}: the image is for {system[:64]!a}; knarr runs images for linux")
    variant = _text(document, "variant", what)
    diff_ids = _diff_ids(document.get("rootfs"), what)
    if layers is not None and len(diff_ids) != layers:
        raise Corrupt(f"{what}: rootfs.diff_ids has {len(diff_ids)} entries for {layers} layers")
    for name in ("author", "created"):
        _text(document, name, what)
    created = document.get("created")
    _history(document.get("history"), what)
    document["config"] = _run_config(document.get("config"), what)
    platform = Platform.of(system, architecture, variant)
    return ImageConfig(document, platform, diff_ids, parse_time(created, what) if created else 0)


def parse_time(text: str, what: str) -> int:
    """An RFC 3339 time as nanoseconds since the epoch; 0 for Go's zero time and what lies before the epoch."""
    match = _TIME.fullmatch(text)
    if not match:
        raise Corrupt(f"{what}: {text[:40]!a} is not an RFC 3339 time")
    try:
        day, clock, fraction, zone = match.groups()
        moment = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}")
        delta = moment - _EPOCH
    except (ValueError, OverflowError):
        raise Corrupt(f"{what}: {text[:40]!a} is not an RFC 3339 time") from None
    seconds = delta.days * 86400 + delta.seconds
    return max(0, seconds * 10**9 + int((fraction or "0").ljust(9, "0")))


def _text(document: dict[str, Any], name: str, what: str, limit: int = 64 << 10) -> str:
    value = document.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > limit or "\0" in value:
        raise Corrupt(f"{what}: {name} is not a string of at most {limit} characters without NUL")
    return value


def _diff_ids(rootfs: Any, what: str) -> tuple[Digest, ...]:
    if not isinstance(rootfs, dict) or rootfs.get("type") != "layers":
        raise Corrupt(f'{what}: rootfs is not of the type "layers"')
    values = rootfs.get("diff_ids") or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise Corrupt(f"{what}: rootfs.diff_ids is not a list of digests")
    try:
        return tuple(Digest(value) for value in values)
    except InvalidArgument as error:
        raise Corrupt(f"{what}: rootfs.diff_ids: {error}") from None


def _history(history: Any, what: str) -> None:
    if history is None:
        return
    if not isinstance(history, list) or len(history) > MAX_ENTRIES:
        raise Corrupt(f"{what}: history is not a list of at most {MAX_ENTRIES} entries")
    for number, entry in enumerate(history):
        if not isinstance(entry, dict) or not isinstance(entry.get("empty_layer", False), (bool, type(None))):
            raise Corrupt(f"{what}: history[{number}] is not an entry of a history")
        for name in ("created", "created_by", "author", "comment"):
            _text(entry, name, f"{what}: history[{number}]", MAX_CONFIG)
        if entry.get("created"):
            parse_time(entry["created"], f"{what}: history[{number}].created")


def _run_config(value: Any, what: str) -> dict[str, Any]:
    """The defaults for containers of this image, with what may be written in two ways brought into one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Corrupt(f"{what}: config is not an object")
    here = f"{what}: config"
    run = dict(value)
    for name in ("Entrypoint", "Cmd", "Shell"):
        if isinstance(run.get(name), str):  # Docker reads a single string here as a list of one
            run[name] = [run[name]]
    for name in ("Env", "Entrypoint", "Cmd", "Shell", "OnBuild"):
        _strings(run.get(name), here, name)
    for entry in run.get("Env") or []:
        if not entry or entry.startswith("="):
            raise Corrupt(f"{here}.Env: {entry[:40]!a} has no name")
    for name, limit in (("User", 255), ("WorkingDir", MAX_PATH), ("StopSignal", 32), ("Hostname", 255)):
        _text(run, name, here, limit)
    for path in _map(run.get("Volumes"), here, "Volumes"):
        if not path or "\0" in path or len(path) > MAX_PATH:
            raise Corrupt(f"{here}.Volumes: {path[:40]!a} is not a path")
    for port in _map(run.get("ExposedPorts"), here, "ExposedPorts"):
        match = _PORT.fullmatch(port)
        if not match or not all(int(number) <= 65535 for number in match.groups()[:2] if number):
            raise Corrupt(f"{here}.ExposedPorts: {port[:40]!a} is not a port")
    for label, text in _map(run.get("Labels"), here, "Labels").items():
        if not isinstance(text, str):
            raise Corrupt(f"{here}.Labels: the value of {label[:40]!a} is not a string")
    for name in ("ExposedPorts", "Volumes"):  # sets: what is under their keys means nothing
        if run.get(name):
            run[name] = {key: {} for key in run[name]}
    _health(run.get("Healthcheck"), here)
    return run


def _health(value: Any, here: str) -> None:
    check = _map(value, here, "Healthcheck")
    _strings(check.get("Test"), here, "Healthcheck.Test")
    for name in ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"):
        number = check.get(name, 0)
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 1 << 63:
            raise Corrupt(f"{here}.Healthcheck.{name} is not a number")


def _strings(value: Any, here: str, name: str) -> None:
    if value is None:
        return
    if not isinstance(value, list) or len(value) > MAX_ENTRIES:
        raise Corrupt(f"{here}.{name} is not a list of at most {MAX_ENTRIES} strings")
    for item in value:
        if not isinstance(item, str) or "\0" in item:
            raise Corrupt(f"{here}.{name} is not a list of strings without NUL")


def _map(value: Any, here: str, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MAX_ENTRIES:
        raise Corrupt(f"{here}.{name} is not an object of at most {MAX_ENTRIES} members")
    return value
