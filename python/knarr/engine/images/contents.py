"""What an image consists of in the store: its documents, and the blobs that they name.

The first of an image's recorded blobs is what its name meant where it came from: a manifest, or an index above it. An
index may list images for other platforms, each in the catalog by itself, and attestations: `family` in catalog.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from knarr.engine.images.manifest import (
    MANIFEST_TYPES,
    MAX_NESTING,
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    parse,
    write_manifest,
)
from knarr.types import Digest

if TYPE_CHECKING:
    from knarr._core import Store
    from knarr.engine.images.catalog import Image

__all__ = ["Contents", "Document", "contents_of", "own_manifest"]


@dataclass(frozen=True)
class Document:
    """A manifest or an index."""

    digest: str
    media_type: str
    data: bytes
    parsed: Manifest | Index

    def descriptor(self) -> dict[str, Any]:
        """The OCI descriptor of it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data)}


@dataclass
class Contents:
    """Documents, each after those that it names; the last is the top. `missing`: digests of what is not here.

    Of an index only those manifests are among the documents which are here with all that they need.
    """

    documents: list[Document] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def is_index(self) -> bool:
        return isinstance(self.documents[-1].parsed, Index)

    @property
    def blobs(self) -> dict[str, int]:
        """Configs and layers, and how large they are said to be."""
        found: dict[str, int] = {}
        for document in self.documents:
            if isinstance(document.parsed, Manifest):
                for blob in (document.parsed.config, *document.parsed.layers):
                    found[blob.digest] = blob.size
        return found


def contents_of(store: Store, image: Image, *, whole: bool) -> Contents:
    """An image's own manifest, or, where `whole`, all below the index that it came from."""
    if whole and image.index and store.blob_size(image.index) is not None:
        found = Contents()
        _collect(store, image.index, "", found, 0)
        return found
    manifest = own_manifest(store, image)
    found = Contents([manifest])
    found.missing = [digest for digest in found.blobs if store.blob_size(digest) is None]
    return found


def own_manifest(store: Store, image: Image) -> Document:
    """The manifest that the image came with; one of our own where its layers are here under other blobs."""
    if store.blob_size(image.manifest_digest) is not None:
        data = store.blob(image.manifest_digest)
        parsed = parse(data, image.manifest_type, f"the manifest {image.manifest_digest}")
        if isinstance(parsed, Manifest) and [layer.digest for layer in parsed.layers] == [
            layer.blob for layer in image.layers
        ]:
            return Document(image.manifest_digest, parsed.media_type, data, parsed)
    layers = tuple(Descriptor(layer.media_type, Digest(layer.blob), layer.blob_size) for layer in image.layers)
    config = Descriptor(OCI_CONFIG, Digest(image.id), store.blob_size(image.id) or 0)
    made = Manifest(OCI_MANIFEST, config, layers)
    data = write_manifest(made)
    return Document("sha256:" + hashlib.sha256(data).hexdigest(), OCI_MANIFEST, data, made)


def _collect(store: Store, digest: str, media_type: str, found: Contents, depth: int) -> None:
    """Everything below a document, depth first."""
    if any(document.digest == digest for document in found.documents):
        return
    if store.blob_size(digest) is None:
        found.missing.append(digest)
        return
    data = store.blob(digest)
    parsed = parse(data, media_type, f"the manifest {digest}", lenient=True)
    if isinstance(parsed, Manifest):
        missing = [blob.digest for blob in (parsed.config, *parsed.layers) if store.blob_size(blob.digest) is None]
        if missing:
            found.missing += missing
            return
    elif depth <= MAX_NESTING:
        for entry in parsed.manifests:
            if entry.media_type in MANIFEST_TYPES or depth < MAX_NESTING:
                _collect(store, entry.digest, entry.media_type, found, depth + 1)
    found.documents.append(Document(digest, parsed.media_type, data, parsed))
