"""Network records: what an engine decided once about a network and must decide the same way again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from knarr.store.database import Database

__all__ = ["NetworkRecord", "Networks"]


@dataclass(slots=True)
class NetworkRecord:
    """One network."""

    id: str
    name: str
    driver: str  # bridge, host, null, macvlan, ipvlan
    created_ns: int
    subnet: str = ""  # CIDR; empty for host and none, and for the default bridge until it is needed
    gateway: str = ""  # empty too where nobody has named one that is not ours
    bridge: str = ""  # the interface's name; empty for other drivers
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    address_range: str = ""  # CIDR within the subnet that addresses are chosen from; empty for all of it
    auxiliary: dict[str, str] = field(default_factory=dict)  # name to an address that is never chosen
    internal: bool = False  # no way out
    attachable: bool = False  # Docker's for swarms; kept and shown
    ipv4: bool = True
    ipv6: bool = False
    subnet6: str = ""  # as those above, of IPv6
    gateway6: str = ""
    address_range6: str = ""
    auxiliary6: dict[str, str] = field(default_factory=dict)
    entries: dict[str, Any] = field(default_factory=dict)  # load-balanced entries by name (engine/networks/entries.py)


class Networks:
    """The table of networks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, record: NetworkRecord) -> None:
        """Store a network, new or changed."""
        self._database.execute(
            "INSERT INTO network (id, name, record) VALUES (?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET record = excluded.record",
            (record.id, record.name, json.dumps(asdict(record))),
        )

    def delete(self, network_id: str) -> None:
        """Forget a network."""
        self._database.execute("DELETE FROM network WHERE id = ?", (network_id,))

    def load(self) -> list[NetworkRecord]:
        """Every network."""
        return [NetworkRecord(**json.loads(row[0])) for row in self._database.rows("SELECT record FROM network")]
