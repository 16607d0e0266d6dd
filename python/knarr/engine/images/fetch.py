"""Ask a registry what an image is: index, manifest and config, read and checked. Blocking: for threads."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knarr.credentials import ANONYMOUS
from knarr.engine.images.config import read_config
from knarr.engine.images.layers import stack
from knarr.engine.images.ledger import Candidate
from knarr.engine.images.manifest import (
    MANIFEST_TYPES,
    MAX_MANIFEST,
    MAX_NESTING,
    REFERENCE_DIGEST,
    Descriptor,
    Index,
    Manifest,
    parse,
    select,
)
from knarr.engine.images.registries import client
from knarr.errors import Corrupt, KnarrError, NotFound, PermissionDenied, Unavailable
from knarr.types import Digest, Platform

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from knarr._core import Registry
    from knarr.credentials import Credential
    from knarr.engine.images.endpoints import Endpoint
    from knarr.types import Reference

log = logging.getLogger("knarr.images")

MAX_ABOUT = 4  # attestation manifests of one image
MAX_STATEMENTS = 64
MAX_STATEMENT_BYTES = 32 << 20


@dataclass(frozen=True)
class Fetched:
    """An image as a registry offers it; its layers are still there."""

    candidate: Candidate
    digest: str  # of what the reference named: an index or a manifest
    registry: Registry
    repository: str


def fetch(
    reference: Reference,
    platform: Platform | None,
    ways: Sequence[Endpoint],
    credential_for: Callable[[Endpoint], Credential | None],
) -> Fetched:
    """Find the image for a platform (None: this machine's) at the first endpoint that has it.

    NotFound and Unauthorized in Docker's words; Unavailable where nobody answers; Corrupt for what is
    not what it says.
    """
    failure: KnarrError | None = None
    for way in ways:
        credential = credential_for(way)
        try:
            return _fetch(reference, platform, client(way, credential))
        except Unavailable as error:
            failure = error
        except (NotFound, PermissionDenied) as error:
            failure = _in_dockers_words(error, reference, anonymous=credential in {None, ANONYMOUS})
            if not way.mirror:
                raise failure from error
    raise failure or Unavailable(f"no registry is known for {reference.domain}")


def _in_dockers_words(error: KnarrError, reference: Reference, *, anonymous: bool) -> KnarrError:
    """Docker tells whoever gave no credentials that there is no such thing for him."""
    if isinstance(error, _NoMatch):
        return NotFound(str(error))
    if isinstance(error, NotFound):
        return NotFound(f"manifest for {reference.familiar} not found: manifest unknown")
    return NotFound(str(error)) if anonymous else error


class _NoMatch(NotFound):
    """The registry has the image, but not for this platform."""


def _fetch(reference: Reference, platform: Platform | None, registry: Registry) -> Fetched:
    wanted = platform or Platform.host()
    data, media_type, top = registry.manifest(reference.path, reference.digest or reference.tag)
    digest = Digest(top)
    parsed = parse(data, media_type, f"the manifest of {reference.familiar}")
    documents = {str(digest): data}
    seen = {str(digest)}
    about: list[Descriptor] = []
    for _ in range(MAX_NESTING):
        if isinstance(parsed, Manifest):
            break
        try:
            entry = select(parsed, wanted, strict=platform is not None)
        except NotFound as error:
            raise _NoMatch(str(error)) from None
        if entry.digest in seen:
            raise Corrupt(f"the index of {reference.familiar} leads back to itself at {entry.digest}")
        about = attestations(parsed, entry.digest)
        data, media_type, _ = registry.manifest(reference.path, entry.digest)
        if len(data) != entry.size:
            raise Corrupt(f"the manifest {entry.digest} has {len(data)} bytes, its index says {entry.size}")
        digest = entry.digest
        seen.add(digest)
        documents[digest] = data
        parsed = parse(data, media_type, f"the manifest {digest}")
    if isinstance(parsed, Index):
        raise Corrupt(f"the index of {reference.familiar} leads to an index more than {MAX_NESTING} deep")
    config = registry.blob(reference.path, parsed.config.digest, parsed.config.size)
    if len(config) != parsed.config.size:
        raise Corrupt(f"the config {parsed.config.digest} has {len(config)} bytes, not {parsed.config.size}")
    candidate = describe(parsed, digest, config, documents)
    if platform is not None and candidate.config.platform not in platform.candidates(strict=True):
        raise _NoMatch(
            f"image with reference {reference.familiar} was found but its platform ({candidate.config.platform}) "
            f"does not match the specified platform ({platform})"
        )
    for entry in about:
        candidate.documents.update(_attestation(registry, reference, entry))
    return Fetched(candidate, top, registry, reference.path)


def attestations(index: Index, digest: str) -> list[Descriptor]:
    """What an index lists as being about one of its images, as BuildKit writes it."""
    found = [entry for entry in index.manifests if entry.annotations.get(REFERENCE_DIGEST) == digest]
    return [entry for entry in found if entry.media_type in MANIFEST_TYPES and entry.size <= MAX_MANIFEST][:MAX_ABOUT]


def _attestation(registry: Registry, reference: Reference, entry: Descriptor) -> dict[str, bytes]:
    """The documents of one attestation: its manifest, and the statements in it. None of what the registry has lost."""
    try:
        data, media_type, digest = registry.manifest(reference.path, entry.digest)
        parsed = parse(data, media_type, f"the manifest {digest}", lenient=True)
        found = {digest: data}
        for blob in statements(parsed):
            found[blob.digest] = registry.blob(reference.path, blob.digest, blob.size)
    except (NotFound, Corrupt) as error:
        log.warning("%s is without its attestation %s: %s", reference.familiar, entry.digest, error)
        return {}
    return found


def statements(parsed: Manifest | Index) -> list[Descriptor]:
    """The blobs of an attestation manifest. Corrupt where they are too many or too large to be statements."""
    if isinstance(parsed, Index):
        raise Corrupt("an attestation is an index")
    blobs = [parsed.config, *parsed.layers]
    if len(blobs) > MAX_STATEMENTS or sum(blob.size for blob in blobs) > MAX_STATEMENT_BYTES:
        raise Corrupt(f"an attestation of more than {MAX_STATEMENTS} statements or {MAX_STATEMENT_BYTES} bytes")
    return blobs


def describe(manifest: Manifest, digest: str, config: bytes, documents: dict[str, bytes]) -> Candidate:
    """Bring manifest and config together. `documents`: what led here, by digest; the config is added."""
    checked = read_config(config, len(manifest.layers), f"the image config {manifest.config.digest}")
    return Candidate(
        id=manifest.config.digest,
        manifest_digest=digest,
        manifest_type=manifest.media_type,
        config=checked,
        layers=tuple(stack(manifest.layers, checked.diff_ids)),
        documents={**documents, str(manifest.config.digest): config},
    )
