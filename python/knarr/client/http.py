"""HTTP/1.1 (RFC 9112) as a client of the Engine API needs it, on the bare socket module of the interpreter.

Why not http.client: it imports the email package, and with `socket` and `ssl` costs 15 ms. What is here: requests
with a body in one piece or in chunks, responses by length, in chunks or until the connection ends, connections kept
alive, responses read while they come, and connections handed over after an upgrade ("hijacked").

A Connection carries one request at a time. A Response must be read to its end, or closed, before the next.
"""

import _socket

from knarr.client.codec import loads
from knarr.errors import InvalidArgument, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from knarr.client.tls import Tls, TlsSocket

READ = 1 << 18
MAX_HEAD = 64 << 10
MAX_BODY = 256 << 20  # of a body that is read whole

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def quote(text: str, safe: bytes = b"") -> str:
    """Percent-encode (RFC 3986) all that is not unreserved or called safe."""
    encoded = text.encode("utf-8", "surrogateescape")
    return "".join([chr(byte) if byte in _UNRESERVED or byte in safe else f"%{byte:02X}" for byte in encoded])


def query(parameters: "Mapping[str, str | int | bool | None]") -> str:
    """A query string, led by "?", without what is None, False or empty."""
    pairs = []
    for name, value in parameters.items():
        if value is True:
            pairs.append(f"{name}=1")
        elif value is not None and value is not False and value != "":
            pairs.append(f"{name}={quote(str(value))}")
    return "?" + "&".join(pairs) if pairs else ""


def parse_host(host: str, *, tls: bool = False) -> "str | tuple[str, int]":
    """The path of "unix://PATH", or the (name, port) of "tcp://NAME:PORT"; without a port 2375, or with TLS 2376."""
    scheme, separator, rest = host.partition("://")
    if separator and scheme == "unix" and rest.startswith("/"):
        return rest
    if separator and scheme in ("tcp", "http", "https"):
        rest = rest.removesuffix("/")
        if rest.startswith("["):
            name, _, port = rest[1:].partition("]")
            port = port.removeprefix(":")
        else:
            name, colon, port = rest.partition(":")
            port = port if colon else ""
        if name and "/" not in rest and not port:
            return name, 2376 if tls or scheme == "https" else 2375
        if name and port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16:
            return name, int(port)
    if scheme == "ssh":
        raise InvalidArgument(
            f"invalid host {host!r}: knarr does not speak ssh. Forward the engine's socket with "
            "`ssh -L /tmp/engine.sock:/run/knarr/knarr.sock`, and use unix:///tmp/engine.sock"
        )
    raise InvalidArgument(f"invalid host {host!r}: it is unix:///absolute/path or tcp://name:port")


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


class Connection:
    """One connection to an engine."""

    __slots__ = ("_bodiless", "_buffer", "_tls", "answered", "host", "requests", "socket")

    def __init__(self, host: str, tls: "Tls | None" = None) -> None:
        address = parse_host(host, tls=tls is not None)
        self.host = host
        self.socket: _socket.socket | TlsSocket
        self._tls: TlsSocket | None = None
        self.requests = 0  # sent so far
        self.answered = False  # whether anything of the answer to the last has come
        self._buffer = b""
        self._bodiless = False  # whether the answer to the last is a head alone
        if isinstance(address, str):
            self.socket = self._connect(_socket.AF_UNIX, 0, address)
            return
        try:
            found = _socket.getaddrinfo(*address, 0, _socket.SOCK_STREAM)
        except OSError as error:
            raise Unavailable(f"cannot reach the engine at {host}: {_reason(error)}") from error
        for number, (family, _kind, protocol, _name, target) in enumerate(found, 1):
            try:
                connected = self._connect(family, protocol, target)
            except Unavailable:
                if number == len(found):
                    raise
                continue
            connected.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            self.socket = connected
            if tls is not None:
                self.socket = self._tls = self._secure(tls, connected, address[0])
            return

    def _connect(self, family: int, protocol: int, target: "Any") -> "_socket.socket":
        connected = _socket.socket(family, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC, protocol)
        try:
            connected.connect(target)
        except OSError as error:
            connected.close()
            raise Unavailable(
                f"cannot connect to the engine at {self.host}: {_reason(error)}; is its daemon running?"
            ) from error
        return connected

    def _secure(self, tls: "Tls", connected: "_socket.socket", name: str) -> "TlsSocket":
        try:
            return tls.wrap(connected, name)
        except OSError as error:
            connected.close()
            raise Unavailable(f"no TLS with the engine at {self.host}: {_reason(error)}") from error
        except BaseException:
            connected.close()
            raise

    def close(self) -> None:
        """Close it; what is left unread is lost."""
        self.socket.close()

    def stale(self) -> bool:
        """Whether the idle connection has been closed by the other end (or says what nobody asked)."""
        try:
            self.socket.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def send(
        self,
        method: str,
        target: str,
        body: "bytes | Iterable[bytes] | Callable[[int], None] | None" = None,
        headers: "dict[str, str] | None" = None,
    ) -> None:
        """Send a request. A body of bytes has a length; any other is sent in chunks as it comes.

        A function as a body is given the socket's descriptor, and writes all chunks but the last, which is empty.
        """
        lines = [f"{method} {target} HTTP/1.1", "Host: knarr"]
        if headers:
            lines += [f"{name}: {value}" for name, value in headers.items()]
        self.requests += 1
        self.answered = False
        self._bodiless = method == "HEAD"
        whole = b""
        if isinstance(body, bytes):
            lines.append(f"Content-Length: {len(body)}")
            whole = body
        elif body is not None:
            lines.append("Transfer-Encoding: chunked")
        elif method != "GET":
            lines.append("Content-Length: 0")
        head = "\r\n".join(lines)
        if head.count("\n") != len(lines) - 1:
            raise InvalidArgument("a header or path holds a line break")
        try:
            self.socket.sendall(head.encode() + b"\r\n\r\n" + whole)
            if callable(body):
                self._lend(body)
                self.socket.sendall(b"0\r\n\r\n")
            elif body is not None and not isinstance(body, bytes):
                for piece in body:
                    if piece:
                        self.socket.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.socket.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            return  # it may have answered before it had read all: its answer, or that there is none, says more

    @property
    def encrypted(self) -> bool:
        """Whether what goes over the socket is TLS's, and not HTTP itself."""
        return self._tls is not None

    def _lend(self, body: "Callable[[int], None]") -> None:
        """Let a function write to the socket; where that is TLS's, to a pair of which the other end is read here."""
        if self._tls is None:
            body(self.socket.fileno())
            return
        import threading

        ours, theirs = _socket.socketpair()
        failures: list[BaseException] = []

        def run() -> None:
            try:
                body(theirs.fileno())
            except BaseException as error:  # noqa: BLE001  raised below
                failures.append(error)
            finally:
                theirs.close()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            while data := ours.recv(READ):
                self.socket.sendall(data)
        finally:
            ours.close()
            thread.join()
        if failures:
            raise failures[0]

    def response(self) -> "Response":
        """Wait for the head of the response. Unavailable when the connection ends first."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD:
                raise Unavailable(f"{self.host} does not speak HTTP: its head does not end")
            data = self._receive()
            if not data:
                raise Unavailable(f"the engine at {self.host} closed the connection before it answered")
            self.answered = True
            self._buffer += data
        head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
        first, *lines = head.decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise Unavailable(f"{self.host} does not speak HTTP: {first[:60]!r}")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        status = int(rest[:3])
        if 100 <= status < 200 and status != 101:
            return self.response()
        return Response(self, status, headers, bodiless=self._bodiless)

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(READ)
        except BlockingIOError:
            raise  # whoever made the socket so knows what to do
        except OSError as error:
            raise Unavailable(f"lost the connection to the engine at {self.host}: {_reason(error)}") from error

    @property
    def buffered(self) -> bool:
        """Whether bytes, or the end, have been read that nobody has taken."""
        return bool(self._buffer) or (self._tls is not None and self._tls.pending)

    def take(self) -> bytes:
        """Bytes that were read beyond the response's head, or the next that come; empty at the end."""
        if self._buffer:
            data, self._buffer = self._buffer, b""
            return data
        return self._receive()

    def push_back(self, data: bytes) -> None:
        """Put bytes that were taken too early in front of what comes."""
        self._buffer = data + self._buffer

    def line(self) -> bytes:
        """The next line, without its end."""
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD:
                raise Unavailable(f"the engine at {self.host} sent a line without an end")
            data = self._receive()
            if not data:
                raise Unavailable(f"the engine at {self.host} closed the connection in the middle of an answer")
            self._buffer += data
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line


class Response:
    """The head of a response, and its body as it comes."""

    __slots__ = ("_left", "_mode", "connection", "done", "headers", "on_done", "status")

    def __init__(
        self, connection: Connection, status: int, headers: "dict[str, str]", *, bodiless: bool = False
    ) -> None:
        self.connection = connection
        self.status = status
        self.headers = headers
        self.done = False
        self.on_done: Any = None
        self._left = 0
        if bodiless or status in (101, 204, 304):
            self._mode = "none"
        elif "chunked" in headers.get("transfer-encoding", ""):
            self._mode = "chunked"
        elif "content-length" in headers:
            self._mode = "length"
            self._left = self._length(headers["content-length"], 10)
        else:
            self._mode = "close"

    def _length(self, text: str, base: int) -> int:
        try:
            length = int(text, base)
        except ValueError:
            length = -1
        if length < 0:
            raise Unavailable(f"the engine at {self.connection.host} sent a malformed length: {text[:20]!r}")
        return length

    @property
    def reusable(self) -> bool:
        """Whether the connection may carry another request after this response."""
        return self.done and self._mode != "close" and self.headers.get("connection", "").lower() != "close"

    def piece(self) -> bytes:
        """The next bytes of the body, as soon as there are any; empty at its end."""
        if self.done:
            return b""
        if self._mode == "none" or (self._mode == "length" and not self._left):
            return self._finish()
        if self._mode == "chunked" and not self._left:
            self._left = self._length(self.connection.line().partition(b";")[0].decode("latin-1"), 16)
            if not self._left:
                while self.connection.line():
                    pass
                return self._finish()
        data = self.connection.take()
        if self._mode == "close":
            return data or self._finish()
        if not data:
            raise Unavailable(f"the engine at {self.connection.host} closed the connection in the middle of an answer")
        if len(data) > self._left:
            self.connection.push_back(data[self._left :])
            data = data[: self._left]
        self._left -= len(data)
        if self._mode == "chunked" and not self._left:
            self.connection.line()
        return data

    def _finish(self) -> bytes:
        self.done = True
        if self.on_done is not None:
            self.on_done(self)
        return b""

    def read(self) -> bytes:
        """The rest of the body."""
        pieces = []
        size = 0
        while piece := self.piece():
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BODY:
                raise Unavailable(f"the answer of the engine at {self.connection.host} is larger than {MAX_BODY} bytes")
        return b"".join(pieces)

    def json(self) -> "Any":
        """The body as JSON; None where there is none."""
        body = self.read()
        try:
            return loads(body) if body else None
        except ValueError as error:
            raise Unavailable(f"the engine at {self.connection.host} sent malformed JSON: {error}") from error

    def values(self) -> "Iterator[Any]":
        """JSON values as they come, one a line."""
        rest = b""
        while piece := self.piece():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line.strip():
                    yield loads(line)
        if rest.strip():
            yield loads(rest)

    def close(self) -> None:
        """Give the response up, and its connection with it unless it was read to the end."""
        if not self.done:
            self.done = True
            self.connection.close()
