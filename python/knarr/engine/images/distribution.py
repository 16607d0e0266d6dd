"""What a name means at its registry (`GET /distribution/{name}/json`): the descriptor, and the platforms. Blocking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knarr.engine.images.document import decode
from knarr.engine.images.manifest import MAX_CONFIG, Index, parse
from knarr.errors import Corrupt

if TYPE_CHECKING:
    from knarr.credentials import Credential
    from knarr.engine.images.registries import Registries
    from knarr.types import Reference

# The fields of an OCI platform.
_PLATFORM = ("architecture", "os", "os.version", "os.features", "variant")


def describe(registries: Registries, reference: Reference, credential: Credential | None) -> dict[str, Any]:
    """The API's DistributionInspect. NotFound, Unauthorized, Unavailable; Corrupt."""
    registry, data, media_type, digest = registries.manifest(reference, credential)
    what = f"the manifest of {reference.familiar}"
    parsed = parse(data, media_type, what, lenient=True)
    if isinstance(parsed, Index):
        listed = decode(data, what, len(data))["manifests"]
        platforms = [_platform(entry.get("platform") or {}) for entry in listed]
    else:
        config = decode(registry.blob(reference.path, parsed.config.digest, MAX_CONFIG), what, MAX_CONFIG)
        platforms = [_platform(config)] if config.get("os") or config.get("architecture") else []
    return {
        "Descriptor": {"mediaType": parsed.media_type, "digest": digest, "size": len(data)},
        "Platforms": platforms,
    }


def _platform(value: Any) -> dict[str, Any]:
    """Those fields of an OCI platform that are there; os and architecture always."""
    if not isinstance(value, dict):
        raise Corrupt("a platform in the index is not an object")
    found = {name: value[name] for name in _PLATFORM if value.get(name)}
    return {"architecture": "", "os": "", **found}
