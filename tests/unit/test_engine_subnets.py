"""Subnets and addresses."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from knarr.errors import Conflict, InvalidArgument, Unavailable

Network = ipaddress.IPv4Network
Network6 = ipaddress.IPv6Network


@given(st.lists(st.sampled_from(DEFAULT_POOLS), unique=True, max_size=len(DEFAULT_POOLS) - 1), st.integers(0, 2**32))
def test_a_free_subnet_is_found_wherever_one_begins(taken, start):
    found = choose(DEFAULT_POOLS, taken, start % len(DEFAULT_POOLS))
    assert found not in taken


def test_a_narrow_route_inside_a_pool_takes_it():
    assert choose([Network("10.0.0.0/16"), Network("10.1.0.0/16")], [Network("10.0.7.0/24")], 0) == Network(
        "10.1.0.0/16"
    )


def test_none_left_says_what_to_do():
    with pytest.raises(Unavailable, match="address_pools"):
        choose(DEFAULT_POOLS, [Network("0.0.0.0/1"), Network("128.0.0.0/1")], 0)


def test_the_hosts_own_routes_are_read():
    assert all(network.prefixlen for network in host_networks("none"))


def test_addresses_rest_before_they_are_used_again():
    pool = AddressPool("10.0.0.0/29")
    assert pool.gateway == "10.0.0.1"
    every = [str(ipaddress.IPv4Address(pool.allocate())) for _ in range(5)]
    assert every == [f"10.0.0.{number}" for number in range(2, 7)]
    with pytest.raises(Unavailable, match="no address is left"):
        pool.allocate()
    pool.release("10.0.0.3")
    pool.release("10.0.0.6")
    assert str(ipaddress.IPv4Address(pool.allocate())) == "10.0.0.3"
    assert str(ipaddress.IPv4Address(pool.allocate())) == "10.0.0.6"


def test_a_wanted_address():
    pool = AddressPool("10.0.0.0/24")
    assert pool.allocate("10.0.0.9") == int(ipaddress.IPv4Address("10.0.0.9"))
    with pytest.raises(Conflict, match="already in use"):
        pool.allocate("10.0.0.9")
    for outside in ("10.0.0.255", "10.0.0.0", "10.0.1.1"):
        with pytest.raises(InvalidArgument):
            pool.allocate(outside)
    with pytest.raises(Conflict, match="already in use"):
        pool.allocate("10.0.0.1")  # the gateway's


def test_a_range_bounds_what_is_chosen_and_not_what_is_wanted():
    pool = AddressPool("10.0.0.0/24", gateway="10.0.0.254", address_range="10.0.0.16/29", auxiliary=["10.0.0.17"])
    every = [str(ipaddress.IPv4Address(pool.allocate())) for _ in range(7)]
    assert every == [f"10.0.0.{number}" for number in (16, *range(18, 24))]
    with pytest.raises(Unavailable, match="no address is left"):
        pool.allocate()
    assert pool.allocate("10.0.0.200") == int(ipaddress.IPv4Address("10.0.0.200"))
    for reserved in ("10.0.0.254", "10.0.0.17"):
        with pytest.raises(Conflict, match="already in use"):
            pool.allocate(reserved)


def test_the_gateway_is_the_first_address_that_nobody_else_has():
    assert AddressPool("10.0.0.0/24", auxiliary=["10.0.0.1"]).gateway == "10.0.0.2"
    assert AddressPool("10.0.0.0/24", address_range="10.0.0.128/25").gateway == "10.0.0.128"
    with pytest.raises(InvalidArgument, match="gateway"):
        AddressPool("10.0.0.0/30", auxiliary=["10.0.0.1", "10.0.0.2"])


def test_mac_follows_the_address():
    assert mac_of(int(ipaddress.IPv4Address("172.17.0.2"))) == "02:42:ac:11:00:02"


# --- IPv6


def test_an_engines_unique_local_prefix_is_its_own_and_stays():
    ours = unique_local("/run/knarr")
    assert ours == unique_local("/run/knarr")
    assert ours.prefixlen == 48
    assert ours.subnet_of(Network6("fd00::/8"))
    assert ours != unique_local("/run/other")


@given(st.lists(st.integers(0, 40), max_size=30))
def test_the_first_free_subnet_of_the_prefix_is_chosen(numbers):
    prefix = unique_local("x")
    taken = [Network6((int(prefix.network_address) + (number << 64), 64)) for number in numbers]
    found = choose6([prefix], taken)
    place = int(found.network_address) - int(prefix.network_address) >> 64
    assert place == next(number for number in range(100) if number not in numbers)


def test_subnets_are_chosen_behind_what_is_in_the_way():
    pool = Network6("fd00:1::/48")
    assert choose6([pool], []) == Network6("fd00:1::/64")
    assert choose6([pool], [Network6("fd00:1::7/128"), Network6("fd00:1:0:1::/120")]) == Network6("fd00:1:0:2::/64")
    assert choose6([pool], [Network6("fd00:1::/52")]) == Network6("fd00:1:0:1000::/64")
    assert choose6([pool, Network6("fd00:2::/96")], [Network6("fd00:1::/32")]) == Network6("fd00:2::/96")
    with pytest.raises(Unavailable, match="address_pools"):
        choose6([pool], [Network6("fd00::/8")])


def test_the_hosts_own_routes_of_ipv6_are_read():
    found = host_networks6("none")
    assert all(network.prefixlen and not network.is_link_local and not network.is_multicast for network in found)


def test_a_pool_of_ipv6_is_not_gone_through():
    pool = AddressPool("fd00:1::/64", auxiliary=["fd00:1::3"])
    assert (pool.gateway, pool.prefix) == ("fd00:1::1", 64)
    assert [pool.text(pool.allocate()) for _ in range(2)] == ["fd00:1::2", "fd00:1::4"]
    assert pool.text(pool.allocate(place=0x77)) == "fd00:1::77"
    assert pool.text(pool.allocate(place=0x77)) == "fd00:1::5", "it is taken"
    assert pool.text(pool.allocate("fd00:1::ffff:ffff:ffff:ffff")) == "fd00:1::ffff:ffff:ffff:ffff"
    for outside in ("fd00:1::", "fd00:2::1", "10.0.0.1"):
        with pytest.raises(InvalidArgument):
            pool.allocate(outside)
    with pytest.raises(Conflict, match="already in use"):
        pool.allocate("fd00:1::1")
    small = AddressPool("fd00:1::/126")
    assert [small.text(small.allocate()) for _ in range(2)] == ["fd00:1::2", "fd00:1::3"]
    with pytest.raises(Unavailable, match="no address is left"):
        small.allocate()
    ranged = AddressPool("fd00:1::/64", gateway="fd00:1::1", address_range="fd00:1::100/126")
    assert [ranged.text(ranged.allocate(place=2)) for _ in range(2)] == ["fd00:1::100", "fd00:1::101"]


def test_mac_addresses_of_neighbours_are_not_alike():
    """The same as the network's own code has (`Mac::of`)."""

    def mac(text):
        return mac_of6(int(ipaddress.IPv6Address(text)))

    assert mac("fd00:9::1:2345:6789") == "02:01:23:45:67:89"
    assert mac("fd00::1122:3344:5566:7788") == "02:44:44:44:44:88"
    assert mac("fd00::2") != mac("fd00::3")
