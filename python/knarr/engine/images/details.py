"""What is said of an image beside its record: its target, the manifests of its index, its attestations.

An image out of an index is shown as the index: what it lists for other platforms is there with it, where it is in the
catalog, and otherwise listed as not available. Documents are read once and kept, as no digest ever means another.
"""

from __future__ import annotations

import json
import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from knarr.engine.images.document import decode
from knarr.engine.images.fetch import attestations, statements
from knarr.engine.images.manifest import MAX_MANIFEST, REFERENCE_DIGEST, REFERENCE_TYPE, Index, Manifest, parse
from knarr.errors import Corrupt, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from knarr._core import Store
    from knarr.engine.images.catalog import Catalog, Image
    from knarr.engine.images.manifest import Descriptor

log = logging.getLogger("knarr.images")

KEPT = 512  # documents
PREDICATE = "in-toto.io/predicate-type"  # the annotation by which BuildKit marks a statement
_DESCRIPTOR = ("mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType")


class Details:
    """Answers about the images of one catalog. in_use(image ID): the IDs of its containers."""

    def __init__(self, store: Store, catalog: Catalog, in_use: Callable[[str], Sequence[str]]) -> None:
        self._store = store
        self._catalog = catalog
        self._in_use = in_use
        self._read = lru_cache(maxsize=KEPT)(self._read_anew)

    def target(self, image: Image) -> dict[str, Any]:
        """The OCI descriptor of what the image's name means: its index, or its manifest."""
        if image.index and (known := self._known(image.index)):
            document, size = known
            return {"mediaType": document["mediaType"], "digest": image.index, "size": size}
        return self.own(image)

    def own(self, image: Image) -> dict[str, Any]:
        """The OCI descriptor of the image's own manifest; size 0 where its blob is missing."""
        size = self._store.blob_size(image.manifest_digest) or 0
        return {"mediaType": image.manifest_type, "digest": image.manifest_digest, "size": size}

    def manifests(self, image: Image) -> list[dict[str, Any]]:
        """The API's ImageManifestSummary of everything that the image's index lists, or of its one manifest."""
        family = {one.manifest_digest: one for one in self._catalog.family(image)}
        return [self._summary(entry, family) for entry in self._entries(image)]

    def attestations(self, image: Image, types: Collection[str], *, bodies: bool) -> list[dict[str, Any]]:
        """The API's AttestationStatement of each that is about the image. types: predicate types; empty for all.

        bodies: with the statement itself. Corrupt where one cannot be read.
        """
        found = []
        for about in self._about(image):
            parsed = parse(
                self._store.blob(about.digest), about.media_type, f"the attestation {about.digest}", lenient=True
            )
            statements(parsed)
            for layer in self._read(about.digest)[0].get("layers") or []:
                kind = (layer.get("annotations") or {}).get(PREDICATE)
                if not kind or (types and kind not in types):
                    continue
                statement: dict[str, Any] = {"Descriptor": _descriptor(layer), "PredicateType": kind}
                if bodies:
                    statement["Statement"] = self._statement(layer["digest"])
                found.append(statement)
        return found

    def _statement(self, digest: str) -> Any:
        if self._store.blob_size(digest) is None:
            raise Corrupt(f"attestation statement {digest} is not available locally: pull the image again")
        try:
            return json.loads(self._store.blob(digest))
        except (ValueError, RecursionError):
            raise Corrupt(f"attestation statement {digest} is not JSON") from None

    def _about(self, image: Image) -> list[Descriptor]:
        """The attestation manifests for an image that are here."""
        found: list[Descriptor] = []
        if not image.index:
            return found
        for digest in image.blobs[: image.blobs.index(image.manifest_digest)]:  # the indexes that lead to it
            known = self._known(digest)
            if known and "manifests" in known[0]:
                parsed = parse(self._store.blob(digest), known[0]["mediaType"], lenient=True)
                if isinstance(parsed, Index):
                    found += attestations(parsed, image.manifest_digest)
        return [entry for entry in found if self._store.blob_size(entry.digest) is not None]

    def _entries(self, image: Image) -> list[dict[str, Any]]:
        if not image.index or not (known := self._known(image.index)):
            return [self.own(image)]
        found: list[dict[str, Any]] = []
        for entry in known[0].get("manifests") or []:
            inner = self._known(entry["digest"])
            found += (inner[0].get("manifests") if inner else None) or [entry]
        return found

    def _summary(self, entry: dict[str, Any], family: dict[str, Image]) -> dict[str, Any]:
        digest, annotations = entry["digest"], entry.get("annotations") or {}
        image = family.get(digest)
        content, whole = self._content(digest)
        unpacked = image.size if image else 0
        summary: dict[str, Any] = {
            "ID": digest,
            "Descriptor": _descriptor(entry),
            "Available": whole,
            "Size": {"Content": content, "Total": content + unpacked},
            "Kind": "unknown",
        }
        if REFERENCE_TYPE in annotations:
            summary["Kind"] = "attestation"
            summary["AttestationData"] = {"For": annotations.get(REFERENCE_DIGEST, "")}
        elif image is not None or entry.get("platform"):
            platform = entry.get("platform") or _platform(image)
            summary["Kind"] = "image"
            summary["ImageData"] = {
                "Platform": platform,
                "Containers": list(self._in_use(image.id)) if image else [],
                "Size": {"Unpacked": unpacked},
            }
        return summary

    def _content(self, digest: str) -> tuple[int, bool]:
        """Bytes of what is here of a manifest, and whether that is all."""
        known = self._known(digest)
        if known is None:
            return 0, False
        document, size = known
        blobs = {blob["digest"] for blob in (document.get("config") or {}, *(document.get("layers") or ())) if blob}
        sizes = [self._store.blob_size(blob) for blob in blobs]
        return size + sum(known for known in sizes if known is not None), None not in sizes

    def _known(self, digest: str) -> tuple[dict[str, Any], int] | None:
        """A document that is here, and its size."""
        if self._store.blob_size(digest) is None:
            return None
        try:
            return self._read(digest)
        except NotFound:
            return None
        except Corrupt as error:  # what else is there can be shown all the same
            log.warning("%s", error)
            return None

    def _read_anew(self, digest: str) -> tuple[dict[str, Any], int]:
        """A manifest or an index as JSON with its media type, and its size. KnarrError where it cannot be had."""
        data = self._store.blob(digest, MAX_MANIFEST)
        parsed: Manifest | Index = parse(data, "", f"the manifest {digest}", lenient=True)
        return {**decode(data, f"the manifest {digest}", MAX_MANIFEST), "mediaType": parsed.media_type}, len(data)


def _descriptor(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name in _DESCRIPTOR if entry.get(name) is not None}


def _platform(image: Image | None) -> dict[str, str]:
    if image is None:
        return {"architecture": "unknown", "os": "unknown"}
    found = {"architecture": image.platform.architecture, "os": image.platform.os}
    return found | ({"variant": image.platform.variant} if image.platform.variant else {})
