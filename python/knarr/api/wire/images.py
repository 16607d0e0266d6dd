"""Images on the wire: the Engine API's ImageSummary, ImageInspect and history entries, and its queries."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from knarr import credentials
from knarr.api.wire.shape import Shape
from knarr.engine.images.config import parse_time
from knarr.errors import InvalidArgument
from knarr.types import Platform, Reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from knarr.credentials import Credential
    from knarr.engine.images import Image, Images

MAX_FILTERS = 64 << 10
ZERO_TIME = "0001-01-01T00:00:00Z"
# What inspect shows of a config even where the image leaves it open, as older versions did.
_DEFAULTS: dict[str, Any] = {
    "User": "", "Env": None, "Cmd": None, "Volumes": None, "WorkingDir": "", "Entrypoint": None, "OnBuild": None,
    "Labels": None,
}  # fmt: skip
_OPTIONAL = ("ExposedPorts", "Healthcheck", "ArgsEscaped", "StopSignal", "Shell")
# Fields of a container's config, which images do not have.
_FORMER: dict[str, Any] = {
    "AttachStderr": False, "AttachStdin": False, "AttachStdout": False, "Domainname": "", "Hostname": "", "Image": "",
    "OpenStdin": False, "StdinOnce": False, "Tty": False,
}  # fmt: skip
INSPECT = Shape(
    since={"Descriptor": 48, "Manifests": 48},
    until={
        "Container": 45,
        "ContainerConfig": 45,
        "VirtualSize": 44,
        **{f"Config.{name}": 50 for name in _FORMER},
    },
    sparse=dict.fromkeys(("Parent", "Comment", "DockerVersion", "Author"), 52)
    | {f"Config.{name}": 52 for name in _DEFAULTS}
    | {"Variant": 0, "OsVersion": 0},
    optional={"Created": 44, "Manifests": 0},
    was={"Created": (44, lambda created: created or ZERO_TIME)},
)
SUMMARY = Shape(
    since={"Descriptor": 48, "Manifests": 47},
    until={"VirtualSize": 44},
    optional={"Manifests": 0},
    was={
        "Containers": (51, lambda _: -1),
        "RepoDigests": (43, lambda digests: digests or ["<none>@<none>"]),
        "RepoTags": (43, lambda tags: tags or ["<none>:<none>"]),
        "SharedSize": (42, lambda _: -1),
    },
)


def summary(images: Images, image: Image, *, shared: bool, manifests: bool = False) -> dict[str, Any]:
    """ImageSummary, with the fields of every version."""
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": list(image.references),
        "RepoDigests": list(image.repo_digests),
        "Created": image.created // 10**9,
        "Size": image.size,
        "SharedSize": images.shared_size(image) if shared else -1,
        "VirtualSize": image.size,
        "Labels": (image.config.get("config") or {}).get("Labels") or {},
        "Containers": images.users(image),
        "Descriptor": images.details.target(image),
        "Manifests": images.details.manifests(image) if manifests else None,
    }


def inspect(images: Images, image: Image, *, own: bool = False, manifests: bool = False) -> dict[str, Any]:
    """ImageInspect, with the fields of every version. own: of this platform's manifest alone."""
    document = image.config
    details = images.details
    return {
        "Id": image.id,
        "RepoTags": list(image.references),
        "RepoDigests": list(image.repo_digests),
        "Parent": "",
        "Comment": _last_comment(document),
        "Created": document.get("created"),
        "Container": "",
        "ContainerConfig": None,
        "DockerVersion": document.get("docker_version") or "",
        "Author": document.get("author") or "",
        "Config": {**_FORMER, **run_config(document.get("config") or {})},
        "Architecture": document["architecture"],
        "Variant": document.get("variant"),
        "Os": document["os"],
        "OsVersion": document.get("os.version"),
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": {"Name": "overlay2", "Data": _directories(image)},
        "RootFS": {"Type": "layers", "Layers": [layer.diff_id for layer in image.layers]},
        "Metadata": {"LastTagTime": rfc3339(image.tagged)},
        "Descriptor": details.own(image) if own else details.target(image),
        "Manifests": details.manifests(image) if manifests else None,
    }


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


def new_reference(repository: str, tag: str) -> Reference | None:
    """The name that a new image is to have, in `repo` and `tag`; None where it is to have none. InvalidArgument."""
    if not repository:
        return None
    reference = Reference.parse(repository)
    if reference.digest is not None:
        raise InvalidArgument("cannot import digest reference")
    return reference.with_tag(tag) if tag else reference.with_default_tag()


def pull_reference(query: Mapping[str, str]) -> str:
    """The reference that fromImage and tag mean: a digest in fromImage wins, then tag; neither means all tags."""
    name, tag = query.get("fromImage", ""), query.get("tag", "")
    reference = Reference.parse(name)
    if reference.digest is not None or not tag:
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
