"""images, rmi, tag, history, image prune."""

from knarr.cli import human
from knarr.cli.command import FLAG, LIST, TEXT, Command, Option
from knarr.cli.terminal import say, show
from knarr.errors import InvalidArgument, KnarrError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client

HEADERS = {
    "ID": "IMAGE ID",
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "Containers": "CONTAINERS",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
}
_RAW = {
    "repository": "Repository",
    "tag": "Tag",
    "digest": "Digest",
    "image_id": "ID",
    "created_at": "CreatedAt",
    "virtual_size": "Size",
}
HISTORY_HEADERS = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}
_NONE = "<none>"


def _images(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    from knarr.cli.listing import filters, wants_ids, write

    wanted = filters(options["filter"])
    if arguments:
        wanted.setdefault("reference", []).append(arguments[0])
    if options["tree"]:
        from knarr.cli.image_tree import show_tree

        for name, shown in (("quiet", "quiet"), ("format", "format"), ("digests", "show-digest")):
            if options[name]:
                raise InvalidArgument(f"--{shown} is not yet supported with --tree")
        show_tree(client.images.list(all=options["all"], filters=wanted, manifests=True), full=options["no_trunc"])
        return 0
    images = client.images.list(all=options["all"], filters=wanted, digests=options["digests"])
    if wants_ids(options):
        for image in images:
            show(image["Id"] if options["no_trunc"] else human.short_id(image["Id"]))
        return 0
    form = str(options["format"] or "")
    digests = options["digests"] or ".Digest" in form
    rows = [row for image in images for row in _rows(image, full=options["no_trunc"], digests=digests)]
    columns = ["Repository", "Tag", "ID", "CreatedSince", "Size"]
    if options["digests"]:
        columns.insert(2, "Digest")
        if form.startswith("table") and form != "table" and "{{.Digest}}" not in form:
            form += "\t{{.Digest}}"
    raw = {"image_id": "ID"} if options["quiet"] else raw_fields(digests=options["digests"])
    write(rows, HEADERS, columns, form, raw)
    return 0


def raw_fields(*, digests: bool) -> "dict[str, str]":
    """What --format raw tells of an image."""
    return {word: field for word, field in _RAW.items() if digests or word != "digest"}


def familiar(name: str) -> str:
    """A repository as people call it: without docker.io and library."""
    return name.removeprefix("docker.io/").removeprefix("library/") if name.startswith("docker.io/") else name


def _rows(image: "dict[str, Any]", *, full: bool, digests: bool) -> "list[dict[str, Any]]":
    """A row for each tag; where digests are shown, for each tag's digests; one for an image without either."""
    by_repository: dict[str, list[str]] = {}
    for reference in image.get("RepoDigests") or []:
        repository, _, digest = reference.partition("@")
        if repository != _NONE:
            by_repository.setdefault(familiar(repository), []).append(digest)
    found: list[tuple[str, str, str]] = []
    tagged = set()
    for reference in image.get("RepoTags") or []:
        repository, _, tag = reference.rpartition(":")
        if repository == _NONE:
            continue
        repository = familiar(repository)
        tagged.add(repository)
        found += [
            (repository, tag, digest) for digest in (by_repository.get(repository) if digests else None) or [_NONE]
        ]
    for repository, listed in by_repository.items():
        if repository not in tagged:
            found += [(repository, _NONE, digest) for digest in (listed if digests else [_NONE])]
    shared = image.get("SharedSize", -1)
    created = image.get("Created") or 0
    return [
        {
            "ID": image["Id"] if full else human.short_id(image["Id"]),
            "Repository": repository,
            "Tag": tag,
            "Digest": digest,
            "CreatedSince": human.ago(created) if created > 0 else "N/A",
            "CreatedAt": human.local_time(created),
            "Size": human.size(image["Size"], 3),
            "Containers": "N/A" if image.get("Containers", -1) == -1 else str(image["Containers"]),
            "SharedSize": "N/A" if shared == -1 else human.size(shared),
            "UniqueSize": "N/A" if shared == -1 else human.size(image["Size"] - shared),
        }
        for repository, tag, digest in found or [(_NONE, _NONE, _NONE)]
    ]


def _rmi(client: "Client", options: "dict[str, Any]", names: "list[str]") -> int:
    from knarr.cli.save import platforms

    code, wanted = 0, platforms(options["platform"])
    for name in names:
        try:
            for entry in client.images.remove(
                name, force=options["force"], prune=not options["no_prune"], platforms=wanted
            ):
                show(f"Untagged: {entry['Untagged']}" if entry.get("Untagged") else f"Deleted: {entry['Deleted']}")
        except NotFound as error:
            if not options["force"]:
                code = 1
            say(f"knarr: {error}")
        except KnarrError as error:
            code = 1
            say(f"knarr: {error}")
    return code


def _tag(client: "Client", _options: "dict[str, Any]", arguments: "list[str]") -> int:
    source, target = arguments
    if "@" in target:
        raise InvalidArgument(f"cannot tag with {target!r}: a tag has no digest")
    repository, colon, tag = target.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = target, "latest"
    client.images.tag(source, repository, tag)
    return 0


def _history(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    from knarr.cli.listing import wants_ids, write

    layers = client.images.history(arguments[0], platform=options["platform"])
    full = options["no_trunc"]
    if wants_ids(options):
        for layer in layers:
            show(layer["Id"] if full else human.short_id(layer["Id"]))
        return 0
    rows = []
    for layer in layers:
        command = " ".join((layer.get("CreatedBy") or "").replace("\t", " ").split("\n"))
        created = layer.get("Created") or 0
        rows.append(
            {
                "ID": layer["Id"] if full else human.short_id(layer["Id"]),
                "CreatedSince": (human.ago(created) if created > 0 else "N/A")
                if options["human"]
                else _rfc3339(created),
                "CreatedAt": _rfc3339(created),
                "CreatedBy": command if full else human.shorten(command, 45),
                "Size": human.size(layer["Size"], 3) if options["human"] else str(layer["Size"]),
                "Comment": layer.get("Comment") or "",
            }
        )
    columns = ["ID", "CreatedSince" if options["human"] else "CreatedAt", "CreatedBy", "Size", "Comment"]
    write(rows, HISTORY_HEADERS, columns, options["format"])
    return 0


def _rfc3339(when: int) -> str:
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))


def _prune(client: "Client", options: "dict[str, Any]", _names: "list[str]") -> int:
    from knarr.cli.each import confirm
    from knarr.cli.listing import filters

    every = options["all"]
    what = "images without at least one container associated to them" if every else "dangling images"
    if not options["force"] and not confirm(f"This will remove all {what}."):
        return 0
    result = client.images.prune({**filters(options["filter"]), "dangling": ["false" if every else "true"]})
    deleted = result.get("ImagesDeleted") or []
    if deleted:
        show("Deleted Images:")
        for entry in deleted:
            show(f"untagged: {entry['Untagged']}" if entry.get("Untagged") else f"deleted: {entry['Deleted']}")
        show("")
    show(f"Total reclaimed space: {human.size(result.get('SpaceReclaimed', 0))}")
    return 0


IMAGES = Command(
    "images",
    _images,
    text="List images",
    usage="[REPOSITORY[:TAG]]",
    example="knarr images --format '{{.Repository}}:{{.Tag}} {{.Size}}'",
    maximum=1,
    complete="images",
    options=(
        Option("-a --all", FLAG, "Show all images (default: no intermediate ones)"),
        Option("--digests", FLAG, "Show digests"),
        Option("-f --filter", LIST, "Only those that match (dangling=true, label=a=b, reference=deb* ...)"),
        Option("--format", TEXT, "Format: table, json, or a Go template"),
        Option("--no-trunc", FLAG, "Don't cut long values"),
        Option("-q --quiet", FLAG, "Only show IDs"),
        Option("--tree", FLAG, "List what each image has for several platforms, as a tree"),
    ),
)
RMI = Command(
    "rmi",
    _rmi,
    text="Remove one or more images",
    usage="IMAGE [IMAGE...]",
    example="knarr rmi debian:11",
    minimum=1,
    complete="images",
    options=(
        Option("-f --force", FLAG, "Remove it though containers use it or it has several names"),
        Option("--no-prune", FLAG, "Keep untagged parents"),
        Option("--platform", LIST, "Remove only what it has for these platforms, such as linux/arm64"),
    ),
)
TAG = Command(
    "tag",
    _tag,
    text="Give an image another name",
    usage="SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    example="knarr tag debian:12 localhost:5000/base",
    minimum=2,
    maximum=2,
    complete="images",
)
HISTORY = Command(
    "history",
    _history,
    text="Show what an image is made of",
    usage="IMAGE",
    example="knarr history --no-trunc debian:12",
    minimum=1,
    maximum=1,
    complete="images",
    options=(
        Option("--format", TEXT, "Format: table, json, or a Go template"),
        Option("-H --human", FLAG, "Sizes and dates for people", default=True),
        Option("--no-trunc", FLAG, "Don't cut long values"),
        Option("--platform", TEXT, "Of this platform's image, such as linux/arm64"),
        Option("-q --quiet", FLAG, "Only show IDs"),
    ),
)
PRUNE = Command(
    "image prune",
    _prune,
    text="Remove unused images",
    example="knarr image prune -a -f",
    maximum=0,
    options=(
        Option("-a --all", FLAG, "All images that no container uses, not just those without a name"),
        Option("--filter", LIST, 'Only those that match (such as "until=24h")'),
        Option("-f --force", FLAG, "Do not ask"),
    ),
)
