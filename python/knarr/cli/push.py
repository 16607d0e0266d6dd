"""`knarr push`."""

from knarr.cli import terminal
from knarr.cli.command import FLAG, TEXT, Command, Option
from knarr.cli.transfer import canonical, credentials, follow, named
from knarr.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client


def _push(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    image = arguments[0]
    repository, tag, digest = named(image)
    if options["all_tags"] and (tag or digest):
        raise InvalidArgument("tag can't be used with --all-tags/-a")
    if not tag and not digest and not options["all_tags"]:
        tag = "latest"
        if not options["quiet"]:
            print("Using default tag: latest", flush=True)
    name = f"{repository}@{digest}" if digest else repository
    entries = client.images.push(name, tag=tag, platform=options["platform"], auth=credentials(image))
    told = follow(entries, terminal.STDOUT, quiet=options["quiet"])
    if options["quiet"]:
        terminal.show(canonical(image if options["all_tags"] or digest else f"{repository}:{tag}"))
    for aux in told:
        for note in _notes(aux):
            terminal.say(note)
    return 0


def _notes(aux: "dict[str, Any]") -> "list[str]":
    """What is to be said of a push that sent something else than the whole."""
    if not aux.get("manifestPushedInsteadOfIndex"):
        return []
    whole, part = aux["originalIndex"]["digest"], aux["selectedManifest"]["digest"]
    return [
        "",
        "Info -> Not all multiplatform-content is present and only the available single-platform image was pushed",
        f"        {whole} -> {part}",
    ]


PUSH = Command(
    "push",
    _push,
    text="Upload an image to a registry",
    usage="NAME[:TAG]",
    example="knarr push registry.example.com/team/app:1.0",
    minimum=1,
    maximum=1,
    complete="images",
    options=(
        Option("-a --all-tags", FLAG, "Push all tags of the repository"),
        Option("--disable-content-trust", FLAG, "Nothing: signatures are not checked", default=True, hidden=True),
        Option("--platform", TEXT, "Push only this platform's manifest, without the index, such as linux/arm64"),
        Option("-q --quiet", FLAG, "Suppress the progress"),
    ),
)
