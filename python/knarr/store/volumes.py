"""Volume records: a name, and where it is written down what the volume is for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from knarr.store.database import Database

__all__ = ["LOCAL", "VolumeRecord", "Volumes"]

LOCAL = "local"


@dataclass(slots=True)
class VolumeRecord:
    """One volume. A local one's files are in `<data-root>/volumes/<name>/_data`, unless its options say otherwise."""

    name: str
    created_ns: int
    anonymous: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    container: str = ""  # an ID: the volume goes where no record speaks of that container (see engine.volumes)
    driver: str = LOCAL  # or a plugin's name
    users: list[str] = field(default_factory=list)  # whom a plugin has mounted it for
    was: str = ""  # the name that its directory had before, and may have still after a crash


class Volumes:
    """The table of volumes. Writes wait for the disk: for threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def insert(self, record: VolumeRecord) -> None:
        """Store a new volume, durably."""
        with self._database.durable():
            self._database.execute(
                "INSERT OR REPLACE INTO volume (name, record) VALUES (?, ?)", (record.name, json.dumps(asdict(record)))
            )

    def update(self, record: VolumeRecord) -> None:
        """Store what has changed of a volume; not durably."""
        self._database.execute("UPDATE volume SET record = ? WHERE name = ?", (json.dumps(asdict(record)), record.name))

    def rename(self, name: str, record: VolumeRecord) -> None:
        """Store a volume in the place of another, durably."""
        with self._database.durable():
            self._database.execute("DELETE FROM volume WHERE name = ?", (name,))
            self._database.execute(
                "INSERT OR REPLACE INTO volume (name, record) VALUES (?, ?)", (record.name, json.dumps(asdict(record)))
            )

    def bind(self, record: VolumeRecord, container: str) -> None:
        """Store that a volume's fate is a container's; not durably."""
        bound = asdict(record) | {"container": container}
        self._database.execute("UPDATE volume SET record = ? WHERE name = ?", (json.dumps(bound), record.name))

    def delete(self, name: str) -> None:
        """Forget a volume, durably."""
        with self._database.durable():
            self._database.execute("DELETE FROM volume WHERE name = ?", (name,))

    def load(self) -> list[VolumeRecord]:
        """Every volume."""
        return [
            VolumeRecord(**json.loads(row[0])) for row in self._database.rows("SELECT record FROM volume ORDER BY name")
        ]
