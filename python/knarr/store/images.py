"""Records of images: what is in the tables image, image_reference, repository_digest and layer.

Every write is one durable transaction (store/database.py) and so belongs into a thread. A write comes
after what it speaks of is on the disk: blobs and snapshots first, synced and renamed, then the
record. A removal is the other way round. So a kill between any two lines leaves files that nobody
speaks of, which a sweep finds, and never a record of files that are not there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knarr.errors import Corrupt

if TYPE_CHECKING:
    from collections.abc import Iterable

    from knarr.store.database import Database

__all__ = ["ImageRecord", "ImageRecords", "LayerRecord", "Names"]


@dataclass(frozen=True)
class LayerRecord:
    """One unpacked layer. Its chain ID names the snapshot."""

    chain_id: str
    diff_id: str
    blob: str
    parent: str  # chain ID, or "" for the lowest
    size: int  # bytes unpacked


@dataclass(frozen=True)
class ImageRecord:
    """One image for one platform."""

    id: str  # digest of the config
    manifest_digest: str
    manifest_type: str
    platform: str
    created_ns: int
    size: int  # bytes of all layers, unpacked
    config: dict[str, Any]  # the config's document
    layers: tuple[tuple[str, int, str, str, str, str], ...]  # as Store.unpack takes them
    blobs: tuple[str, ...]  # manifest, config and, where it came from one, the index: not the layers
    tagged_ns: int  # when a reference was last pointed at it


@dataclass(frozen=True)
class Names:
    """Every name: canonical reference → image ID, and (repository, digest) → image IDs."""

    references: dict[str, str]
    digests: dict[tuple[str, str], list[str]]


class ImageRecords:
    """Reads and writes the records of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def images(self) -> list[ImageRecord]:
        """Every image. Corrupt, naming it, where a record cannot be read."""
        rows = self._database.rows(
            "SELECT id, manifest_digest, manifest_type, platform, created_ns, size, record FROM image"
        )
        return [_record(row) for row in rows]

    def names(self) -> Names:
        references = dict(self._database.rows("SELECT reference, image_id FROM image_reference"))
        digests: dict[tuple[str, str], list[str]] = {}
        for repository, digest, image_id in self._database.rows(
            "SELECT repository, digest, image_id FROM repository_digest"
        ):
            digests.setdefault((repository, digest), []).append(image_id)
        return Names(references, digests)

    def layers(self) -> dict[str, LayerRecord]:
        rows = self._database.rows("SELECT chain_id, diff_id, blob_digest, parent, size FROM layer")
        return {row[0]: LayerRecord(*row) for row in rows}

    def save(
        self,
        image: ImageRecord,
        layers: Iterable[LayerRecord],
        references: Iterable[str] = (),
        repository_digest: tuple[str, str] | None = None,
    ) -> None:
        """Record an image whose files are on the disk, and the names that now point at it."""
        body = {
            "config": image.config, "layers": image.layers, "blobs": image.blobs, "tagged_ns": image.tagged_ns
        }  # fmt: skip
        columns = (
            image.id, image.manifest_digest, image.manifest_type, image.platform, image.created_ns, image.size,
            json.dumps(body, ensure_ascii=False, separators=(",", ":")),
        )  # fmt: skip
        run = self._database.execute
        with self._database.durable():
            run(
                "INSERT INTO image VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT(id) DO UPDATE SET "
                "manifest_digest=excluded.manifest_digest, manifest_type=excluded.manifest_type, "
                "platform=excluded.platform, created_ns=excluded.created_ns, size=excluded.size, "
                "record=excluded.record",
                columns,
            )
            for layer in layers:
                run(
                    "INSERT OR REPLACE INTO layer VALUES (?, ?, ?, ?, ?)",
                    (layer.chain_id, layer.diff_id, layer.blob, layer.parent, layer.size),
                )
            for reference in references:
                run("INSERT OR REPLACE INTO image_reference VALUES (?, ?)", (reference, image.id))
            if repository_digest:
                run("INSERT OR IGNORE INTO repository_digest VALUES (?, ?, ?)", (*repository_digest, image.id))

    def tag(self, image_id: str, reference: str, tagged_ns: int) -> None:
        """Point a reference at an image."""
        with self._database.durable():
            self._database.execute(
                "UPDATE image SET record = json_set(record, '$.tagged_ns', ?) WHERE id = ?", (tagged_ns, image_id)
            )
            self._database.execute("INSERT OR REPLACE INTO image_reference VALUES (?, ?)", (reference, image_id))

    def add_digest(self, image_id: str, repository: str, digest: str) -> None:
        """Note that a repository has an image under a digest."""
        with self._database.durable():
            self._database.execute(
                "INSERT OR IGNORE INTO repository_digest VALUES (?, ?, ?)", (repository, digest, image_id)
            )

    def remove_names(self, references: Iterable[str], digests: Iterable[tuple[str, str, str]]) -> None:
        """Forget references, and (repository, digest, image ID) triples."""
        with self._database.durable():
            for reference in references:
                self._database.execute("DELETE FROM image_reference WHERE reference = ?", (reference,))
            for triple in digests:
                self._database.execute(
                    "DELETE FROM repository_digest WHERE repository = ? AND digest = ? AND image_id = ?", triple
                )

    def remove_image(self, image_id: str, chain_ids: Iterable[str]) -> None:
        """Forget an image with all its names, and the layers that no other image has."""
        with self._database.durable():
            self._database.execute("DELETE FROM image WHERE id = ?", (image_id,))
            for chain_id in chain_ids:
                self._database.execute("DELETE FROM layer WHERE chain_id = ?", (chain_id,))


def _record(row: tuple[Any, ...]) -> ImageRecord:
    try:
        body = json.loads(row[6])
        layers = tuple(tuple(layer) for layer in body["layers"])
        image_id, manifest_digest, manifest_type, platform, created_ns, size = row[:6]
        return ImageRecord(
            id=image_id,
            manifest_digest=manifest_digest,
            manifest_type=manifest_type,
            platform=platform,
            created_ns=created_ns,
            size=size,
            config=body["config"],
            layers=layers,
            blobs=tuple(body["blobs"]),
            tagged_ns=body["tagged_ns"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"the record of image {row[0]} cannot be read ({error}): remove its row from state.db") from error
