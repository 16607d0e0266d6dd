"""The body of POST /containers/{id}/update: Resources, with a RestartPolicy beside them."""

from __future__ import annotations

from typing import Any

from knarr.api.wire.create import decode_host
from knarr.api.wire.shape import Shape
from knarr.errors import InvalidArgument
from knarr.store.containers import HOST_DEFAULTS

__all__ = ["decode"]

# Before these versions Docker ignored what an update said of them.
_SHAPE = Shape(
    since={
        "PidsLimit": 40,
        "BlkioWeightDevice": 55,
        "BlkioDeviceReadBps": 55,
        "BlkioDeviceWriteBps": 55,
        "BlkioDeviceReadIOps": 55,
        "BlkioDeviceWriteIOps": 55,
    }
)


def decode(body: dict[str, Any], version: int) -> dict[str, Any]:
    """The fields of HostConfig that were given. Raises InvalidArgument, pydantic's ValidationError."""
    given = {name: value for name, value in _SHAPE.of(body, version).items() if value is not None}
    for name in given.keys() - HOST_DEFAULTS.keys():
        if given.pop(name) not in ("", 0, False, [], {}):
            raise InvalidArgument(f"{name} cannot be updated: leave it out")
    host: dict[str, Any] = dict(decode_host(given))
    return {name: host[name] for name in given}
