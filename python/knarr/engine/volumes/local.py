"""The options of the local driver: `type`, `device` and `o`, as Docker's has them, or `size` (see `sizes`).

A bind of a directory needs no mount on the host: containers get that directory as their source. Anything else is a
file system that the kernel mounts at the volume's `_data`, in the words of mount(2).
"""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus, urlsplit, urlunsplit

from knarr._core import mount_volume
from knarr.engine.volumes import sizes
from knarr.errors import Failed, InvalidArgument
from knarr.store.volumes import LOCAL

if TYPE_CHECKING:
    from knarr.store.volumes import VolumeRecord

__all__ = ["Bind", "FileSystem", "check", "own", "read"]

_NEEDS = {"device": ("type",), "type": ("device",), "o": ("device", "type")}
_NETWORK = ("nfs", "nfs4", "cifs")  # whose o=addr=NAME is looked up

_RDONLY, _REMOUNT, _BIND, _REC = 0x1, 0x20, 0x1000, 0x4000
# Word of `o` → (MS_* that it sets, MS_* that it clears). Any other word is the file system's own.
_FLAGS = {
    "defaults": (0, 0), "ro": (_RDONLY, 0), "rw": (0, _RDONLY), "nosuid": (0x2, 0), "suid": (0, 0x2),
    "nodev": (0x4, 0), "dev": (0, 0x4), "noexec": (0x8, 0), "exec": (0, 0x8), "sync": (0x10, 0), "async": (0, 0x10),
    "remount": (_REMOUNT, 0), "mand": (0x40, 0), "nomand": (0, 0x40), "dirsync": (0x80, 0), "noatime": (0x400, 0),
    "atime": (0, 0x400), "nodiratime": (0x800, 0), "diratime": (0, 0x800), "bind": (_BIND, 0),
    "rbind": (_BIND | _REC, 0), "relatime": (0x200000, 0), "norelatime": (0, 0x200000),
    "strictatime": (0x1000000, 0), "nostrictatime": (0, 0x1000000),
}  # fmt: skip
_PROPAGATION = {
    word: flag | recursive
    for name, flag in (("unbindable", 1 << 17), ("private", 1 << 18), ("slave", 1 << 19), ("shared", 1 << 20))
    for word, recursive in ((name, 0), (f"r{name}", _REC))
}
# Words that a bind in a container has as well, and those that mean nothing to it.
_BOUND = {"ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "nodiratime", "relatime"}
_IDLE = {"bind", "rbind", "private", "rprivate", "defaults", "atime", "diratime", "norelatime"}


@dataclass(frozen=True, slots=True)
class Bind:
    """A directory of the host's."""

    device: str
    recursive: bool
    options: tuple[str, ...]  # of the container's mount: ro, nosuid ...

    def begin(self, place: str) -> None:
        """See that it is there. Blocks. Failed in Docker's words."""
        number = errno.ENOENT if not os.path.isabs(self.device) else _errno_of_directory(self.device)
        if number:
            flags = _BIND | (_REC if self.recursive else 0)
            raise Failed(f"failed to mount local volume: {_line(self.device, place, flags, '')}: {_words(number)}")


@dataclass(frozen=True, slots=True)
class FileSystem:
    """Something that the kernel mounts."""

    kind: str
    device: str
    flags: int
    propagation: int
    data: str

    def begin(self, place: str) -> None:
        """Mount it, unless something is mounted there. Blocks. Failed in Docker's words, without a password."""
        if not self.device:
            raise Failed("missing device in volume options")
        device, data = self._with_address()
        number = mount_volume(place, device, self.kind, self.flags, self.propagation, data)
        if number:
            line = _line(device, place, self.flags, data)
            password = next((word for word in data.split(",") if word.startswith("password=")), "")
            if password:
                line = line.replace(password, "password=********", 1)
            raise Failed(f"failed to mount local volume: {line}: {_words(number)}")

    def _with_address(self) -> tuple[str, str]:
        """(device, data), with the address in place of a server's name: the kernel looks up none."""
        if self.kind not in _NETWORK:
            return self.device, self.data
        name = next((word[5:] for word in self.data.split(",") if word.startswith("addr=")), "")
        if name:
            return self.device, self.data.replace(f"addr={name}", f"addr={_address(name)}", 1)
        if self.kind == "cifs":
            parts = urlsplit(self.device)
            if parts.hostname:
                found = _address(parts.hostname)
                host = f"[{found}]" if ":" in found else found
                return unquote_plus(urlunsplit(parts._replace(netloc=host))), self.data
        return self.device, self.data


def _errno_of_directory(path: str) -> int:
    """0 where a path is a directory, else what the kernel says of it."""
    try:
        os.close(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _line(device: str, place: str, flags: int, data: str) -> str:
    """A mount as Docker's errors show it."""
    return f"mount {device}:{place}" + (f", flags: {flags:#x}" if flags else "") + (f", data: {data}" if data else "")


def _words(number: int) -> str:
    text = os.strerror(number)
    return text[:1].lower() + text[1:]


def _address(name: str) -> str:
    """The address of a name, an IPv4 one where it has any. Failed in Docker's words."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise Failed(f"error resolving passed in network volume address: lookup {name}: {why}") from error
    found.sort(key=lambda item: item[0] != socket.AF_INET)
    return str(found[0][4][0])


def check(options: dict[str, str]) -> None:
    """Refuse what the local driver does not take. InvalidArgument in Docker's words."""
    for name, value in options.items():
        if name == "size":
            continue
        if name not in _NEEDS:
            raise InvalidArgument(f'invalid option: "{name}"')
        if "\0" in value:
            raise InvalidArgument(f'invalid option: "{name}": it contains a NUL byte')
    if "size" in options and len(options) > 1:
        raise InvalidArgument(
            'option "size" is for volumes without "type", "device" and "o": what those mount has its size by itself, '
            'or as a word of "o", such as o=size=10g of a tmpfs'
        )
    sizes.asked(options)
    if options.get("type") == "cifs" and options.get("device"):
        try:
            port = urlsplit(options["device"]).port
        except ValueError as error:
            raise InvalidArgument(f"error parsing mount device url: {error}") from error
        if port is not None:
            raise InvalidArgument("port not allowed in CIFS device URL, include 'port' in 'o='")
    for name, others in _NEEDS.items():
        for other in others:
            if name in options and other not in options:
                raise InvalidArgument(f'missing required option: "{other}"')


def own(record: VolumeRecord) -> bool:
    """Whether a volume is a directory of ours, and not what a plugin or the kernel mounts."""
    return record.driver == LOCAL and read(record.options) is None


def read(options: dict[str, str]) -> Bind | FileSystem | None:
    """What the options of a volume ask for; None for a directory of ours."""
    kind, device = options.get("type", ""), options.get("device", "")
    if not kind and not device:
        return None
    words = [word for word in options.get("o", "").split(",") if word]
    flags, propagation, data = 0, 0, []
    for word in words:
        if word in _PROPAGATION:
            propagation = _PROPAGATION[word]
        elif word in _FLAGS:
            on, off = _FLAGS[word]
            flags = flags & ~off | on
        else:
            data.append(word)
    # What a bind's own words leave is ignored by the kernel; only propagation needs a mount of its own.
    known = {word for word in words if word in _FLAGS or word in _PROPAGATION}
    if flags & _BIND and known <= _BOUND | _IDLE:
        return Bind(device, bool(flags & _REC), tuple(word for word in words if word in _BOUND))
    return FileSystem(kind, device, flags, propagation, ",".join(data))
