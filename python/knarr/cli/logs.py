"""`knarr logs`."""

from knarr.cli import terminal
from knarr.cli.command import FLAG, TEXT, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client


def _logs(client: "Client", options: "dict[str, Any]", names: "list[str]") -> int:
    since, until = options["since"], options["until"]
    if since or until:
        from knarr.cli.times import timestamp

        since = timestamp(since) if since else None
        until = timestamp(until) if until else None
    response = client.containers.logs(
        names[0],
        follow=options["follow"],
        since=since,
        until=until,
        timestamps=options["timestamps"],
        details=options["details"],
        tail=options["tail"],
    )
    media_type = response.headers.get("content-type", "")
    if "multiplexed" in media_type:
        tty = False
    elif "raw" in media_type:
        tty = True
    else:
        tty = bool(client.containers.inspect(names[0])["Config"].get("Tty"))
    if tty:
        while piece := response.piece():
            terminal.write(terminal.STDOUT, piece)
        return 0
    from knarr.client.frames import STDERR, Demultiplexer

    frames = Demultiplexer()
    while piece := response.piece():
        for stream, data in frames.feed(piece):
            terminal.write(terminal.STDERR if stream >= STDERR else terminal.STDOUT, data)
    return 0


LOGS = Command(
    "logs",
    _logs,
    text="Show the logs of a container",
    usage="CONTAINER",
    example="knarr logs -f --tail 100 web",
    minimum=1,
    maximum=1,
    complete="containers",
    options=(
        Option("-f --follow", FLAG, "Go on as more is logged"),
        Option("--since", TEXT, "Only since a time (2026-01-02T13:23:37Z) or so long ago (42m)"),
        Option("--until", TEXT, "Only before a time (2026-01-02T13:23:37Z) or so long ago (42m)"),
        Option("-n --tail", TEXT, "Number of lines from the end", default="all"),
        Option("-t --timestamps", FLAG, "Show timestamps"),
        Option("--details", FLAG, "Show the labels, variables and tag that the log options name"),
    ),
)
