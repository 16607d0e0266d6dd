"""Who stands behind a load-balanced entry of a network: told to the supervisor whenever it may have changed.

Those that end are taken out by the supervisor itself, which knows it first. One that is stopped, paused or taken off
the network is taken out before that happens, so that no connection meets it on its way out.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from knarr.engine.networks.entries import Entry, check_name, check_ports, key, shown
from knarr.errors import Conflict, InvalidArgument, KnarrError, NotFound
from knarr.failpoints import reached

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from knarr.engine.containers.container import Container, Context
    from knarr.engine.events import Event
    from knarr.store.networks import NetworkRecord

__all__ = ["Balancing"]

log = logging.getLogger("knarr.networks")

OF_CONTAINERS = ("start", "die", "pause", "unpause", "health_status")
OF_NETWORKS = ("connect", "disconnect")


class Balancing:
    """Belongs to the event loop."""

    def __init__(
        self, context: Context, find: Callable[[str], Container], every: Callable[[], Iterable[Container]]
    ) -> None:
        self._context = context
        self._find = find
        self._every = every
        self._stopping: set[str] = set()  # IDs of containers that are on their way out, or frozen
        self._locks: dict[str, asyncio.Lock] = {}  # by network ID: the supervisor hears of changes in their order
        self._follower: asyncio.Task[None] | None = None

    # --- entries

    async def create(self, network: NetworkRecord, asked: Entry) -> Entry:
        """Make an entry. InvalidArgument, Conflict for a name, an address or a port that is taken."""
        check_name(asked["name"])
        if not asked["labels"]:
            raise InvalidArgument("a load-balanced entry needs a label, by which its containers are known")
        if not asked["ports"]:
            raise InvalidArgument("a load-balanced entry needs a port")
        check_ports(
            network.name,
            asked["ports"],
            ipv4=bool(network.subnet),
            ipv6=bool(network.subnet6),
            internal=network.internal,
        )
        async with self._lock(network):
            if asked["name"] in network.entries:
                raise Conflict(f"network {network.name} has a load-balanced entry of the name {asked['name']} already")
            entry = self._context.networks.add_entry(network, asked)
            try:
                await self._tell(network, entry)
                reached("network.entry.record")
                self._context.networks.save(network)  # with the ports that were chosen
            except BaseException:
                await self._context.networks.remove_entry(network, entry["name"])
                raise
        self.follow()
        return entry

    async def remove(self, network: NetworkRecord, name: str) -> None:
        """Remove an entry. NotFound."""
        async with self._lock(network):
            entry = self._get(network, name)
            try:
                await self._context.networks.remove_entry(network, name)
            except BaseException:
                await self._tell(network, entry)
                raise

    async def declare(self, network: NetworkRecord) -> None:
        """Bring up the entries that a network was made with: all, or the network goes again."""
        if not network.entries:
            return
        try:
            async with self._lock(network):
                for entry in network.entries.values():
                    await self._tell(network, entry)
                self._context.networks.save(network)
        except BaseException:
            await self._context.networks.remove(network.id)
            raise
        self.follow()

    def shown(self, network: NetworkRecord) -> list[dict[str, Any]]:
        """The entries of a network and who stands behind them, as the API shows them."""
        return [self.show(network, entry) for entry in network.entries.values()]

    def show(self, network: NetworkRecord, entry: Entry) -> dict[str, Any]:
        """One of them."""
        members = [
            {"Id": container.record.id, "Name": container.record.name, "Address": address, "IPv6Address": address6}
            for container, address, address6 in self._members(network, entry)
        ]
        return {**shown(entry), "Network": network.name, "Members": members}

    def _get(self, network: NetworkRecord, name: str) -> Entry:
        if name not in network.entries:
            raise NotFound(f"network {network.name} has no load-balanced entry {name}")
        found: Entry = network.entries[name]
        return found

    # --- members

    def _members(self, network: NetworkRecord, entry: Entry) -> list[tuple[Container, str, str]]:
        """With their addresses of IPv4 and of IPv6, empty where they have none."""
        found = []
        for container in self._every():
            record = container.record
            endpoint = record.state.networks.get(network.name)
            if endpoint is None or "pending" in endpoint or record.id in self._stopping:
                continue
            addresses = endpoint["address"], endpoint.get("address6", "")
            labels = record.config["Labels"] or {}
            if not all(labels.get(key) == value for key, value in entry["labels"].items()):
                continue
            health = record.state.health
            if any(addresses) and record.state.status == "running" and (not health or health["status"] == "healthy"):
                found.append((container, *addresses))
        return found

    async def _tell(self, network: NetworkRecord, entry: Entry) -> None:
        answer = await self._context.supervisor.call(
            "balance",
            entry=key(network.id, entry["name"]),
            name=entry["name"],
            network=network.id,
            network_name=network.name,
            **self._context.networks.place(network.id),
            addresses=[address for address in (entry["address"], entry.get("address6")) if address],
            ports=entry["ports"],
            members={
                container.record.id: [address for address in addresses if address]
                for container, *addresses in self._members(network, entry)
            },
        )
        entry["ports"] = answer["ports"]

    async def _refresh(self, network: NetworkRecord, labels: dict[str, str] | None = None) -> None:
        """Tell of the entries of a network; with `labels`, of those that a container with these may stand behind."""
        async with self._lock(network):
            for entry in list(network.entries.values()):
                if labels is None or all(labels.get(key) == value for key, value in entry["labels"].items()):
                    await self._tell(network, entry)

    def _balanced(self, names: Iterable[str]) -> list[NetworkRecord]:
        """Those of the named networks that have entries."""
        found = [self._context.networks.find(name) for name in names]
        return [network for network in found if network is not None and network.entries]

    def _lock(self, network: NetworkRecord) -> asyncio.Lock:
        return self._locks.setdefault(network.id, asyncio.Lock())

    async def leave(self, container: Container) -> None:
        """A container is about to be stopped: connections go to others from now on."""
        labels = container.record.config["Labels"] or {}
        for network in self._balanced(container.record.state.networks):
            self._stopping.add(container.record.id)
            try:
                await self._refresh(network, labels)
            except KnarrError as error:  # it is stopped all the same, and leaves with its end
                log.warning("container %s still gets connections: %s", container.record.id[:12], error)

    async def stay(self, container: Container) -> None:
        """What it was to leave for has come to its end, or to nothing."""
        if container.record.id in self._stopping:
            self._stopping.discard(container.record.id)
            for network in self._balanced(container.record.state.networks):
                await self._try(network, container.record.config["Labels"] or {})

    # --- following what happens

    def close(self) -> None:
        """Follow nothing any more."""
        if self._follower is not None:
            self._follower.cancel()

    def follow(self) -> None:
        """Listen to what happens from now on, if there is anything to balance."""
        if self._follower is None and any(network.entries for network in self._context.networks.every()):
            self._follower = asyncio.get_running_loop().create_task(self._follow())

    async def _follow(self) -> None:
        listener = self._context.events.join()
        for network in self._context.networks.every():
            await self._try(network, None)
        while True:
            await self._happened(await listener.get())

    async def _happened(self, event: Event) -> None:
        action, attributes = event["Action"].partition(":")[0], event["Actor"]["Attributes"]
        if event["Type"] == "container" and action in OF_CONTAINERS:
            container_id = event["Actor"]["ID"]
            if action in ("start", "unpause"):
                self._stopping.discard(container_id)
        elif event["Type"] == "network" and action in OF_NETWORKS:
            container_id = attributes["container"]
        else:
            return
        try:
            record = self._find(container_id).record
        except NotFound:
            self._stopping.discard(container_id)
            return
        names = [*record.state.networks]
        if event["Type"] == "network" and attributes["name"] not in names:
            names.append(attributes["name"])
        for network in self._balanced(names):
            await self._try(network, record.config["Labels"] or {})

    async def _try(self, network: NetworkRecord, labels: dict[str, str] | None) -> None:
        try:
            await self._refresh(network, labels)
        except KnarrError as error:  # the supervisor is gone, most likely: its successor has what was told before
            log.warning("the load-balanced entries of network %s are not up to date: %s", network.name, error)
