"""Subnets for bridges: one that collides with nothing the host can reach. Addresses within it."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from knarr.errors import Conflict, InvalidArgument, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["DEFAULT_POOLS", "AddressPool", "choose", "host_networks", "mac_of"]

IPv4Network = ipaddress.IPv4Network

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


def mac_of(address: int) -> str:
    """The MAC address that belongs to an IPv4 address: 02:42 and its four bytes."""
    return "02:42:" + ":".join(f"{address >> shift & 0xFF:02x}" for shift in (24, 16, 8, 0))


class AddressPool:
    """The addresses of one subnet. The first is the gateway's.

    Handed out in turn, so that an address rests before it is used again.
    """

    def __init__(self, subnet: str) -> None:
        self.network = IPv4Network(subnet)
        self._first = int(self.network.network_address) + 2
        self._last = int(self.network.broadcast_address) - 1
        self._next = self._first
        self._taken: set[int] = set()

    @property
    def gateway(self) -> str:
        """The bridge's own address."""
        return str(ipaddress.IPv4Address(self._first - 1))

    @property
    def prefix(self) -> int:
        """The length of the subnet's prefix."""
        return self.network.prefixlen

    def allocate(self, wanted: str = "") -> int:
        """A free address, or the one that is wanted. Raises InvalidArgument, Conflict, Unavailable."""
        if wanted:
            return self._claim(wanted)
        span = self._last - self._first + 1
        if len(self._taken) >= span:
            raise Unavailable(f"no address is left in {self.network}: {span} containers have one")
        while self._next in self._taken:
            self._next = self._first if self._next >= self._last else self._next + 1
        address = self._next
        self._taken.add(address)
        self._next = self._first if address >= self._last else address + 1
        return address

    def _claim(self, wanted: str) -> int:
        address = int(ipaddress.IPv4Address(wanted))
        if not self._first <= address <= self._last:
            raise InvalidArgument(f"{wanted} is not an address for containers in {self.network}")
        if address in self._taken:
            raise Conflict(f"Address already in use: {wanted}")
        self._taken.add(address)
        return address

    def restore(self, address: str) -> None:
        """Take an address that is in use already."""
        self._taken.add(int(ipaddress.IPv4Address(address)))

    def release(self, address: str) -> None:
        """Give an address back."""
        self._taken.discard(int(ipaddress.IPv4Address(address)))

    @property
    def used(self) -> int:
        """How many addresses are handed out."""
        return len(self._taken)
