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
        self.network = IPv4Network(subnet)
        self._hosts = range(int(self.network.network_address) + 1, int(self.network.broadcast_address))
        chosen = IPv4Network(address_range) if address_range else self.network
        self._first = max(int(chosen.network_address), self._hosts.start)
        self._last = min(int(chosen.broadcast_address), self._hosts.stop - 1)
        self._reserved = {int(ipaddress.IPv4Address(address)) for address in auxiliary}
        self.gateway = gateway or (self._first_free() if ours else "")
        """The bridge's own address, or somebody else's; empty for none."""
        if self.gateway:
            self._reserved.add(int(ipaddress.IPv4Address(self.gateway)))
        self._next = self._first
        self._taken: set[int] = set()

    def _first_free(self) -> str:
        free = (address for address in range(self._first, self._last + 1) if address not in self._reserved)
        address = next(free, None)
        if address is None:
            raise InvalidArgument(f"no address is left for the gateway in {self.network}")
        return str(ipaddress.IPv4Address(address))

    @property
    def prefix(self) -> int:
        """The length of the subnet's prefix."""
        return self.network.prefixlen

    def allocate(self, wanted: str = "") -> int:
        """A free address, or the one that is wanted. Raises InvalidArgument, Conflict, Unavailable."""
        if wanted:
            return self._claim(wanted)
        for _ in range(self._last - self._first + 1):
            address = self._next
            self._next = self._first if address >= self._last else address + 1
            if address not in self._taken and address not in self._reserved:
                self._taken.add(address)
                return address
        raise Unavailable(f"no address is left in {self.network}: {len(self._taken)} containers have one")

    def contains(self, address: str) -> bool:
        """Whether a container may be given that address: it is a host's of the subnet."""
        return int(ipaddress.IPv4Address(address)) in self._hosts

    def _claim(self, wanted: str) -> int:
        if not self.contains(wanted):
            raise InvalidArgument(f"{wanted} is not an address for containers in {self.network}")
        address = int(ipaddress.IPv4Address(wanted))
        if address in self._taken or address in self._reserved:
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
