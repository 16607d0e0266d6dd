"""The networks of an engine.

The default bridge's subnet is chosen when a container first needs it, stored, and kept; it is chosen
again only when it has come to collide with the host while nobody uses it. The bridge itself is
made by the supervisor.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from knarr.engine.networks.subnets import DEFAULT_POOLS, AddressPool, choose, host_networks, mac_of
from knarr.errors import InvalidArgument, NotFound, Unsupported
from knarr.failpoints import reached
from knarr.store import networks as records
from knarr.store.networks import NetworkRecord

if TYPE_CHECKING:
    from knarr.config import Config
    from knarr.store.containers import Endpoint
    from knarr.store.database import Database

__all__ = ["DEFAULT", "Networks"]

DEFAULT = "bridge"
DRIVERS = {"bridge": "bridge", "host": "host", "none": "null"}


class Networks:
    """Belongs to the event loop."""

    def __init__(self, config: Config, database: Database) -> None:
        self._config = config
        self._records = records.Networks(database)
        self._networks: dict[str, NetworkRecord] = {}  # by name
        self._pools: dict[str, AddressPool] = {}  # by network ID
        self._checked = False

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
        bridge = self._networks[DEFAULT]
        if bridge.subnet:
            self._pools[bridge.id] = AddressPool(bridge.subnet)

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

    def join(self, endpoint: Endpoint) -> None:
        """Give an endpoint of a bridge its address and what follows from it."""
        record = self._by_id(endpoint["network_id"])
        if record.driver != "bridge":
            return
        pool = self._pool(record)
        self._place(endpoint, record, pool, pool.allocate(endpoint["wanted_address"]))

    def resume(self, endpoint: Endpoint, address: str) -> None:
        """Give an endpoint the address that its container runs with, which nobody wrote down."""
        record = self._by_id(endpoint["network_id"])
        pool = self._pools[record.id]
        pool.restore(address)
        self._place(endpoint, record, pool, int(ipaddress.IPv4Address(address)))

    def _place(self, endpoint: Endpoint, record: NetworkRecord, pool: AddressPool, address: int) -> None:
        endpoint["address"] = str(ipaddress.IPv4Address(address))
        endpoint["prefix"] = pool.prefix
        endpoint["gateway"] = record.gateway
        endpoint["mac"] = endpoint["wanted_mac"] or mac_of(address)
        endpoint["endpoint_id"] = secrets.token_hex(32)

    def leave(self, endpoint: Endpoint) -> None:
        """Take the address back."""
        if endpoint["address"]:
            pool = self._pools.get(endpoint["network_id"])
            if pool is not None:
                pool.release(endpoint["address"])
        endpoint["address"] = endpoint["gateway"] = endpoint["mac"] = endpoint["endpoint_id"] = ""
        endpoint["prefix"] = 0

    def restore(self, endpoint: Endpoint) -> None:
        """Count an address as used: its container ran on while the daemon was away."""
        pool = self._pools.get(endpoint["network_id"])
        if pool is not None and endpoint["address"]:
            pool.restore(endpoint["address"])

    def interface(self, network_id: str) -> str:
        """The name of a network's bridge on the host."""
        return self._by_id(network_id).bridge

    def gateway(self) -> str:
        """The host's address as containers on the default bridge see it."""
        record = self._networks[DEFAULT]
        self._pool(record)
        return record.gateway

    def _by_id(self, network_id: str) -> NetworkRecord:
        for record in self._networks.values():
            if record.id == network_id:
                return record
        raise NotFound(f"network {network_id} not found")

    def _pool(self, record: NetworkRecord) -> AddressPool:
        pool = self._pools.get(record.id)
        if pool is not None and (self._checked or pool.used):
            return pool
        self._checked = True
        if pool is not None and os.path.exists(f"/sys/class/net/{record.bridge}"):
            return pool
        taken = host_networks(record.bridge)
        if pool is None or any(pool.network.overlaps(other) for other in taken):
            pools = tuple(ipaddress.IPv4Network(text) for text in self._config.address_pools) or DEFAULT_POOLS
            pool = AddressPool(str(choose(pools, taken, int(self._config.engine_id, 16) % len(pools))))
            reached("network.subnet.record")
            self._records.save(replace(record, subnet=str(pool.network), gateway=pool.gateway))
            record.subnet, record.gateway = str(pool.network), pool.gateway
            self._pools[record.id] = pool
        return pool


def refuse_change(what: str) -> Unsupported:
    """The error for what user-defined networks will need."""
    return Unsupported(f"{what} is not supported by knarr yet: containers use the networks bridge, host and none")
