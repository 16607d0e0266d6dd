"""The multiplexed stream of attach, exec and logs (Engine API, ContainerAttach: "Stream format").

Each frame is one byte of stream (1 stdout, 2 stderr), three zero bytes, four bytes of length (big-endian),
and that many bytes. Frames come cut anywhere; they are handed on as they come, never gathered.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

STDIN, STDOUT, STDERR, SYSTEM_ERROR = 0, 1, 2, 3
_HEADER = 8


class Demultiplexer:
    """Feed it bytes; it yields (stream, bytes) pieces."""

    __slots__ = ("_head", "_left", "_stream")

    def __init__(self) -> None:
        self._head = b""
        self._stream = STDOUT
        self._left = 0

    def feed(self, data: bytes) -> "Iterator[tuple[int, memoryview]]":
        """The pieces of payload in these bytes, in order. ValueError when this is no such stream."""
        view = memoryview(data)
        if self._head:
            missing = _HEADER - len(self._head)
            self._head += data[:missing]
            view = view[missing:]
            if len(self._head) < _HEADER:
                return
            self._open(self._head)
            self._head = b""
        while view:
            if self._left:
                piece = view[: self._left]
                self._left -= len(piece)
                view = view[len(piece) :]
                yield self._stream, piece
            elif len(view) < _HEADER:
                self._head = bytes(view)
                return
            else:
                self._open(view[:_HEADER])
                view = view[_HEADER:]

    def _open(self, header: "bytes | memoryview") -> None:
        if header[0] > SYSTEM_ERROR or header[1] or header[2] or header[3]:
            raise ValueError(f"not a frame of a multiplexed stream: {bytes(header)!r}")
        self._stream = header[0]
        self._left = int.from_bytes(header[4:], "big")
