"""inspect, for every kind of object: as JSON, or by a template."""

from knarr.cli.command import FLAG, TEXT, Command, Option
from knarr.cli.terminal import say, show
from knarr.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client

_BAD_TEMPLATE = 64  # Docker's, of inspect alone
_KINDS = ("container", "image", "network", "volume")


def _fetch(client: "Client", kind: str, name: str, *, size: bool, platform: "str | None") -> "dict[str, Any]":
    if kind == "container":
        return client.containers.inspect(name, size=size)
    if kind == "image":
        return client.images.inspect(name, platform=platform)
    return client.networks.inspect(name) if kind == "network" else client.volumes.inspect(name)


def _find(
    client: "Client", kinds: "tuple[str, ...]", name: str, *, size: bool, platform: "str | None" = None
) -> "dict[str, Any]":
    for kind in kinds:
        try:
            return _fetch(client, kind, name, size=size, platform=platform)
        except NotFound:
            if len(kinds) == 1:
                raise
        except InvalidArgument:
            if kind == kinds[-1] or len(kinds) == 1:  # "a@b" is no name of a container but may be one of an image
                raise
    raise NotFound(f"No such object: {name}")


def _write(
    client: "Client",
    kinds: "tuple[str, ...]",
    names: "list[str]",
    form: "str | None",
    *,
    size: bool,
    platform: "str | None" = None,
) -> int:
    from knarr.cli.documents import Fields
    from knarr.cli.template_functions import to_json

    compiled = None
    if form and form != "json":
        from knarr.cli.template import Template, TemplateError

        try:
            compiled = Template(form)
        except TemplateError as error:
            say(f"knarr: {error}")
            return _BAD_TEMPLATE
    found, code = [], 0
    for name in names:
        try:
            details = _find(client, kinds, name, size=size, platform=platform)
        except (NotFound, InvalidArgument) as error:
            say(f"knarr: {error}")
            code = 1
            continue
        if compiled is not None:
            show(compiled.render(Fields(details)))
        else:
            found.append(details)
    if compiled is None:
        show(to_json(found, indent=None if form else 4))
    return code


def _inspect(client: "Client", options: "dict[str, Any]", names: "list[str]") -> int:
    kind = options["type"]
    if kind and kind not in _KINDS:
        raise InvalidArgument(f'"{kind}" is not a valid value for --type: it is {", ".join(_KINDS)}')
    return _write(client, (kind,) if kind else _KINDS, names, options["format"], size=options["size"])


def _inspect_one(kind: str) -> "Any":
    def run(client: "Client", options: "dict[str, Any]", names: "list[str]") -> int:
        size, platform = options.get("size", False), options.get("platform")
        return _write(client, (kind,), names, options["format"], size=size, platform=platform)

    return run


_FORMAT = Option("-f --format", TEXT, "Format: json, or a Go template")
_SIZE = Option("-s --size", FLAG, "Show sizes on disk, of containers")


def _of(kind: str, example: str, *more: Option) -> Command:
    return Command(
        f"{kind} inspect",
        _inspect_one(kind),
        text=f"Show details of one or more {kind}s",
        usage=f"{kind.upper()} [{kind.upper()}...]",
        example=example,
        minimum=1,
        complete=f"{kind}s",
        options=(_FORMAT, *more),
    )


INSPECT = Command(
    "inspect",
    _inspect,
    text="Show details of containers, images, networks and volumes",
    usage="NAME|ID [NAME|ID...]",
    example="knarr inspect --format '{{.State.Status}}' web",
    minimum=1,
    complete="objects",
    options=(_FORMAT, _SIZE, Option("--type", TEXT, "Only look for this: container, image, network or volume")),
)
CONTAINER = _of("container", "knarr container inspect web", _SIZE)
IMAGE = _of(
    "image",
    "knarr image inspect --format '{{json .Config.Cmd}}' debian:12",
    Option("--platform", TEXT, "Of this platform's image, such as linux/arm64"),
)
NETWORK = _of("network", "knarr network inspect bridge")
VOLUME = _of("volume", "knarr volume inspect data")
