"""A container or exec in the foreground: bytes between this process's stdio and the engine's stream.

One loop over poll: stdin to the stream, the stream to stdout and stderr, and the answer to the wait beside them.
Stdin is only read when what was read before is sent, so a container that doesn't read slows its writer and nothing
else. Output is written as it comes, in pieces of up to 256 KiB. The end of stdin is half a close.
"""

import os
import select
import time

from knarr.cli import signals
from knarr.cli.terminal import STDERR, STDIN, STDOUT, say, write
from knarr.client.frames import Demultiplexer
from knarr.client.http import Connection
from knarr.errors import KnarrError, NotFound, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client
    from knarr.client.http import Response

_READ = 1 << 16
_RETRY_SECONDS = 10.0
_RETRY_EVERY = 0.2
_END_SECONDS = 1.0  # between the end of the output and word of the container's
ENDED, DETACHED = "ended", "detached"


class Wait:
    """ContainerWait beside a session; survives a daemon that dies and comes back.

    condition: "next-exit" for a container that isn't started yet, "not-running", or "removed".
    """

    def __init__(self, client: "Client", container: str, condition: str) -> None:
        self._client = client
        self._container = container
        self._condition = condition
        self._response: Response | None = None
        self.result: dict[str, Any] | None = None
        self.connection: Connection | None = client.containers.send_wait(container, condition)
        self.lost: float | None = None

    def read(self) -> None:
        """Take in what has come: call it when the connection is readable. It may be lost after."""
        connection = self.connection
        assert connection is not None
        try:
            if self._response is None:
                self._response = self._client.receive(connection)
                if not connection.buffered and not self._response.headers.get("content-length"):
                    return  # the body comes when the container has ended
            self.result = self._response.json()
            self.connection = None
        except Unavailable:
            connection.close()
            self.connection = self._response = None
            self.lost = time.monotonic()

    def retry(self) -> None:
        """Try to ask again, of the daemon that follows the one which was lost. Unavailable when none comes."""
        if self.lost is None:
            return
        since = self.lost
        if self._condition == "next-exit":
            self._condition = "not-running"
        try:
            Connection(self._client.host, self._client.tls).close()  # does one listen? a new one is not for us to start
            self.connection = self._client.containers.send_wait(self._container, self._condition)
            self.lost = None
        except Unavailable as error:
            if time.monotonic() - since > _RETRY_SECONDS:
                raise Unavailable(
                    f"lost the daemon at {self._client.host} while container {self._container[:12]} ran, "
                    "and no other came; the container may be running still"
                ) from error

    def _tell_cut_off(self) -> None:
        try:
            running = self._client.containers.inspect(self._container)["State"]["Running"]
        except KnarrError:
            return  # it is being removed, or the daemon is away: the wait tells
        if running:
            say(
                f"knarr: the output of container {self._container[:12]} was cut off, and it runs on: "
                "`knarr logs` has what it writes"
            )

    @staticmethod
    def _readable(connection: Connection, seconds: "float | None" = None) -> bool:
        """Wait until something has come, or a signal, or for so long."""
        poll = select.poll()
        poll.register(connection.socket.fileno(), select.POLLIN)
        poll.register(signals.waking(), select.POLLIN)
        come = {descriptor for descriptor, _ in poll.poll(None if seconds is None else seconds * 1000)}
        if signals.waking() in come:
            signals.heard()
        return connection.socket.fileno() in come

    def settle(self, seconds: float) -> None:
        """Wait so long for the answer, whatever it is."""
        try:
            self._wait(seconds)
        except KnarrError:
            return  # it has been removed already

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self.connection is not None and (left := end - time.monotonic()) > 0:
            if self.connection.buffered or self._readable(self.connection, left):
                self.read()

    def code(self) -> int:
        """Wait for the end, and its exit code. An output that has ended before is told of."""
        try:
            self._wait(_END_SECONDS)
            if self.connection is not None:
                self._tell_cut_off()
            while self.result is None:
                if self.connection is not None:
                    if self.connection.buffered or self._readable(self.connection):
                        self.read()
                else:
                    self.retry()
                    if self.connection is None:
                        time.sleep(_RETRY_EVERY)
        except NotFound as error:
            raise Unavailable(
                f"container {self._container[:12]} was removed while the daemon was away: its exit code is not known"
            ) from error
        failure = self.result.get("Error")
        if failure and failure.get("Message"):
            raise Unavailable(f"waiting for container {self._container[:12]}: {failure['Message']}")
        return int(self.result["StatusCode"])


class DetachKeys:
    """Finds the detach sequence in what is typed; a part of it is held back until it is certain."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._seen = 0

    def feed(self, data: bytes) -> "tuple[bytes, bool]":
        """(what to send, whether to detach)."""
        if not self._keys:
            return data, False
        out = bytearray()
        for byte in data:
            if byte == self._keys[self._seen]:
                self._seen += 1
                if self._seen == len(self._keys):
                    return bytes(out), True
                continue
            out += self._keys[: self._seen]
            self._seen = 0
            if byte == self._keys[0]:
                self._seen = 1
            else:
                out.append(byte)
        return bytes(out), False


class Session:
    """The stream of one attach or exec."""

    def __init__(
        self,
        stream: Connection,
        *,
        tty: bool,
        stdin: bool,
        output: bool = True,
        detach_keys: bytes = b"",
        wait: "Wait | None" = None,
    ) -> None:
        self._stream = stream
        self._demultiplex = None if tty else Demultiplexer()
        self._detach = DetachKeys(detach_keys if tty else b"")
        self._output = output
        self._wait = wait
        self._stdin = stdin
        self._pending = memoryview(b"")
        self._poll = select.poll()
        self._polled: dict[int, int] = {}

    def run(self) -> str:
        """Until the stream ends (ENDED) or the detach keys were typed (DETACHED)."""
        stream = self._stream.socket
        stream.setblocking(False)
        if self._stream.buffered and not self._receive():
            return ENDED
        wake = signals.waking()
        self._register(wake, select.POLLIN)
        while True:
            self._register(stream.fileno(), select.POLLIN | (select.POLLOUT if self._pending else 0))
            self._register(STDIN, select.POLLIN if self._stdin and not self._pending else 0)
            lost = self._wait is not None and self._wait.lost is not None
            waiting = self._wait.connection if self._wait else None
            if waiting is not None:
                self._register(waiting.socket.fileno(), select.POLLIN)
            for descriptor, event in self._poll.poll(_RETRY_EVERY * 1000 if lost else None):
                if descriptor == stream.fileno():
                    if event & select.POLLOUT:
                        self._send()
                    if event & ~select.POLLOUT and not self._receive():
                        return ENDED
                elif waiting is not None and descriptor == waiting.socket.fileno():
                    self._read_wait(descriptor)
                elif descriptor == wake:
                    signals.heard()
                elif descriptor == STDIN and self._type():
                    return DETACHED
            if lost and self._wait is not None:
                self._wait.retry()
            if not self._output and self._wait is not None and self._wait.result is not None:
                return ENDED

    def _register(self, descriptor: int, events: int) -> None:
        if self._polled.get(descriptor, 0) == events:
            return
        self._polled[descriptor] = events
        if events:
            self._poll.register(descriptor, events)
        else:
            self._poll.unregister(descriptor)

    def _read_wait(self, descriptor: int) -> None:
        wait = self._wait
        assert wait is not None
        wait.read()
        if wait.connection is None:
            self._register(descriptor, 0)

    def _receive(self) -> bool:
        """Show what the stream brings; False at its end."""
        while True:
            try:
                data = self._stream.take()
            except BlockingIOError:
                return True
            if not data:
                return False
            self._show(data)
            if not self._stream.buffered:
                return True

    def _show(self, data: bytes) -> None:
        if not self._output:
            return
        if self._demultiplex is None:
            write(STDOUT, data)
            return
        try:
            for stream, piece in self._demultiplex.feed(data):
                write(STDERR if stream >= STDERR else STDOUT, piece)
        except ValueError as error:
            raise Unavailable(f"the engine's stream is malformed: {error}") from error

    def _type(self) -> bool:
        """Read stdin and send it; True when it held the detach keys."""
        try:
            data = os.read(STDIN, _READ)
        except OSError:
            data = b""  # closed, or a terminal that is gone: the end of it
        if not data:
            self._stdin = False
            self._half_close()
            return False
        data, detach = self._detach.feed(data)
        self._pending = memoryview(data)
        self._send()
        return detach

    def _send(self) -> None:
        try:
            while self._pending:
                self._pending = self._pending[self._stream.socket.send(self._pending) :]
        except BlockingIOError:
            return
        except OSError:
            self._pending = memoryview(b"")  # nobody reads any more; what was said is still to be shown
            self._stdin = False

    def _half_close(self) -> None:
        import _socket

        try:
            self._stream.socket.shutdown(_socket.SHUT_WR)
        except OSError:
            return  # the other end has closed already


def detach_keys(text: "str | None") -> bytes:
    r"""The bytes of "ctrl-p,ctrl-q": single characters, or ctrl- with one of a-z @ [ \ ] ^ _, between commas."""
    from knarr.errors import InvalidArgument

    result = bytearray()
    for key in (text or "ctrl-p,ctrl-q").split(","):
        if len(key) == 1 and key.isascii():
            result.append(ord(key))
        elif key.startswith("ctrl-") and len(key) == 6 and "@" <= key[5].upper() <= "_":
            result.append(ord(key[5].upper()) - 64)
        else:
            raise InvalidArgument(f"invalid detach keys ({text}): {key!r} is neither a character nor ctrl- and one")
    return bytes(result)


def follow_size(resize: "Any", raw: "Any") -> None:
    """Tell the engine the terminal's size now, and whenever it changes."""
    from knarr.cli import terminal

    def tell() -> None:
        size = terminal.size()
        if size is not None:
            try:
                resize(*size)
            except KnarrError:
                return  # it has ended, or starts only now and has its size from its creation

    tell()
    signals.on_resize(tell, raw.enter)
