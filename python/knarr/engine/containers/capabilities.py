"""Which capabilities a container has: the defaults, what is added and what is dropped."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from knarr.engine.containers.policy import CAPABILITIES, DEFAULT_CAPABILITIES
from knarr.errors import InvalidArgument, PermissionDenied

if TYPE_CHECKING:
    from knarr.store.containers import HostConfig

__all__ = ["available", "capabilities"]


@lru_cache(maxsize=1)
def available() -> frozenset[str]:
    """The capabilities of this process's bounding set: none beyond them can be given away."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("CapBnd:"):
                mask = int(line.split()[1], 16)
                return frozenset(name for number, name in enumerate(CAPABILITIES) if mask >> number & 1)
    return frozenset(CAPABILITIES)


def _names(words: list[str] | None, option: str) -> list[str]:
    found = []
    for word in words or ():
        name = word.upper()
        if name == "ALL":
            found.append(name)
            continue
        if not name.startswith("CAP_"):
            name = "CAP_" + name
        if name not in CAPABILITIES:
            raise InvalidArgument(f'invalid {option}: unknown capability: "{name}"')
        found.append(name)
    return found


def capabilities(host: HostConfig) -> tuple[str, ...]:
    """The capabilities that a container runs with, in the kernel's order.

    Raises InvalidArgument for a name that no capability has, PermissionDenied for one that was asked for by
    name and that the engine itself does not have.
    """
    return _resolve(tuple(host["CapAdd"] or ()), tuple(host["CapDrop"] or ()), host["Privileged"])


@lru_cache(maxsize=256)
def _resolve(add: tuple[str, ...], drop: tuple[str, ...], privileged: bool) -> tuple[str, ...]:
    added, dropped = _names(list(add), "CapAdd"), _names(list(drop), "CapDrop")
    have = available()
    if privileged:
        wanted = set(CAPABILITIES)
    elif "ALL" in added:
        wanted = set(CAPABILITIES) - set(dropped)
    elif "ALL" in dropped:
        wanted = set(added)
    else:
        wanted = set(DEFAULT_CAPABILITIES) - set(dropped) | set(added)
    if not privileged:
        for name in added:
            if name != "ALL" and name not in have:
                raise PermissionDenied(
                    f"CapAdd: the engine itself runs without {name} and cannot give it to a container"
                )
    return tuple(name for name in CAPABILITIES if name in wanted and name in have)
