"""Filters of lists and prunes, as the API gives them: name → values."""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from knarr.errors import InvalidArgument
from knarr.types import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from knarr.engine.images.catalog import Catalog, Image

    Filters = Mapping[str, Sequence[str]]

LIST = {"before", "dangling", "label", "reference", "since", "until"}
PRUNE = {"dangling", "label", "label!", "until"}
_TRUE = {"1", "t", "T", "true", "True", "TRUE"}
_FALSE = {"0", "f", "F", "false", "False", "FALSE"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(ns|us|µs|ms|s|m|h)", re.ASCII)
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_UNIX = re.compile(r"(\d{1,12})(?:\.(\d{1,9}))?", re.ASCII)
_DATES = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H", "%Y-%m-%d")


def check(filters: Filters, known: Iterable[str]) -> None:
    """InvalidArgument for a filter that nobody knows."""
    for name in filters:
        if name not in known:
            raise InvalidArgument(f"invalid filter '{name[:100]}'")


def boolean(filters: Filters, name: str, default: bool | None = None) -> bool | None:
    """The value of a filter that is true or false."""
    values = filters.get(name)
    if not values:
        return default
    if set(values) <= _TRUE:
        return True
    if set(values) <= _FALSE:
        return False
    raise InvalidArgument(f"invalid filter '{name}=[{values[0][:100]}]'")


def listed(catalog: Catalog, filters: Filters) -> list[Image]:
    """The images that pass, newest first, each with those of its names that do."""
    check(filters, LIST)
    tests: list[Callable[[Image], bool]] = [_labels(filters)]
    dangling = boolean(filters, "dangling")
    if dangling is not None:
        tests.append(lambda image: dangling != catalog.is_named(image))
    for text in filters.get("before", ()):
        before = catalog.find(text)
        tests.append(lambda image, limit=before.created: image.created < limit)  # type: ignore[misc]
    for text in filters.get("since", ()):
        since = catalog.find(text)
        tests.append(lambda image, limit=since.created: image.created > limit)  # type: ignore[misc]
    if until := _until(filters):
        tests.append(lambda image: image.created < until)
    patterns = [_pattern(text) for text in filters.get("reference", ())]
    found = []
    for image in catalog:
        if catalog.stands_in(image):
            continue  # listed with the one that has the tag
        if all(test(image) for test in tests):
            shown = image
            if patterns:
                references = tuple(name for name in image.references if _matches(patterns, name))
                digests = tuple(name for name in image.repo_digests if _matches(patterns, name))
                if not references and not digests:
                    continue
                shown = replace(image, references=references, repo_digests=digests)
            found.append(shown)
    return sorted(found, key=lambda image: (-image.created, image.id))


def prunable(filters: Filters, named: Callable[[Image], bool]) -> Callable[[Image], bool]:
    """Whether a prune with these filters is for an image, whatever uses it. named: whether a tag needs it."""
    check(filters, PRUNE)
    every = boolean(filters, "dangling", default=True) is False
    labels, until = _labels(filters), _until(filters)
    return lambda image: (every or not named(image)) and labels(image) and (until is None or image.created < until)


def _labels(filters: Filters) -> Callable[[Image], bool]:
    wanted = [text.partition("=") for text in filters.get("label", ())]
    unwanted = [text.partition("=") for text in filters.get("label!", ())]

    def test(image: Image) -> bool:
        labels = (image.config.get("config") or {}).get("Labels") or {}

        def has(label: tuple[str, str, str]) -> bool:
            name, equals, value = label
            return name in labels and (not equals or labels[name] == value)

        return all(map(has, wanted)) and not any(map(has, unwanted))

    return test


def _pattern(text: str) -> re.Pattern[str]:
    """A pattern for familiar names, with the wildcards of a shell, none of which matches a slash."""
    for prefix in ("docker.io/library/", "docker.io/"):
        if text.startswith(prefix):
            text = text[len(prefix) :]
            break
    parts, position = [], 0
    while position < len(text):
        letter = text[position]
        position += 1
        if letter == "*":
            parts.append("[^/]*")
        elif letter == "?":
            parts.append("[^/]")
        elif letter == "[":
            end = text.find("]", position + 1)
            if end < 0:
                raise InvalidArgument(f"invalid filter 'reference={text[:100]}': syntax error in pattern")
            inside = text[position:end]
            negated, inside = inside[:1] == "^", inside.removeprefix("^")
            parts.append("[" + "^" * negated + re.sub(r"([\\\[\]^&~|])", r"\\\1", inside) + "]")
            position = end + 1
        elif letter == "\\" and position < len(text):
            parts.append(re.escape(text[position]))
            position += 1
        else:
            parts.append(re.escape(letter))
    try:
        return re.compile("".join(parts))
    except re.error:
        raise InvalidArgument(f"invalid filter 'reference={text[:100]}': syntax error in pattern") from None


def _matches(patterns: Iterable[re.Pattern[str]], name: str) -> bool:
    """Whether one of the patterns is that of a whole name, or of its repository."""
    repository = Reference.parse(name).familiar_name
    return any(pattern.fullmatch(name) or pattern.fullmatch(repository) for pattern in patterns)


def _until(filters: Filters) -> int | None:
    values = filters.get("until")
    if not values:
        return None
    if len(values) > 1:
        raise InvalidArgument("more than one until filter specified")
    return moment(values[0])


def moment(text: str) -> int:
    """A time in ns since the epoch from a Unix time, a date, RFC 3339, or a duration back from now."""
    if match := _UNIX.fullmatch(text):
        return int(match[1]) * 10**9 + int((match[2] or "0").ljust(9, "0"))
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return time.time_ns() - sum(int(float(number) * _UNITS[unit]) for number, unit in parts)
    plain = text.removesuffix("Z")
    for form in _DATES:
        with contextlib.suppress(ValueError):  # another form, perhaps
            return int(datetime.strptime(plain, form).replace(tzinfo=timezone.utc).timestamp()) * 10**9
    try:
        parsed = datetime.fromisoformat(plain + ("+00:00" if plain != text else ""))
    except ValueError:
        raise InvalidArgument(f"invalid filter 'until={text[:100]}': neither a time nor a duration") from None
    return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).timestamp() * 10**9)
