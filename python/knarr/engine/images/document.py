"""JSON from outside, read within limits: size, depth, number of values, text that is text.

What passes can be walked recursively, written back as UTF-8 JSON and kept in memory without surprise.
"""

from __future__ import annotations

import json
from typing import Any

from knarr.errors import Corrupt

MAX_DEPTH = 64
MAX_VALUES = 250_000
MAX_NUMBER = 32  # characters; Python's own integers have no limit worth the name


def decode(data: bytes, what: str, limit: int) -> dict[str, Any]:
    """The object in a JSON document of at most `limit` bytes. Corrupt, naming `what` and the cause."""
    if len(data) > limit:
        raise Corrupt(f"{what} has {len(data)} bytes: more than {limit} are refused")
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_VALUES:
        raise Corrupt(f"{what} holds more than {MAX_VALUES} values")
    try:
        value = json.loads(data.decode("utf-8"), parse_int=_integer, parse_float=_float, parse_constant=_constant)
    except RecursionError:
        raise Corrupt(f"{what} is nested too deeply") from None
    except ValueError as error:
        raise Corrupt(f"{what} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise Corrupt(f"{what} is not a JSON object")
    _check(value, what)
    return value


def _integer(text: str) -> int:
    if len(text) > MAX_NUMBER:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _float(text: str) -> float:
    value = float(text[: MAX_NUMBER * 8])
    if value in {float("inf"), float("-inf")}:
        raise ValueError("a number out of range")
    return value


def _constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _check(root: dict[str, Any], what: str) -> None:
    """Depth, and that every string can be written as UTF-8 again; without recursion."""
    level: list[Any] = [root]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below.extend(value)
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
            elif isinstance(value, str) and not value.isascii():
                try:
                    value.encode()
                except UnicodeEncodeError:
                    raise Corrupt(f"{what} holds text that is not Unicode: {value[:40]!a}") from None
        if not below:
            return
        level = below
    raise Corrupt(f"{what} is nested more than {MAX_DEPTH} levels deep")
