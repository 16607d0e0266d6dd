"""aiodocker from PyPI drives knarr: asyncio, one connection pool, streams over websockets and upgraded connections."""

import asyncio
import contextlib
import time
import uuid

import aiodocker
import pytest

from tests.conftest import busybox_archive, push


@contextlib.asynccontextmanager
async def connected(engine):
    async with aiodocker.Docker(url=engine.host) as client:
        yield client


@contextlib.asynccontextmanager
async def container(client, command, **config):
    made = await client.containers.create(
        {"Image": "busybox", "Cmd": ["sh", "-c", command], **config}, name="aio-" + uuid.uuid4().hex[:8]
    )
    try:
        yield made
    finally:
        await made.delete(force=True, v=True)


def session(engine, body):
    async def run():
        async with connected(engine) as client:
            await asyncio.wait_for(body(client), 60)

    asyncio.run(run())


def test_a_container_through_its_life(shared_engine):
    async def body(client):
        async with container(client, "echo out; echo err >&2; exit 5") as made:
            await made.start()
            assert (await made.wait())["StatusCode"] == 5
            assert await made.log(stdout=True) == ["out\n"]
            assert await made.log(stderr=True) == ["err\n"]
            details = await made.show()
            assert (details["State"]["Status"], details["State"]["ExitCode"]) == ("exited", 5)
            assert made.id in [one.id for one in await client.containers.list(all=True)]

    session(shared_engine, body)


def test_logs_are_followed_to_the_end(shared_engine):
    async def body(client):
        async with container(client, "for i in 1 2 3; do echo $i; sleep 0.1; done") as made:
            await made.start()
            assert [line async for line in made.log(stdout=True, follow=True)] == ["1\n", "2\n", "3\n"]

    session(shared_engine, body)


def test_exec_carries_both_ways(shared_engine):
    async def body(client):
        async with container(client, "exec sleep 100") as made:
            await made.start()
            execution = await made.exec(["sh", "-c", "read x; echo got $x; echo bad >&2; exit 3"], stdin=True)
            async with execution.start() as stream:
                await stream.write_in(b"this\n")
                seen = {1: b"", 2: b""}
                while (message := await stream.read_out()) is not None:
                    seen[message.stream] += message.data
            assert seen == {1: b"got this\n", 2: b"bad\n"}
            assert (await execution.inspect())["ExitCode"] == 3

    session(shared_engine, body)


def test_attach_carries_both_ways(shared_engine):
    async def body(client):
        async with container(client, "read x; echo got $x", OpenStdin=True, StdinOnce=True) as made:
            async with made.attach(stdin=True, stdout=True, stderr=True) as stream:
                await made.start()
                await stream.write_in(b"this\n")
                message = await stream.read_out()
                assert (message.stream, message.data) == (1, b"got this\n")
                assert await stream.read_out() is None
            assert (await made.wait())["StatusCode"] == 0

    session(shared_engine, body)


def test_a_terminal_is_resized(shared_engine):
    async def body(client):
        async with container(client, "read x; stty size", Tty=True, OpenStdin=True) as made:
            async with made.attach(stdin=True, stdout=True) as stream:
                await made.start()
                await made.resize(w=93, h=31)
                await stream.write_in(b"\n")
                seen = b""
                while (message := await stream.read_out()) is not None:
                    seen += message.data
            assert b"31 93" in seen

    session(shared_engine, body)


def test_events_tell_the_story(shared_engine):
    async def body(client):
        # The request goes out in a task of its own, which may come second: `since` tells what it missed.
        subscriber = client.events.subscribe(since=int(time.time()))
        async with container(client, "exit 3", Labels={"of": "aiodocker"}) as made:
            await made.start()
            await made.wait()
        seen = []
        while not seen or seen[-1] != "destroy":
            event = await asyncio.wait_for(subscriber.get(), 20)
            if event["Type"] == "container" and event["Actor"]["Attributes"].get("of") == "aiodocker":
                seen.append(event["Action"])
        assert seen == ["create", "start", "die", "destroy"]

    session(shared_engine, body)


def test_images_are_pulled_tagged_and_deleted(shared_engine, registry):
    reference = push(busybox_archive(), registry, "aio/busybox:1")

    async def body(client):
        progress = await client.images.pull(reference)
        assert any("Digest: sha256:" in line.get("status", "") for line in progress)
        await client.images.tag(reference, "aio/other", tag="2")
        details = await client.images.inspect("aio/other:2")
        assert {reference, "aio/other:2"} <= set(details["RepoTags"])
        assert {"Untagged": "aio/other:2"} in await client.images.delete("aio/other:2")
        await client.images.delete(reference)
        with pytest.raises(aiodocker.DockerError) as caught:
            await client.images.inspect(reference)
        assert caught.value.status == 404

    session(shared_engine, body)


def test_many_at_once(shared_engine):
    """Thirty containers at the same time, over one client's pool of connections."""

    async def body(client):
        async def one(number):
            async with container(client, f"echo {number}; exit {number}") as made:
                await made.start()
                assert (await made.wait())["StatusCode"] == number
                assert await made.log(stdout=True) == [f"{number}\n"]

        await asyncio.gather(*(one(number) for number in range(30)))

    session(shared_engine, body)


def test_errors_are_dockers(shared_engine):
    async def body(client):
        with pytest.raises(aiodocker.DockerError) as caught:
            await client.containers.get("no-such")
        assert (caught.value.status, caught.value.message) == (404, "No such container: no-such")
        async with container(client, "true") as made:
            with pytest.raises(aiodocker.DockerError) as caught:
                await made.kill()
            assert caught.value.status == 409

    session(shared_engine, body)
