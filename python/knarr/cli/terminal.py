"""The terminal that a command was typed into: its size, and raw mode that is always given back."""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Self

STDIN, STDOUT, STDERR = 0, 1, 2


def is_terminal(descriptor: int) -> bool:
    """Whether a descriptor is a terminal; a closed one is none."""
    return os.isatty(descriptor)


def size() -> "tuple[int, int] | None":
    """(rows, columns) of the terminal on stdout or stdin; None without one."""
    for descriptor in (STDOUT, STDIN):
        try:
            columns, rows = os.get_terminal_size(descriptor)
        except OSError:
            continue
        if rows and columns:
            return rows, columns
    return None


def write(descriptor: int, data: "bytes | memoryview") -> None:
    """Write all of it. BrokenPipeError when nobody reads."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def say(text: str) -> None:
    """A line on stderr; on one that is closed there is nobody to tell."""
    try:
        write(STDERR, os.fsencode(text + "\n"))
    except OSError:
        return


def show(text: str) -> None:
    """A line on stdout."""
    sys.stdout.write(text + "\n")


class Raw:
    """Raw mode (as cfmakeraw) on stdin for as long as the block lasts, where stdin is a terminal."""

    def __init__(self, *, wanted: bool = True) -> None:
        self._saved: list[Any] | None = None
        self._wanted = wanted and is_terminal(STDIN)

    def __enter__(self) -> "Self":
        self.enter()
        return self

    def enter(self) -> None:
        """Switch it on; once more after something else changed the terminal."""
        if not self._wanted:
            return
        import termios as t

        if self._saved is None:
            self._saved = t.tcgetattr(STDIN)
        mode = t.tcgetattr(STDIN)
        mode[0] &= ~(t.IGNBRK | t.BRKINT | t.PARMRK | t.ISTRIP | t.INLCR | t.IGNCR | t.ICRNL | t.IXON)
        mode[1] &= ~t.OPOST
        mode[2] = mode[2] & ~(t.CSIZE | t.PARENB) | t.CS8
        mode[3] &= ~(t.ECHO | t.ECHONL | t.ICANON | t.ISIG | t.IEXTEN)
        mode[6][t.VMIN], mode[6][t.VTIME] = 1, 0
        t.tcsetattr(STDIN, t.TCSANOW, mode)

    def __exit__(self, *_: object) -> None:
        if self._saved is None:
            return
        import termios as t

        try:
            t.tcsetattr(STDIN, t.TCSADRAIN, self._saved)
        except t.error:
            return  # the terminal is gone, and its modes with it
        finally:
            self._saved = None
