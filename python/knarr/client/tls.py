"""TLS between Connection and its socket; imported where TLS is used, as `ssl` takes milliseconds.

Not ssl.SSLSocket, because of what attach needs of a connection: to end one direction and go on in the other (its
`unwrap` waits for both), and to be polled, with nothing left behind in a buffer that poll does not see.
"""

import _socket
import os
import ssl

from knarr.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

READ = 1 << 16
RECORD = 1 << 14  # bytes of one record of TLS, at most


class Tls:
    """How to speak TLS to an engine. The files are PEM; by default ca.pem, cert.pem and key.pem in $KNARR_CERT_PATH, or
    ~/.docker.

    verify: whether the engine must have a certificate for its name, signed by `ca`. Without `cert` and `key` (none are
    named, and the usual files are not there) the client has no certificate to show.
    """

    def __init__(self, *, verify: bool = True, ca: str = "", cert: str = "", key: str = "") -> None:
        directory = os.environ.get("KNARR_CERT_PATH") or os.path.expanduser("~/.docker")
        self.verify = verify
        self.ca = ca or os.path.join(directory, "ca.pem")
        self.cert = cert or _existing(directory, "cert.pem")
        self.key = key or _existing(directory, "key.pem")

    def wrap(self, sock: "_socket.socket", name: str) -> "TlsSocket":
        """Speak TLS on a connected socket. Raises InvalidArgument for files, OSError where the other end will not."""
        return TlsSocket(sock, self._context(), name)

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.verify:
            _load("CA certificate", self.ca, context.load_verify_locations, self.ca)
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.cert or self.key:
            what = f"key pair (cert: {self.cert or 'none'}, key: {self.key or 'none'})"
            _load(what, self.cert, context.load_cert_chain, self.cert, self.key or None, _no_password)
        return context


def _existing(directory: str, name: str) -> str:
    path = os.path.join(directory, name)
    return path if os.path.exists(path) else ""


def _load(what: str, path: str, load: "Any", *arguments: "Any") -> None:
    try:
        load(*arguments)
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, FileNotFoundError) and error.errno else error
        raise InvalidArgument(f"could not load the {what} {path}: {reason}") from error


def _no_password() -> str:
    raise ValueError("the key is encrypted, which is not supported")


class TlsSocket:
    """What Connection asks of a socket, with TLS between. Where the socket does not block, nor does this."""

    def __init__(self, sock: "_socket.socket", context: ssl.SSLContext, name: str) -> None:
        self._socket = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._ready = b""  # decrypted, and not taken yet
        self._ended = False  # by the other end
        self._unsent = b""  # encrypted
        self._accepted = 0  # bytes of the caller's that are in there, and not told of
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._feed(0)
            else:
                break
        self._flush()

    @property
    def pending(self) -> bool:
        """Whether recv has something, or the end, without the socket."""
        return bool(self._ready) or self._ended

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._socket.fileno()

    def setblocking(self, on: bool) -> None:
        """As of a socket."""
        self._socket.setblocking(on)

    def close(self) -> None:
        """As of a socket: what is not sent or read is lost."""
        self._socket.close()

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As of a socket; of the flags, it takes MSG_DONTWAIT."""
        while not self._ready and not self._ended:
            self._decrypt()
            if not self._ready and not self._ended:
                self._feed(flags & _socket.MSG_DONTWAIT)
        data, self._ready = self._ready[:size], self._ready[size:]
        return data

    def send(self, data: "bytes | memoryview") -> int:
        """As of a socket. After BlockingIOError, call it again with the same data."""
        if not self._accepted:
            self._accepted = self._tls.write(data[:RECORD])
        self._flush()
        sent, self._accepted = self._accepted, 0
        return sent

    def sendall(self, data: bytes) -> None:
        """As of a socket that blocks."""
        rest = memoryview(data)
        while rest:
            rest = rest[self.send(rest) :]

    def shutdown(self, _how: int) -> None:
        """End our direction (RFC 8446, section 6.1); the other may go on."""
        self._decrypt()  # OpenSSL looks for the other end's word at once, and must not find anything else
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            self._ended = False
        blocking = self._socket.gettimeout() is None
        self._socket.setblocking(True)  # a few bytes, that nothing would send later
        self._flush()
        self._socket.setblocking(blocking)

    def _decrypt(self) -> None:
        """Decrypt all that has come, so that poll tells of everything else."""
        pieces = [self._ready]
        while not self._ended:
            try:
                piece = self._tls.read(READ)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                piece = b""
            self._ended = not piece
            pieces.append(piece)
        self._ready = b"".join(pieces)

    def _feed(self, flags: int) -> None:
        data = self._socket.recv(READ, flags)
        if not data:
            raise ConnectionResetError(104, "the other end has closed it without a word of TLS")
        self._incoming.write(data)

    def _flush(self) -> None:
        self._unsent += self._outgoing.read()
        while self._unsent:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
