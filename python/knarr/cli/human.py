"""Sizes, durations and times as people read them (Docker's units package: the same words and digits)."""

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size(count: float, digits: int = 4) -> str:
    """Decimal units and so many significant digits: "1.5kB", "182MB"."""
    unit = 0
    while count >= 1000 and unit < len(_DECIMAL) - 1:
        count /= 1000
        unit += 1
    return f"{significant(count, digits)}{_DECIMAL[unit]}"


def binary(count: float) -> str:
    """Binary units and four digits: "15.55GiB"."""
    unit = 0
    while count >= 1024 and unit < len(_BINARY) - 1:
        count /= 1024
        unit += 1
    return f"{significant(count, 4)}{_BINARY[unit]}"


def significant(number: float, digits: int) -> str:
    """As C's %.*g."""
    return f"{number:.{digits}g}"


def duration(seconds: float) -> str:
    """Such as "5 seconds", "About a minute", "3 weeks"."""
    whole = int(seconds)
    hours = int(seconds / 3600 + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    if whole < 120:
        return "About a minute"
    if whole < 3600:
        return f"{whole // 60} minutes"
    if hours == 1:
        return "About an hour"
    for limit, length, unit in (
        (48, 1, "hours"),
        (24 * 14, 24, "days"),
        (24 * 60, 24 * 7, "weeks"),
        (24 * 365 * 2, 24 * 30, "months"),
    ):
        if hours < limit:
            return f"{hours // length} {unit}"
    return f"{int(seconds / 3600) // 24 // 365} years"


def ago(when: float) -> str:
    """Such as "2 minutes ago", of seconds since the epoch."""
    return f"{duration(time.time() - when)} ago"


def local_time(when: float) -> str:
    """Such as "2026-11-24 03:02:35 +0000 UTC"."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(when))


def exact_time(text: str) -> str:
    """An RFC 3339 time of UTC as Go shows it: "2026-11-24 03:02:35.1234 +0000 UTC"."""
    if not text.endswith("Z"):
        return text
    whole, point, fraction = text[:-1].replace("T", " ").partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole}{point if fraction else ''}{fraction} +0000 UTC"


def parse_time(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time, such as the API's "2026-11-24T03:02:35.123456789Z"."""
    import calendar

    day, _, clock = text.partition("T")
    offset = 0
    if clock.endswith("Z"):
        clock = clock[:-1]
    elif len(clock) > 6 and clock[-6] in "+-":
        offset = int(clock[-5:-3]) * 3600 + int(clock[-2:]) * 60
        offset = -offset if clock[-6] == "-" else offset
        clock = clock[:-6]
    whole, _, fraction = clock.partition(".")
    parts = [int(part) for part in day.split("-")] + [int(part) for part in whole.split(":")]
    return calendar.timegm((*parts, 0, 0, 0)) - offset + float(f"0.{fraction or 0}")


def short_id(identity: str) -> str:
    """The 12 digits by which people know an ID."""
    return identity.rpartition(":")[2][:12]


def shorten(text: str, width: int) -> str:
    """Cut to a width, the cut marked by an ellipsis."""
    return text if len(text) <= width else text[: width - 1] + "…"


def table(rows: "Sequence[Sequence[str]]", least: int = 10) -> str:
    """Columns three spaces apart and at least so wide. A short row parts what is above it from what is below."""
    padded = [list(row) for row in rows]
    for column in range(max(map(len, rows), default=0) - 1):
        block: list[list[str]] = []
        for row in (*padded, []):
            if len(row) > column + 1:
                block.append(row)
            elif block:
                width = max(least, max(len(one[column]) for one in block) + 3)
                for one in block:
                    one[column] = one[column].ljust(width)
                block = []
    return "\n".join("".join(row) for row in padded)
