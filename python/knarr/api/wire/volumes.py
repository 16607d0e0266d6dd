"""Volumes on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knarr.api.wire.containers import timestamp

if TYPE_CHECKING:
    from knarr.engine.volumes.foreign import Shown

__all__ = ["volume"]


def volume(shown: Shown) -> dict[str, Any]:
    """Volume, without its UsageData."""
    record = shown.record
    found = {
        "CreatedAt": shown.created or timestamp(record.created_ns)[:19] + "Z",
        "Driver": record.driver,
        "Labels": dict(sorted(record.labels.items())) or None,
        "Mountpoint": shown.place,
        "Name": record.name,
        "Options": dict(sorted(record.options.items())) or None,
        "Scope": shown.scope,
    }
    return found if shown.status is None else {**found, "Status": shown.status}
