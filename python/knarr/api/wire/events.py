"""EventMessage, and which of them a listener wants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knarr.errors import InvalidArgument
from knarr.types import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from knarr.engine.events import Event

__all__ = ["FILTERS", "matcher", "shown"]

_NAMED = ("config", "container", "daemon", "network", "node", "plugin", "secret", "service", "volume")
FILTERS = {*_NAMED, "event", "image", "label", "scope", "type"}
# Actions that carry more than their name, and so are found by how they begin.
_LONG = ("exec_create", "exec_start", "health_status")


def shown(event: Event, version: int) -> dict[str, Any] | None:
    """An event as a version of the API shows it: before 1.52 with what was deprecated in 1.22. None: not at all."""
    if version < 46 and event["Type"] == "image" and event["Action"] == "create":
        return None
    if version >= 52 or event["Type"] not in ("container", "image"):
        return event
    former = {"status": event["Action"], "id": event["Actor"]["ID"]}
    if event["Type"] == "container":
        former["from"] = event["Actor"]["Attributes"].get("image", "")
    return {**former, **event}


def matcher(filters: Mapping[str, list[str]]) -> Callable[[Event], bool]:
    """A test for events: all filters must hold, and of each any value (of labels every one)."""
    tests = [_test(name, values) for name, values in filters.items() if values]
    return lambda event: all(test(event) for test in tests)


def _test(name: str, values: list[str]) -> Callable[[Event], bool]:
    if name == "type":
        return lambda event: event["Type"] in values
    if name == "scope":
        return lambda event: event["scope"] in values
    if name == "event":
        starts = tuple(values) if any(value in _LONG for value in values) else ()
        return lambda event: event["Action"] in values or event["Action"].startswith(starts)
    if name == "label":
        return lambda event: all(_has_label(event["Actor"]["Attributes"], value) for value in values)
    if name == "image":
        return lambda event: not set(values).isdisjoint(_image_names(event))
    # An object's ID or name, or the beginning of either.
    beginnings = tuple(value.removeprefix("/") for value in values)
    return lambda event: (
        event["Actor"]["ID"].startswith(beginnings)
        or event["Actor"]["Attributes"].get("name", "").startswith(beginnings)
    )


def _has_label(attributes: dict[str, str], wanted: str) -> bool:
    key, separator, value = wanted.partition("=")
    return key in attributes and (not separator or attributes[key] == value)


def _image_names(event: Event) -> set[str]:
    """The names of the image that an event is about, or whose container it is about, with tag and without."""
    actor = event["Actor"]
    name = actor["Attributes"].get("name" if event["Type"] == "image" else "image", "")
    return {actor["ID"], name, _repository(actor["ID"]), _repository(name)}


def _repository(name: str) -> str:
    try:
        return Reference.parse(name).familiar_name
    except InvalidArgument:
        return name
