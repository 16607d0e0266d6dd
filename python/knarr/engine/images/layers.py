"""From a manifest and a config to what the store unpacks: layers with their chain IDs.

A chain ID names a stack of layers, OCI image specification, config.md: that of the lowest is its diff
ID, and that of every other the digest of "<chain ID below> <diff ID>". Equal stacks share snapshots.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from knarr.engine.images.manifest import LAYER_TYPES
from knarr.types import Digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knarr.engine.images.manifest import Descriptor


class Layer(NamedTuple):
    """One layer in the shape that `_core.Store.unpack` takes; `parent` is "" for the lowest."""

    blob: str
    blob_size: int
    media_type: str
    diff_id: str
    chain_id: str
    parent: str


def chain_ids(diff_ids: Sequence[str]) -> list[Digest]:
    """The chain ID of each layer, lowest first."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        text = f"{chain[-1]} {diff_id}".encode() if chain else b""
        chain.append(Digest("sha256:" + hashlib.sha256(text).hexdigest() if chain else diff_id))
    return chain


def stack(blobs: Sequence[Descriptor], diff_ids: Sequence[str]) -> list[Layer]:
    """The layers of an image, lowest first."""
    chain = chain_ids(diff_ids)
    parents = ["", *chain[:-1]] if chain else []
    return [
        Layer(blob.digest, blob.size, LAYER_TYPES[blob.media_type], diff_id, chain_id, parent)
        for blob, diff_id, chain_id, parent in zip(blobs, diff_ids, chain, parents, strict=True)
    ]
