"""What a container was told to call others by.

On a user-defined network a link is one more name that the engine's resolver knows for the linking container alone: it
is an endpoint's, and has no more to it than `parse_link`.

Links on the default bridge are lines in /etc/hosts for containers that another one was told of (`HostConfig.Links`).

A record keeps them as "<ID>:<alias>", so that they survive a rename. The file is written when the linking container
starts, and again whenever a linked one has started with another address. Docker's variables for links are not set: its
engine sets them no more unless told to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from knarr.errors import Conflict, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from knarr.engine.containers.container import Container
    from knarr.store.containers import ContainerRecord

__all__ = ["Links", "links", "parse_link"]


def links(record: ContainerRecord) -> Iterator[tuple[str, str]]:
    """(ID of the other, alias) of each link of a record."""
    for text in record.host["Links"] or ():
        other, _, alias = text.partition(":")
        yield other, alias


def parse_link(text: str) -> tuple[str, str]:
    """(name of the other, alias) of "name:alias" or "name", as requests have it. InvalidArgument for anything else."""
    name, _, alias = text.partition(":")
    if not name or ":" in alias or any(letter.isspace() for letter in text):
        raise InvalidArgument(f"bad format for links: {text}")
    name = name.removeprefix("/")
    return name, alias.rpartition("/")[2] or name


class Links:
    """Which container links to which. Belongs to the event loop."""

    def __init__(self, find: Callable[[str], Container]) -> None:
        self._find = find
        self._linking: dict[str, set[str]] = {}  # ID → IDs of those that link to it

    def resolve(self, record: ContainerRecord) -> None:
        """Turn the names of a request into IDs. InvalidArgument for what cannot be linked."""
        wanted = record.host["Links"]
        if not wanted:
            return
        mode = record.host["NetworkMode"]
        if mode == "host":
            raise InvalidArgument(
                "conflicting options: host type networking can't be used with links. "
                "This would result in undefined behavior"
            )
        if mode != "bridge":
            raise InvalidArgument(f"conflicting options: links need the default bridge network, not {mode}")
        found: dict[str, str] = {}
        for text in wanted:
            name, alias = parse_link(text)
            try:
                other = self._find(name).record
                while other.host["NetworkMode"].startswith("container:"):
                    other = self._find(other.host["NetworkMode"][10:]).record
            except NotFound as error:  # a NotFound would be taken for a missing image
                raise InvalidArgument(f"could not get container for {name}: {error}") from error
            if other.host["NetworkMode"] != "bridge":
                raise InvalidArgument(
                    f"Cannot link to /{other.name}, as it does not belong to the default network: "
                    f"its network mode is {other.host['NetworkMode']}"
                )
            if found.setdefault(alias, other.id) != other.id:
                raise InvalidArgument(f"conflicting options: the alias {alias} is given to two containers")
        record.host["Links"] = [f"{other}:{alias}" for alias, other in found.items()]

    def add(self, record: ContainerRecord) -> None:
        """Take note of a record's links."""
        for other, _ in links(record):
            self._linking.setdefault(other, set()).add(record.id)

    def remove(self, record: ContainerRecord, alias: str) -> None:
        """Take one link out of a record. NotFound where there is none of that alias."""
        kept = [f"{other}:{name}" for other, name in links(record) if name != alias]
        if len(kept) == len(record.host["Links"] or ()):
            raise NotFound(f"No such container: {record.name}/{alias}")
        self.forget_links(record)
        record.host = {**record.host, "Links": kept or None}
        self.add(record)

    def forget(self, record: ContainerRecord) -> None:
        """A container is gone."""
        self._linking.pop(record.id, None)
        self.forget_links(record)

    def forget_links(self, record: ContainerRecord) -> None:
        """A container links to nobody."""
        for other, _ in links(record):
            self._linking.get(other, set()).discard(record.id)

    def lines(self, record: ContainerRecord, *, running: bool = False) -> str:
        """What /etc/hosts says of those that a record links to.

        At a start each of them must run, else Conflict; while the container is running, those that do not are left out.
        """
        found = []
        for other_id, alias in links(record):
            try:
                other = self._find(other_id).record
            except NotFound:
                continue  # it was removed, and its link with it
            endpoint = other.state.networks.get("bridge")
            own = (endpoint["address"], endpoint.get("address6")) if endpoint else ()
            addresses = [address for address in own if address]
            if not other.state.running or not addresses:
                if running:
                    continue
                raise Conflict(f"Cannot link to a non running container: /{other.name} AS /{record.name}/{alias}")
            names = dict.fromkeys([alias, other.config["Hostname"], other.name])
            found += [f"{address}\t{' '.join(names)}\n" for address in addresses]
        return "".join(found)

    def linking(self, container_id: str) -> Iterator[ContainerRecord]:
        """The running containers that link to one."""
        for parent in self._linking.get(container_id, ()):
            record = self._find(parent).record
            if record.state.running:
                yield record
