"""What a shell may offer next: names of the engine's objects, in states that the verb takes, and values of options.

A Command says in `complete` what its arguments name: one word for each of them, or a word for every argument. The
words are the keys of `KINDS`, "files" and "places" (a path here, or a container's with a colon).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from click.shell_completion import CompletionItem

from knarr.errors import KnarrError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from knarr.cli.command import Command
    from knarr.client import Client

_STATES = {
    "containers": (),
    "running": ("running",),
    "alive": ("running", "paused", "restarting"),
    "paused": ("paused",),
    "stopped": ("created", "exited", "dead"),
}


def _containers(client: Client, states: Sequence[str]) -> list[str]:
    filters = {"status": list(states)} if states else {}
    return [container["Names"][0].lstrip("/") for container in client.containers.list(all=True, filters=filters)]


def _images(client: Client) -> list[str]:
    return [tag for image in client.images.list() for tag in image.get("RepoTags") or []]


def _networks(client: Client) -> list[str]:
    return [network["Name"] for network in client.networks.list()]


def _volumes(client: Client) -> list[str]:
    return [volume["Name"] for volume in client.volumes.list().get("Volumes") or []]


def _drivers(client: Client) -> list[str]:
    return list((client.info().get("Plugins") or {}).get("Log") or [])


KINDS: dict[str, Callable[[Client], list[str]]] = {
    **{kind: lambda client, states=states: _containers(client, states) for kind, states in _STATES.items()},  # type: ignore[misc]
    "images": _images,
    "networks": _networks,
    "volumes": _volumes,
    "drivers": _drivers,
    "objects": lambda client: [*_containers(client, ()), *_images(client), *_networks(client), *_volumes(client)],
}


def _signals() -> list[str]:
    import signal

    return sorted(name.name for name in signal.Signals)


_PLATFORMS = (
    "linux/386",
    "linux/amd64",
    "linux/arm/v6",
    "linux/arm/v7",
    "linux/arm64",
    "linux/ppc64le",
    "linux/riscv64",
)
_SECURITY = ("apparmor=", "label=", "no-new-privileges", "seccomp=unconfined", "systempaths=unconfined")
# What options hold: a word as for arguments, or the values themselves.
VALUES: dict[str, str | tuple[str, ...]] = {
    "--cgroupns": ("host", "private"),
    "--cidfile": "files",
    "--env-file": "files",
    "--format": ("json", "table"),
    "--input": "files",
    "--ipc": ("container:", "host", "none", "private", "shareable"),
    "--label-file": "files",
    "--link": "running",
    "--log-driver": "drivers",
    "--network": "networks",
    "--output": "files",
    "--pid": ("container:", "host"),
    "--platform": _PLATFORMS,
    "--pull": ("always", "missing", "never"),
    "--restart": ("always", "no", "on-failure", "unless-stopped"),
    "--security-opt": _SECURITY,
    "--signal": "signals",
    "--stop-signal": "signals",
    "--type": ("container", "image", "network", "volume"),
    "--userns": ("host",),
    "--uts": ("host",),
    "--volume": "files",
    "--volumes-from": "containers",
}


def arguments(
    command: Command, given: Sequence[str], params: dict[str, Any], host: str | None, start: str
) -> list[Any]:
    """What the next argument of a command may be."""
    wanted = command.complete
    if isinstance(wanted, tuple):
        word = wanted[len(given)] if len(given) < len(wanted) else ""
    else:
        full = command.maximum is not None and len(given) >= command.maximum
        word = "" if full or (command.tail and given) else wanted
    if word == "stopped" and params.get("force"):
        word = "containers"
    return [item for item in offers(word, host, start) if item.type != "plain" or item.value not in given]


def option(flags: Sequence[str], host: str | None, start: str) -> list[Any]:
    """What the value of an option may be."""
    word = next((VALUES[flag] for flag in flags if flag in VALUES), "")
    if isinstance(word, tuple):
        return [CompletionItem(value) for value in word if value.startswith(start)]
    return offers(word, host, start)


def offers(word: str, host: str | None, start: str) -> list[Any]:
    """What begins so, of a kind. Without an engine there is nothing to offer."""
    if word == "files":
        return [CompletionItem(start, type="file")]
    if word == "signals":
        names = _signals()
    elif word == "places":
        names = [f"{name}:" for name in _ask("containers", host)]
        if not any(name.startswith(start) for name in names) or not start:
            return [*(CompletionItem(name) for name in names if not start), CompletionItem(start, type="file")]
    else:
        names = _ask(word, host)
    return [CompletionItem(name) for name in names if name.startswith(start)]


def _ask(word: str, host: str | None) -> list[str]:
    from knarr.client import Client

    if word not in KINDS:
        return []
    try:
        with Client(host) as client:
            return KINDS[word](client)
    except KnarrError:
        return []
