"""What a health check is: HealthConfig of the API, of a container and of its image.

All times are nanoseconds; 0 stands for Docker's default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knarr.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knarr.store.containers import Config, Healthcheck

__all__ = ["check", "command", "merge"]

MINIMUM = 1_000_000  # ns
_TIMES = ("Interval", "Timeout", "StartPeriod", "StartInterval")


def check(given: Mapping[str, Any] | None) -> None:
    """Check a Healthcheck (HealthConfig of the API). Raises InvalidArgument, in Docker's words where it has any."""
    if not given:
        return
    test = given.get("Test")
    if test is not None and not (isinstance(test, list) and all(isinstance(word, str) for word in test)):
        raise InvalidArgument("Healthcheck.Test must be a list of strings")
    if any("\0" in word for word in test or ()):
        raise InvalidArgument("Healthcheck.Test contains a NUL byte")
    for name, value in given.items():
        if name != "Test" and name not in (*_TIMES, "Retries"):
            raise InvalidArgument(f"Healthcheck.{name} is not a field that knarr knows: leave it out")
        if name != "Test" and value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise InvalidArgument(f"Healthcheck.{name} must be a whole number")
    for name in _TIMES:
        if given.get(name) and given[name] < MINIMUM:
            raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms")
    if (given.get("Retries") or 0) < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")


def merge(config: Config, image: dict[str, Any] | None) -> None:
    """Fill what a container leaves open from its image's check."""
    if not image:
        return
    check(image)
    given = {name: value for name, value in (config["Healthcheck"] or {}).items() if value}
    merged: Healthcheck = {**image, **given}  # type: ignore[typeddict-item]
    config["Healthcheck"] = merged


def command(config: Config) -> list[str]:
    """What a probe runs; empty where there is no check."""
    test = (config["Healthcheck"] or {}).get("Test") or [""]
    if test[0] == "CMD":
        return list(test[1:])
    if test[0] == "CMD-SHELL":
        return [*(config["Shell"] or ("/bin/sh", "-c")), *test[1:]]
    return []
