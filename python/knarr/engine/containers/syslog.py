"""The syslog and journald drivers: their options, and what the supervisor needs to know to send entries there."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from knarr.engine.containers import tags
from knarr.errors import Internal, InvalidArgument, Unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knarr.store.containers import ContainerRecord

__all__ = ["check", "journald", "syslog"]

PORT = 514
FACILITIES = {
    "kern": 0, "user": 1, "mail": 2, "daemon": 3, "auth": 4, "syslog": 5, "lpr": 6, "news": 7, "uucp": 8, "cron": 9,
    "authpriv": 10, "ftp": 11, "local0": 16, "local1": 17, "local2": 18, "local3": 19, "local4": 20, "local5": 21,
    "local6": 22, "local7": 23,
}  # fmt: skip
FORMATS = {"": "unix", "rfc3164": "rfc3164", "rfc5424": "rfc5424", "rfc5424micro": "rfc5424micro"}
TLS = ("syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify")


def check(options: Mapping[str, str]) -> None:
    """Refuse options of syslog that cannot be. InvalidArgument in Docker's words, Unsupported for TLS."""
    _address(options.get("syslog-address", ""))
    _facility(options.get("syslog-facility", ""))
    if options.get("syslog-format", "") not in FORMATS:
        raise InvalidArgument("Invalid syslog format")


def _address(text: str) -> tuple[str, str, int]:
    """(scheme, path or host, port)."""
    if not text:
        return "local", "", 0
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise InvalidArgument(f'parse "{text}": {error}') from error
    if parts.scheme in ("unix", "unixgram"):
        if not os.path.exists(parts.path):
            raise InvalidArgument(f"stat {parts.path}: no such file or directory")
        return parts.scheme, parts.path, 0
    if parts.scheme == "tcp+tls":
        raise Unsupported(f"log option syslog-address={text} is not supported by knarr: use tcp, udp, unix or unixgram")
    if parts.scheme not in ("udp", "tcp"):
        raise InvalidArgument(f"unsupported scheme: '{parts.scheme}'")
    return parts.scheme, parts.hostname or "", PORT if port is None else port


def _facility(text: str) -> int:
    if not text:
        return FACILITIES["daemon"]
    if text in FACILITIES:
        return FACILITIES[text]
    if text.isascii() and text.isdigit() and int(text) <= 23:
        return int(text)
    raise InvalidArgument("invalid syslog facility")


async def syslog(record: ContainerRecord, options: Mapping[str, str]) -> dict[str, Any]:
    """`to` of the supervisor's log. Names are looked up here, at each start."""
    scheme, place, port = _address(options.get("syslog-address", ""))
    address: Any = "local"
    if scheme in ("unix", "unixgram"):
        address = {scheme: place}
    elif scheme != "local":
        kind = socket.SOCK_STREAM if scheme == "tcp" else socket.SOCK_DGRAM
        try:
            found = await asyncio.get_running_loop().getaddrinfo(place or "localhost", port, type=kind)
        except OSError as error:
            raise Internal(
                "failed to create task for container: failed to initialize logging driver: "
                f"dial {scheme}: lookup {place}: {error.strerror or error}"
            ) from error
        address = {scheme: list(dict.fromkeys(_written(one[4]) for one in found))}
    return {
        "syslog": {
            "address": address,
            "facility": _facility(options.get("syslog-facility", "")),
            "format": FORMATS[options.get("syslog-format", "")],
            "tag": tags.tag(record, options.get("tag") or tags.DEFAULT_TAG),
            "hostname": os.uname().nodename,
            "offset": time.localtime().tm_gmtoff,
        }
    }


def _written(address: tuple[Any, ...]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def journald(record: ContainerRecord, options: Mapping[str, str], journal: str) -> dict[str, Any]:
    """`to` of the supervisor's log, with Docker's fields; attributes win over them."""
    tag = tags.tag(record, options.get("tag") or tags.DEFAULT_TAG)
    fields = {
        "CONTAINER_ID": record.id[:12],
        "CONTAINER_ID_FULL": record.id,
        "CONTAINER_NAME": record.name,
        "CONTAINER_TAG": tag,
        "IMAGE_NAME": record.config["Image"],
        "SYSLOG_IDENTIFIER": tag,
    }
    for name, value in tags.attributes(record, options).items():
        if key := _key(name):
            fields[key] = value
    return {"journald": {"socket": journal, "fields": fields}}


def _key(name: str) -> str:
    """A name as the journal takes it: capitals, digits and underscores, not led by one."""
    return "".join(char.upper() if char.isascii() and char.isalnum() else "_" for char in name).lstrip("_")
