"""Connections of the API: who is given up, and who is not; half-closed ones; 100-continue. Real sockets, a loop of our own."""

import asyncio

import pytest
from aiohttp import web

from knarr.api import connections, hijack
from knarr.api.connections import Connections
from knarr.api.hijack import Front
from knarr.api.prompt import Table


@pytest.fixture
def soon(monkeypatch):
    """Seconds become tenths of them."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(connections, "SILENT_SECONDS", 0.4)
    monkeypatch.setattr(connections, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(hijack, "HALF_CLOSED_SECONDS", 0.3)


def served(work, limit=100):
    """Run work(connect) beside a server with one route, which echoes bodies; connect() gives a reader and a writer."""

    async def echo(request):
        if request.query.get("slow"):
            await asyncio.sleep(0.1)
        return web.Response(body=await request.read())

    async def run():
        shared = Connections(limit)
        app = web.Application(middlewares=[shared.middleware()])
        app.router.add_route("*", "/echo", echo)
        runner = web.AppRunner(app)
        await runner.setup()
        tasks = {asyncio.create_task(shared.watch())}
        server = await asyncio.get_running_loop().create_server(
            lambda: Front(None, runner.server(), tasks, shared, Table()), "127.0.0.1", 0
        )
        port = server.sockets[0].getsockname()[1]
        try:
            await asyncio.wait_for(work(lambda: asyncio.open_connection("127.0.0.1", port)), 20)
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await runner.cleanup()
        assert shared.count == 0 or limit < 100
        assert not shared._heads
        assert not shared._silent

    asyncio.run(run())


GET = b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "beginning",
    [b"", b"G", b"GET /echo HTTP/1.1\r\nHost", b"POST /containers/x/attach HTTP/1.1\r\nHost: x\r\n", b"POST "],
)
def test_requests_that_do_not_come_are_given_up(soon, beginning):
    async def work(connect):
        reader, writer = await connect()
        writer.write(beginning)
        with pytest.raises(ConnectionError):
            assert await reader.read() == b"" or None
            raise ConnectionResetError
        writer.close()

    served(work)


def test_idle_ones_that_have_asked_before_stay(soon):
    async def work(connect):
        reader, writer = await connect()
        for _ in range(2):
            writer.write(GET)
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.8)
        writer.close()
        await asyncio.sleep(0.1)

    served(work)


def test_a_body_takes_its_time(soon):
    """The bound is on heads; bodies that are read whole have one of their own (api/reply.py)."""

    async def work(connect):
        reader, writer = await connect()
        writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n")
        for byte in b"slowly"[:6]:
            await asyncio.sleep(0.1)
            writer.write(bytes([byte]))
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(6) == b"slowly"
        writer.close()
        await asyncio.sleep(0.1)

    served(work)


def test_a_half_closed_client_gets_its_answer(soon):
    async def work(connect):
        reader, writer = await connect()
        writer.write(b"GET /echo?slow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        writer.write_eof()
        assert b"200 OK" in await reader.read()
        writer.close()
        await asyncio.sleep(0.4)

    served(work)


def test_expect_100_continue(soon):
    async def work(connect):
        reader, writer = await connect()
        writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ok")
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(2) == b"ok"
        for _ in range(2):  # and where the connection is to be taken over; one word of it is enough
            writer.write(
                b"POST /v9.9/exec/x/start HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
            )
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"{")
            await asyncio.sleep(0.05)
            writer.write(b'"":')
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"400 Bad Request" in head
            assert b"too new" in await reader.readline()
        writer.close()
        await asyncio.sleep(0.1)

    served(work)


@pytest.mark.parametrize(
    "chunk", [b"-5\r\n", b"+5\r\n", b"5_0\r\n", b"\r\n", b"fffffffff\r\n", b"fffff\r\n", b"1;" + b"x" * 700_000]
)
def test_chunks_that_are_none(soon, chunk):
    async def work(connect):
        reader, writer = await connect()
        writer.write(b"POST /exec/x/start HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + b"x")
        assert b"400 Bad Request" in await reader.readuntil(b"\r\n\r\n")
        writer.close()

    served(work)


def test_too_many(soon):
    async def work(connect):
        first = await connect()
        first[1].write(GET)
        await first[0].readuntil(b"\r\n\r\n")
        reader, writer = await connect()
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"too many connections" in answer
        writer.close()
        first[1].write(GET)
        assert b"200 OK" in await first[0].readuntil(b"\r\n\r\n")
        first[1].close()
        await asyncio.sleep(0.1)

    served(work, limit=1)
