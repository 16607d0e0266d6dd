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

    def create(self, **fields: "Any") -> "dict[str, Any]":
        """NetworkCreate: the fields of its body; {"Id", "Warning"}."""
        return self._client.call("POST", "/networks/create", body=fields)  # type: ignore[no-any-return]

    def remove(self, network: str) -> None:
        """NetworkDelete."""
        self._client.call("DELETE", f"/networks/{quote(network)}")

    def connect(self, network: str, container: str, settings: "dict[str, Any]") -> None:
        """NetworkConnect: EndpointSettings."""
        body = {"Container": container, "EndpointConfig": settings}
        self._client.call("POST", f"/networks/{quote(network)}/connect", body=body)

    def disconnect(self, network: str, container: str, *, force: bool = False) -> None:
        """NetworkDisconnect."""
        body = {"Container": container, "Force": force}
        self._client.call("POST", f"/networks/{quote(network)}/disconnect", body=body)

    def inspect(self, network: str) -> "dict[str, Any]":
        """NetworkInspect."""
        return self._client.call("GET", f"/networks/{quote(network)}")  # type: ignore[no-any-return]

    def prune(self, filters: "Filters | None" = None) -> "dict[str, Any]":
        """NetworkPrune: {"NetworksDeleted"}."""
        return self._client.call("POST", "/networks/prune", {"filters": encode_filters(filters)}) or {}

    def entries(self, network: str) -> "Objects":
        """The load-balanced entries of a network, and who stands behind them."""
        return self._client.call("GET", f"/networks/{quote(network)}/lb")  # type: ignore[no-any-return]

    def add_entry(self, network: str, **fields: "Any") -> "dict[str, Any]":
        """Make a load-balanced entry: Name, Labels, Ports (`[[ip:][host]:]port[/protocol]`), Address."""
        return self._client.call("POST", f"/networks/{quote(network)}/lb", body=fields)  # type: ignore[no-any-return]

    def remove_entry(self, network: str, name: str) -> None:
        """Remove a load-balanced entry."""
        self._client.call("DELETE", f"/networks/{quote(network)}/lb/{quote(name)}")
