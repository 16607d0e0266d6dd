"""Every image in memory: the records, the names that point at them, and how a name is looked up.

Only the event loop's thread touches a catalog, and it changes in one piece between two awaits; so a
look-up takes no lock and never sees half a change. Whoever changes it writes the record first
(engine/images/images.py has the order).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from knarr.engine.images.layers import Layer
from knarr.errors import InvalidArgument, NotFound
from knarr.types import Platform, Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator

    from knarr.store.images import ImageRecord, LayerRecord, Names

_HEX = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")


class Piece(NamedTuple):
    """Something on the disk that images are made of: a blob by its digest, a snapshot by its chain ID."""

    kind: str  # "blob" or "snapshot"
    name: str


@dataclass(frozen=True)
class Image:
    """One image, as it was when it was looked up."""

    id: str  # "sha256:<digest of the config>"
    config: dict[str, Any]  # the whole document of the OCI image config; not to be changed
    platform: Platform
    created: int  # ns since the epoch; 0 where the image does not say
    size: int  # bytes of all layers, unpacked
    lower: tuple[str, ...]  # directories of the snapshots, top-most first
    layers: tuple[Layer, ...]  # lowest first
    manifest_digest: str
    manifest_type: str
    blobs: tuple[
        str, ...
    ]  # what its name meant where it came from (an index or its manifest); then manifest, config ...
    tagged: int  # ns since the epoch
    complete: bool  # False: a snapshot was missing at the start, and the image is not to be used
    references: tuple[str, ...] = ()  # familiar: "busybox:latest"
    repo_digests: tuple[str, ...] = ()  # familiar: "busybox@sha256:..."

    @property
    def index(self) -> str | None:
        """The digest of the index that it came from, where it came from one."""
        return self.blobs[0] if self.blobs and self.blobs[0] not in {self.manifest_digest, self.id} else None

    @property
    def pieces(self) -> set[Piece]:
        blobs = {Piece("blob", digest) for digest in self.blobs} | {Piece("blob", layer.blob) for layer in self.layers}
        return blobs | {Piece("snapshot", layer.chain_id) for layer in self.layers}


class Catalog:
    """Images by ID, by reference and by repository and digest."""

    def __init__(self) -> None:
        self._images: dict[str, Image] = {}
        self._references: dict[str, str] = {}  # canonical reference → image ID
        self._tags: dict[str, set[str]] = {}  # and back
        self._digests: dict[tuple[str, str], list[str]] = {}  # (repository, digest) → image IDs
        self._origins: dict[str, set[tuple[str, str]]] = {}  # and back
        self._families: dict[str, set[str]] = {}  # digest of an index → IDs of the images that came from it
        self._uses: Counter[Piece] = Counter()
        self.layers: dict[str, LayerRecord] = {}  # by chain ID

    def load(self, images: Iterable[Image], names: Names, layers: dict[str, LayerRecord]) -> None:
        """Take in what the records say, at the start."""
        self.layers = dict(layers)
        for image in images:
            self.put(image)
        for reference, image_id in names.references.items():
            self.name(reference, image_id)
        for key, image_ids in names.digests.items():
            for image_id in image_ids:
                self.name_digest(*key, image_id)

    def __iter__(self) -> Iterator[Image]:
        return iter(list(self._images.values()))

    def get(self, image_id: str) -> Image | None:
        return self._images.get(image_id)

    def uses(self, piece: Piece) -> int:
        """How many images are made of this piece."""
        return self._uses[piece]

    def put(self, image: Image) -> None:
        """Add an image, or replace it; its names stay."""
        old = self._images.get(image.id)
        if old is not None:
            self._uses.subtract(old.pieces)
            self._leave_family(old)
        self._uses.update(image.pieces)
        if image.index:
            self._families.setdefault(image.index, set()).add(image.id)
        self._images[image.id] = image
        self._rename(image.id)

    def drop(self, image_id: str) -> None:
        """Forget an image and its names."""
        for reference in list(self._tags.get(image_id, ())):
            self.unname(reference)
        for key in list(self._origins.get(image_id, ())):
            self.unname_digest(*key, image_id)
        image = self._images.pop(image_id)
        self._leave_family(image)
        self._uses.subtract(image.pieces)
        for piece in image.pieces:
            if not self._uses[piece]:
                del self._uses[piece]
                if piece.kind == "snapshot":
                    self.layers.pop(piece.name, None)

    def name(self, reference: str, image_id: str) -> None:
        """Point a canonical reference at an image, away from the one it pointed at."""
        if reference in self._references:
            self.unname(reference)
        self._references[reference] = image_id
        self._tags.setdefault(image_id, set()).add(reference)
        self._rename(image_id)

    def name_digest(self, repository: str, digest: str, image_id: str) -> None:
        image_ids = self._digests.setdefault((repository, digest), [])
        if image_id not in image_ids:
            image_ids.append(image_id)
            self._origins.setdefault(image_id, set()).add((repository, digest))
            self._rename(image_id)

    def unname(self, reference: str) -> None:
        image_id = self._references.pop(reference)
        self._tags[image_id].discard(reference)
        self._rename(image_id)

    def unname_digest(self, repository: str, digest: str, image_id: str) -> None:
        image_ids = self._digests[(repository, digest)]
        image_ids.remove(image_id)
        if not image_ids:
            del self._digests[(repository, digest)]
        self._origins[image_id].discard((repository, digest))
        self._rename(image_id)

    def references_of(self, image_id: str) -> list[Reference]:
        """The tags of an image, in order."""
        return [Reference.parse(name) for name in sorted(self._tags.get(image_id, ()))]

    def digests_of(self, image_id: str) -> list[tuple[str, str]]:
        """The (repository, digest) pairs of an image, in order."""
        return sorted(self._origins.get(image_id, ()))

    def family(self, image: Image) -> list[Image]:
        """The images that came from the same index, for one platform each; this one first."""
        others = self._families.get(image.index or "", set()) - {image.id}
        return [image, *(self._images[other] for other in sorted(others))]

    def is_named(self, image: Image) -> bool:
        """Whether a tag points at the image, or at one that came from the same index."""
        return any(one.references for one in self.family(image))

    def stands_in(self, image: Image) -> bool:
        """Whether the image is listed with another of its family, which has the tag."""
        return not image.references and any(one.references for one in self.family(image))

    def tags_of(self, repository: str) -> list[Reference]:
        """Every tag of a repository, in order."""
        prefix = f"{repository}:"
        return [Reference.parse(name) for name in sorted(self._references) if name.startswith(prefix)]

    def sources(self, target: Reference, blobs: Container[str]) -> dict[str, str]:
        """For blobs, another repository of the target's registry that they were pulled from or pushed to."""
        found: dict[str, str] = {}
        for image_id, origins in self._origins.items():
            for repository, _ in sorted(origins):
                domain, _, path = repository.partition("/")
                if domain == target.domain and path != target.path:
                    for layer in self._images[image_id].layers:
                        if layer.blob in blobs:
                            found.setdefault(layer.blob, path)
        return found

    def layer(self, chain_id: str) -> Layer | None:
        """A recorded layer as the images that have it were unpacked from it."""
        known = self.layers.get(chain_id)
        for image in self._images.values() if known else ():
            for layer in image.layers:
                if known and layer.chain_id == chain_id and layer.blob == known.blob:
                    return layer
        return None

    def target(self, reference: Reference) -> str | None:
        """The image ID that a tag points at."""
        return self._references.get(str(reference))

    def find(self, text: str, platform: Platform | None = None) -> Image:
        """Look up an ID, a name or the beginning of an ID, in Docker's order.

        NotFound with Docker's words; InvalidArgument for what cannot be a name, and for a beginning
        that several IDs share.
        """
        match = _HEX.fullmatch(text)
        if match and len(match[1]) == 64:
            image = self._images.get(f"sha256:{match[1]}")
            if image is None:
                raise NotFound(f"No such image: {text}")
            return self._of_platform(image, text, platform)
        reference = Reference.parse(text).with_default_tag()
        image = self._named(reference, platform)
        if image is None and match:
            image = self._beginning(match[1], text)
        if image is None:
            raise NotFound(f"No such image: {reference.familiar}")
        return self._of_platform(image, text, platform)

    def name_in(self, text: str) -> Reference | None:
        """The name that `text` is, where an image has that name; None where it was found by its ID."""
        if text.startswith("sha256:") or (len(text) == 64 and _HEX.fullmatch(text)):
            return None
        reference = Reference.parse(text).with_default_tag()
        return reference if self._named(reference, None) else None

    def _named(self, reference: Reference, platform: Platform | None) -> Image | None:
        if reference.digest is None:
            return self._images.get(self._references.get(str(reference), ""))
        image_ids = self._digests.get((reference.repository, reference.digest), [])
        found = [self._images[image_id] for image_id in image_ids]
        for candidate in (platform or Platform.host()).candidates(strict=platform is not None):
            for image in found:
                if image.platform == candidate:
                    return image
        return found[0] if found else None

    def _beginning(self, digits: str, text: str) -> Image | None:
        found = [image for image_id, image in self._images.items() if image_id.startswith(digits, 7)]
        if len(found) > 1:
            listed = ", ".join(sorted(image.id[7:19] for image in found[:5]))
            raise InvalidArgument(f"image ID {text} is ambiguous: {len(found)} images begin so ({listed}); write more")
        return found[0] if found else None

    def _of_platform(self, image: Image, text: str, platform: Platform | None) -> Image:
        if platform is None:
            return image
        family = self.family(image)
        for wanted in platform.candidates(strict=True):
            for one in family:
                if one.platform == wanted:
                    return one
        raise NotFound(
            f"image with reference {text} was found but its platform ({image.platform}) "
            f"does not match the specified platform ({platform})"
        )

    def _leave_family(self, image: Image) -> None:
        if image.index:
            family = self._families[image.index]
            family.discard(image.id)
            if not family:
                del self._families[image.index]

    def _rename(self, image_id: str) -> None:
        image = self._images.get(image_id)
        if image is None:
            return
        references = tuple(reference.familiar for reference in self.references_of(image_id))
        digests = tuple(
            f"{Reference.parse(repository).familiar_name}@{digest}" for repository, digest in self.digests_of(image_id)
        )
        if (references, digests) != (image.references, image.repo_digests):
            self._images[image_id] = replace(image, references=references, repo_digests=digests)


def image_of(record: ImageRecord, snapshot_path: Callable[[str], str], present: Container[str] | None = None) -> Image:
    """The image of a record; `present` are the chain IDs of the snapshots that are there, None for all."""
    layers = tuple(Layer(*layer) for layer in record.layers)
    return Image(
        id=record.id,
        config=record.config,
        platform=Platform.parse(record.platform),
        created=record.created_ns,
        size=record.size,
        lower=tuple(snapshot_path(layer.chain_id) for layer in reversed(layers)),
        layers=layers,
        manifest_digest=record.manifest_digest,
        manifest_type=record.manifest_type,
        blobs=record.blobs,
        tagged=record.tagged_ns,
        complete=present is None or all(layer.chain_id in present for layer in layers),
    )
