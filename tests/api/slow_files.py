"""A file system that answers when it is told to: FUSE, spoken by hand (linux/fuse.h).

It has one directory, `here`, and nothing in it.
"""

import contextlib
import ctypes
import os
import stat
import struct
import threading
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_DETACH = 2
_LOOKUP, _GETATTR, _STATFS, _INIT = 1, 3, 17, 26
_FORGET = {2, 42}
_ENOENT, _ENOSYS = 2, 38


class SlowFiles:
    """Mounted at a directory until it is closed; `go` lets it answer."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.go = threading.Event()
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        place.mkdir(parents=True, exist_ok=True)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other"
        if _LIBC.mount(b"slow", os.fsencode(place), b"fuse", 0, options.encode()):
            raise OSError(ctypes.get_errno(), "mount of fuse")
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # it has been closed
            while True:
                request = os.read(self._device, 1 << 17)
                _, opcode, unique, node = struct.unpack_from("<IIQQ", request)
                self.go.wait()
                if opcode not in _FORGET:
                    error, body = self._answer(opcode, node, request[40:])
                    os.write(self._device, struct.pack("<IiQ", 16 + len(body), -error, unique) + body)

    def _answer(self, opcode: int, node: int, body: bytes) -> tuple[int, bytes]:
        if opcode == _INIT:
            return 0, struct.pack("<IIIIHHIIHH", 7, 31, 0, 0, 16, 12, 4096, 1, 0, 0) + bytes(32)
        if opcode == _LOOKUP:
            return (
                (0, struct.pack("<QQQQII", 2, 0, 60, 60, 0, 0) + _attributes(2))
                if body == b"here\0"
                else (_ENOENT, b"")
            )
        if opcode == _GETATTR:
            return 0, struct.pack("<QII", 60, 0, 0) + _attributes(node)
        if opcode == _STATFS:
            return 0, bytes(80)
        return _ENOSYS, b""

    def close(self) -> None:
        self.go.set()
        _LIBC.umount2(os.fsencode(self.place), _DETACH)
        os.close(self._device)


def _attributes(node: int) -> bytes:
    return struct.pack("<QQQQQQIIIIIIIIII", node, 0, 0, 0, 0, 0, 0, 0, 0, stat.S_IFDIR | 0o755, 2, 0, 0, 0, 4096, 0)
