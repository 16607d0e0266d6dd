"""What a copy on a terminal shows while it lasts: how much has gone, in a line that is drawn over and wiped at the end.

The bytes go between sockets and files in Rust, which tells nobody of them before the end. The kernel does: it counts
what this process reads from files and writes to them (/proc/self/io; what goes through sockets is not in there).
"""

import _thread

from knarr.cli import human, terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Self

IN, OUT = "rchar", "wchar"  # copies into a container read files, those out of one write them
_FIRST, _EVERY = 0.3, 0.2  # seconds: most copies have ended before there is anything to show
_WORDS = {IN: "Copying to container - ", OUT: "Copying from container - "}
_WIPE = b"\r\x1b[2K"


class CopyProgress:
    """Shows the progress for as long as the block lasts, on stderr, where that is a terminal."""

    def __init__(self, direction: str, *, quiet: bool) -> None:
        self._direction = direction
        self._wanted = not quiet and terminal.is_terminal(terminal.STDERR)
        self._end = _thread.allocate_lock()
        self._ended = _thread.allocate_lock()

    def __enter__(self) -> "Self":
        if self._wanted:
            self._before = self._count()
            self._end.acquire()
            self._ended.acquire()
            _thread.start_new_thread(self._run, ())
        return self

    def __exit__(self, *_: object) -> None:
        if self._wanted:
            self._end.release()
            self._ended.acquire()

    def _run(self) -> None:
        drawn, wait = False, _FIRST
        try:
            while not self._end.acquire(timeout=wait):
                done = human.size(max(0, self._count() - self._before), 3)
                terminal.write(terminal.STDERR, _WIPE + f"{_WORDS[self._direction]}{done}".encode())
                drawn, wait = True, _EVERY
            if drawn:
                terminal.write(terminal.STDERR, _WIPE)
        except OSError:
            return  # the terminal has gone: the copy goes on
        finally:
            self._ended.release()

    def _count(self) -> int:
        """Bytes so far; 0 where the kernel does not count."""
        try:
            with open("/proc/self/io", "rb") as file:
                lines = file.read().split()
            return int(lines[lines.index(f"{self._direction}:".encode()) + 1])
        except (OSError, ValueError):
            return 0
