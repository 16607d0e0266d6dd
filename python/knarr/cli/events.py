"""`knarr events`."""

import sys
import time

from knarr.cli.command import LIST, TEXT, Command, Option
from knarr.cli.terminal import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client


_EMPTY: "dict[str, Any]" = {
    "status": "",
    "id": "",
    "from": "",
    "Type": "",
    "Action": "",
    "Actor": {"ID": "", "Attributes": {}},
    "scope": "",
    "time": 0,
    "timeNano": 0,
}


def spoken(event: "dict[str, Any]") -> str:
    """One line of an EventMessage: time, type, action, ID and what else is known of it."""
    seconds, fraction = divmod(event["timeNano"], 1_000_000_000)
    local = time.localtime(seconds)
    offset = time.strftime("%z", local)
    zone = "Z" if offset == "+0000" else f"{offset[:3]}:{offset[3:]}"
    when = f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{fraction:09d}{zone}"
    actor = event["Actor"]
    line = f"{when} {event['Type']} {event['Action']} {actor['ID']}"
    attributes = actor.get("Attributes") or {}
    if not attributes:
        return line
    return f"{line} ({', '.join(f'{name}={attributes[name]}' for name in sorted(attributes))})"


def _events(client: "Client", options: "dict[str, Any]", _arguments: "list[str]") -> int:
    from knarr.cli import documents
    from knarr.cli.listing import filters

    form = options["format"]
    template = documents.compiled(form) if form else None
    if template is not None:
        documents.check(template, _EMPTY)
    since, until = options["since"], options["until"]
    if since or until:
        from knarr.cli.times import timestamp

        since, until = (timestamp(text) if text else None for text in (since, until))
    for event in client.system.events(since, until, filters(options["filter"])).values():
        if form:
            documents.write(event if template is None else {**_EMPTY, **event}, template)
        else:
            show(spoken(event))
        sys.stdout.flush()
    return 0


EVENTS = Command(
    "events",
    _events,
    text="Show what happens in the engine as it happens",
    example="knarr events --since 10m --filter type=container --format '{{.Action}} {{.Actor.Attributes.name}}'",
    maximum=0,
    options=(
        Option("-f --filter", LIST, "Only those that match (type=container, event=die, label=a=b ...)"),
        Option("--format", TEXT, "Format: json, or a Go template"),
        Option("--since", TEXT, "Also those since a time (2026-01-02T13:23:37Z) or so long ago (42m)"),
        Option("--until", TEXT, "Until a time (2026-01-02T13:23:37Z) or so long ago (42m)"),
    ),
)
