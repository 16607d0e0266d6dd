"""The engine as a whole (Engine API: System)."""

from knarr.client.engine import Client, encode_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client.engine import Filters
    from knarr.client.http import Response


class System:
    """`Client.system`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def events(
        self, since: "str | None" = None, until: "str | None" = None, filters: "Filters | None" = None
    ) -> "Response":
        """SystemEvents: `values()` of the response gives EventMessages as they come, for ever without an `until`."""
        parameters = {"since": since, "until": until, "filters": encode_filters(filters)}
        return self._client.request("GET", "/events", parameters)

    def disk_usage(self) -> "dict[str, Any]":
        """SystemDataUsage: Images, Containers, Volumes and BuildCache, with their sizes."""
        return self._client.call("GET", "/system/df")  # type: ignore[no-any-return]

    def prune_builds(self, *, all: bool = False, filters: "Filters | None" = None) -> "dict[str, Any]":
        """BuildPrune: {"CachesDeleted", "SpaceReclaimed"}."""
        parameters = {"all": all, "filters": encode_filters(filters)}
        return self._client.call("POST", "/build/prune", parameters) or {}
