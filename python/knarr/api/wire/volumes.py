"""Volumes on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knarr.api.wire.containers import timestamp

if TYPE_CHECKING:
    from knarr.engine.volumes.volumes import Volumes
    from knarr.store.volumes import VolumeRecord

__all__ = ["volume"]


def volume(volumes: Volumes, record: VolumeRecord) -> dict[str, Any]:
    """Volume, without its UsageData."""
    return {
        "CreatedAt": timestamp(record.created_ns)[:19] + "Z",
        "Driver": "local",
        "Labels": record.labels or None,
        "Mountpoint": volumes.path(record.name),
        "Name": record.name,
        "Options": record.options or None,
        "Scope": "local",
    }
