"""Which requests are answered as soon as they are read, and what their functions see of them."""

import asyncio

import pytest

from knarr.api.connections import Connections
from knarr.api.hijack import Front
from knarr.api.prompt import Answer, Asked, Table, route
from knarr.errors import NotFound


def answer(asked):
    return Answer(asked.body)


TABLE = Table(
    [route("GET", "/_ping", answer), route("POST", "/containers/{name}/exec", answer), route("HEAD", "/x.y", answer)]
)
HOST = b"Host: x\r\n"
POST = b"POST /v1.44/containers/web/exec HTTP/1.1\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("data", "asked"),
    [
        (b"GET /_ping HTTP/1.1\r\n\r\n", Asked("", 56)),
        (b"GET /v1.40/_ping HTTP/1.1\r\nHost: x\r\nConnection: Keep-Alive\r\n\r\n", Asked("", 40)),
        (b"HEAD /x.y HTTP/1.1\r\ncontent-length: 0\r\n\r\n", Asked("", 56)),
        (POST + b"Content-Length: 2\r\n\r\n{}", Asked("web", 44, b"{}", "application/json")),
        (b"POST /containers/a%20b/exec HTTP/1.1\r\n\r\n", Asked("a b", 56)),
    ],
)
def test_what_is_whole_and_plain_is_found(data, asked):
    assert TABLE.find(data) == (answer, asked)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET /_ping HTTP/1.1\r\nHost: x\r\n",
        b"GET /_ping HTTP/1.0\r\n\r\n",
        b"GET /_ping?x HTTP/1.1\r\n\r\n",
        b"GET /_pings HTTP/1.1\r\n\r\n",
        b"GET /xzy HTTP/1.1\r\n\r\n",
        b"HEAD /xzy HTTP/1.1\r\n\r\n",
        b"PUT /_ping HTTP/1.1\r\n\r\n",
        b"GET /v1.9/_ping HTTP/1.1\r\n\r\n",
        b"GET /v1.99/_ping HTTP/1.1\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\n\r\nGET /_ping HTTP/1.1\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nUpgrade: tcp\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\n folded: x\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
        POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        POST + b"Content-Length: +2\r\n\r\n{}",
        POST + b"Content-Length: -1\r\n\r\n{}",
        POST + b"Content-Length: 1\r\n\r\n{}",
        POST + b"Content-Length: 99999\r\n\r\n{}",
        POST + b"Content-Length: 999999999999\r\n\r\n{}",
        b"POST /containers/a/b/exec HTTP/1.1\r\n\r\n",
        b"POST /containers//exec HTTP/1.1\r\n\r\n",
    ],
)
def test_everything_else_is_not(data):
    assert TABLE.find(data) is None
    assert Table().find(data) is None


def test_a_body_on_its_way_is_waited_for():
    whole = POST + b"Content-Length: 10\r\n\r\n0123456789"
    for length in range(whole.index(b"\r\n\r\n") + 4, len(whole)):
        found = TABLE.find(whole[:length])
        assert found is not None
        assert found.function is None
    assert TABLE.find(whole).asked.body == b"0123456789"


class Wire(asyncio.Transport):
    """What a Front does with its connection."""

    def __init__(self):
        super().__init__()
        self.written, self.reads = b"", True

    def get_write_buffer_size(self):
        return 0

    def write(self, data):
        self.written += data

    def is_closing(self):
        return False

    def pause_reading(self):
        self.reads = False

    def resume_reading(self):
        self.reads = True


def test_one_that_has_to_wait_holds_up_its_own_connection_alone():
    async def late(asked):
        await asyncio.sleep(0.01)
        if asked.name == "none":
            raise NotFound("no such thing")
        return Answer(b"late")

    async def run():
        tasks = set()
        front = Front(None, asyncio.Protocol(), tasks, Connections(1), Table([route("GET", "/late/{name}", late)]))
        wire = Wire()
        front.connection_made(wire)
        for name, status, body in (("some", b"200 OK", b"late"), ("none", b"404 Not Found", b"no such thing")):
            front.data_received(b"GET /late/%s HTTP/1.1\r\n\r\n" % name.encode())
            assert (wire.written, wire.reads) == (b"", False)
            await asyncio.gather(*tasks)
            assert wire.reads
            assert status in wire.written
            assert body in wire.written
            wire.written = b""
        front.connection_lost(None)

    asyncio.run(run())
