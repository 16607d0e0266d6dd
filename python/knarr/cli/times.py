"""Times as --since and --until take them."""

import time

from knarr.cli import human, values
from knarr.errors import InvalidArgument


def timestamp(text: str) -> str:
    """Seconds since the epoch, as the API takes them, of "42m", "2026-01-02[T13:23:37[.5][Z]]" or "1767360217"."""
    digits = text.replace(".", "", 1)
    if digits.isdigit() and digits.isascii():
        return text
    try:
        return _exact(time.time_ns() - values.duration(text.lstrip("-")))
    except InvalidArgument:
        pass  # not so long ago, but a time
    day, separator, clock = text.partition("T")
    try:
        if separator and (clock.endswith("Z") or clock[-6:-5] in ("+", "-")):
            return _with_offset(day, clock)
        return _local(day, clock)
    except (ValueError, OverflowError):
        raise InvalidArgument(
            f"invalid time {text!r}: it is like 2026-01-02T13:23:37Z, or so long ago as 1h30m"
        ) from None


def _with_offset(day: str, clock: str) -> str:
    """Of a time with an offset. Its fraction stays as it is: a float has no room for nanoseconds."""
    offset = "Z" if clock.endswith("Z") else clock[-6:]
    whole, _, fraction = clock.removesuffix(offset).partition(".")
    if fraction and not (fraction.isascii() and fraction.isdigit()):
        raise ValueError(clock)
    seconds = int(human.parse_time(f"{day}T{whole}{offset}"))
    return f"{seconds}.{fraction}" if fraction else str(seconds)


def _local(day: str, clock: str) -> str:
    """Of a time without an offset: it is of this place."""
    whole, _, fraction = clock.partition(".")
    year, month, date = (int(part) for part in day.split("-"))
    parts = [int(part) for part in whole.split(":") if part]
    hour, minute, second = parts + [0] * (3 - len(parts))
    if not (1 <= month <= 12 and 1 <= date <= 31 and hour < 24 and minute < 60 and second <= 60):
        raise ValueError(day)
    seconds = int(time.mktime((year, month, date, hour, minute, second, 0, 0, -1)))
    return f"{seconds}.{fraction}" if fraction else str(seconds)


def _exact(nanoseconds: int) -> str:
    return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}"
