"""What a prune may take, by the filters that all nouns but images share: until, label, label!."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knarr.api.wire.containers import labels_match, parse_time
from knarr.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FILTERS", "prunable"]

FILTERS = {"label", "label!", "until"}


def prunable(filters: dict[str, list[str]]) -> Callable[[int, dict[str, str]], bool]:
    """Whether something made at a time (ns since the epoch), with those labels, may go. Raises InvalidArgument."""
    if len(filters.get("until", ())) > 1:
        raise InvalidArgument("more than one until filter specified")
    until = parse_time(filters["until"][0]) if filters.get("until") else 0

    def may_go(created_ns: int, labels: dict[str, str]) -> bool:
        if until and created_ns >= until:
            return False
        if any(labels_match([text], labels) for text in filters.get("label!", ())):
            return False
        return labels_match(filters.get("label", []), labels)

    return may_go
