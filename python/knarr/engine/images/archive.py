"""What a loaded archive holds: OCI layouts, and what `docker save` writes, old and new.

The archive's files are blobs in the store by now, under the names of their entries. Nothing in here
writes: `images_in` reads and checks, and gives the images to unpack. Sources: OCI image specification,
image-layout.md, with containerd's annotation for full names; Docker's manifest.json.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from knarr.engine.images.document import MAX_VALUES
from knarr.engine.images.fetch import describe
from knarr.engine.images.manifest import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_CONFIG,
    MAX_LAYERS,
    MAX_MANIFEST,
    MAX_NESTING,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    parse,
    select,
)
from knarr.errors import Corrupt, InvalidArgument, NotFound
from knarr.types import Digest, Platform, Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from knarr.engine.images.ledger import Candidate

FULL_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
MAX_IMAGES = 1000
_MAGIC = {b"\x1f\x8b": f"{OCI_LAYER}+gzip", b"\x28\xb5\x2f\xfd": f"{OCI_LAYER}+zstd"}


class Entry(NamedTuple):
    """A file of the archive, as a blob."""

    digest: str
    size: int


@dataclass(frozen=True)
class Found:
    """One image of an archive, and what it is to be called; no references: by its ID only."""

    candidate: Candidate
    references: tuple[Reference, ...]


class Archive:
    """The files of one archive. `read` gives a blob's bytes up to a limit, `head` its first four."""

    def __init__(
        self,
        entries: Iterable[tuple[str, str, int]],
        read: Callable[[str, int], bytes],
        head: Callable[[str], bytes],
    ) -> None:
        self._entries: dict[str, Entry] = {}
        for name, digest, size in entries:
            self._entries[name.removeprefix("./").lstrip("/")] = Entry(digest, size)
        self._read = read
        self._head = head

    def images(self, platform: Platform | None) -> list[Found]:
        """Every image in the archive for a platform; None: as they are, and this machine's where there is a choice.

        Corrupt for what is malformed or incomplete; NotFound where no image is for the platform.
        """
        if "oci-layout" in self._entries and "index.json" in self._entries:
            return self._oci(platform)
        if "manifest.json" in self._entries:
            return self._docker(platform)
        if "index.json" in self._entries:
            return self._oci(platform)
        raise Corrupt(
            "the archive holds no image: it has neither index.json (an OCI layout) nor manifest.json (docker save)"
        )

    def _file(self, name: str, limit: int, what: str) -> tuple[Entry, bytes]:
        entry = self._entries.get(name)
        if entry is None:
            raise Corrupt(f"the archive is incomplete: {what} ({name[:200]!a}) is missing")
        if entry.size > limit:
            raise Corrupt(f"{what} ({name[:200]!a}) has {entry.size} bytes: more than {limit} are refused")
        return entry, self._read(entry.digest, limit)

    def _has(self, descriptor: Descriptor) -> bool:
        return f"blobs/sha256/{descriptor.digest.hex}" in self._entries

    def _blob(self, descriptor: Descriptor, limit: int, what: str) -> bytes:
        self._verify(descriptor, what)
        return self._file(f"blobs/sha256/{descriptor.digest.hex}", limit, what)[1]

    def _verify(self, descriptor: Descriptor, what: str) -> None:
        entry = self._entries.get(f"blobs/sha256/{descriptor.digest.hex}")
        if entry is None:
            raise Corrupt(f"the archive is incomplete: {what} {descriptor.digest} is missing")
        if entry.digest != descriptor.digest:
            raise Corrupt(f"{what} {descriptor.digest} is corrupt: its digest is {entry.digest}")
        if entry.size != descriptor.size:
            raise Corrupt(f"{what} {descriptor.digest} has {entry.size} bytes, not {descriptor.size}")

    # OCI layouts

    def _oci(self, platform: Platform | None) -> list[Found]:
        index = parse(self._file("index.json", MAX_MANIFEST, "the index")[1], OCI_INDEX, "index.json")
        if not isinstance(index, Index):
            raise Corrupt("index.json is not an index")
        groups: dict[str, list[Descriptor]] = {}
        for entry in index.manifests:
            if not entry.is_about_an_image and entry.media_type in MANIFEST_TYPES | INDEX_TYPES:
                groups.setdefault(_name_of(entry), []).append(entry)
        if not groups:
            raise Corrupt("index.json lists no image")
        found: dict[str, Found] = {}
        for name, entries in groups.items():
            for entry in _choose(index, name, entries, platform):
                candidate = self._descend(entry, platform)
                references = (*(found[candidate.id].references if candidate.id in found else ()), *_references(name))
                found[candidate.id] = Found(candidate, references)
        return list(found.values())

    def _descend(self, entry: Descriptor, platform: Platform | None) -> Candidate:
        """From an entry of index.json to an image, through other indexes where it is one."""
        wanted = platform or Platform.host()
        documents: dict[str, bytes] = {}
        for _ in range(MAX_NESTING + 1):
            if entry.digest in documents:
                raise Corrupt(f"the index {entry.digest} leads back to itself")
            data = self._blob(entry, MAX_MANIFEST, "the manifest")
            documents[entry.digest] = data
            parsed = parse(data, entry.media_type, f"the manifest {entry.digest}")
            if isinstance(parsed, Manifest):
                return self._image(parsed, entry.digest, documents, platform)
            entry = select(parsed, wanted, strict=platform is not None, usable=self._has)
        raise Corrupt(f"index.json leads to an index more than {MAX_NESTING} deep")

    def _image(
        self, manifest: Manifest, digest: str, documents: dict[str, bytes], platform: Platform | None
    ) -> Candidate:
        config = self._blob(manifest.config, MAX_CONFIG, "the image config")
        candidate = describe(manifest, digest, config, documents)
        _check_platform(candidate, platform)
        for layer in manifest.layers:
            self._verify(layer, "the layer")
        return candidate

    # docker save

    def _docker(self, platform: Platform | None) -> list[Found]:
        _, data = self._file("manifest.json", MAX_MANIFEST, "the list of images")
        found: dict[str, Found] = {}
        for number, item in enumerate(_list_of_images(data)):
            what = f"manifest.json[{number}]"
            candidate = self._saved(item, what)
            if platform is not None and candidate.config.platform not in platform.candidates(strict=True):
                continue
            tags = item.get("RepoTags") or []
            if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
                raise Corrupt(f"{what}: RepoTags is not a list of strings")
            before = found[candidate.id].references if candidate.id in found else ()
            found[candidate.id] = Found(candidate, (*before, *(_tag(tag, what) for tag in tags)))
        if not found:
            raise NotFound(f"the archive has no image for {platform}")
        return list(found.values())

    def _saved(self, item: dict[str, Any], what: str) -> Candidate:
        """The archive has no manifest for this image: one is made from what there is."""
        config_name, layer_names = item.get("Config"), item.get("Layers") or []
        if not isinstance(config_name, str):
            raise Corrupt(f"{what}: Config is not the name of a file")
        if not isinstance(layer_names, list) or not all(isinstance(name, str) for name in layer_names):
            raise Corrupt(f"{what}: Layers is not a list of names of files")
        if len(layer_names) > MAX_LAYERS:
            raise Corrupt(f"{what}: {len(layer_names)} layers are refused, {MAX_LAYERS} are the limit")
        entry, config = self._file(config_name, MAX_CONFIG, "the image config")
        layers = []
        for name in layer_names:
            layer = self._entries.get(name)
            if layer is None:
                raise Corrupt(f"the archive is incomplete: the layer {name[:200]!a} is missing")
            head = self._head(layer.digest)
            kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), OCI_LAYER)
            layers.append(Descriptor(kind, Digest(layer.digest), layer.size))
        manifest = Manifest(OCI_MANIFEST, Descriptor(OCI_CONFIG, Digest(entry.digest), entry.size), tuple(layers))
        document = write_manifest(manifest)
        digest = "sha256:" + hashlib.sha256(document).hexdigest()
        return describe(manifest, digest, config, {digest: document})


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


def _list_of_images(data: bytes) -> list[dict[str, Any]]:
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_VALUES:
        raise Corrupt(f"manifest.json holds more than {MAX_VALUES} values")
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Corrupt("manifest.json is not valid JSON") from None
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Corrupt("manifest.json is not a list of images")
    if not 0 < len(value) <= MAX_IMAGES:
        raise Corrupt(f"manifest.json lists {len(value)} images: from 1 to {MAX_IMAGES} are taken")
    return value


def _name_of(entry: Descriptor) -> str:
    return entry.annotations.get(FULL_NAME) or entry.annotations.get(REF_NAME, "")


def _references(name: str) -> tuple[Reference, ...]:
    """What an image in an OCI layout is called; a bare tag, which names no repository, is no name."""
    if ":" not in name and "/" not in name:
        return ()
    try:
        reference = Reference.parse(name)
    except InvalidArgument as error:
        raise Corrupt(f"index.json calls an image {name[:100]!a}: {error}") from None
    return () if reference.digest else (reference.with_default_tag(),)


def _tag(text: str, what: str) -> Reference:
    try:
        reference = Reference.parse(text)
    except InvalidArgument as error:
        raise Corrupt(f"{what}: RepoTags has {text[:100]!a}: {error}") from None
    if reference.digest or not reference.tag:
        raise Corrupt(f"{what}: RepoTags has {text[:100]!a}, which is no tag")
    return reference


def _choose(index: Index, name: str, entries: list[Descriptor], platform: Platform | None) -> list[Descriptor]:
    """Of entries under one name the one for the platform; of nameless ones every one for the platform."""
    if len(entries) == 1 and (platform is None or entries[0].platform is None):
        return entries
    wanted = platform or Platform.host()
    if not name:
        fitting = wanted.candidates(strict=platform is not None)
        chosen = [entry for entry in entries if entry.platform is None or entry.platform in fitting]
        if chosen:
            return chosen
    return [select(Index(index.media_type, tuple(entries)), wanted, strict=platform is not None)]


def _check_platform(candidate: Candidate, platform: Platform | None) -> None:
    if platform is not None and candidate.config.platform not in platform.candidates(strict=True):
        raise NotFound(f"the archive's image {candidate.id} is for {candidate.config.platform}, not for {platform}")


def blob_reader(paths: Callable[[str], str]) -> Callable[[str], bytes]:
    """A function that gives the first four bytes of a blob."""

    def head(digest: str) -> bytes:
        with open(paths(digest), "rb") as file:
            return file.read(4)

    return head
