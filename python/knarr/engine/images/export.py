"""Images as an archive: an OCI layout with Docker's manifest.json beside it, as docker save writes it.

The blobs go out as they came in; what is held by a lease meanwhile cannot be removed. Sources: OCI image
specification, image-layout.md; POSIX pax for the tar around it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knarr.engine.images.archive import FULL_NAME, REF_NAME
from knarr.engine.images.contents import contents_of
from knarr.engine.images.manifest import OCI_INDEX
from knarr.errors import Corrupt, InvalidArgument, NotFound
from knarr.types import Reference

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from knarr._core import Store
    from knarr.engine.images.catalog import Catalog, Image
    from knarr.engine.images.pieces import Pieces
    from knarr.types import Platform

CHUNK = 1 << 20


@dataclass(frozen=True)
class Chosen:
    """Images that came from one index, or a single one, and the tags to write for them."""

    images: list[Image]
    references: list[Reference]
    whole: bool  # with the index, and with what else is here of it


def choose(catalog: Catalog, names: Sequence[str], platforms: Sequence[Platform]) -> list[Chosen]:
    """The images that names mean, each with the tags to write: a repository means all its tags.

    Without platforms an image goes with all that is here of the index it came from. NotFound, InvalidArgument.
    """
    chosen: dict[str, Chosen] = {}
    for name in names:
        for image, references in _meant(catalog, name):
            members = _members(catalog, image, name, platforms)
            known = chosen.setdefault(members[0].id, Chosen(members, [], whole=not platforms)).references
            known.extend(other for other in references if other not in known)
    if not chosen:
        raise InvalidArgument("no image is named: say which ones to save")
    return list(chosen.values())


def _meant(catalog: Catalog, name: str) -> list[tuple[Image, list[Reference]]]:
    """Every tag of a repository that is named without one, else the one image."""
    with contextlib.suppress(InvalidArgument):  # an ID of 64 digits; the look-up says what is wrong with others
        reference = Reference.parse(name)
        if not reference.tag and not reference.digest:
            tags: dict[str, list[Reference]] = {}
            for tag in catalog.tags_of(reference.repository):
                tags.setdefault(catalog.target(tag) or "", []).append(tag)
            if tags:
                return [(image, found) for image_id, found in tags.items() if (image := catalog.get(image_id))]
    image = catalog.find(name)
    named = catalog.name_in(name)
    return [(image, [named] if named is not None and named.tag else [])]


def _members(catalog: Catalog, image: Image, name: str, platforms: Sequence[Platform]) -> list[Image]:
    family = catalog.family(image)
    if not platforms:
        return family
    found: list[Image] = []
    for platform in platforms:
        fitting = [one for wanted in platform.candidates(strict=True) for one in family if one.platform == wanted]
        if not fitting:
            raise NotFound(
                f"image with reference {name} was found but does not provide the specified platform ({platform})"
            )
        found += [one for one in fitting[:1] if one not in found]
    return found


async def archive(store: Store, pieces: Pieces, chosen: Sequence[Chosen]) -> AsyncGenerator[bytes, None]:
    """The archive in pieces. Corrupt where a blob is missing, before the first piece."""
    held = {piece for one in chosen for image in one.images for piece in image.pieces if piece.kind == "blob"}
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


def _contents(store: Store, chosen: Sequence[Chosen]) -> tuple[dict[str, bytes], dict[str, int]]:
    """The small files by name, and the blobs with their sizes."""
    documents: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    blobs: dict[str, int] = {}
    entries: list[dict[str, Any]] = []
    saved: list[dict[str, Any]] = []
    for one in chosen:
        tops = []
        for image in one.images:
            own = contents_of(store, image, whole=False)
            if own.missing:
                raise Corrupt(
                    f"image {image.id} cannot be saved: its blob {own.missing[0]} is missing; pull or load it again"
                )
            whole = contents_of(store, image, whole=True) if one.whole else own
            # Where its layers are here under other blobs than the index says, the index leads nowhere.
            found = whole if any(document == own.documents[-1] for document in whole.documents) else own
            for document in found.documents:
                documents[f"blobs/sha256/{document.digest[7:]}"] = document.data
            blobs |= found.blobs
            entry = {**found.documents[-1].descriptor()}
            if not found.is_index:
                entry["platform"] = _platform(image)
            if entry not in tops:
                tops.append(entry)
        names = [{FULL_NAME: str(reference), REF_NAME: reference.tag} for reference in one.references]
        entries += [{**top, "annotations": name} for top in tops for name in names] or tops
        saved.append({
            "Config": f"blobs/sha256/{one.images[0].id[7:]}",
            "RepoTags": [reference.familiar for reference in one.references] or None,
            "Layers": [f"blobs/sha256/{layer.blob[7:]}" for layer in one.images[0].layers],
        })  # fmt: skip
    documents["index.json"] = _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    documents["manifest.json"] = _json(saved)
    return documents, blobs


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
