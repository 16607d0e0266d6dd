"""stop, kill, restart, wait, rm, pause, unpause, rename, container prune."""

from knarr.cli.command import FLAG, INT, LIST, TEXT, Command, Option
from knarr.cli.each import QUIET, each
from knarr.cli.terminal import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client

_TIMEOUTS = (
    Option("-s --signal", TEXT, "Signal to send to the container"),
    Option("-t --timeout", INT, "Seconds to wait before killing it; -1 waits for ever"),
    Option("--time", INT, "Seconds to wait before killing it", key="timeout", hidden=True),
)


def _stop(client: "Client", options: "dict[str, Any]", names: "list[str]") -> int:
    return each(names, lambda name: client.containers.stop(name, options["timeout"], options["signal"]))


def _restart(client: "Client", options: "dict[str, Any]", names: "list[str]") -> int:
    return each(names, lambda name: client.containers.restart(name, options["timeout"], options["signal"]))


def _kill(client: "Client", options: "dict[str, Any]", names: "list[str]") -> int:
    return each(names, lambda name: client.containers.kill(name, options["signal"]))


def _pause(client: "Client", _options: "dict[str, Any]", names: "list[str]") -> int:
    return each(names, client.containers.pause)


def _unpause(client: "Client", _options: "dict[str, Any]", names: "list[str]") -> int:
    return each(names, client.containers.unpause)


def _wait(client: "Client", _options: "dict[str, Any]", names: "list[str]") -> int:
    from knarr.cli.terminal import say
    from knarr.errors import KnarrError

    code = 0
    for name in names:
        try:
            show(str(client.containers.wait(name)["StatusCode"]))
        except KnarrError as error:
            say(f"knarr: {error}")
            code = 1
    return code


def _rm(client: "Client", options: "dict[str, Any]", names: "list[str]") -> int:
    from knarr.errors import InvalidArgument, NotFound

    def remove(name: str) -> object:
        name = name.strip("/")
        if not name:
            raise InvalidArgument("container name cannot be empty")
        try:
            client.containers.remove(name, force=options["force"], volumes=options["volumes"], link=options["link"])
        except NotFound:
            if not options["force"]:
                raise
            return QUIET
        return None

    return each(names, remove)


def _rename(client: "Client", _options: "dict[str, Any]", names: "list[str]") -> int:
    from knarr.errors import InvalidArgument

    if not all(name.strip() for name in names):
        raise InvalidArgument("neither old nor new names may be empty")
    client.containers.rename(*names)
    return 0


def _prune(client: "Client", options: "dict[str, Any]", _names: "list[str]") -> int:
    from knarr.cli.each import confirm
    from knarr.cli.human import size
    from knarr.cli.listing import filters

    if not options["force"] and not confirm("This will remove all stopped containers."):
        return 0
    result = client.containers.prune(filters(options["filter"]))
    if result.get("ContainersDeleted"):
        show("Deleted Containers:")
        for container in result["ContainersDeleted"]:
            show(container)
        show("")
    show(f"Total reclaimed space: {size(result.get('SpaceReclaimed', 0))}")
    return 0


STOP = Command(
    "stop",
    _stop,
    text="Stop one or more running containers",
    usage="CONTAINER [CONTAINER...]",
    example="knarr stop -t 5 web",
    minimum=1,
    complete="alive",
    options=_TIMEOUTS,
)
RESTART = Command(
    "restart",
    _restart,
    text="Restart one or more containers",
    usage="CONTAINER [CONTAINER...]",
    example="knarr restart web",
    minimum=1,
    complete="containers",
    options=_TIMEOUTS,
)
KILL = Command(
    "kill",
    _kill,
    text="Kill one or more running containers",
    usage="CONTAINER [CONTAINER...]",
    example="knarr kill -s HUP web",
    minimum=1,
    complete="alive",
    options=(Option("-s --signal", TEXT, "Signal to send (default KILL)"),),
)
WAIT = Command(
    "wait",
    _wait,
    text="Block until one or more containers stop, then print their exit codes",
    usage="CONTAINER [CONTAINER...]",
    example="knarr wait job",
    minimum=1,
    complete="containers",
)
RM = Command(
    "rm",
    _rm,
    text="Remove one or more containers",
    usage="CONTAINER [CONTAINER...]",
    example="knarr rm -f web",
    minimum=1,
    complete="stopped",
    options=(
        Option("-f --force", FLAG, "Remove a running container too (with SIGKILL); none is no error"),
        Option("-l --link", FLAG, "Remove the link CONTAINER/ALIAS, not a container"),
        Option("-v --volumes", FLAG, "Remove its anonymous volumes too"),
    ),
)
PAUSE = Command(
    "pause",
    _pause,
    text="Freeze all processes of one or more containers",
    usage="CONTAINER [CONTAINER...]",
    example="knarr pause web",
    minimum=1,
    complete="running",
)
UNPAUSE = Command(
    "unpause",
    _unpause,
    text="Let all processes of one or more containers go on",
    usage="CONTAINER [CONTAINER...]",
    example="knarr unpause web",
    minimum=1,
    complete="paused",
)
RENAME = Command(
    "rename",
    _rename,
    text="Rename a container",
    usage="CONTAINER NEW_NAME",
    example="knarr rename web web-old",
    minimum=2,
    maximum=2,
    complete=("containers",),
)
PRUNE = Command(
    "container prune",
    _prune,
    text="Remove all stopped containers",
    example="knarr container prune -f",
    maximum=0,
    options=(
        Option("--filter", LIST, 'Only those that match (such as "until=24h" or "label=ci")'),
        Option("-f --force", FLAG, "Do not ask"),
    ),
)
