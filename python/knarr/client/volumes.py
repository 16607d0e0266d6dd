"""Volumes (Engine API: Volume)."""

from knarr.client.engine import Client, encode_filters
from knarr.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from knarr.client.engine import Filters, Objects
    from knarr.client.http import Response


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

    # What Docker's API does not have

    def clone(self, volume: str, new: str, *, snapshot: str = "", pause: bool = True) -> "dict[str, Any]":
        """A new volume with the content of another, or of a snapshot of it: Volume. Conflict where there is one."""
        parameters = {"to": new, "snapshot": snapshot or None, "pause": pause}
        return self._client.call("POST", f"/volumes/{quote(volume)}/clone", parameters)  # type: ignore[no-any-return]

    def rename(self, volume: str, new: str) -> None:
        """Give a volume another name. Conflict while a container uses it."""
        self._client.call("POST", f"/volumes/{quote(volume)}/rename", {"name": new})

    def snapshot(self, volume: str, name: str = "", *, pause: bool = True) -> "dict[str, Any]":
        """Keep what a volume holds: {"Name", "Volume", "CreatedAt"}."""
        parameters = {"name": name or None, "pause": pause}
        return self._client.call("POST", f"/volumes/{quote(volume)}/snapshots", parameters)  # type: ignore[no-any-return]

    def snapshots(self, volume: str) -> "Objects":
        """The snapshots of a volume, the oldest first."""
        return self._client.call("GET", f"/volumes/{quote(volume)}/snapshots")["Snapshots"]  # type: ignore[no-any-return]

    def remove_snapshot(self, volume: str, snapshot: str) -> None:
        """Forget a snapshot."""
        self._client.call("DELETE", f"/volumes/{quote(volume)}/snapshots/{quote(snapshot)}")

    def restore(self, volume: str, snapshot: str) -> None:
        """Make a volume what it was. Conflict while a running container uses it."""
        self._client.call("POST", f"/volumes/{quote(volume)}/snapshots/{quote(snapshot)}/restore")

    def export(self, volume: str, *, snapshot: str = "", compression: str = "") -> "Response":
        """A volume or a snapshot as a tar archive, as a stream; compression: "", "gzip" or "zstd"."""
        parameters = {"snapshot": snapshot or None, "compression": compression or None}
        return self._client.request("GET", f"/volumes/{quote(volume)}/archive", parameters)

    def fill(self, volume: str, archive: "Iterable[bytes]") -> "dict[str, Any]":
        """Make a volume, or fill an empty one, from a tar archive, compressed or not: Volume."""
        headers = {"Content-Type": "application/x-tar"}
        response = self._client.request("PUT", f"/volumes/{quote(volume)}/archive", None, archive, headers)
        return response.json()  # type: ignore[no-any-return]
