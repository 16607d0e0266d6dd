"""`knarr pull`, and the pull before a run."""

from knarr.cli import terminal
from knarr.cli.command import FLAG, TEXT, Command, Option
from knarr.cli.transfer import canonical, credentials, follow, named
from knarr.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client


def pull_image(client: "Client", image: str, *, platform: "str | None", quiet: bool, descriptor: int) -> None:
    """Pull an image and show how it goes on a descriptor. Raises what the pull failed of."""
    entries = client.images.pull(image, tag=_tag(image), platform=platform, auth=credentials(image))
    follow(entries, descriptor, quiet=quiet)


def _tag(image: str) -> "str | None":
    """The engine pulls every tag of a name without one: say which is meant."""
    last = image.rpartition("/")[2]
    return None if ":" in last or "@" in last else "latest"


def _pull(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    image = arguments[0]
    repository, tag, digest = named(image)
    if options["all_tags"]:
        if tag or digest:
            raise InvalidArgument("tag can't be used with --all-tags/-a")
        entries = client.images.pull(repository, platform=options["platform"], auth=credentials(repository))
        follow(entries, terminal.STDOUT, quiet=options["quiet"])
        terminal.show(canonical(repository))
        return 0
    if not options["quiet"] and _tag(image):
        print("Using default tag: latest", flush=True)
    pull_image(client, image, platform=options["platform"], quiet=options["quiet"], descriptor=terminal.STDOUT)
    terminal.show(canonical(image if tag or digest else f"{image}:latest"))
    return 0


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
