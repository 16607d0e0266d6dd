"""Signals by name and number, as `kill`, `stop` and `StopSignal` take them."""

from __future__ import annotations

import signal

from knarr.errors import InvalidArgument

__all__ = ["number"]

_NAMES = {item.name.removeprefix("SIG"): item.value for item in signal.Signals} | {
    "RTMIN": 34,
    "RTMAX": 64,
    "CLD": 17,
    "IOT": 6,
    "POLL": 29,
    "UNUSED": 31,
    **{f"RTMIN+{offset}": 34 + offset for offset in range(1, 16)},
    **{f"RTMAX-{offset}": 64 - offset for offset in range(1, 15)},
}


def number(text: str) -> int:
    """The number of `15`, `TERM`, `sigterm`, `SIGRTMIN+3`. Raises InvalidArgument in Docker's words."""
    if text.isascii() and text.isdigit():
        value = int(text)
        if 1 <= value <= 64:
            return value
    else:
        found = _NAMES.get(text.upper().removeprefix("SIG"))
        if found is not None:
            return found
    raise InvalidArgument(f"invalid signal: {text}")
