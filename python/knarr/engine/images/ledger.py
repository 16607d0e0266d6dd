"""Changes to what images there are: the record on the disk and the catalog in memory, in step.

One lock orders the changes. Under it, an addition writes the record and then tells the catalog; a removal
takes the image out of the catalog at once, so that nobody finds it any more, and then removes the record. A
change that has begun is finished even where its caller is cancelled.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from knarr.engine.images.catalog import Piece, image_of
from knarr.errors import NotFound
from knarr.failpoints import reached
from knarr.store.images import ImageRecord, LayerRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any

    from knarr._core import Store
    from knarr.engine.images.catalog import Catalog, Image
    from knarr.engine.images.config import ImageConfig
    from knarr.engine.images.layers import Layer
    from knarr.store.images import ImageRecords
    from knarr.types import Reference

Result = TypeVar("Result")


@dataclass(frozen=True)
class Candidate:
    """An image that was read and checked, and is not recorded yet."""

    id: str
    manifest_digest: str
    manifest_type: str
    config: ImageConfig
    layers: tuple[Layer, ...]
    documents: dict[str, bytes] = field(default_factory=dict)  # manifest, config, index: digest → bytes

    @property
    def pieces(self) -> set[Piece]:
        """All that is needed of it on the disk."""
        found = {Piece("blob", digest) for digest in self.documents} | {
            Piece("blob", part.blob) for part in self.layers
        }
        return found | {Piece("snapshot", part.chain_id) for part in self.layers}


class Ledger:
    """Adds and removes images and their names."""

    def __init__(self, store: Store, records: ImageRecords, catalog: Catalog) -> None:
        self._store = store
        self._records = records
        self._catalog = catalog
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def record(
        self,
        new: Candidate,
        sizes: Sequence[int],
        references: Sequence[Reference],
        repository_digest: tuple[str, str] | None,
    ) -> Image:
        """Record an image whose layers are unpacked and on the disk. The caller holds a lease on its pieces."""
        return await self._uninterrupted(self._record(new, sizes, references, repository_digest))

    async def tag(self, image_id: str, reference: Reference) -> None:
        """Point a reference at an image."""
        await self._uninterrupted(self._tag(image_id, reference))

    async def add_digest(self, image_id: str, repository_digest: tuple[str, str]) -> None:
        """Note that a repository has the image under a digest; no error where the image has gone."""
        await self._uninterrupted(self._add_digest(image_id, repository_digest))

    async def remove_names(
        self, image_id: str, references: Sequence[Reference], digests: Sequence[tuple[str, str]]
    ) -> None:
        """Take names from an image; those that another change has taken already are no error."""
        await self._uninterrupted(self._remove_names(image_id, references, digests))

    async def forget(self, image_id: str, check: Callable[[Image], None]) -> set[Piece]:
        """Remove an image with its names; the pieces that it was made of.

        `check` raises where the image may not go. Between it and the removal nothing else runs.
        """
        return await self._uninterrupted(self._forget(image_id, check))

    async def _record(
        self,
        new: Candidate,
        sizes: Sequence[int],
        references: Sequence[Reference],
        repository_digest: tuple[str, str] | None,
    ) -> Image:
        async with self._lock:
            stack = await asyncio.to_thread(self._with_blobs_at_hand, new.layers)
            layers = {
                layer.chain_id: LayerRecord(layer.chain_id, layer.diff_id, layer.blob, layer.parent, size)
                for layer, size in zip(stack, sizes, strict=True)
            }
            layers |= {chain_id: known for chain_id in layers if (known := self._catalog.layers.get(chain_id))}
            known_image = self._catalog.get(new.id)
            tagged = time.time_ns() if references or known_image is None else known_image.tagged
            record = ImageRecord(
                id=new.id,
                manifest_digest=new.manifest_digest,
                manifest_type=new.manifest_type,
                platform=str(new.config.platform),
                created_ns=new.config.created_ns,
                size=sum(layers[layer.chain_id].size for layer in stack),
                config=new.config.document,
                layers=stack,
                blobs=tuple(new.documents),
                tagged_ns=tagged,
            )
            names = [str(reference) for reference in references]
            await asyncio.to_thread(self._save, new, record, list(layers.values()), names, repository_digest)
            self._catalog.layers.update(layers)
            image = image_of(record, self._store.snapshot_path)
            self._catalog.put(image)
            for name in names:
                self._catalog.name(name, new.id)
            if repository_digest:
                self._catalog.name_digest(*repository_digest, new.id)
            return self._catalog.get(new.id) or image

    def _save(
        self,
        new: Candidate,
        record: ImageRecord,
        layers: list[LayerRecord],
        references: list[str],
        repository_digest: tuple[str, str] | None,
    ) -> None:
        for data in new.documents.values():
            reached("image.record.blob")
            self._store.put_blob(data)
        reached("image.record.record")
        self._records.save(record, layers, references, repository_digest)

    def _with_blobs_at_hand(self, layers: Sequence[Layer]) -> tuple[Layer, ...]:
        """The layers, each with a blob that is there.

        Where a snapshot was there already the store has not fetched this manifest's blob of it, but may
        have the one that it was made from: the same layer, compressed differently.
        """
        found = []
        for layer in layers:
            other = None if self._store.blob_size(layer.blob) is not None else self._catalog.layer(layer.chain_id)
            found.append(other or layer)
        return tuple(found)

    async def _tag(self, image_id: str, reference: Reference) -> None:
        async with self._lock:
            image = self._catalog.get(image_id)
            if image is None:
                raise NotFound(f"No such image: {image_id}")
            tagged = time.time_ns()
            reached("image.tag.record")
            await asyncio.to_thread(self._records.tag, image_id, str(reference), tagged)
            self._catalog.put(replace(image, tagged=tagged))
            self._catalog.name(str(reference), image_id)

    async def _add_digest(self, image_id: str, repository_digest: tuple[str, str]) -> None:
        async with self._lock:
            if self._catalog.get(image_id) and repository_digest not in self._catalog.digests_of(image_id):
                reached("image.push.record")
                await asyncio.to_thread(self._records.add_digest, image_id, *repository_digest)
                self._catalog.name_digest(*repository_digest, image_id)

    async def _remove_names(
        self, image_id: str, references: Sequence[Reference], digests: Sequence[tuple[str, str]]
    ) -> None:
        async with self._lock:
            names = [str(reference) for reference in references if self._catalog.target(reference) == image_id]
            pairs = [pair for pair in digests if pair in self._catalog.digests_of(image_id)]
            triples = [(repository, digest, image_id) for repository, digest in pairs]
            reached("image.untag.record")
            await asyncio.to_thread(self._records.remove_names, names, triples)
            for name in names:
                self._catalog.unname(name)
            for repository, digest in pairs:
                self._catalog.unname_digest(repository, digest, image_id)

    async def _forget(self, image_id: str, check: Callable[[Image], None]) -> set[Piece]:
        async with self._lock:
            image = self._catalog.get(image_id)
            if image is None:
                return set()
            check(image)
            references, digests = self._catalog.references_of(image_id), self._catalog.digests_of(image_id)
            layers = {layer.chain_id: self._catalog.layers.get(layer.chain_id) for layer in image.layers}
            self._catalog.drop(image_id)
            gone = [chain_id for chain_id in layers if chain_id not in self._catalog.layers]
            try:
                reached("image.delete.record")
                await asyncio.to_thread(self._records.remove_image, image_id, gone)
            except BaseException:  # the record is still there: so is the image
                self._catalog.layers.update({name: layer for name, layer in layers.items() if layer})
                self._catalog.put(image)
                for reference in references:
                    self._catalog.name(str(reference), image_id)
                for repository, digest in digests:
                    self._catalog.name_digest(repository, digest, image_id)
                raise
            return image.pieces

    async def _uninterrupted(self, work: Coroutine[Any, Any, Result]) -> Result:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)
