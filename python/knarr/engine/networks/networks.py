"""The networks of an engine.

Three are always there: `bridge`, `host` and `none`. The default bridge's subnet is chosen when a container first needs
it, stored, and kept; it is chosen again only when it has come to collide with the host while nobody uses it. Networks
that users make have their subnet from the beginning. The bridges themselves are made by the supervisor, when the first
container needs them, and removed by it with the network. Networks on the host's own interfaces are `lan`'s.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from knarr.engine.networks import creation, egress, entries, lan
from knarr.engine.networks.subnets import (
    DEFAULT_POOLS,
    AddressPool,
    choose,
    choose6,
    host_networks,
    host_networks6,
    mac_of,
    mac_of6,
    unique_local,
)
from knarr.engine.supervisor import SupervisorLost
from knarr.errors import Conflict, InvalidArgument, KnarrError, NotFound, PermissionDenied
from knarr.failpoints import reached
from knarr.store import networks as records
from knarr.store.networks import NetworkRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from knarr.config import Config
    from knarr.engine.events import Events
    from knarr.engine.networks.creation import IPNetwork
    from knarr.engine.supervisor import Supervisor
    from knarr.store.containers import Endpoint
    from knarr.store.database import Database

__all__ = ["DEFAULT", "DRIVERS", "Networks"]

DEFAULT = "bridge"
DRIVERS = {"bridge": "bridge", "host": "host", "none": "null"}


class Networks:
    """Belongs to the event loop."""

    def __init__(self, config: Config, database: Database, supervisor: Supervisor, events: Events) -> None:
        self._config = config
        self._records = records.Networks(database)
        self._supervisor = supervisor
        self._events = events
        self._networks: dict[str, NetworkRecord] = {}  # by name
        self._pools: dict[str, AddressPool] = {}  # by network ID
        self._pools6: dict[str, AddressPool] = {}
        self._leaving: set[str] = set()  # IDs of those that are being removed, or not made yet
        self._checked = False
        self.using: Callable[[str], list[tuple[str, str]]] = lambda _: []
        """(name, ID) of the containers that have an endpoint in a network now."""

    def load(self) -> None:
        """Read the records; make those of the three default networks where they are missing."""
        for record in self._records.load():
            self._networks[record.name] = record
        for name, driver in DRIVERS.items():
            if name not in self._networks:
                record = NetworkRecord(secrets.token_hex(32), name, driver, time.time_ns())
                if name == DEFAULT:
                    record.bridge = f"knarr-{self._config.engine_id}"
                self._records.save(record)
                self._networks[name] = record
        for record in self._networks.values():
            if record.subnet:
                self._pools[record.id] = _pool_of(record)
            if record.subnet6:
                self._pools6[record.id] = _pool6_of(record)

    def every(self) -> list[NetworkRecord]:
        """Every network."""
        return list(self._networks.values())

    def get(self, name: str) -> NetworkRecord:
        """A network by name, ID, or a prefix of its ID."""
        if name == "default":
            name = DEFAULT
        found = self._networks.get(name)
        if found is not None:
            return found
        matches = [record for record in self._networks.values() if record.id.startswith(name)] if name else []
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise InvalidArgument(f"network {name} is ambiguous ({len(matches)} matches found on name)")
        raise NotFound(f"network {name} not found")

    # --- making and removing

    async def create(self, asked: creation.Request) -> NetworkRecord:
        """Make a network. Raises what `creation.check` does, Conflict, PermissionDenied, Unavailable."""
        if asked.name in DRIVERS:
            raise PermissionDenied(f"operation is not permitted on predefined {asked.name} network")
        for option, value in self._config.default_network_opts.get(asked.driver, {}).items():
            asked.options.setdefault(option, value)
        creation.check(asked)
        if asked.name in self._networks:
            raise Conflict(f"network with name {asked.name} already exists")
        network_id = secrets.token_hex(32)
        bridge = ""
        if asked.driver == "bridge":
            bridge = self._bridge_name(asked, network_id)
        else:
            lan.check_parent(asked.driver, asked.options, self.every())
        record = NetworkRecord(
            network_id,
            asked.name,
            asked.driver,
            time.time_ns(),
            bridge=bridge,
            labels=asked.labels,
            options=asked.options,
            internal=asked.internal,
            attachable=asked.attachable,
            ipv4=asked.ipv4 is not None,
            ipv6=asked.ipv6 is not None,
        )
        pool = pool6 = None
        if (of := asked.ipv4) is not None:
            record.subnet, record.gateway = self._subnet(of, asked.driver), of.gateway
            record.address_range, record.auxiliary = of.address_range, of.auxiliary
            pool = _pool_of(record)
            record.gateway = pool.gateway
        if (of := asked.ipv6) is not None:
            record.subnet6, record.gateway6 = self._subnet6(of, asked.driver), of.gateway
            record.address_range6, record.auxiliary6 = of.address_range, of.auxiliary
            pool6 = _pool6_of(record)
            record.gateway6 = pool6.gateway
        for entry in entries.declared(asked.options):
            record.entries[entry["name"]] = _addressed(entry, pool, pool6)
        reached("network.create.record")
        self._records.save(record)
        self._networks[record.name] = record
        if pool is not None:
            self._pools[record.id] = pool
        if pool6 is not None:
            self._pools6[record.id] = pool6
        if record.driver in lan.DRIVERS:
            await self._make_parent(record)
        self._announce(record, "create")
        return record

    def _bridge_name(self, asked: creation.Request, network_id: str) -> str:
        bridge = asked.options.get(creation.BRIDGE_NAME) or f"br-{network_id[:12]}"
        if any(record.bridge == bridge for record in self._networks.values()) or (
            creation.BRIDGE_NAME in asked.options and os.path.exists(f"/sys/class/net/{bridge}")
        ):
            raise PermissionDenied(f"cannot create network {asked.name}: the interface {bridge} is there already")
        return bridge

    async def _make_parent(self, record: NetworkRecord) -> None:
        """Have the interface that a new network is on, or no network.

        It is recorded before: where a daemon is killed in between, the first container's start has the interface made.
        """
        self._leaving.add(record.id)  # nobody joins or removes it until it is all there
        try:
            reached("network.create.parent")
            parent = lan.wire(record)["parent"]
            try:
                await self._supervisor.call("make_parent", **parent)
            except SupervisorLost:  # it may have been made: then the next finds it made
                await self._supervisor.ready()
                await self._supervisor.call("make_parent", **parent)
        except (KnarrError, OSError):
            self._forget(record)
            raise
        finally:
            self._leaving.discard(record.id)

    def _subnet(self, asked: creation.Addresses, driver: str) -> str:
        ours = {f"network {record.name}": record.subnet for record in self.every() if record.subnet}
        taken = [(ipaddress.IPv4Network(subnet), f"{subnet} of {name}") for name, subnet in ours.items()]
        if driver == "bridge" or not asked.subnet:  # else it is a network that the host itself is on
            taken += [(subnet, f"the host's route to {subnet}") for subnet in host_networks("")]
        if not asked.subnet:
            return str(choose(self._choices(), [subnet for subnet, _ in taken], self._start()))
        _check_free(asked.subnet, taken)
        return asked.subnet

    def _subnet6(self, asked: creation.Addresses, driver: str) -> str:
        ours = {f"network {record.name}": record.subnet6 for record in self.every() if record.subnet6}
        taken = [(ipaddress.IPv6Network(subnet), f"{subnet} of {name}") for name, subnet in ours.items()]
        if driver == "bridge" or not asked.subnet:
            taken += [(subnet, f"the host's route to {subnet}") for subnet in host_networks6("")]
        if not asked.subnet:
            return str(choose6(self._choices6(), [subnet for subnet, _ in taken]))
        _check_free(asked.subnet, taken)
        return asked.subnet

    def _choices(self) -> tuple[ipaddress.IPv4Network, ...]:
        pools = [ipaddress.ip_network(text) for text in self._config.address_pools]
        return tuple(pool for pool in pools if isinstance(pool, ipaddress.IPv4Network)) or DEFAULT_POOLS

    def _choices6(self) -> tuple[ipaddress.IPv6Network, ...]:
        pools = [ipaddress.ip_network(text) for text in self._config.address_pools]
        ours = tuple(pool for pool in pools if isinstance(pool, ipaddress.IPv6Network))
        return ours or (unique_local(self._config.run_root),)

    def _start(self) -> int:
        return int(self._config.engine_id, 16) % len(self._choices())

    async def remove(self, name: str) -> NetworkRecord:
        """Remove a network. Raises NotFound, PermissionDenied for one of the three and for one that is in use."""
        record = self.get(name)
        if record.name in DRIVERS:
            raise PermissionDenied(f"{record.name} is a pre-defined network and cannot be removed")
        if record.id in self._leaving:
            raise NotFound(f"network {name} not found")
        if using := self.using(record.id):
            who = ", ".join(f'name:"{container}" id:"{container_id[:12]}"' for container, container_id in using)
            raise PermissionDenied(
                f"error while removing network: network {record.name} has active endpoints ({who}): "
                "stop or disconnect them first"
            )
        self._leaving.add(record.id)  # nobody joins from here on
        try:
            for entry in list(record.entries):
                await self._supervisor.call("unbalance", entry=entries.key(record.id, entry))
            await self._unmake(record)
            reached("network.remove.record")
            self._forget(record)
        finally:
            self._leaving.discard(record.id)
        self._announce(record, "destroy")
        return record

    async def _unmake(self, record: NetworkRecord) -> None:
        """Remove what a network has on the host."""
        if record.driver not in lan.DRIVERS:
            await self._supervisor.call("remove_network", bridge=record.bridge)
            return
        parent = lan.parent_of(record)
        staying = (other for other in self.every() if other.driver in lan.DRIVERS and other.id not in self._leaving)
        if not any(lan.parent_of(other) == parent for other in staying):
            await self._supervisor.call("remove_parent", name=parent)

    def _forget(self, record: NetworkRecord) -> None:
        self._records.delete(record.id)
        del self._networks[record.name]
        self._pools.pop(record.id, None)
        self._pools6.pop(record.id, None)

    async def prune(self, wanted: Callable[[NetworkRecord], bool]) -> list[str]:
        """Remove those that nobody is on and that are wanted gone: their names."""
        removed = []
        for record in self.every():
            if record.name in DRIVERS or self.using(record.id) or not wanted(record):
                continue
            try:
                await self.remove(record.id)
            except (NotFound, PermissionDenied):
                continue  # somebody was quicker
            removed.append(record.name)
        return removed

    def _announce(self, record: NetworkRecord, action: str) -> None:
        self._events.emit("network", action, record.id, {"name": record.name, "type": record.driver})

    # --- load-balanced entries

    def add_entry(self, record: NetworkRecord, asked: entries.Entry) -> entries.Entry:
        """Give a network an entry, with an address of its own. InvalidArgument, Conflict for one that cannot be had."""
        if record.driver != "bridge" or record.name in DRIVERS:
            raise InvalidArgument(
                f"load-balanced entries are for user-defined bridge networks, and {record.name} is not"
            )
        pool, pool6 = self._pools.get(record.id), self._pools6.get(record.id)
        for address, family, of_family in ((asked["address"], "IPv4", pool), (asked["address6"], "IPv6", pool6)):
            if not address:
                continue
            if of_family is None:
                raise InvalidArgument(
                    f"network {record.name} has no {family}: an entry cannot have the address {address}"
                )
            self.check_address(record, address)
        entry = _addressed(asked, pool, pool6)
        record.entries[entry["name"]] = entry
        try:
            reached("network.entry.address")
            self.save(record)
        except BaseException:
            del record.entries[entry["name"]]
            self._release(record, entry)
            raise
        return entry

    def _release(self, record: NetworkRecord, entry: entries.Entry) -> None:
        for pools, address in ((self._pools, entry["address"]), (self._pools6, entry.get("address6", ""))):
            if address:
                pools[record.id].release(address)

    async def remove_entry(self, record: NetworkRecord, name: str) -> None:
        """Take an entry off a network. Where that cannot be stored, it stays, and has to be told of again."""
        await self._supervisor.call("unbalance", entry=entries.key(record.id, name))
        entry = record.entries.pop(name)
        try:
            reached("network.entry.remove")
            self.save(record)
        except BaseException:
            record.entries[name] = entry
            raise
        self._release(record, entry)

    def save(self, record: NetworkRecord) -> None:
        """Store a network that has changed."""
        self._records.save(record)

    def find(self, name: str) -> NetworkRecord | None:
        """A network by its name."""
        return self._networks.get(name)

    # --- endpoints

    def join(self, endpoint: Endpoint) -> None:
        """Give an endpoint its address and what follows from it. NotFound where the network has gone."""
        record = self.by_id(endpoint["network_id"])
        if not self.has_addresses(record):
            return
        if record.id in self._leaving:
            raise NotFound(f"network {record.name} not found: it is being made or removed")
        self._settle(record)
        pool, pool6 = self._pools.get(record.id), self._pools6.get(record.id)
        address = pool.allocate(endpoint["wanted_address"]) if pool else None
        address6 = None
        if pool6:
            # At the same place in both subnets where it can be, so that a MAC address goes with both.
            place = pool.place(address) if pool and address is not None and not endpoint["wanted_address"] else None
            try:
                address6 = pool6.allocate(endpoint.get("wanted_address6", ""), place)
            except BaseException:
                if pool and address is not None:
                    pool.release(pool.text(address))
                raise
        self._place(endpoint, record, address, address6)

    def resume(self, endpoint: Endpoint, address: str | None, address6: str | None) -> None:
        """Give an endpoint the addresses that its container runs with, which nobody wrote down."""
        record = self.by_id(endpoint["network_id"])
        numbers = []
        for pools, text in ((self._pools, address), (self._pools6, address6)):
            if text:
                pools[record.id].restore(text)
            numbers.append(int(ipaddress.ip_address(text)) if text else None)
        self._place(endpoint, record, *numbers)

    def _place(self, endpoint: Endpoint, record: NetworkRecord, address: int | None, address6: int | None) -> None:
        mac = ""
        if address6 is not None:
            pool = self._pools6[record.id]
            endpoint["address6"], endpoint["prefix6"] = pool.text(address6), pool.prefix
            endpoint["gateway6"] = "" if record.internal else record.gateway6
            mac = mac_of6(address6)
        if address is not None:
            pool = self._pools[record.id]
            endpoint["address"], endpoint["prefix"] = pool.text(address), pool.prefix
            endpoint["gateway"] = "" if record.internal else record.gateway
            mac = mac_of(address)
        endpoint["mac"] = endpoint["wanted_mac"] or mac
        endpoint["endpoint_id"] = secrets.token_hex(32)
        if record.driver in lan.DRIVERS:
            lan.adapt(endpoint, record)

    def leave(self, endpoint: Endpoint) -> None:
        """Take the addresses back."""
        for pool, address in self._addresses(endpoint):
            pool.release(address)
        endpoint["address"] = endpoint["gateway"] = endpoint["mac"] = endpoint["endpoint_id"] = ""
        endpoint["prefix"] = 0
        for key in ("address6", "prefix6", "gateway6"):
            endpoint.pop(key, None)  # type: ignore[misc]

    def restore(self, endpoint: Endpoint) -> None:
        """Count addresses as used: their container ran on while the daemon was away."""
        for pool, address in self._addresses(endpoint):
            pool.restore(address)

    def _addresses(self, endpoint: Endpoint) -> list[tuple[AddressPool, str]]:
        """What an endpoint has, and of which pools."""
        network = endpoint["network_id"]
        found = ((self._pools.get(network), endpoint["address"]), (self._pools6.get(network), endpoint.get("address6")))
        return [(pool, address) for pool, address in found if pool is not None and address]

    @staticmethod
    def has_addresses(record: NetworkRecord) -> bool:
        """Whether containers have addresses there, and may be on others as well: not on host and none."""
        return record.driver == "bridge" or record.driver in lan.DRIVERS

    def place(self, network_id: str) -> dict[str, Any]:
        """What a network's interfaces are on, as the supervisor is told of it: a `bridge` or a `lan`."""
        record = self.by_id(network_id)
        if record.driver in lan.DRIVERS:
            return {"lan": lan.wire(record)}
        return {"bridge": self._bridge(record)}

    @staticmethod
    def _bridge(record: NetworkRecord) -> dict[str, Any]:
        options = record.options
        own: dict[str, Any] = {
            name: f"{gateway}/{subnet.partition('/')[2]}"
            for name, gateway, subnet in (
                ("address", record.gateway, record.subnet),
                ("address6", record.gateway6, record.subnet6),
            )
            if subnet
        }
        rules = egress.of(options)
        if rules is not None:
            own["egress"] = rules
        return {
            "name": record.bridge,
            **own,
            "mtu": int(options[creation.MTU]) if creation.MTU in options else None,
            "internal": record.internal,
            "isolated": not creation.is_on(options, creation.ICC, default=True),
            "masquerade": creation.is_on(options, creation.MASQUERADE, default=True),
            "resolver": record.name not in DRIVERS,
        }

    def gateways(self) -> list[str]:
        """The host's addresses as containers on the default bridge see it."""
        record = self._networks[DEFAULT]
        self._settle(record)
        return [gateway for gateway in (record.gateway, record.gateway6) if gateway]

    def by_id(self, network_id: str) -> NetworkRecord:
        """A network by its whole ID. Raises NotFound."""
        for record in self._networks.values():
            if record.id == network_id:
                return record
        raise NotFound(f"network {network_id} not found")

    def check_address(self, record: NetworkRecord, address: str) -> None:
        """Raise InvalidArgument where a container on a network cannot be given that address."""
        pools = (self._pools.get(record.id), self._pools6.get(record.id))
        if not any(pool is not None and pool.contains(address) for pool in pools):
            subnets = " and ".join(subnet for subnet in (record.subnet, record.subnet6) if subnet)
            raise InvalidArgument(
                f"invalid config for network {record.name}: invalid endpoint settings:\n"
                f"no configured subnet contains IP address {address}: it has {subnets}"
            )

    def _settle(self, record: NetworkRecord) -> None:
        """Choose the default bridge's subnets where it has none yet, or where nobody uses those that it has, and they
        have come to collide with the host or the configuration says otherwise.
        """
        if record.name != DEFAULT:
            return
        pool, pool6 = self._pools.get(record.id), self._pools6.get(record.id)
        if pool is not None and (self._checked or pool.used):
            return
        self._checked = True
        changed = replace(record)
        others = [one for one in self.every() if one is not record]
        if pool is None or not os.path.exists(f"/sys/class/net/{record.bridge}"):
            taken = [
                *host_networks(record.bridge),
                *(ipaddress.IPv4Network(one.subnet) for one in others if one.subnet),
            ]
            if pool is None or any(pool.network.overlaps(other) for other in taken):
                pool = AddressPool(str(choose(self._choices(), taken, self._start())))
                changed.subnet, changed.gateway = str(pool.network), pool.gateway
        pool6 = self._settle6(changed, pool6, [one.subnet6 for one in others if one.subnet6])
        if changed != record:
            reached("network.subnet.record")
            self._records.save(changed)
            record.subnet, record.gateway = changed.subnet, changed.gateway
            record.ipv6, record.subnet6, record.gateway6 = changed.ipv6, changed.subnet6, changed.gateway6
        self._pools[record.id] = pool
        self._pools6.pop(record.id, None)
        if pool6 is not None:
            self._pools6[record.id] = pool6

    def _settle6(self, record: NetworkRecord, pool: AddressPool | None, others: list[str]) -> AddressPool | None:
        """The default bridge's IPv6 as it is configured, written into its record."""
        record.ipv6 = self._config.ipv6
        if not record.ipv6:
            record.subnet6 = record.gateway6 = ""
            return None
        ours = [ipaddress.IPv6Network(subnet) for subnet in others]
        taken = [*host_networks6(record.bridge), *ours]
        fixed = self._config.fixed_cidr_v6
        if fixed:
            if pool is None or str(pool.network) != str(ipaddress.IPv6Network(fixed)):
                _check_free(fixed, [(subnet, f"{subnet} of another network") for subnet in ours])
                pool = AddressPool(fixed)
        elif pool is None or any(pool.network.overlaps(other) for other in taken):
            pool = AddressPool(str(choose6(self._choices6(), taken)))
        record.subnet6, record.gateway6 = str(pool.network), pool.gateway
        return pool


def _check_free(wanted: str, taken: Iterable[tuple[IPNetwork, str]]) -> None:
    """Raise PermissionDenied where a subnet overlaps one of those, which are said to be whose they are."""
    network = ipaddress.ip_network(wanted)
    for subnet, whose in taken:
        if network.version == subnet.version and network.overlaps(subnet):
            raise PermissionDenied(
                f"invalid pool request: Pool overlaps with other one on this address space: {network} overlaps {whose}"
            )


def _pool_of(record: NetworkRecord) -> AddressPool:
    pool = AddressPool(
        record.subnet,
        gateway=record.gateway,
        address_range=record.address_range,
        auxiliary=record.auxiliary.values(),
        ours=record.driver not in lan.DRIVERS,
    )
    for entry in record.entries.values():
        if entry["address"]:
            pool.restore(entry["address"])
    return pool


def _addressed(entry: entries.Entry, pool: AddressPool | None, pool6: AddressPool | None) -> entries.Entry:
    """An entry with its addresses, one of each family that there is: those that were asked for, or any."""
    address = pool.text(pool.allocate(entry["address"])) if pool is not None else ""
    try:
        address6 = pool6.text(pool6.allocate(entry["address6"])) if pool6 is not None else ""
    except BaseException:
        if pool is not None:
            pool.release(address)
        raise
    return {**entry, "address": address, "address6": address6}


def _pool6_of(record: NetworkRecord) -> AddressPool:
    pool = AddressPool(
        record.subnet6,
        gateway=record.gateway6,
        address_range=record.address_range6,
        auxiliary=record.auxiliary6.values(),
        ours=record.driver not in lan.DRIVERS,
    )
    for entry in record.entries.values():
        if entry.get("address6"):
            pool.restore(entry["address6"])
    return pool
