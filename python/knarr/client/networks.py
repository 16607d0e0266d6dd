"""Networks (Engine API: Network)."""

from knarr.client.engine import Client, filters
from knarr.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Networks:
    """`Client.networks`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self, filter: "dict[str, list[str]] | None" = None) -> "list[dict[str, Any]]":  # noqa: A002
        """NetworkList."""
        return self._client.call("GET", "/networks", {"filters": filters(filter)})  # type: ignore[no-any-return]

    def inspect(self, network: str) -> "dict[str, Any]":
        """NetworkInspect."""
        return self._client.call("GET", f"/networks/{quote(network)}")  # type: ignore[no-any-return]
