"""What each version of the API says: one encoder writes every field that any has, a table keeps the right ones.

An encoder's document holds what the newest version shows and what older ones did; a Shape says in which versions a
field lives. So a change of the API is a line in a table, and no encoder asks for a version. The same tables read
requests: fields that a version did not have are dropped from them, as Docker ignores them.

A version is its minor number: 1.44 is 44. A field is named by its path, `HostConfig.Umask`; `*` stands for every name
of an object, and a list is gone through by itself: `HostConfig.Mounts.BindOptions`. The source is Docker's "Engine API
version history".
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["NEWEST", "OLDEST", "Shape"]

OLDEST, NEWEST = 24, 56

_Rule: TypeAlias = "dict[str, _Rule] | list[Callable[[Any], Any]]"


class _Absent:
    """What a rule returns for a field that is left out."""


class _Instead(NamedTuple):
    """What a rule returns for a field that takes the place of another."""

    name: str
    value: Any


def _drop(_: Any) -> Any:
    return _Absent


def _sparse(value: Any) -> Any:
    return value or _Absent


def _optional(value: Any) -> Any:
    return _Absent if value is None else value


class Shape:
    """Where the versions of one kind of document differ.

    since: fields that appeared in a version. until: fields that are gone in it. From a version on, sparse fields are
    left out where they are empty, optional ones only where they are null. was: fields whose value was another below a
    version, and how that is made of today's. former: fields that below a version hold what the encoder writes under a
    name of its own beside them, which no version shows; 0 shows it nowhere.
    """

    def __init__(
        self,
        *,
        since: Mapping[str, int] | None = None,
        until: Mapping[str, int] | None = None,
        sparse: Mapping[str, int] | None = None,
        optional: Mapping[str, int] | None = None,
        was: Mapping[str, tuple[int, Callable[[Any], Any]]] | None = None,
        former: Mapping[str, tuple[int, str]] | None = None,
    ) -> None:
        self._since, self._until, self._was, self._former = since or {}, until or {}, was or {}, former or {}
        self._left_out = ((sparse or {}, _sparse), (optional or {}, _optional))
        self._rules: dict[int, dict[str, _Rule]] = {}

    def of(self, document: dict[str, Any], version: int) -> dict[str, Any]:
        """A document as one version shows it. What was given stays as it is."""
        rules = self._rules.get(version)
        if rules is None:
            rules = self._rules[version] = self._compile(version)
        return _apply(rules, document) if rules else document

    def ignored(self, document: dict[str, Any], version: int) -> list[str]:
        """The fields of a request that hold something and that its version does not have: `of` drops them."""
        return [path for path in self._foreign(version) if _holds(document, path.split("."))]

    def _foreign(self, version: int) -> list[str]:
        found = [path for path, first in self._since.items() if version < first]
        return found + [path for path, first in self._until.items() if version >= first]

    def _compile(self, version: int) -> dict[str, _Rule]:
        tree: dict[str, _Rule] = {}
        for path in self._foreign(version):
            _add(tree, path, _drop)
        for path, (first, old) in self._was.items():
            if version < first:
                _add(tree, path, old)
        for path, (first, own) in self._former.items():
            parent, _, name = path.rpartition(".")
            if version < first:
                _add(tree, path, _drop)
            _add(tree, f"{parent}.{own}" if parent else own, partial(_Instead, name) if version < first else _drop)
        for fields, rule in self._left_out:
            for path, first in fields.items():
                if version >= first:
                    _add(tree, path, rule)
        return tree


def _add(tree: dict[str, _Rule], path: str, rule: Callable[[Any], Any]) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        below = tree.setdefault(parent, {})
        if isinstance(below, list):
            if _drop in below:
                return  # the whole of it is gone already
            raise TypeError(f"{path}: {parent} has a rule of its own")
        tree = below
    if rule is _drop:
        tree[name] = [rule]
        return
    have = tree.setdefault(name, [])
    if isinstance(have, dict):
        raise TypeError(f"{path}: fields below it have rules of their own")
    if _drop not in have:
        have.append(rule)


def _apply(rules: dict[str, _Rule], document: dict[str, Any]) -> dict[str, Any]:
    every = rules.get("*")
    found = {}
    for name, value in document.items():
        rule = rules.get(name, every)
        kept = value
        if isinstance(rule, list):
            for one in rule:
                kept = one(kept)
                if kept is _Absent:
                    break
        elif rule is not None:
            kept = _below(rule, value)
        if isinstance(kept, _Instead):
            found[kept.name] = kept.value
        elif kept is not _Absent:
            found[name] = kept
    return found


def _below(rules: dict[str, _Rule], value: Any) -> Any:
    if isinstance(value, dict):
        return _apply(rules, value)
    if isinstance(value, list):
        return [_below(rules, item) for item in value]
    return value


def _holds(value: Any, path: list[str]) -> bool:
    if isinstance(value, list):
        return any(_holds(item, path) for item in value)
    if not path:
        return bool(value)
    if not isinstance(value, dict):
        return False
    return any(_holds(value.get(name), path[1:]) for name in (value if path[0] == "*" else path[:1]))
