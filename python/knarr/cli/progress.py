"""The progress of a pull or a load: a line with a bar for each layer on a terminal, plain lines otherwise.

Entries are the API's: {"id", "status", "progressDetail": {"current", "total"}} of a layer, {"status"} or {"stream"}
of the whole. On a terminal a layer's line is drawn over when it has news, at most 20 times a second.
"""

import os
import time

from knarr.cli import human, terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Self

_EVERY = 0.05
_BAR = 30
_DONE = ("Pull complete", "Already exists", "Download complete", "Pushed", "Layer already exists")


class Progress:
    """Shows entries as they come; use it as a context, so that the last state is drawn."""

    def __init__(self, descriptor: int, *, quiet: bool = False) -> None:
        self._descriptor = descriptor
        self._quiet = quiet
        self._terminal = terminal.is_terminal(descriptor)
        self._lines: dict[str, str] = {}
        self._drawn = 0
        self._last = 0.0
        self._dirty = False

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        if self._dirty:
            self._draw()

    def show(self, entry: "dict[str, Any]") -> None:
        """Take one entry in."""
        if self._quiet:
            return
        status = str(entry.get("status") or entry.get("stream") or "").rstrip("\n")
        layer = entry.get("id")
        if not status:
            return
        if not layer:
            self._say(status)
            return
        detail = entry.get("progressDetail") or {}
        text = f"{layer}: {status}"
        if not self._terminal:
            if not detail.get("current") and self._lines.get(layer) != text:  # what only counts up is for terminals
                self._lines[layer] = text
                self._say(text)
            return
        bar = _bar(detail.get("current") or 0, detail.get("total") or 0)
        self._lines[layer] = f"{text} {bar}" if bar else text
        self._dirty = True
        if time.monotonic() - self._last >= _EVERY:
            self._draw()

    def _say(self, text: str) -> None:
        if self._dirty:
            self._draw()
        terminal.write(self._descriptor, f"{text}\n".encode())
        self._lines.clear()
        self._drawn = 0

    def _draw(self) -> None:
        columns, rows = self._size()
        lines = list(self._lines.values())
        if len(lines) >= rows:  # what has scrolled away cannot be drawn over: show what is still going on
            lines = [line for line in lines if not line.endswith(_DONE)][: rows - 1]
        out = f"\x1b[{self._drawn}A\x1b[J" if self._drawn else ""
        for line in lines:
            out += f"{human.shorten(line, columns - 1)}\x1b[K\n"
        terminal.write(self._descriptor, out.encode())
        self._drawn = len(lines)
        self._last = time.monotonic()
        self._dirty = False

    def _size(self) -> "tuple[int, int]":
        try:
            found = os.get_terminal_size(self._descriptor)
        except OSError:
            return 80, 24
        return found.columns or 80, found.lines or 24


def _bar(current: int, total: int) -> str:
    if not current:
        return ""
    if not total:
        return human.size(current, 3)
    done = min(_BAR, current * _BAR // total)
    counts = f"{human.size(current, 3)}/{human.size(total, 3)}"
    return f"[{'=' * done}{'>' if done < _BAR else ''}{' ' * (_BAR - 1 - done)}] {counts}"
