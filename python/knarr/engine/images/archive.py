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
from knarr.engine.images.fetch import attestations, describe, statements
from knarr.engine.images.manifest import (
    CONFIG_TYPES,
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
    write_manifest,
)
from knarr.errors import Corrupt, InvalidArgument, NotFound
from knarr.types import Digest, Platform, Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

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
    """One image of an archive, and what it is to be called; no references: by its ID only.

    beside: it came along with another that has the names, out of the same index, for another platform.
    """

    candidate: Candidate
    references: tuple[Reference, ...]
    beside: bool = False


class Leaf(NamedTuple):
    """A manifest below an index: its entry, the documents that lead to it, and what the index has about it."""

    entry: Descriptor
    documents: dict[str, bytes]
    about: list[Descriptor]


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

    def images(self, platforms: Sequence[Platform]) -> list[Found]:
        """Every image in the archive for some platforms; none: for all, and this machine's has the names of an index.

        Corrupt for what is malformed or incomplete; NotFound where no image is for the platform.
        """
        if "oci-layout" in self._entries and "index.json" in self._entries:
            return self._oci(platforms)
        if "manifest.json" in self._entries:
            return self._docker(platforms)
        if "index.json" in self._entries:
            return self._oci(platforms)
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

    def _oci(self, platforms: Sequence[Platform]) -> list[Found]:
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
            for entry in _choose(index, name, entries, platforms):
                for number, candidate in enumerate(self._descend(entry, platforms)):
                    known = found.get(candidate.id)
                    references = (*(known.references if known else ()), *(() if number else _references(name)))
                    beside = number > 0 and (known is None or known.beside)
                    found[candidate.id] = Found(candidate, references, beside)
        return list(found.values())

    def _descend(self, entry: Descriptor, platforms: Sequence[Platform]) -> list[Candidate]:
        """From an entry of index.json to its images, through other indexes where it is one: the best one first."""
        data = self._blob(entry, MAX_MANIFEST, "the manifest")
        parsed = parse(data, entry.media_type, f"the manifest {entry.digest}")
        documents = {str(entry.digest): data}
        if isinstance(parsed, Manifest):
            return [self._image(parsed, entry.digest, documents, platforms)]
        leaves = self._leaves(parsed, documents)
        among = Index(parsed.media_type, tuple(leaf.entry for leaf in leaves))
        wanted = platforms or [Platform.host()]
        chosen = [select(among, platform, strict=bool(platforms), usable=self._has) for platform in wanted]
        found = {
            leaf.entry.digest: self._leaf(leaf, platforms) for one in chosen for leaf in leaves if leaf.entry == one
        }
        if not platforms:  # whatever else is all here comes along
            for leaf in leaves:
                if leaf.entry.digest not in found and self._is_whole(leaf):
                    found[leaf.entry.digest] = self._leaf(leaf, platforms)
        return list(found.values())

    def _leaves(self, index: Index, documents: dict[str, bytes]) -> list[Leaf]:
        """The images below an index, each with the documents that lead to it."""
        found: list[Leaf] = []
        for entry in index.manifests:
            if entry.is_about_an_image or entry.media_type not in MANIFEST_TYPES | INDEX_TYPES:
                continue
            if entry.media_type in MANIFEST_TYPES:
                found.append(Leaf(entry, documents, attestations(index, entry.digest)))
            elif self._has(entry):
                if entry.digest in documents:
                    raise Corrupt(f"the index {entry.digest} leads back to itself")
                if len(documents) >= MAX_NESTING:
                    raise Corrupt(f"index.json leads to an index more than {MAX_NESTING} deep")
                data = self._blob(entry, MAX_MANIFEST, "the index")
                inner = parse(data, entry.media_type, f"the index {entry.digest}")
                if isinstance(inner, Index):
                    found += self._leaves(inner, {**documents, str(entry.digest): data})
            if len(found) > MAX_IMAGES:
                raise Corrupt(f"an index lists more than {MAX_IMAGES} images")
        return found

    def _leaf(self, leaf: Leaf, platforms: Sequence[Platform]) -> Candidate:
        entry = leaf.entry
        data = self._blob(entry, MAX_MANIFEST, "the manifest")
        parsed = parse(data, entry.media_type, f"the manifest {entry.digest}")
        if isinstance(parsed, Index):
            raise Corrupt(f"the manifest {entry.digest} is an index")
        candidate = self._image(parsed, entry.digest, {**leaf.documents, str(entry.digest): data}, platforms)
        for about in leaf.about:
            if self._has(about):
                candidate.documents.update(self._attestation(about))
        return candidate

    def _attestation(self, entry: Descriptor) -> dict[str, bytes]:
        data = self._blob(entry, MAX_MANIFEST, "the attestation")
        blobs = statements(parse(data, entry.media_type, f"the attestation {entry.digest}", lenient=True))
        if not all(self._has(blob) for blob in blobs):
            return {}
        return {str(entry.digest): data} | {
            str(blob.digest): self._blob(blob, blob.size, "the statement") for blob in blobs
        }

    def _is_whole(self, leaf: Leaf) -> bool:
        """Whether an image is in the archive with all that it needs, and is one that runs here at all."""
        entry = leaf.entry
        if not self._has(entry) or (entry.platform is not None and entry.platform.os != "linux"):
            return False
        parsed = parse(self._blob(entry, MAX_MANIFEST, "the manifest"), entry.media_type, lenient=True)
        if isinstance(parsed, Index) or parsed.config.media_type not in CONFIG_TYPES:
            return False
        return all(self._has(blob) for blob in (parsed.config, *parsed.layers))

    def _image(
        self, manifest: Manifest, digest: str, documents: dict[str, bytes], platforms: Sequence[Platform]
    ) -> Candidate:
        config = self._blob(manifest.config, MAX_CONFIG, "the image config")
        candidate = describe(manifest, digest, config, documents)
        if platforms and not _fits(candidate, platforms):
            raise NotFound(
                f"the archive's image {candidate.id} is for {candidate.config.platform}, not for {_listed(platforms)}"
            )
        for layer in manifest.layers:
            self._verify(layer, "the layer")
        return candidate

    # docker save

    def _docker(self, platforms: Sequence[Platform]) -> list[Found]:
        _, data = self._file("manifest.json", MAX_MANIFEST, "the list of images")
        found: dict[str, Found] = {}
        for number, item in enumerate(_list_of_images(data)):
            what = f"manifest.json[{number}]"
            candidate = self._saved(item, what)
            if platforms and not _fits(candidate, platforms):
                continue
            tags = item.get("RepoTags") or []
            if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
                raise Corrupt(f"{what}: RepoTags is not a list of strings")
            before = found[candidate.id].references if candidate.id in found else ()
            found[candidate.id] = Found(candidate, (*before, *(_tag(tag, what) for tag in tags)))
        if not found:
            raise NotFound(f"the archive has no image for {_listed(platforms)}")
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


def _choose(index: Index, name: str, entries: list[Descriptor], platforms: Sequence[Platform]) -> list[Descriptor]:
    """Of entries under one name those for the platforms; of nameless ones all that are."""
    if len(entries) == 1 and (not platforms or entries[0].platform is None):
        return entries
    found: dict[str, Descriptor] = {}
    for wanted in platforms or [Platform.host()]:
        fitting = wanted.candidates(strict=bool(platforms))
        chosen = [entry for entry in entries if entry.platform is None or entry.platform in fitting] if not name else []
        for entry in chosen or [select(Index(index.media_type, tuple(entries)), wanted, strict=bool(platforms))]:
            found.setdefault(entry.digest, entry)
    return list(found.values())


def _fits(candidate: Candidate, platforms: Sequence[Platform]) -> bool:
    return any(candidate.config.platform in platform.candidates(strict=True) for platform in platforms)


def _listed(platforms: Sequence[Platform]) -> str:
    return ", ".join(map(str, platforms))


def blob_reader(paths: Callable[[str], str]) -> Callable[[str], bytes]:
    """A function that gives the first four bytes of a blob."""

    def head(digest: str) -> bytes:
        with open(paths(digest), "rb") as file:
            return file.read(4)

    return head
