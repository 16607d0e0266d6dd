"""What an image adds to a request: command, environment, ports and the rest, by Docker's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knarr.engine.containers import healthcheck
from knarr.engine.containers.policy import DEFAULT_PATH
from knarr.errors import InvalidArgument

if TYPE_CHECKING:
    from knarr.store.containers import Config

__all__ = ["command", "environment", "merge"]


def merge(config: Config, image: dict[str, Any]) -> None:
    """Fill what a request left open from an image's `config` object (OCI image-spec, config.md)."""
    for name in ("User", "WorkingDir", "StopSignal"):
        if not config[name]:
            config[name] = image.get(name) or ""
    for name in ("ExposedPorts", "Volumes", "Labels"):
        theirs = image.get(name)
        if theirs:
            config[name] = {**theirs, **(config[name] or {})}  # type: ignore[literal-required]
    given = list(config["Env"] or ())
    names = {entry.partition("=")[0] for entry in given}
    config["Env"] = given + [entry for entry in image.get("Env") or () if entry.partition("=")[0] not in names]
    healthcheck.merge(config, image.get("Healthcheck"))
    if not config["Entrypoint"]:
        if not config["Cmd"]:
            config["Cmd"] = list(image.get("Cmd") or ())
        if config["Entrypoint"] is None:
            config["Entrypoint"] = list(image.get("Entrypoint") or ()) or None


def command(config: Config) -> tuple[str, list[str]]:
    """(program, arguments). Raises InvalidArgument where there is none."""
    entrypoint = config["Entrypoint"] or []
    if entrypoint == [""]:
        entrypoint = []
        config["Entrypoint"] = None
    words = [*entrypoint, *(config["Cmd"] or ())]
    if not words:
        raise InvalidArgument("no command specified")
    return words[0], words[1:]


def environment(config: Config, extra: list[str] | None = None) -> list[str]:
    """The variables of a process: defaults, the container's, and an exec's own; the last of each name counts.

    A name without `=` takes the variable away.
    """
    found = {"PATH": DEFAULT_PATH, "HOSTNAME": f"HOSTNAME={config['Hostname']}"}
    if config["Tty"]:
        found["TERM"] = "TERM=xterm"
    for entry in [*(config["Env"] or ()), *(extra or ())]:
        name, separator, _ = entry.partition("=")
        if separator:
            found[name] = entry
        else:
            found.pop(name, None)
    return list(found.values())
