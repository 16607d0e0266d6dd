"""Requests that are answered as soon as they are read.

A request takes aiohttp three turns of the event loop and several times what the smallest ones take by themselves:
whether the daemon is there, the making of an exec, how it ended. Such a route is a function from what was asked to the
answer, which works with what is in memory; `route` makes a route for aiohttp of it. As most clients send it, whole and
plain, api/hijack.py finds it in the table of these functions and answers by itself; asked in any other way it is a
route like others, with the same function and the same words.

A function that finds that it has to wait gives something to await; its connection then has one request at a time.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time

from knarr.api import reply, versions
from knarr.api.wire.shape import NEWEST

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["JSON", "Answer", "Asked", "Found", "Function", "Table", "route"]

JSON = "application/json"
BODY_LIMIT = 64 * 1024  # of a body that is waited for; whoever sends more takes the long way
_REASONS = {status.value: status.phrase for status in HTTPStatus}
_PLAIN = re.compile(rb" HTTP/1\.1\r\n((?:[!-9;-~]+:[^\r\n]*\r\n)*)\r\n")
_NOT_PLAIN = re.compile(
    rb"^(?:transfer-encoding|expect|upgrade|connection:(?!\s*keep-alive\s*$))", re.IGNORECASE | re.MULTILINE
)
_LENGTH = re.compile(rb"^content-length:[ \t]*([^\r\n]*?)[ \t]*\r$", re.IGNORECASE | re.MULTILINE)
_TYPE = re.compile(rb"^content-type:[ \t]*([^\r\n]*?)[ \t]*\r$", re.IGNORECASE | re.MULTILINE)


@dataclass(slots=True)
class Asked:
    """What a function gets to see of its request."""

    name: str  # the part of the path that is not fixed; empty where there is none
    version: int  # of the API, as its minor number
    body: bytes = b""
    content_type: str = ""

    def json(self) -> dict[str, Any]:
        """The JSON object of the body. Raises InvalidArgument."""
        if self.body:
            reply.must_be_json(self.content_type)
        return reply.parse(self.body)


@dataclass(slots=True)
class Answer:
    """An answer, ready to be sent."""

    body: bytes
    status: int = 200
    kind: str = JSON
    headers: dict[str, str] = field(default_factory=dict)

    def encoded(self, *, close: bool = False) -> bytes:
        """The whole answer as HTTP/1.1."""
        reason = _REASONS.get(self.status, "Error")
        head = f"HTTP/1.1 {self.status} {reason}\r\nContent-Type: {self.kind}\r\n{versions.HEADER_LINES}"
        for name, value in self.headers.items():
            head += f"{name}: {value}\r\n"
        head += f"Date: {rfc822_formatted_time()}\r\nContent-Length: {len(self.body)}\r\n"
        head += "Connection: close\r\n\r\n" if close else "\r\n"
        return head.encode() + self.body


Function = Callable[[Asked], Answer | Awaitable[Answer]]


class Found(NamedTuple):
    """A request of the table's. `function` is None while its body is on its way."""

    function: Function | None
    asked: Asked


def route(method: str, path: str, function: Function) -> web.RouteDef:
    """A route that is answered at once where it can be. `path` has one part at most that is not fixed: `{name}`."""

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await reply.content(request)
        kind = request.headers.get("Content-Type", "")
        asked = Asked(request.match_info.get("name", ""), reply.version(request), body, kind)
        answer = function(asked)
        if isawaitable(answer):
            answer = await answer
        headers = {**answer.headers, "Content-Type": answer.kind, "Content-Length": str(len(answer.body))}
        return web.Response(body=answer.body, status=answer.status, headers=headers)

    handle.prompt = function  # type: ignore[attr-defined]  # read by Table
    return web.RouteDef(method, path, handle, {})


class Table:
    """The functions, by the first lines of their requests."""

    def __init__(self, routes: Iterable[web.RouteDef] = ()) -> None:
        self._functions: dict[int, tuple[Function, bool]] = {}  # and whether the path has a part that is not fixed
        patterns, group = [], 1
        for each in routes:
            function = getattr(each.handler, "prompt", None)
            if function is None:
                continue
            fixed, part, rest = each.path.partition("{name}")
            path = re.escape(fixed) + ("([^/ ?]+)" if part else "") + re.escape(rest)
            patterns.append(f"({each.method} (?:/v([0-9.]+))?{path})(?= )")
            self._functions[group] = (function, bool(part))
            group += 3 if part else 2
        self._lines = re.compile("|".join(patterns or ["(?!)"]).encode())

    def find(self, data: bytes) -> Found | None:
        """The request that these bytes are; None where they are anything else, or more, or not plain."""
        line = self._lines.match(data)
        if line is None or line.lastindex is None:
            return None
        rest = _PLAIN.match(data, line.end())
        if rest is None or _NOT_PLAIN.search(rest[1]):
            return None
        function, named = self._functions[line.lastindex]
        version = (line[line.lastindex + 1] or b"").decode()
        if versions.refusal(version):
            return None
        length = _length(rest[1])
        body = data[rest.end() :]
        if length is None or len(body) > length:
            return None
        kind = _TYPE.search(rest[1]) if length else None
        asked = Asked(
            unquote(line[line.lastindex + 2].decode("latin-1")) if named else "",
            versions.parse(version)[1] if version else NEWEST,
            body,
            kind[1].decode("latin-1") if kind else "",
        )
        return Found(None if len(body) < length else function, asked)


def _length(headers: bytes) -> int | None:
    """The length of the body; None where it is not said in the plainest way, or is not to be waited for."""
    found = _LENGTH.findall(headers)
    if not found:
        return 0
    if len(found) > 1 or not found[0].isdigit() or len(found[0]) > 8:
        return None
    length = int(found[0])
    return length if length <= BODY_LIMIT else None
