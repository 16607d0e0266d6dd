"""Attach over a WebSocket, by aiohttp's client; also over TLS, and by clients that are rude."""

import asyncio
import contextlib
import time

import aiohttp
import pytest

from tests.api.http_client import Api, read_head
from tests.conftest import wait_until


@pytest.fixture
def api(shared_engine):
    own = Api(shared_engine)
    yield own
    for item in own.ok("GET", "/containers/json?all=1"):
        own.ok("DELETE", f"/containers/{item['Id']}?force=1&v=1")


def session(api, path, work, **options):
    """Run `work(ws)` on a WebSocket of a path; its result."""

    async def run():
        connector = aiohttp.UnixConnector(str(api.path))
        async with (
            aiohttp.ClientSession(connector=connector) as http,
            http.ws_connect(f"http://x{path}", **options) as ws,
        ):
            return await asyncio.wait_for(work(ws), 30)

    return asyncio.run(run())


async def everything(ws):
    data = b""
    async for message in ws:
        data += message.data if isinstance(message.data, bytes) else message.data.encode()
    return data


def test_both_directions(api):
    container = api.create("sh", "-c", "read line; echo got $line; echo err >&2; read line; exit 3", OpenStdin=True)
    api.ok("POST", f"/containers/{container}/start")

    async def work(ws):
        await ws.send_bytes(b"on")
        await ws.send_str("e\n")
        first = await ws.receive()
        assert first.type is aiohttp.WSMsgType.BINARY
        data = first.data
        while data.count(b"\n") < 2:
            data += (await ws.receive()).data
        await ws.send_bytes(b"\n")
        return data + await everything(ws)

    path = f"/containers/{container}/attach/ws?stream=1&stdin=1&stdout=1&stderr=1"
    assert sorted(session(api, path, work).split(b"\n")) == [b"", b"err", b"got one"]
    assert api.ok("POST", f"/containers/{container}/wait")["StatusCode"] == 3


def test_a_terminal_and_its_detach_keys(api):
    container = api.create("cat", Tty=True, OpenStdin=True)
    api.ok("POST", f"/containers/{container}/start")

    async def work(ws):
        await ws.send_bytes(b"hello\n")
        data = b""
        while data.count(b"hello\r\n") < 2:
            data += (await ws.receive()).data
        await ws.send_bytes(b"xy")
        return await everything(ws)

    path = f"/v1.50/containers/{container}/attach/ws?stream=1&stdin=1&stdout=1&detachKeys=x,y"
    session(api, path, work)
    assert api.ok("GET", f"/containers/{container}/json")["State"]["Running"]


def test_logs_first_and_text_for_old_clients(api):
    container = api.create("sh", "-c", "echo before; read line; echo after", OpenStdin=True)
    api.ok("POST", f"/containers/{container}/start")
    wait_until(lambda: b"before" in raw_logs(api, container), what="the log")

    async def work(ws):
        first = await ws.receive()
        await ws.send_str("\n")
        return first.type, first.data.encode() + await everything(ws)

    kind, data = session(api, f"/v1.27/containers/{container}/attach/ws?stream=1&logs=1", work)
    assert kind is aiohttp.WSMsgType.TEXT
    assert data == b"before\nafter\n"
    path = f"/containers/{container}/attach/ws?logs=1&stdout=1"
    assert session(api, path, everything) == b"before\nafter\n"


def raw_logs(api, container):
    api.connection.request("GET", f"/containers/{container}/logs?stdout=1")
    data = api.connection.getresponse().read()
    api.connection.close()
    return data


@pytest.mark.parametrize(
    ("path", "status"),
    [("/containers/none/attach/ws", 404), ("/containers/{}/attach/ws?detachKeys=nonsense", 400)],
)
def test_what_is_refused(api, path, status):
    container = api.create("cat", Tty=True)
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        session(api, path.format(container), everything)
    assert caught.value.status == status
    found, answer = api.call("GET", f"/containers/{container}/attach/ws")
    assert (found, "handshake" in answer["message"]) == (400, True)


def test_a_client_that_vanishes_or_does_not_read_harms_nobody(api, shared_engine):
    container = api.create("sh", "-c", "head -c 20000000 /dev/zero; echo done >&2")
    silent = api.raw(
        f"GET /containers/{container}/attach/ws?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    assert "101" in read_head(silent)[0]
    gone = api.raw(b"")
    gone.close()

    async def leave(ws):
        ws._response.connection.transport.abort()

    with contextlib.suppress(aiohttp.ClientError):
        session(api, f"/containers/{container}/attach/ws?stream=1&stdout=1&stdin=1", leave)
    api.ok("POST", f"/containers/{container}/start")
    assert api.ok("POST", f"/containers/{container}/wait")["StatusCode"] == 0
    with open(f"/proc/{shared_engine.process.pid}/statm") as file:
        assert int(file.read().split()[1]) * 4096 < 200 << 20
    time.sleep(0.05)
    silent.close()
