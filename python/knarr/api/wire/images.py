"""Images on the wire: the Engine API's ImageSummary, ImageInspect and history entries, and its queries."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from knarr import credentials
from knarr.engine.images.config import parse_time
from knarr.errors import InvalidArgument, Unsupported
from knarr.types import Platform, Reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from knarr.credentials import Credential
    from knarr.engine.images import Image, Images

MAX_FILTERS = 64 << 10
# What inspect shows of a config even where the image leaves it open, as clients expect it to be there.
_DEFAULTS: dict[str, Any] = {
    "User": "", "Env": None, "Cmd": None, "Volumes": None, "WorkingDir": "", "Entrypoint": None, "OnBuild": None,
    "Labels": None,
}  # fmt: skip
_OPTIONAL = ("ExposedPorts", "Healthcheck", "ArgsEscaped", "StopSignal", "Shell")


def summary(images: Images, image: Image, *, shared: bool) -> dict[str, Any]:
    """ImageSummary."""
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": list(image.references),
        "RepoDigests": list(image.repo_digests),
        "Created": image.created // 10**9,
        "Size": image.size,
        "SharedSize": images.shared_size(image) if shared else -1,
        "VirtualSize": image.size,
        "Labels": (image.config.get("config") or {}).get("Labels"),
        "Containers": images.users(image.id),
    }


def inspect(images: Images, image: Image) -> dict[str, Any]:
    """ImageInspect."""
    document = image.config
    answer: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": list(image.references),
        "RepoDigests": list(image.repo_digests),
        "Parent": "",
        "Comment": _last_comment(document),
        "DockerVersion": document.get("docker_version") or "",
        "Author": document.get("author") or "",
        "Config": run_config(document.get("config") or {}),
        "Architecture": document["architecture"],
        "Os": document["os"],
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": {"Name": "overlay2", "Data": _directories(image)},
        "RootFS": {"Type": "layers", "Layers": [layer.diff_id for layer in image.layers]},
        "Metadata": {"LastTagTime": rfc3339(image.tagged)},
        "Descriptor": {
            "mediaType": image.manifest_type,
            "digest": image.manifest_digest,
            "size": images.manifest_size(image),
        },
    }
    if document.get("created"):
        answer["Created"] = document["created"]
    if document.get("variant"):
        answer["Variant"] = document["variant"]
    if document.get("os.version"):
        answer["OsVersion"] = document["os.version"]
    return answer


def run_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """ImageConfig: what containers of this image get unless they say otherwise."""
    found = {name: config.get(name) or default for name, default in _DEFAULTS.items()}
    found |= {name: config[name] for name in _OPTIONAL if config.get(name)}
    return found


def history(images: Images, image: Image) -> list[dict[str, Any]]:
    """The entries of a history, newest first; only the newest has an ID, as Docker's have."""
    entries = image.config.get("history") or []
    layers = iter(image.layers)
    found: list[dict[str, Any]] = []
    for entry in entries:
        layer = None if entry.get("empty_layer") else next(layers, None)
        found.append({
            "Id": "<missing>",
            "Created": parse_time(entry["created"], "history") // 10**9 if entry.get("created") else 0,
            "CreatedBy": entry.get("created_by") or "",
            "Tags": None,
            "Size": images.layer_size(layer.chain_id) if layer else 0,
            "Comment": entry.get("comment") or "",
        })  # fmt: skip
    found += [  # where the history says less than there is
        {
            "Id": "<missing>",
            "Created": image.created // 10**9,
            "CreatedBy": "",
            "Tags": None,
            "Size": images.layer_size(layer.chain_id),
            "Comment": "",
        }
        for layer in layers
    ]
    if found:
        found[-1] |= {"Id": image.id, "Tags": list(image.references) or None}
    return found[::-1]


def rfc3339(moment: int) -> str:
    """Nanoseconds since the epoch as Docker writes times."""
    seconds, fraction = divmod(moment, 10**9)
    text = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"


def filters(query: Mapping[str, str]) -> dict[str, list[str]]:
    """The `filters` of a query, a JSON map of name to values, in either of the two shapes that clients send."""
    text = query.get("filters", "")
    if not text:
        return {}
    if len(text) > MAX_FILTERS:
        raise InvalidArgument(f"invalid filters: more than {MAX_FILTERS} characters")
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise InvalidArgument('invalid filters: a JSON object such as {"dangling": ["true"]} is asked for')
    found: dict[str, list[str]] = {}
    for name, values in parsed.items():
        found[name] = [value for value, on in values.items() if on] if isinstance(values, dict) else values
        if not isinstance(values, (dict, list)) or not all(isinstance(value, str) for value in values):
            raise InvalidArgument(f"invalid filters: {name[:100]} is not a list of strings")
    return found


def boolean(query: Mapping[str, str], name: str) -> bool:
    """A truth value as Docker reads it: everything but these words is true."""
    return query.get(name, "").strip().lower() not in {"", "0", "no", "false", "none"}


def platform(text: str | None) -> str | None:
    """A platform in a query, as os/architecture/variant or as the JSON object of an OCI platform."""
    if not text:
        return None
    if not text.startswith("{"):
        return str(Platform.parse(text))
    try:
        value = json.loads(text)
        parts = [value.get(name) or "" for name in ("os", "architecture", "variant")]
        return str(Platform.parse("/".join(filter(None, parts))))
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InvalidArgument("invalid platform: a JSON object with os and architecture is asked for") from None


def platforms(values: Sequence[str]) -> list[str]:
    """Every platform of a repeated parameter."""
    return [found for value in values if (found := platform(value))]


def pull_reference(query: Mapping[str, str]) -> str:
    """The reference that fromImage and tag mean together. A digest in fromImage wins, then tag."""
    name, tag = query.get("fromImage", ""), query.get("tag", "")
    reference = Reference.parse(name)
    if reference.digest is not None:
        return name
    if not tag:
        if not reference.tag:
            raise Unsupported(f"pulling every tag of {reference.familiar_name} is not supported: name a tag")
        return name
    if ":" in tag:
        return f"{reference.repository}@{tag}"
    return str(reference.with_tag(tag))


def push_reference(name: str, tag: str) -> Reference:
    """The reference that a name in the path and `tag` mean together; without a tag: all of a repository."""
    reference = Reference.parse(name)
    return reference.with_tag(tag) if tag else reference


def limit(text: str) -> int:
    """How many results are asked for; 0 where nothing was said."""
    if text and not (text.isdecimal() and len(text) <= 9):
        raise InvalidArgument(f"invalid limit specified: {text[:100]}")
    return int(text or 0)


def login(body: dict[str, Any]) -> tuple[str, Credential]:
    """The registry of an AuthConfig, and the credential in it."""
    address = body.get("serveraddress") or ""
    if not isinstance(address, str):
        raise InvalidArgument("invalid auth config: serveraddress is not a string")
    host = address.removeprefix("https://").removeprefix("http://").partition("/")[0]
    domain = "docker.io" if host in {"", "index.docker.io", "registry-1.docker.io"} else host
    return domain, credentials.from_object(body, "invalid auth config") or credentials.ANONYMOUS


def _last_comment(document: Mapping[str, Any]) -> str:
    entries = document.get("history") or []
    return document.get("comment") or (entries[-1].get("comment") if entries else "") or ""


def _directories(image: Image) -> dict[str, str]:
    if not image.lower:
        return {}
    data = {"UpperDir": image.lower[0]}
    if image.lower[1:]:
        data["LowerDir"] = ":".join(image.lower[1:])
    return data
