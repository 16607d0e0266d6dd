"""Networks (Engine API: Network)."""

from knarr.client.engine import Client, encode_filters
from knarr.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client.engine import Filters, Objects


class Networks:
    """`Client.networks`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self, filters: "Filters | None" = None) -> "Objects":
        """NetworkList."""
        return self._client.call("GET", "/networks", {"filters": encode_filters(filters)})  # type: ignore[no-any-return]

    def inspect(self, network: str) -> "dict[str, Any]":
        """NetworkInspect."""
        return self._client.call("GET", f"/networks/{quote(network)}")  # type: ignore[no-any-return]

    def prune(self, filters: "Filters | None" = None) -> "dict[str, Any]":
        """NetworkPrune: {"NetworksDeleted"}."""
        return self._client.call("POST", "/networks/prune", {"filters": encode_filters(filters)}) or {}
