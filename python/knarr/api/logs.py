"""GET /containers/{id}/logs: the parameters. The supervisor sends the body (api/hijack.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knarr.api import reply
from knarr.engine.containers.logs import Wanted
from knarr.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["instant", "wanted"]

FRACTION = 20  # digits that may stand behind the point; nine count
FAREST = 1 << 63  # ns: what is later is later than anything


def wanted(query: Mapping[str, str], *, terminal: bool, chunked: bool) -> Wanted:
    """What of a log is asked for. Raises InvalidArgument in Docker's words."""
    stdout, stderr = reply.flag(query, "stdout"), reply.flag(query, "stderr")
    if not stdout and not stderr:
        raise InvalidArgument("must specify at least one of 'stdout' or 'stderr'")
    until = query.get("until", "")
    if query.get("format"):
        raise InvalidArgument("unsupported log format")
    return Wanted(
        stdout=stdout,
        stderr=stderr,
        since=instant("since", query.get("since", "")),
        until=max(instant("until", until), 1) if until not in ("", "0") else 0,
        tail=_tail(query.get("tail", "")),
        follow=reply.flag(query, "follow"),
        timestamps=reply.flag(query, "timestamps"),
        details=reply.flag(query, "details"),
        multiplexed=not terminal,
        chunked=chunked,
        merge=reply.flag(query, "merge"),
    )


def instant(name: str, text: str) -> int:
    """Nanoseconds since the epoch of `seconds[.fraction]`; 0 for nothing, and for what is before. InvalidArgument."""
    if not text:
        return 0
    seconds, _, fraction = text.partition(".")
    wrong = f'invalid value for "{name}": invalid timestamp "{text}": '
    if not seconds.removeprefix("-").removeprefix("+").isdecimal() or not seconds.isascii():
        raise InvalidArgument(f'{wrong}invalid seconds "{seconds}": invalid syntax')
    if len(fraction) > FRACTION:
        raise InvalidArgument(f"{wrong}invalid nanoseconds: length {len(fraction)} exceeds maximum {FRACTION}")
    if fraction and not (fraction.isascii() and fraction.isdecimal()):
        at = next(index for index, char in enumerate(fraction) if char not in "0123456789")
        raise InvalidArgument(f"{wrong}invalid nanoseconds: invalid character '{fraction[at]}' at position {at}")
    if len(seconds) > FRACTION:
        raise InvalidArgument(f'{wrong}invalid seconds "{seconds}": value out of range')
    return min(max(int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9]), 0), FAREST)


def _tail(text: str) -> int | None:
    """So many entries; None for all, as for whatever is no number."""
    digits = text.removeprefix("+")
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < FRACTION - 1 else None
