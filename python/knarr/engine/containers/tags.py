"""What a log's entries carry besides their text: labels, environment variables, and a tag made by a template.

The template is Go's, as far as Docker's log tags use it: text with actions, each a field (`{{.Name}}`), a function of
fields and literals (`{{index .ContainerLabels "app"}}`), or either of them through functions (`{{.Name | upper}}`).
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from knarr.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from knarr.store.containers import ContainerRecord

__all__ = ["DEFAULT_TAG", "attributes", "check", "tag"]

DEFAULT_TAG = "{{.ID}}"
_SHORT = 12

_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_WORD = re.compile(r'\s*(?:(\|)|("(?:[^"\\]|\\.)*")|(-?\d+)|(\.[A-Za-z]\w*)|([A-Za-z]\w*))')


def attributes(record: ContainerRecord, options: Mapping[str, str]) -> dict[str, str]:
    """Labels and variables that the options name. A later kind wins over an earlier one, as in Docker."""
    labels = record.config["Labels"] or {}
    found: dict[str, str] = {}
    variables = dict(entry.split("=", 1) for entry in record.config["Env"] or () if "=" in entry)
    for source, names, pattern in (
        (labels, options.get("labels", ""), options.get("labels-regex", "")),
        (variables, options.get("env", ""), options.get("env-regex", "")),
    ):
        found |= {name: source[name] for name in names.split(",") if name in source}
        if pattern:
            expression = _expression(pattern)
            found |= {name: value for name, value in source.items() if expression.search(name)}
    return found


def tag(record: ContainerRecord, template: str) -> str:
    """The tag that a template makes. Raises InvalidArgument."""
    return _ACTION.sub(lambda match: _text(_pipeline(match[1], template, _fields(record))), template)


def check(options: Mapping[str, str]) -> None:
    """Refuse what cannot be understood. Raises InvalidArgument."""
    for name in ("labels-regex", "env-regex"):
        _expression(options.get(name, ""))
    template = options.get("tag", "")
    for match in _ACTION.finditer(template):
        _pipeline(match[1], template, None)
    rest = _ACTION.sub("", template)
    if "{{" in rest or "}}" in rest:
        raise InvalidArgument(f"template: log-tag: unclosed action in {template!r}")


def _expression(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise InvalidArgument(f"error parsing regexp: {error}: `{pattern}`") from error


def _fields(record: ContainerRecord) -> dict[str, Any]:
    image = record.image_id
    return {
        "ID": record.id[:_SHORT],
        "FullID": record.id,
        "Name": record.name,
        "ImageID": image.removeprefix("sha256:")[:_SHORT],
        "ImageFullID": image,
        "ImageName": record.config["Image"],
        "Command": " ".join([record.path, *record.args]),
        "Hostname": os.uname().nodename,
        "DaemonName": "docker",  # what templates written for Docker expect
        "ContainerID": record.id,
        "ContainerName": f"/{record.name}",
        "ContainerEntrypoint": record.path,
        "ContainerArgs": record.args,
        "ContainerImageID": image,
        "ContainerImageName": record.config["Image"],
        "ContainerEnv": record.config["Env"] or [],
        "ContainerLabels": record.config["Labels"] or {},
    }


FIELDS = frozenset(
    {"ID", "FullID", "Name", "ImageID", "ImageFullID", "ImageName", "Command", "Hostname", "DaemonName", "ContainerID"}
    | {"ContainerName", "ContainerEntrypoint", "ContainerArgs", "ContainerImageID", "ContainerImageName"}
    | {"ContainerEnv", "ContainerLabels"}
)


def _index(value: Any, key: Any) -> Any:
    try:
        return value[key]
    except (KeyError, IndexError):
        return ""


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "index": _index,
    "json": lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")),
    "split": lambda text, separator: text.split(separator),
    "join": lambda parts, separator: separator.join(parts),
    "title": str.title,
    "lower": str.lower,
    "upper": str.upper,
    "pad": lambda text, before, after: " " * before + text + " " * after if text else text,
    "truncate": lambda text, length: text[:length],
}


def _pipeline(action: str, template: str, fields: dict[str, Any] | None) -> Any:
    """What an action gives; without fields it is only looked at."""
    commands: list[list[str]] = [[]]
    position = 0
    while position < len(action):
        match = _WORD.match(action, position)
        if match is None:
            raise InvalidArgument(f"template: log-tag: cannot understand {action[position:]!r} in {template!r}")
        position = match.end()
        if match[1]:
            commands.append([])
        else:
            commands[-1].append(match[0].strip())
    value: Any = None
    for number, command in enumerate(commands):
        if not command:
            raise InvalidArgument(f"template: log-tag: missing value for command in {template!r}")
        head, arguments = command[0], [_value(word, template, fields) for word in command[1:]]
        if number:
            arguments.append(value)
        if head in FUNCTIONS:
            value = "" if fields is None else _call(head, arguments, template)
        elif arguments and head[0] in '."':
            raise InvalidArgument(f"template: log-tag: {head} takes no arguments in {template!r}")
        else:
            value = _value(head, template, fields)
    return value


def _call(name: str, arguments: list[Any], template: str) -> Any:
    try:
        return FUNCTIONS[name](*arguments)
    except (TypeError, AttributeError) as error:
        raise InvalidArgument(f"template: log-tag: error calling {name} in {template!r}: {error}") from error


def _value(word: str, template: str, fields: dict[str, Any] | None) -> Any:
    if word.startswith("."):
        if word[1:] not in FIELDS:
            raise InvalidArgument(f"template: log-tag: can't evaluate field {word[1:]} in {template!r}")
        return fields[word[1:]] if fields is not None else ""
    if word.startswith('"'):
        return json.loads(word)
    if word.lstrip("-").isdigit():
        return int(word)
    raise InvalidArgument(f'template: log-tag: function "{word}" not defined')


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "[" + " ".join(map(_text, value)) + "]"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_text(value[key])}" for key in sorted(value)) + "]"
    return str(value)
