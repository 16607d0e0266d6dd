"""Manifests and indexes: Docker's schema 2 and OCI's, parsed within limits, and the choice of a platform.

Sources: OCI image specification (descriptor, manifest, image index) and the distribution
project's "image manifest version 2, schema 2". A document that could be read as a manifest and
as an index is refused, whatever it calls itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from knarr.engine.images.document import decode
from knarr.errors import Corrupt, InvalidArgument, NotFound, Unsupported
from knarr.types import Digest, Platform

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_MANIFEST = 4 << 20  # bytes, the distribution specification's own limit
MAX_LAYERS = 500
MAX_MANIFESTS = 1000
MAX_NESTING = 2  # an index may lead to another, and that one to manifests only
MAX_BLOB = 1 << 40
MAX_CONFIG = 8 << 20

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPES = {DOCKER_MANIFEST, OCI_MANIFEST}
INDEX_TYPES = {DOCKER_LIST, OCI_INDEX}
SCHEMA_1 = {
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
}
CONFIG_TYPES = {"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"}
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
# What a layer may be called, and the one name by which the store knows its compression.
LAYER_TYPES = {
    OCI_LAYER: OCI_LAYER,
    "application/vnd.oci.image.layer.v1.tar+gzip": f"{OCI_LAYER}+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd": f"{OCI_LAYER}+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": OCI_LAYER,
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": f"{OCI_LAYER}+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": f"{OCI_LAYER}+zstd",
    "application/vnd.docker.image.rootfs.diff.tar": OCI_LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{OCI_LAYER}+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": f"{OCI_LAYER}+zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": f"{OCI_LAYER}+gzip",
}
# Layers that only their own source may give out (OCI image specification, layer.md, non-distributable layers).
FOREIGN_LAYERS = {name for name in LAYER_TYPES if ".nondistributable." in name or ".foreign." in name}
REFERENCE_TYPE = "vnd.docker.reference.type"  # the annotation on what is about an image and not one
SUBJECT = "io.containerd.manifest.subject"  # the same in the archive of one platform that docker saves
REFERENCE_DIGEST = "vnd.docker.reference.digest"  # the manifest of the image that it is about


@dataclass(frozen=True)
class Descriptor:
    """What a document says about a blob: its media type, digest and size in bytes."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def is_about_an_image(self) -> bool:
        """An attestation or the like, listed beside the images that it is about."""
        unknown = self.platform is not None and "unknown" in {self.platform.os, self.platform.architecture}
        return unknown or REFERENCE_TYPE in self.annotations or SUBJECT in self.annotations


@dataclass(frozen=True)
class Manifest:
    """One image for one platform."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True)
class Index:
    """A choice of images, one for each platform."""

    media_type: str
    manifests: tuple[Descriptor, ...]


def parse(data: bytes, media_type: str = "", what: str = "the manifest", *, lenient: bool = False) -> Manifest | Index:
    """Read a manifest or an index. Corrupt for malformed bytes, Unsupported for what is not an image unless lenient."""
    document = decode(data, what, MAX_MANIFEST)
    declared = document.get("mediaType", "")
    if not isinstance(declared, str):
        raise Corrupt(f"{what}: mediaType is not a string")
    if SCHEMA_1 & {declared, media_type} or document.get("schemaVersion") == 1:
        raise Unsupported(f"{what} has the obsolete schema 1: push the image again with a current tool")
    if document.get("schemaVersion") != 2:
        raise Corrupt(f"{what}: schemaVersion is not 2")
    known = [name for name in (declared, media_type) if name in MANIFEST_TYPES | INDEX_TYPES]
    if len(set(known)) == 2:
        raise Corrupt(f"{what} says that it is {declared}, and was sent as {media_type}")
    if ("manifests" in document) == ("layers" in document or "config" in document):
        raise Corrupt(f"{what} is neither a manifest nor an index, or claims to be both")
    if "manifests" in document:
        kind = known[0] if known else OCI_INDEX
        if kind not in INDEX_TYPES:
            raise Corrupt(f"{what} is an index, but calls itself {kind}")
        return Index(kind, _descriptors(document["manifests"], what, "manifests", MAX_MANIFESTS))
    kind = known[0] if known else OCI_MANIFEST
    if kind not in MANIFEST_TYPES:
        raise Corrupt(f"{what} is a manifest, but calls itself {kind}")
    config = _descriptor(document.get("config"), what, "config")
    layers = _descriptors(document.get("layers"), what, "layers", MAX_LAYERS)
    if lenient:
        return Manifest(kind, config, layers)
    return Manifest(kind, _image_config(config, what), tuple(_layer(layer, what) for layer in layers))


def _image_config(config: Descriptor, what: str) -> Descriptor:
    if config.media_type not in CONFIG_TYPES:
        raise Unsupported(f"{what} is not of a container image: its config is {config.media_type!a}")
    if config.size > MAX_CONFIG:
        raise Corrupt(f"{what}: a config of {config.size} bytes is refused, {MAX_CONFIG} are the limit")
    return config


def _layer(layer: Descriptor, what: str) -> Descriptor:
    if layer.media_type not in LAYER_TYPES:
        raise Unsupported(f"{what}: the layer {layer.digest} is {layer.media_type!a}, which no file system is made of")
    return layer


def _descriptors(value: Any, what: str, name: str, limit: int) -> tuple[Descriptor, ...]:
    if not isinstance(value, list):
        raise Corrupt(f"{what}: {name} is not a list")
    if len(value) > limit:
        raise Corrupt(f"{what}: {len(value)} {name} are refused, {limit} are the limit")
    return tuple(_descriptor(item, what, f"{name}[{number}]") for number, item in enumerate(value))


def _descriptor(value: Any, what: str, name: str) -> Descriptor:
    if not isinstance(value, dict):
        raise Corrupt(f"{what}: {name} is not an object")
    media_type, size, annotations = value.get("mediaType", ""), value.get("size"), value.get("annotations") or {}
    if not isinstance(media_type, str) or len(media_type) > 255:
        raise Corrupt(f"{what}: {name}.mediaType is not a media type")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MAX_BLOB:
        raise Corrupt(f"{what}: {name}.size is not a number of bytes from 0 to {MAX_BLOB}")
    if not isinstance(annotations, dict) or not all(isinstance(text, str) for text in annotations.values()):
        raise Corrupt(f"{what}: {name}.annotations are not strings")
    digest = _digest(value.get("digest"), what, f"{name}.digest")
    return Descriptor(media_type, digest, size, _platform(value.get("platform"), what, name), annotations)


def _digest(value: Any, what: str, name: str) -> Digest:
    if not isinstance(value, str):
        raise Corrupt(f"{what}: {name} is not a string")
    try:
        return Digest(value)
    except InvalidArgument as error:
        raise Corrupt(f"{what}: {name}: {error}") from None


def _platform(value: Any, what: str, name: str) -> Platform | None:
    if value is None:
        return None
    parts = [value.get(key) or "" for key in ("os", "architecture", "variant")] if isinstance(value, dict) else [None]
    if not all(isinstance(part, str) and len(part) <= 64 for part in parts):
        raise Corrupt(f"{what}: {name}.platform is not an object with os and architecture")
    if not parts[0] and not parts[1]:
        return None
    return Platform.of(*parts)


def select(
    index: Index, wanted: Platform, *, strict: bool, usable: Callable[[Descriptor], bool] | None = None
) -> Descriptor:
    """The entry of an index for a platform; strict where somebody asked for that platform by name.

    An entry that names no platform is taken where no other fits: its image's config decides then.
    `usable` leaves out what cannot be had (an archive need not hold every entry). NotFound, with Docker's words.
    """
    images = [entry for entry in index.manifests if not entry.is_about_an_image and (usable is None or usable(entry))]
    for platform in wanted.candidates(strict=strict):
        for entry in images:
            if entry.platform == platform:
                return entry
    for entry in images:
        if entry.platform is None and entry.media_type in MANIFEST_TYPES | INDEX_TYPES:
            return entry
    raise NotFound(f"no matching manifest for {wanted} in the manifest list entries")


def write_manifest(manifest: Manifest) -> bytes:
    """An OCI manifest as bytes, the same for the same manifest."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _plain(manifest.config),
        "layers": [_plain(layer) for layer in manifest.layers],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _plain(descriptor: Descriptor) -> dict[str, Any]:
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}
