"""Where the API is reached: `unix://PATH`, `tcp://NAME:PORT` and `fd://`, each to a socket that listens.

    unix://PATH      mode 0660, root's and its group's (`docker` where there is one, or --group). A socket that nobody
                     listens on any more is replaced, one that somebody does is refused.
    tcp://NAME:PORT  with TLS (api/tls.py); in the clear on loopback only, unless --tls=false says that it is meant.
                     Without a name it is localhost, without a port 2375, with TLS 2376.
    fd://  fd://N    the sockets that systemd passes on (sd_listen_fds(3)), all or one. Mode and group are its unit's.

A socket is made, or refused, before any is served: `listeners` closes what it has made when one of them fails.
"""

from __future__ import annotations

import contextlib
import grp
import ipaddress
import logging
import os
import socket
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knarr.api import tls
from knarr.errors import Conflict, InvalidArgument, Unavailable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from knarr.config import Config

__all__ = ["Listener", "listeners"]

log = logging.getLogger("knarr.daemon")

BACKLOG = 4096  # or what net.core.somaxconn allows
FIRST_PASSED = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)
PORT, TLS_PORT = 2375, 2376  # as registered with IANA for Docker


@dataclass(slots=True)
class Listener:
    """A socket that listens, and how it is spoken to."""

    host: str
    socket: socket.socket
    context: ssl.SSLContext | None = None  # for TLS
    path: str = ""  # that it has made
    made: os.stat_result | None = None  # of that path

    def remove(self) -> None:
        """Remove the path that it has made, unless that has become another's."""
        if self.made is None:
            return
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.lstat(self.path), self.made):
                os.unlink(self.path)
        self.made = None

    def close(self) -> None:
        """Stop listening."""
        self.remove()
        self.socket.close()


def listeners(config: Config) -> list[Listener]:
    """A listener for every host of the settings. Raises InvalidArgument, Conflict, Unavailable, which name the host."""
    found: list[Listener] = []
    try:
        for host in config.addresses:
            found += _listeners(host, config)
    except BaseException:
        for listener in found:
            listener.close()
        raise
    return found


def _listeners(host: str, config: Config) -> Iterator[Listener]:
    scheme, separator, rest = host.partition("://")
    if not separator:
        scheme, rest = "tcp", host
    if scheme == "unix":
        yield _unix(rest, config)
    elif scheme == "tcp":
        yield _tcp(host, rest, config)
    elif scheme == "fd":
        yield from _passed(rest, config)
    else:
        raise InvalidArgument(f"invalid bind address ({host}): unsupported proto '{scheme}'")


# --- unix


def _unix(path: str, config: Config) -> Listener:
    if not path.startswith("/"):
        raise InvalidArgument(f"invalid bind address (unix://{path}): the path must be absolute")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        group = _group(config.group)
        os.makedirs(os.path.dirname(path), 0o711, exist_ok=True)
        _clear(path)
        previous = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(previous)
        os.chown(path, 0, group)
        os.chmod(path, 0o660)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise Unavailable(f"cannot listen on {path}: {error.strerror or error}") from error
    except BaseException:
        listener.close()
        raise
    return Listener(f"unix://{path}", listener, path=path, made=os.lstat(path))


def _group(name: str | None) -> int:
    """The group of a socket's file; None is docker where there is such a group, and root where not."""
    try:
        return grp.getgrnam(name or "docker").gr_gid if name != "" else 0
    except KeyError:
        if name is None:
            log.debug("there is no group docker: the socket is root's alone")
            return 0
    if name.isascii() and name.isdigit():
        return int(name)
    raise InvalidArgument(f"group {name} not found: make it, or name another with --group")


def _clear(path: str) -> None:
    """Remove a socket that nobody listens on."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise Conflict(f"cannot listen on {path}: there is a file that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            os.unlink(path)
            return
    raise Conflict(f"somebody listens on {path} already: give this daemon a socket of its own with --host")


# --- tcp


def _tcp(host: str, rest: str, config: Config) -> Listener:
    name, port = _address(host, rest, TLS_PORT if config.use_tls else PORT)
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise InvalidArgument(f"invalid bind address ({host}): {error.strerror or error}") from error
    family, kind, protocol, _, address = min(found)  # IPv4 before IPv6
    context = _context(host, str(address[0]), config)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # [::] is everything
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise Unavailable(f"cannot listen on {host}: {error.strerror or error}") from error
    return Listener(host, listener, context)


def _address(host: str, rest: str, usual: int) -> tuple[str, int]:
    """The (name, port) of "NAME:PORT", "[::1]:PORT", "NAME", ":PORT" or nothing."""
    if rest.startswith("["):
        name, bracket, port = rest[1:].partition("]")
        good = bool(bracket) and port[:1] in ("", ":")
        port = port[1:]
    else:
        name, _, port = rest.partition(":")
        good = "/" not in rest
    if good and not port:
        return name or "localhost", usual
    if good and port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16:
        return name or "localhost", int(port)
    raise InvalidArgument(f"invalid bind address ({host}): it is tcp://name:port")


def _context(host: str, address: str, config: Config) -> ssl.SSLContext | None:
    """TLS for what is reached over the network; None where it is meant to go in the clear."""
    if config.use_tls:
        if not config.verify_clients:
            log.warning("%s: --tlsverify=false: whoever can connect is root on this machine", host)
        return tls.server_context(config)
    if config.tls is None and not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        raise InvalidArgument(
            f"{host}: without TLS everybody who reaches that address would be root on this machine. Give it "
            "--tlsverify with --tlscacert, --tlscert and --tlskey, or say --tls=false if it is meant"
        )
    log.warning("%s: without TLS whoever can connect, scripts in a browser included, is root on this machine", host)
    return None


# --- fd


def _passed(which: str, config: Config) -> list[Listener]:
    count, text = 0, os.environ.pop("LISTEN_FDS", "")
    pid = os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", "")
    if pid == str(os.getpid()) and text.isascii() and text.isdigit():
        count = int(text)
    if not count:
        raise InvalidArgument(
            f"fd://{which}: no sockets found via socket activation: make sure the service was started by systemd"
        )
    numbers = list(range(FIRST_PASSED, FIRST_PASSED + count))
    if which in ("", "*"):
        wanted = numbers
    elif which.isascii() and which.isdigit() and int(which) in numbers:
        wanted = [int(which)]
    else:
        raise InvalidArgument(f"fd://{which}: systemd passed on {', '.join(map(str, numbers))}, and not that")
    for number in numbers:
        if number not in wanted:
            os.close(number)
    return [_taken(number, config) for number in wanted]


def _taken(number: int, config: Config) -> Listener:
    host = f"fd://{number}"
    try:
        os.set_inheritable(number, False)
        listener = socket.socket(fileno=number)
        listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise InvalidArgument(f"{host}: is no socket: {error.strerror}") from error
    if not listening or listener.type != socket.SOCK_STREAM:
        raise InvalidArgument(f"{host}: must be a socket that listens for streams (ListenStream=)")
    if listener.family == socket.AF_UNIX:
        return Listener(host, listener)
    return Listener(host, listener, _context(host, str(listener.getsockname()[0]), config))
