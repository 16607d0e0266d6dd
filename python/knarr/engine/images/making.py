"""New images: a container's changes upon its image, and archives of whole root file systems.

Both go the way of every arrival, step by step: while no piece is removed, the new layer becomes a blob and all of
the image's pieces get a lease; the store makes the snapshot; the ledger records the image with its manifest and config.
A kill between two steps leaves a blob, or a blob and a snapshot, of which no record speaks; an error removes them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from knarr._core import Progress
from knarr.engine.images.catalog import Piece
from knarr.engine.images.config import read_config
from knarr.engine.images.layers import Layer, stack
from knarr.engine.images.ledger import Candidate
from knarr.engine.images.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Manifest, write_manifest
from knarr.errors import Corrupt, InvalidArgument
from knarr.failpoints import reached
from knarr.types import Digest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Take = Callable[[], Awaitable["NewLayer | None"]]
    Describe = Callable[[bool], dict[str, Any]]

    from knarr._core import Store
    from knarr.engine.images.catalog import Image
    from knarr.engine.images.ledger import Ledger
    from knarr.engine.images.pieces import Pieces
    from knarr.engine.images.threads import Threads
    from knarr.types import Reference

__all__ = ["Making", "NewLayer", "now", "run_config"]

# Of a container's config, what an image keeps for its containers.
_KEPT = (
    "User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal", "ArgsEscaped",
    "Healthcheck", "OnBuild", "Shell",
)  # fmt: skip


T = TypeVar("T")


class NewLayer(NamedTuple):
    """A layer that is a blob in the store by now."""

    digest: str
    size: int
    diff_id: str
    compression: str  # "gzip" or "zstd"


def run_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What an image keeps of a container's config."""
    return {name: config[name] for name in _KEPT if config.get(name)}


def now() -> str:
    """The time as a config has it (RFC 3339)."""
    seconds, fraction = divmod(time.time_ns(), 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{fraction:09d}Z"


class Making:
    """Makes images in one store."""

    def __init__(self, store: Store, ledger: Ledger, pieces: Pieces, threads: Threads) -> None:
        self._store = store
        self._ledger = ledger
        self._pieces = pieces
        self._threads = threads

    async def blocking(self, work: Callable[[], T]) -> T:
        """Something for `take` to do in a thread; it is done to its end whoever is cancelled."""
        return await self._threads.run(work)

    async def make(
        self,
        base: Image | None,
        take: Take,
        describe: Describe,
        reference: Reference | None,
    ) -> Image:
        """An image of a base's layers and the one that `take` puts into the store, where that is any.

        describe: the config's document, given whether there is a new layer; the diff IDs are filled in here.
        """
        candidates: set[Piece] = set()
        try:
            async with contextlib.AsyncExitStack() as held:
                new = await self._take(base, take, describe, candidates, held)
                reached("image.make.unpack")
                sizes = await self._unpack(new)
                return await self._ledger.record(new, sizes, [reference] if reference else [], None)
        finally:
            await self._pieces.remove_unused(candidates)

    async def _take(
        self,
        base: Image | None,
        take: Take,
        describe: Describe,
        candidates: set[Piece],
        held: contextlib.AsyncExitStack,
    ) -> Candidate:
        """The new layer as a blob, and a lease on all that the image is made of."""
        async with self._pieces.nothing_removed():
            layer = await take()
            if layer is not None:
                candidates.add(Piece("blob", layer.digest))
            new = _candidate(base, layer, describe(layer is not None))
            candidates |= new.pieces
            lease = await held.enter_async_context(self._pieces.lease())
            await lease.add(new.pieces)
            return new

    async def _unpack(self, new: Candidate) -> list[int]:
        progress = Progress()
        return await self._threads.run(lambda: self._store.unpack(list(new.layers), progress), progress.cancel)


def _candidate(base: Image | None, layer: NewLayer | None, document: dict[str, Any]) -> Candidate:
    """The image with its documents, from its layers and the config without diff IDs."""
    layers: list[Layer] = list(base.layers) if base else []
    diff_ids = [known.diff_id for known in layers]
    if layer is not None:
        media_type = f"{OCI_LAYER}+{layer.compression}"
        descriptor = Descriptor(media_type, Digest(layer.digest), layer.size)
        blobs = [Descriptor(known.media_type, Digest(known.blob), known.blob_size) for known in layers]
        diff_ids.append(layer.diff_id)
        layers = [*layers, stack([*blobs, descriptor], diff_ids)[-1]]
    document["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
    config = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    image_id = "sha256:" + hashlib.sha256(config).hexdigest()
    try:
        checked = read_config(config, len(layers), "the new image's config")
    except Corrupt as error:  # what was asked for is in it
        raise InvalidArgument(str(error)) from error
    manifest = write_manifest(
        Manifest(
            OCI_MANIFEST,
            Descriptor(OCI_CONFIG, Digest(image_id), len(config)),
            tuple(Descriptor(one.media_type, Digest(one.blob), one.blob_size) for one in layers),
        )
    )
    manifest_digest = "sha256:" + hashlib.sha256(manifest).hexdigest()
    documents = {manifest_digest: manifest, image_id: config}
    return Candidate(image_id, manifest_digest, OCI_MANIFEST, checked, tuple(layers), documents)
