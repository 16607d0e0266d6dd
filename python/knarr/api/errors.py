"""The one map from knarr.errors to HTTP, and the middleware that applies it."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from typing import TYPE_CHECKING

from aiohttp import web
from pydantic import ValidationError

from knarr import errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["STATUS", "error_response", "middleware", "status_of", "told", "unforeseen"]

log = logging.getLogger("knarr.api")

STATUS: dict[type[Exception], int] = {
    errors.NotFound: 404,
    errors.NotModified: 304,
    errors.Conflict: 409,
    errors.Failed: 500,
    errors.InvalidArgument: 400,
    errors.Unauthorized: 401,
    errors.PermissionDenied: 403,
    errors.Unavailable: 503,
    errors.Corrupt: 500,
    errors.Unsupported: 501,
    errors.Internal: 500,
}

# What the host refuses while nothing of ours is wrong.
_SHORTAGES = {
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN
}  # fmt: skip


def status_of(error: Exception) -> int:
    """The HTTP status of an error: that of the nearest class in STATUS, 500 for a stranger."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return 500


def error_response(error: Exception) -> web.Response:
    """The answer that tells a client of an error."""
    status = status_of(error)
    if status == 304:
        return web.Response(status=304)
    return web.Response(
        status=status, body=json.dumps({"message": str(error)}).encode() + b"\n", content_type="application/json"
    )


@web.middleware
async def middleware(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn every exception of a handler into Docker's {"message": ...}."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        status = 404 if error.status == 405 else error.status  # Docker knows no path with another method
        message = "page not found" if status == 404 else error.text or error.reason
        return web.Response(
            status=status, body=json.dumps({"message": message}).encode() + b"\n", content_type="application/json"
        )
    except asyncio.CancelledError:
        raise
    except ConnectionResetError:
        return web.Response(status=499)  # nobody is left to read it
    except Exception as error:  # noqa: BLE001  logged there, and told
        return error_response(told(error, f"{request.method} {request.path}"))


def told(error: Exception, what: str) -> errors.KnarrError:
    """What a client is told of an exception of a handler. What is wrong with ourselves is logged."""
    if isinstance(error, errors.KnarrError):
        if isinstance(error, errors.Internal):
            log.error("%s", what, exc_info=error)
        return error
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "body"
        return errors.InvalidArgument(f"invalid request: {field}: {first['msg']}")
    return unforeseen(error, what)


def unforeseen(error: Exception, what: str) -> errors.KnarrError:
    """What a client is told of an exception outside the vocabulary: the host's trouble, or a defect. It is logged."""
    if isinstance(error, OSError) and error.errno in _SHORTAGES:
        where = f"{error.filename}: " if error.filename else ""
        log.warning("%s: %s%s", what, where, error.strerror)
        return errors.Unavailable(f"{where}{error.strerror}")
    log.error("%s failed", what, exc_info=error)
    return errors.Internal(f"{type(error).__name__}: {error} (a defect: the daemon's log has more)")
