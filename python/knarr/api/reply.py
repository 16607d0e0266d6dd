"""Small things that every route needs: JSON answers, JSON bodies, query parameters."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from knarr.api.wire.shape import NEWEST
from knarr.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "body",
    "content",
    "empty",
    "encode",
    "filters",
    "flag",
    "integer",
    "must_be_json",
    "parse",
    "reply",
    "version",
]

BODY_SECONDS = 60.0  # for a body that is read whole to arrive
_FALSE = {"", "0", "no", "false", "none"}  # what Docker takes for false; anything else is true


def encode(data: Any) -> bytes:
    """JSON, with the newline at its end that Docker's has."""
    return json.dumps(data, separators=(",", ":")).encode() + b"\n"


def reply(data: Any, status: int = 200) -> web.Response:
    """An answer in JSON."""
    return web.Response(body=encode(data), status=status, content_type="application/json")


def empty(status: int = 204) -> web.Response:
    """An answer without a body."""
    return web.Response(status=status)


def version(request: web.Request) -> int:
    """The version of the API that a request speaks, as its minor number; the newest where its path names none."""
    found: int = request.get("version", NEWEST)
    return found


async def content(request: web.Request) -> bytes:
    """A request's body, read whole."""
    if request.content.is_eof():
        return await request.read()
    try:
        return await asyncio.wait_for(request.read(), BODY_SECONDS)
    except asyncio.TimeoutError:
        raise web.HTTPRequestTimeout(text=f"the request's body did not come within {BODY_SECONDS:g} s") from None


async def body(request: web.Request, *, optional: bool = False) -> dict[str, Any]:
    """The JSON object of a request's body. Raises InvalidArgument."""
    data = await content(request)
    if data:
        must_be_json(request.headers.get("Content-Type", ""))
    return parse(data, optional=optional)


def must_be_json(content_type: str) -> None:
    """Hold a body's Content-Type against what the API takes. Raises InvalidArgument in Docker's words."""
    kind = content_type.partition(";")[0].strip().lower()
    if not kind:
        raise InvalidArgument(f"malformed Content-Type header ({content_type}): mime: no media type")
    if kind != "application/json":
        raise InvalidArgument(f"unsupported Content-Type header ({content_type}): must be 'application/json'")


def parse(data: bytes, *, optional: bool = False) -> dict[str, Any]:
    """A JSON object from bytes. Raises InvalidArgument."""
    if not data.strip():
        if optional:
            return {}
        raise InvalidArgument("invalid JSON: got EOF while reading request body")
    try:
        parsed = json.loads(data)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            raise InvalidArgument("unexpected content after JSON") from None
        raise InvalidArgument(f"invalid JSON: {error}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"invalid JSON: {error}") from error
    if parsed is None and optional:
        return {}
    if not isinstance(parsed, dict):
        raise InvalidArgument("invalid JSON: the body must be an object")
    return parsed


def flag(query: Mapping[str, str], name: str) -> bool:
    """A boolean parameter."""
    return query.get(name, "").strip().lower() not in _FALSE


def integer(query: Mapping[str, str], name: str) -> int | None:
    """A whole number, or None where it was not given. Raises InvalidArgument."""
    text = query.get(name, "")
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise InvalidArgument(f'invalid value for {name}: "{text}" is not a whole number') from None


def filters(query: Mapping[str, str], known: set[str]) -> dict[str, list[str]]:
    """The `filters` parameter: {"name": ["value", ...]}, also in the old form {"name": {"value": true}}.

    Raises InvalidArgument in Docker's words for a filter that is not known.
    """
    text = query.get("filters", "")
    if not text:
        return {}
    try:
        parsed = json.loads(text)
    except ValueError:
        raise InvalidArgument("invalid filter: filters must be a JSON object") from None
    if not isinstance(parsed, dict):
        raise InvalidArgument("invalid filter: filters must be a JSON object")
    found: dict[str, list[str]] = {}
    for name, values in parsed.items():
        if name not in known:
            raise InvalidArgument(f"invalid filter '{name}'")
        given = [value for value, wanted in values.items() if wanted] if isinstance(values, dict) else values
        if not isinstance(given, list) or not all(isinstance(value, str) for value in given):
            raise InvalidArgument(f"invalid filter '{name}': its values must be a list of strings")
        found[name] = given
    return found
