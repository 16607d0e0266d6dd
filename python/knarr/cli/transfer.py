"""What pull and push share: an image's name taken apart, its registry's credentials, a transfer shown to its end."""

from knarr.errors import Internal, NotFound, PermissionDenied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


def named(image: str) -> "tuple[str, str, str]":
    """(repository, tag, digest) of a name as it was written; empty where it has none."""
    name, _, digest = image.partition("@")
    head, slash, last = name.rpartition("/")
    base, _, tag = last.partition(":")
    return f"{head}{slash}{base}", tag, digest


def canonical(name: str) -> str:
    """A name with the registry that it is at."""
    if registry_host(name) == "docker.io" and not name.startswith("docker.io/"):
        return f"docker.io/{name}" if "/" in name else f"docker.io/library/{name}"
    return name


def registry_host(image: str) -> str:
    """The registry of an image's name: "docker.io" where it names none."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first
    return "docker.io"


def credentials(image: str) -> "str | None":
    """X-Registry-Auth for an image, from the user's docker configuration; None where there is none."""
    from knarr import credentials as configured

    host = registry_host(image)
    found = configured.lookup(host)
    return configured.encode_header(found, host) if found else None


def follow(entries: "Iterable[dict[str, Any]]", descriptor: int, *, quiet: bool) -> "list[dict[str, Any]]":
    """Show a pull or push on a descriptor to its end. Returns the `aux` of its entries; raises what it failed of."""
    from knarr.cli.progress import Progress

    told = []
    with Progress(descriptor, quiet=quiet) as progress:
        for entry in entries:
            if "error" in entry or "errorDetail" in entry:
                raise _failure(entry)
            progress.show(entry)
            if entry.get("aux"):
                told.append(entry["aux"])
    return told


def _failure(entry: "dict[str, Any]") -> Exception:
    """What a failed pull or push says comes as a line of the stream: its kind is in its words."""
    message = str(entry.get("error") or entry["errorDetail"].get("message"))
    lowered = message.lower()
    if "not found" in lowered or "manifest unknown" in lowered or "no such" in lowered:
        return NotFound(message)
    if "denied" in lowered or "unauthorized" in lowered:
        return PermissionDenied(message)
    return Internal(message)
