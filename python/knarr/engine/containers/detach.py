"""Detach keys: from `ctrl-p,ctrl-q` to the bytes that a terminal sends."""

from __future__ import annotations

from knarr.errors import InvalidArgument

__all__ = ["DEFAULT", "parse"]

DEFAULT = "ctrl-p,ctrl-q"
_SPECIAL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse(text: str) -> list[int]:
    """The byte values of a comma-separated sequence. Raises InvalidArgument."""
    found = []
    for key in text.split(","):
        if len(key) == 1 and key.isascii():
            found.append(ord(key))
        elif key.startswith("ctrl-") and len(key) == 6 and (key[5].isalpha() and key[5].isascii()):
            found.append(ord(key[5].lower()) - ord("a") + 1)
        elif key.startswith("ctrl-") and key[5:] in _SPECIAL:
            found.append(_SPECIAL[key[5:]])
        else:
            raise InvalidArgument(f"Invalid detach keys ({text}) provided: Unknown character: '{key}'")
    return found
