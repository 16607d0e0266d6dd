"""Subnets for bridges: one that collides with nothing the host can reach. Addresses within it."""

from __future__ import annotations

import hashlib
import ipaddress
from typing import TYPE_CHECKING

from knarr.errors import Conflict, InvalidArgument, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "DEFAULT_POOLS",
    "AddressPool",
    "choose",
    "choose6",
    "host_networks",
    "host_networks6",
    "mac_of",
    "mac_of6",
    "unique_local",
]

IPv4Network = ipaddress.IPv4Network
IPv6Network = ipaddress.IPv6Network
LINK_LOCAL, MULTICAST = IPv6Network("fe80::/10"), IPv6Network("ff00::/8")
SUBNET6 = 64  # bits of the prefix of a subnet of IPv6 that is chosen

DEFAULT_POOLS: tuple[IPv4Network, ...] = (
    *(IPv4Network(f"172.{second}.0.0/16") for second in range(17, 32)),
    *IPv4Network("192.168.0.0/16").subnets(new_prefix=20),
)


def host_networks(ignore: str) -> list[IPv4Network]:
    """What the host has routes to, but for the default route and for one interface's.

    Source: proc_net(5), /proc/net/route: hexadecimal, in the machine's byte order.
    """
    found = []
    with open("/proc/net/route", encoding="ascii") as table:
        next(table, None)
        for line in table:
            fields = line.split()
            if len(fields) < 8 or fields[0] == ignore:
                continue
            destination, mask = (
                int.from_bytes(int(text, 16).to_bytes(4, "little"), "big") for text in (fields[1], fields[7])
            )
            if mask:
                found.append(IPv4Network((destination & mask, mask.bit_count() if mask else 0)))
    return found


def choose(pools: Sequence[IPv4Network], taken: Iterable[IPv4Network], start: int) -> IPv4Network:
    """The first pool from a starting point on that overlaps nothing that is taken.

    Engines begin at different points, so that two that start at the same time choose differently.
    """
    busy = list(taken)
    for offset in range(len(pools)):
        pool = pools[(start + offset) % len(pools)]
        if not any(pool.overlaps(other) for other in busy):
            return pool
    raise Unavailable(
        "no subnet is left for the bridge: every one of the address pools overlaps a route of this host; "
        'give free ones as "address_pools" in the configuration'
    )


def host_networks6(ignore: str) -> list[IPv6Network]:
    """The same of IPv6, without what every link has. None where the kernel has no IPv6.

    Source: the kernel's net/ipv6/route.c, /proc/net/ipv6_route: destination, its prefix (hexadecimal) ... interface.
    """
    found = set()
    try:
        with open("/proc/net/ipv6_route", encoding="ascii") as table:
            for line in table:
                fields = line.split()
                prefix = int(fields[1], 16)
                network = IPv6Network((int(fields[0], 16), prefix))
                if prefix and fields[9] not in (ignore, "lo"):
                    found.add(network)
    except FileNotFoundError:
        return []
    return [one for one in found if not (one.subnet_of(LINK_LOCAL) or one.subnet_of(MULTICAST))]


def unique_local(seed: str) -> IPv6Network:
    """The /48 of unique local addresses (RFC 4193) that belongs to a seed: always the same, and hardly another's."""
    number = int.from_bytes(b"\xfd" + hashlib.sha256(seed.encode()).digest()[:5], "big")
    return IPv6Network((number << 80, 48))


def choose6(pools: Iterable[IPv6Network], taken: Iterable[IPv6Network]) -> IPv6Network:
    """The first /64 of the pools that overlaps nothing that is taken; a pool that is smaller is taken whole."""
    busy = list(taken)
    for pool in pools:
        number, end = int(pool.network_address), int(pool.broadcast_address)
        prefix = max(SUBNET6, pool.prefixlen)
        while number <= end:
            subnet = IPv6Network((number, prefix))
            others = [other for other in busy if other.overlaps(subnet)]
            if not others:
                return subnet
            # Behind all that is in the way, of which a route may be larger than the pool.
            number = max(int(other.broadcast_address) for other in [subnet, *others]) + 1
            number = -(-number >> (128 - prefix)) << (128 - prefix)
    raise Unavailable(
        "no IPv6 subnet is left for the bridge: every one of the pools overlaps a route of this host; "
        'give a subnet, or free ones as "address_pools" in the configuration'
    )


def mac_of6(address: int) -> str:
    """The MAC address that goes with an IPv6 address, on a network without IPv4: its last 8 bytes, folded into 5."""
    interface = address & (1 << 64) - 1
    folded = (interface & (1 << 40) - 1) ^ (interface >> 40 << 8)
    return "02:" + ":".join(f"{folded >> shift & 0xFF:02x}" for shift in (32, 24, 16, 8, 0))


def mac_of(address: int) -> str:
    """The MAC address that belongs to an IPv4 address: 02:42 and its four bytes."""
    return "02:42:" + ":".join(f"{address >> shift & 0xFF:02x}" for shift in (24, 16, 8, 0))


class AddressPool:
    """The addresses of one subnet, of which the gateway has one.

    Handed out in turn, so that an address rests before it is used again. Where a range is given, addresses are chosen
    from it; a wanted one may be anywhere in the subnet.
    """

    def __init__(
        self,
        subnet: str,
        *,
        gateway: str = "",
        address_range: str = "",
        auxiliary: Iterable[str] = (),
        ours: bool = True,  # the host has an address, which is the gateway: one is chosen where none is given
    ) -> None:
        self.network = ipaddress.ip_network(subnet)
        # The first is the network's own (with IPv6 that of any router in it), the last of IPv4 is for all of its hosts.
        end = int(self.network.broadcast_address) + (self.network.version == 6)
        self._hosts = range(int(self.network.network_address) + 1, end)
        chosen = ipaddress.ip_network(address_range) if address_range else self.network
        self._first = max(int(chosen.network_address), self._hosts.start)
        self._last = min(int(chosen.broadcast_address), self._hosts.stop - 1)
        self._reserved = {int(ipaddress.ip_address(address)) for address in auxiliary}
        self.gateway = gateway or (self._first_free() if ours else "")
        """The bridge's own address, or somebody else's; empty for none."""
        if self.gateway:
            self._reserved.add(int(ipaddress.ip_address(self.gateway)))
        self._next = self._first
        self._taken: set[int] = set()

    def _first_free(self) -> str:
        # No more than the reserved ones can be passed over: a subnet of IPv6 is not gone through.
        address = self._first
        while address in self._reserved:
            address += 1
        if address > self._last:
            raise InvalidArgument(f"no address is left for the gateway in {self.network}")
        return self.text(address)

    @property
    def prefix(self) -> int:
        """The length of the subnet's prefix."""
        return self.network.prefixlen

    def text(self, address: int) -> str:
        """An address as it is written."""
        return str(type(self.network.network_address)(address))

    def place(self, address: int) -> int:
        """Which address of the subnet it is, from 0 on."""
        return address - int(self.network.network_address)

    def allocate(self, wanted: str = "", place: int | None = None) -> int:
        """A free address, or the one that is wanted. Raises InvalidArgument, Conflict, Unavailable.

        place: where one would best be, if it is free.
        """
        if wanted:
            return self._claim(wanted)
        if place is not None:
            address = int(self.network.network_address) + place
            if self._first <= address <= self._last and self._is_free(address):
                self._taken.add(address)
                return address
        for _ in range(len(self._taken) + len(self._reserved) + 1):
            address = self._next
            self._next = self._first if address >= self._last else address + 1
            if self._is_free(address):
                self._taken.add(address)
                return address
        raise Unavailable(f"no address is left in {self.network}: {len(self._taken)} containers have one")

    def _is_free(self, address: int) -> bool:
        return address not in self._taken and address not in self._reserved

    def contains(self, address: str) -> bool:
        """Whether a container may be given that address: it is a host's of the subnet."""
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return found.version == self.network.version and int(found) in self._hosts

    def _claim(self, wanted: str) -> int:
        if not self.contains(wanted):
            raise InvalidArgument(f"{wanted} is not an address for containers in {self.network}")
        address = int(ipaddress.ip_address(wanted))
        if not self._is_free(address):
            raise Conflict(f"Address already in use: {wanted}")
        self._taken.add(address)
        return address

    def restore(self, address: str) -> None:
        """Take an address that is in use already."""
        self._taken.add(int(ipaddress.ip_address(address)))

    def release(self, address: str) -> None:
        """Give an address back."""
        self._taken.discard(int(ipaddress.ip_address(address)))

    @property
    def used(self) -> int:
        """How many addresses are handed out."""
        return len(self._taken)
