"""TLS before the API: certificates, and the relay between a client's encrypted stream and a plain one.

A connection over TLS has no socket that the supervisor could be handed, and asyncio's own TLS ends both directions when
a client ends its own, which attach may not (a half-close is how a program's input ends). So TLS is a thing in front: a
Relay speaks it with the client, and connects to the API through a pair of sockets, as a client on this machine would.
All that the API does with connections works the same on both.

Bytes on their way are bounded by asyncio's own marks: each side stops reading while the other has not been sent what
was read. Each end of a direction (close_notify in RFC 8446, section 6.1; the end of the stream on the pair) is passed
on by itself, and the connection is closed after both.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from typing import TYPE_CHECKING

from knarr.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

    from knarr.api.connections import Connections
    from knarr.config import Config

__all__ = ["Relay", "server_context"]

log = logging.getLogger("knarr.api")

HANDSHAKE_SECONDS = 15.0
LINGER_SECONDS = 10.0  # for a client to close, once it has been told that nothing more comes
READ = 256 * 1024
DESCRIPTORS = 2  # of a connection, beside the one that the API counts itself


def server_context(config: Config) -> ssl.SSLContext:
    """TLS 1.2 or newer with the certificates of the settings. Raises InvalidArgument that names the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    certificate, key = config.tls_file("tlscert", "cert.pem"), config.tls_file("tlskey", "key.pem")
    _readable("certificate", certificate, "--tlscert")
    _readable("key", key, "--tlskey")
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"could not load X509 key pair (cert: {certificate}, key: {key}): {error}") from error
    if config.verify_clients:
        authority = config.tls_file("tlscacert", "ca.pem")
        _readable("CA certificate", authority, "--tlscacert")
        try:
            context.load_verify_locations(authority)
        except (OSError, ValueError) as error:
            raise InvalidArgument(f"could not read CA certificate {authority}: {error}") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _readable(what: str, path: str, flag: str) -> None:
    try:
        with open(path, "rb"):
            return
    except OSError as error:
        raise InvalidArgument(f"could not read the {what} {path} ({flag}): {os.strerror(error.errno or 0)}") from error


def _no_password() -> str:
    raise ValueError("the key is encrypted, which is not supported: store it decrypted and readable by root alone")


class Relay(asyncio.Protocol):
    """The client's side of one connection over TLS. `plain` makes the protocol that serves the plain side."""

    def __init__(
        self, context: ssl.SSLContext, plain: Callable[[], asyncio.Protocol], connections: Connections
    ) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._make = plain
        self._connections = connections
        self._counted = False
        self._client: asyncio.Transport
        self._plain: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None  # of the handshake, and of the end
        self._heard_end = self._told_end = False  # of the client, and to it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._client = transport
        self._counted = self._connections.take(DESCRIPTORS)
        if not self._counted:
            transport.abort()
            return
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._deadline = asyncio.get_running_loop().call_later(HANDSHAKE_SECONDS, transport.abort)

    def connection_lost(self, _: Exception | None) -> None:
        self._settle()
        if self._counted:
            self._connections.give(DESCRIPTORS)
        if self._connecting is not None:
            self._connecting.cancel()
        if self._plain is not None:
            self._plain.close()

    def pause_writing(self) -> None:
        if self._plain is not None:
            self._plain.pause_reading()

    def resume_writing(self) -> None:
        if self._plain is not None and not self._plain.is_closing():
            self._plain.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        try:
            if self._connecting is None:
                self._shake_hands()
            elif self._plain is not None:
                self._decrypt()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._fail(error)

    def eof_received(self) -> None:
        """The client's connection has ended without TLS's word for it: it is gone."""

    def _shake_hands(self) -> None:
        self._tls.do_handshake()
        self._flush()
        self._settle()
        self._client.pause_reading()
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def _settle(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            self._fail(error)
            return
        await loop.connect_accepted_socket(self._make, theirs)
        self._plain, _ = await loop.connect_accepted_socket(lambda: _Plain(self), ours)
        self._client.resume_reading()
        self.data_received(b"")  # what came with the handshake's last packet

    def _decrypt(self) -> None:
        assert self._plain is not None
        while not self._heard_end:
            try:
                data = self._tls.read(READ)  # raises SSLWantReadError when there is no more
            except ssl.SSLZeroReturnError:
                data = b""
            if data:
                self._plain.write(data)
            else:
                self._heard_end = True
                self._plain.write_eof()
        self._end_if_both()

    # --- what the plain side calls

    def send(self, data: bytes) -> None:
        """Encrypt and send."""
        if not self._told_end:
            self._tls.write(data)
            self._flush()

    def end(self) -> None:
        """Tell the client that nothing more comes; it may go on sending."""
        if self._told_end:
            return
        self._told_end = True
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            log.debug("told %s the end", self._client)
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._flush()
        self._deadline = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._client.abort)
        self._end_if_both()

    def gone(self) -> None:
        """The plain side has been closed."""
        self.end()
        self._client.close()

    def hold(self, *, back: bool) -> None:
        """Stop reading from the client, or go on."""
        if back:
            self._client.pause_reading()
        else:
            self._client.resume_reading()

    def _fail(self, error: Exception) -> None:
        log.info("TLS with %s: %s", self._client.get_extra_info("peername"), error)
        self._flush()  # the alert that tells the client
        self._client.close()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and not self._client.is_closing():
            self._client.write(data)

    def _end_if_both(self) -> None:
        if self._heard_end and self._told_end:
            self._client.close()


class _Plain(asyncio.Protocol):
    """Our end of the pair."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def connection_lost(self, _: Exception | None) -> None:
        self._relay.gone()

    def data_received(self, data: bytes) -> None:
        self._relay.send(data)

    def eof_received(self) -> bool:
        self._relay.end()
        return True  # the client may still have something to say

    def pause_writing(self) -> None:
        self._relay.hold(back=True)

    def resume_writing(self) -> None:
        self._relay.hold(back=False)
