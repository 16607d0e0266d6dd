"""Volumes (Engine API: Volume)."""

from knarr.client.engine import Client, encode_filters
from knarr.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client.engine import Filters


class Volumes:
    """`Client.volumes`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        options: "dict[str, str] | None" = None,
        labels: "dict[str, str] | None" = None,
    ) -> "dict[str, Any]":
        """VolumeCreate; without a name it is anonymous."""
        body = {"Name": name, "Driver": driver, "DriverOpts": options or {}, "Labels": labels or {}}
        return self._client.call("POST", "/volumes/create", None, body)  # type: ignore[no-any-return]

    def list(self, filters: "Filters | None" = None) -> "dict[str, Any]":
        """VolumeList: {"Volumes", "Warnings"}."""
        return self._client.call("GET", "/volumes", {"filters": encode_filters(filters)})  # type: ignore[no-any-return]

    def inspect(self, volume: str) -> "dict[str, Any]":
        """VolumeInspect."""
        return self._client.call("GET", f"/volumes/{quote(volume)}")  # type: ignore[no-any-return]

    def remove(self, volume: str, *, force: bool = False) -> None:
        """VolumeDelete. Conflict while a container uses it."""
        self._client.call("DELETE", f"/volumes/{quote(volume)}", {"force": force})

    def prune(self, filters: "Filters | None" = None) -> "dict[str, Any]":
        """VolumePrune: {"VolumesDeleted", "SpaceReclaimed"}."""
        return self._client.call("POST", "/volumes/prune", {"filters": encode_filters(filters)})  # type: ignore[no-any-return]
