"""Subnets and addresses."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knarr.engine.networks.subnets import DEFAULT_POOLS, AddressPool, choose, host_networks, mac_of
from knarr.errors import Conflict, InvalidArgument, Unavailable

Network = ipaddress.IPv4Network


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
