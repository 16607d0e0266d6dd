"""Images as an archive: an OCI layout with Docker's manifest.json beside it, as docker save writes it.

The blobs go out as they came in; what is held by a lease meanwhile cannot be removed. Sources: OCI image
specification, image-layout.md; POSIX pax for the tar around it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tarfile
from typing import TYPE_CHECKING, Any

from knarr.engine.images.archive import FULL_NAME, REF_NAME, write_manifest
from knarr.engine.images.catalog import Piece
from knarr.engine.images.manifest import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Descriptor, Manifest, parse
from knarr.errors import Corrupt, InvalidArgument
from knarr.types import Digest, Reference

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from knarr._core import Store
    from knarr.engine.images.catalog import Catalog, Image
    from knarr.engine.images.pieces import Pieces
    from knarr.types import Platform

CHUNK = 1 << 20
Chosen = list[tuple["Image", list[Reference]]]


def choose(catalog: Catalog, names: Sequence[str], platform: Platform | None) -> Chosen:
    """The images that names mean, each with the tags to write: a repository means all its tags.

    NotFound, InvalidArgument.
    """
    chosen: dict[str, tuple[Image, list[Reference]]] = {}
    for name in names:
        found = _of_repository(catalog, name, platform)
        if not found:
            image = catalog.find(name, platform)
            reference = catalog.name_in(name)
            found = [(image, [reference] if reference is not None and reference.tag else [])]
        for image, references in found:
            known = chosen.setdefault(image.id, (image, []))[1]
            known.extend(other for other in references if other not in known)
    if not chosen:
        raise InvalidArgument("no image is named: say which ones to save")
    return list(chosen.values())


def _of_repository(catalog: Catalog, name: str, platform: Platform | None) -> Chosen:
    """Every tag of a repository that is named without one; nothing for any other name."""
    try:
        reference = Reference.parse(name)
    except InvalidArgument:  # an ID of 64 digits; the look-up says what is wrong with others
        return []
    if reference.tag or reference.digest:
        return []
    repository, fitting = reference.repository, platform.candidates(strict=True) if platform else None
    found = [
        (image, [reference for reference in catalog.references_of(image.id) if reference.repository == repository])
        for image in catalog
        if fitting is None or image.platform in fitting
    ]
    return [(image, references) for image, references in found if references]


async def archive(store: Store, pieces: Pieces, chosen: Chosen) -> AsyncGenerator[bytes, None]:
    """The archive in pieces. Corrupt where a blob is missing, before the first piece."""
    held = {piece for image, _ in chosen for piece in image.pieces if piece.kind == "blob"}
    async with pieces.lease(held):
        documents, blobs = await asyncio.to_thread(_contents, store, chosen)
        for name, data in documents.items():
            yield _header(name, len(data)) + data + _padding(len(data))
        for digest, size in blobs.items():
            yield _header(f"blobs/sha256/{digest[7:]}", size)
            chunks = _read(store.blob_path(digest), size)
            while chunk := await asyncio.to_thread(next, chunks, b""):
                yield chunk
            yield _padding(size)
        yield bytes(2 * tarfile.BLOCKSIZE)


def _contents(store: Store, chosen: Chosen) -> tuple[dict[str, bytes], dict[str, int]]:
    """The small files by name, and the blobs with their sizes."""
    documents: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    blobs: dict[str, int] = {}
    entries: list[dict[str, Any]] = []
    saved: list[dict[str, Any]] = []
    for image, references in chosen:
        manifest = _manifest(store, image)
        digest = "sha256:" + hashlib.sha256(manifest).hexdigest()
        documents[f"blobs/sha256/{digest[7:]}"] = manifest
        for name in (image.id, *(layer.blob for layer in image.layers)):
            size = store.blob_size(name)
            if size is None:
                raise Corrupt(f"image {image.id} cannot be saved: its blob {name} is missing; pull or load it again")
            blobs[name] = size
        media_type = json.loads(manifest).get("mediaType", OCI_MANIFEST)
        entry = {"mediaType": media_type, "digest": digest, "size": len(manifest), "platform": _platform(image)}
        names = [{FULL_NAME: str(reference), REF_NAME: reference.tag} for reference in references]
        entries += [{**entry, "annotations": name} for name in names] or [entry]
        saved.append({
            "Config": f"blobs/sha256/{image.id[7:]}",
            "RepoTags": [reference.familiar for reference in references] or None,
            "Layers": [f"blobs/sha256/{layer.blob[7:]}" for layer in image.layers],
        })  # fmt: skip
    documents["index.json"] = _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    documents["manifest.json"] = _json(saved)
    return documents, blobs


def _manifest(store: Store, image: Image) -> bytes:
    """The manifest that the image came with; one of our own where its layers are there under other blobs."""
    own = [Piece("blob", layer.blob) for layer in image.layers]
    if store.blob_size(image.manifest_digest) is not None:
        data = store.blob(image.manifest_digest)
        parsed = parse(data, image.manifest_type, f"the manifest {image.manifest_digest}")
        if isinstance(parsed, Manifest) and [Piece("blob", layer.digest) for layer in parsed.layers] == own:
            return data
    layers = tuple(Descriptor(layer.media_type, Digest(layer.blob), layer.blob_size) for layer in image.layers)
    config = Descriptor(OCI_CONFIG, Digest(image.id), store.blob_size(image.id) or 0)
    return write_manifest(Manifest(OCI_MANIFEST, config, layers))


def _platform(image: Image) -> dict[str, str]:
    found = {"architecture": image.platform.architecture, "os": image.platform.os}
    return found | ({"variant": image.platform.variant} if image.platform.variant else {})


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def _read(path: str, size: int) -> Iterator[bytes]:
    """Exactly so many bytes of a file. Corrupt where it has fewer."""
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, size, os.POSIX_FADV_SEQUENTIAL)
        while size:
            chunk = file.read(min(CHUNK, size))
            if not chunk:
                raise Corrupt(f"{path} ends {size} bytes too early")
            size -= len(chunk)
            yield chunk
