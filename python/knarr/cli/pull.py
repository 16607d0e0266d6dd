"""`knarr pull`, and the pull before a run."""

from knarr.cli import terminal
from knarr.cli.command import FLAG, TEXT, Command, Option
from knarr.errors import Internal, InvalidArgument, NotFound, PermissionDenied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client


def pull_image(client: "Client", image: str, *, platform: "str | None", quiet: bool, descriptor: int) -> None:
    """Pull an image and show how it goes on a descriptor. Raises what the pull failed of."""
    from knarr.cli.progress import Progress

    progress = Progress(descriptor, quiet=quiet)
    with progress:
        for entry in client.images.pull(image, tag=_tag(image), platform=platform, auth=credentials(image)):
            if "error" in entry or "errorDetail" in entry:
                raise failure(entry)
            progress.show(entry)


def pull_all(client: "Client", repository: str, *, platform: "str | None", quiet: bool) -> None:
    """Pull every tag of a repository. Raises what the first that failed has failed of."""
    from knarr.cli.progress import Progress

    with Progress(terminal.STDOUT, quiet=quiet) as progress:
        for entry in client.images.pull(repository, platform=platform, auth=credentials(repository)):
            if "error" in entry or "errorDetail" in entry:
                raise failure(entry)
            progress.show(entry)


def named(image: str) -> "tuple[str, str, str]":
    """(repository, tag, digest) of a name as it was written; empty where it has none."""
    name, _, digest = image.partition("@")
    head, slash, last = name.rpartition("/")
    base, _, tag = last.partition(":")
    return f"{head}{slash}{base}", tag, digest


def failure(entry: "dict[str, Any]") -> Exception:
    """What a failed pull or push says comes as a line of the stream: its kind is in its words."""
    message = str(entry.get("error") or entry["errorDetail"].get("message"))
    lowered = message.lower()
    if "not found" in lowered or "manifest unknown" in lowered or "no such" in lowered:
        return NotFound(message)
    if "denied" in lowered or "unauthorized" in lowered:
        return PermissionDenied(message)
    return Internal(message)


def _tag(image: str) -> "str | None":
    """The engine pulls every tag of a name without one: say which is meant."""
    last = image.rpartition("/")[2]
    return None if ":" in last or "@" in last else "latest"


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


def _pull(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    image = arguments[0]
    repository, tag, digest = named(image)
    if options["all_tags"]:
        if tag or digest:
            raise InvalidArgument("tag can't be used with --all-tags/-a")
        pull_all(client, repository, platform=options["platform"], quiet=options["quiet"])
        terminal.show(canonical(repository))
        return 0
    if not options["quiet"] and _tag(image):
        print("Using default tag: latest", flush=True)
    pull_image(client, image, platform=options["platform"], quiet=options["quiet"], descriptor=terminal.STDOUT)
    terminal.show(canonical(image if tag or digest else f"{image}:latest"))
    return 0


def canonical(name: str) -> str:
    """A name with the registry that it is at."""
    if registry_host(name) == "docker.io" and not name.startswith("docker.io/"):
        return f"docker.io/{name}" if "/" in name else f"docker.io/library/{name}"
    return name


PULL = Command(
    "pull",
    _pull,
    text="Download an image from a registry",
    usage="NAME[:TAG|@DIGEST]",
    example="knarr pull debian:12",
    minimum=1,
    maximum=1,
    complete="images",
    options=(
        Option("-a --all-tags", FLAG, "Download all tags of the repository"),
        Option("--disable-content-trust", FLAG, "Nothing: signatures are not checked", default=True, hidden=True),
        Option("--platform", TEXT, "Platform of the image, such as linux/arm64"),
        Option("-q --quiet", FLAG, "Suppress the progress"),
    ),
)
