"""Sizes as volumes' options write them, and who may use a volume's files at one time."""

import asyncio

import pytest

from knarr.engine.volumes import sizes
from knarr.engine.volumes.claims import Claims
from knarr.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("10b", 10),
        ("10k", 10 << 10),
        ("1.5M", 3 << 19),
        ("2GiB", 2 << 30),
        ("3 gb", 3 << 30),
        ("1t", 1 << 40),
    ],
)
def test_sizes(text, size):
    assert sizes.parse(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "0g", "-1", "x", "1x", "1gg", "g", "1e9", "9999999t", "1.g", ".5g", "\u0661g"]
)
def test_no_sizes(text):
    with pytest.raises(InvalidArgument, match="invalid size"):
        sizes.parse(text)


def test_a_copy_waits_for_starts_and_starts_for_a_copy():
    async def main():
        claims, order = Claims(), []

        async def start(name, *volumes):
            async with claims.shared(volumes):
                order.append(f"{name}+")
                await asyncio.sleep(0)
                order.append(f"{name}-")

        async def copy(name, *volumes):
            async with claims.exclusive(*volumes):
                order.append(f"{name}+")
                assert claims.being_copied(volumes[0])
                await asyncio.sleep(0.01)
                order.append(f"{name}-")

        await asyncio.gather(start("a", "v"), start("b", "v", "w"), copy("c", "v"), start("d", "v"), start("e", "w"))
        assert order.index("c+") > max(order.index("a-"), order.index("b-"))
        assert order.index("d+") > order.index("c-")
        assert order.index("e+") < order.index("c-")
        order.clear()
        await asyncio.wait_for(asyncio.gather(copy("x", "v", "w"), copy("y", "w", "v")), 5)
        assert order == ["x+", "x-", "y+", "y-"]
        assert not claims.being_copied("v")
        with claims.reading("v"):
            assert claims.being_copied("v")

    asyncio.run(main())
