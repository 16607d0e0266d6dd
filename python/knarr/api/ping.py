"""/_ping: whether the daemon is there, and what it speaks.

Clients ask it before anything else, and watch by it whether the daemon is well. As most send it, whole and plain, it is
answered as soon as it is read (`answer`, for api/hijack.py), where other requests take three turns of the event loop;
asked in any other way it is a route like others, with the same words.
"""

from __future__ import annotations

import re

from aiohttp.helpers import rfc822_formatted_time

from knarr.api import versions

__all__ = ["HEADERS", "answer"]

HEADERS = {
    "Builder-Version": "",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
    "Swarm": "inactive",
}
_PLAIN = re.compile(rb"(GET|HEAD) (?:/v([0-9.]+))?/_ping HTTP/1\.1\r\n((?:[!-9;-~]+:[^\r\n]*\r\n)*)\r\n")
_NOT_PLAIN = re.compile(
    rb"^(?:content-length|transfer-encoding|expect|upgrade|connection:(?!\s*keep-alive\s*$))",
    re.IGNORECASE | re.MULTILINE,
)
_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n" + "".join(
    f"{name}: {value}\r\n" for name, value in {**versions.HEADERS, **HEADERS}.items()
)


def answer(data: bytes) -> bytes | None:
    """The answer to a plain ping; None where the bytes are anything else, or more, or less."""
    found = _PLAIN.fullmatch(data)
    if found is None or _NOT_PLAIN.search(found[3]) or versions.refusal((found[2] or b"").decode()):
        return None
    length, body = (2, "OK") if found[1] == b"GET" else (0, "")
    return f"{_HEAD}Date: {rfc822_formatted_time()}\r\nContent-Length: {length}\r\n\r\n{body}".encode()
