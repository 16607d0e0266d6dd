"""The client: HTTP as engines speak it, cut anywhere; errors by status; the multiplexed stream; JSON."""

import contextlib
import json
import socket
import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knarr import errors
from knarr.cli import transfer
from knarr.client import Client
from knarr.client.codec import dumps, loads
from knarr.client.frames import Demultiplexer
from knarr.client.http import parse_host, query


@pytest.fixture
def engine(tmp_path):
    """A server that answers each connection with the pieces given, whatever it is asked; requests are kept."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen(8)

    class Engine:
        host = f"unix://{tmp_path}/socket"
        requests: list[bytes]
        connections = 0

        def answers(self, *scripts):
            """A script a connection: a list of answers, each a list of pieces; then the connection is closed."""

            def serve():
                for script in scripts:
                    with contextlib.suppress(OSError):
                        connection, _ = listener.accept()
                        self.connections += 1
                        for answer in script:
                            self.requests.append(connection.recv(1 << 20))
                            for piece in answer:
                                connection.sendall(piece)
                        connection.close()

            threading.Thread(target=serve, daemon=True).start()

    Engine.requests = []
    yield Engine()
    listener.close()


def answer(status="200 OK", body=b"", *headers):
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return ["\r\n".join(head).encode() + b"\r\n\r\n" + body]


CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\n{"a":\r\n4\r\n "b"\r\n1\r\n}\r\n0\r\nTrailer: x\r\n\r\n'


@pytest.mark.parametrize("cut", range(1, len(CHUNKED) - 1, 7))
def test_chunks_cut_anywhere(engine, cut):
    engine.answers([[CHUNKED[:cut], CHUNKED[cut:]]])
    assert Client(engine.host).info() == {"a": "b"}


def test_a_body_by_length_and_one_to_the_end(engine):
    engine.answers([answer(body=b'{"x": 1}')], [[b'HTTP/1.1 200 OK\r\n\r\n{"x"', b": 2}"]])
    client = Client(engine.host)
    assert client.info() == {"x": 1}
    assert client.info() == {"x": 2}


def test_a_connection_is_used_again(engine):
    engine.answers([answer(body=b"{}"), [CHUNKED], answer(body=b"{}")])
    client = Client(engine.host)
    for _ in range(3):
        client.info()
    assert engine.connections == 1


def test_a_connection_that_was_closed_meanwhile_is_replaced(engine):
    engine.answers([answer(body=b'{"n": 1}')], [answer(body=b'{"n": 2}')])
    client = Client(engine.host)
    assert client.info() == {"n": 1}
    while not client._idle[0].stale():
        pass
    assert client.info() == {"n": 2}


def test_a_get_that_meets_a_dying_connection_is_sent_again(engine, monkeypatch):
    engine.answers([answer(body=b'{"n": 1}')], [answer(body=b'{"n": 2}')])
    client = Client(engine.host)
    client.info()
    monkeypatch.setattr("knarr.client.http.Connection.stale", lambda _: False)
    assert client.info() == {"n": 2}


def test_a_post_is_never_sent_again(engine, monkeypatch):
    engine.answers([answer(body=b'{"n": 1}')], [answer("204 No Content")])
    client = Client(engine.host)
    client.info()
    monkeypatch.setattr("knarr.client.http.Connection.stale", lambda _: False)
    with pytest.raises(errors.Unavailable):
        client.containers.start("x")
    assert engine.connections == 1


def test_connection_close_is_honoured(engine):
    engine.answers([answer("200 OK", b"{}", "Connection: close")], [answer(body=b"{}")])
    client = Client(engine.host)
    client.info()
    client.info()
    assert engine.connections == 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("400 Bad Request", errors.InvalidArgument),
        ("401 Unauthorized", errors.Unauthorized),
        ("403 Forbidden", errors.PermissionDenied),
        ("404 Not Found", errors.NotFound),
        ("409 Conflict", errors.Conflict),
        ("418 Teapot", errors.InvalidArgument),
        ("500 Internal Server Error", errors.Internal),
        ("501 Not Implemented", errors.Unsupported),
        ("503 Service Unavailable", errors.Unavailable),
    ],
)
def test_errors_by_status(engine, status, kind):
    engine.answers([answer(status, b'{"message": "what happened"}')])
    with pytest.raises(kind, match="what happened") as caught:
        Client(engine.host).containers.inspect("x")
    assert type(caught.value) is kind


@pytest.mark.parametrize(("body", "words"), [(b"plain words", "plain words"), (b"", "status 500"), (b"[1]", r"\[1\]")])
def test_errors_that_are_not_the_apis(engine, body, words):
    engine.answers([answer("500 X", body)])
    with pytest.raises(errors.Internal, match=words):
        Client(engine.host).info()


def test_not_modified_is_no_error(engine):
    engine.answers([answer("304 Not Modified"), answer("204 No Content")])
    client = Client(engine.host)
    assert client.containers.start("x") is False
    assert client.containers.start("x") is True


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([b""], "closed the connection before it answered"),
        ([b"HTTP/1.1 200"], "closed the connection before it answered"),
        ([b"SSH-2.0-x\r\n\r\n"], "does not speak HTTP"),
        ([b"HTTP/1.1 abc\r\n\r\n"], "does not speak HTTP"),
        ([b"x" * 100_000], "does not speak HTTP"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}"], "in the middle of an answer"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"], "in the middle of an answer"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"], "malformed"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"], "malformed"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{x}"], "malformed JSON"),
    ],
)
def test_engines_that_are_none(engine, pieces, words):
    engine.answers([pieces])
    with pytest.raises(errors.Unavailable, match=words):
        Client(engine.host).info()


def test_nobody_listens(tmp_path):
    with pytest.raises(errors.Unavailable, match="is its daemon running"):
        Client(f"unix://{tmp_path}/none").info()


def test_over_tcp():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer(body=b'{"over": "tcp"}')[0])

        threading.Thread(target=serve, daemon=True).start()
        assert Client(f"tcp://localhost:{listener.getsockname()[1]}").info() == {"over": "tcp"}


def test_what_a_request_looks_like(engine):
    engine.answers([answer(body=b'{"Id": "x"}'), answer(body=b"[]")])
    client = Client(engine.host)
    client.containers.create({"Image": "ü"}, name="web", platform="linux/arm64")
    client.images.list(filters={"reference": ["a b&c"]})
    first, second = (request.decode() for request in engine.requests)
    assert first == (
        "POST /v1.51/containers/create?name=web&platform=linux%2Farm64 HTTP/1.1\r\nHost: knarr\r\n"
        'Content-Type: application/json\r\nContent-Length: 18\r\n\r\n{"Image":"\\u00fc"}'
    )
    assert second.startswith(
        "GET /v1.51/images/json?filters=%7B%22reference%22%3A%5B%22a%20b%26c%22%5D%7D HTTP/1.1\r\n"
    )


@pytest.mark.parametrize("name", ["../../images/json", "a?b", "a b", "a\r\nX: y", "ü"])
def test_names_cannot_become_something_else(engine, name):
    engine.answers([answer("404 Not Found", b'{"message": "no"}')])
    with pytest.raises(errors.NotFound):
        Client(engine.host).containers.inspect(name)
    line = engine.requests[0].split(b"\r\n")[0].decode()
    assert line.count("/") == 5  # of the version, containers, the name, json and HTTP/1.1
    assert line.count(" ") == 2
    assert "?" not in line


def test_query():
    assert query({"a": None, "b": False, "c": "", "d": True, "e": 0, "f": "x y"}) == "?d=1&e=0&f=x%20y"
    assert query({"a": None}) == ""


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("unix:///a/b", "/a/b"),
        ("tcp://h:1", ("h", 1)),
        ("http://h:1/", ("h", 1)),
        ("tcp://[::1]:80", ("::1", 80)),
        ("tcp://h", ("h", 2375)),
        ("https://h", ("h", 2376)),
    ],
)
def test_hosts(host, address):
    assert parse_host(host) == address


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=300)), max_size=12),
    st.lists(st.integers(1, 50), min_size=1, max_size=20),
)
def test_frames_cut_anywhere(frames, cuts):
    data = b"".join(struct.pack(">BxxxI", stream, len(payload)) + payload for stream, payload in frames)
    found = {1: b"", 2: b""}
    demultiplexer = Demultiplexer()
    position = turn = 0
    while position < len(data):
        step = cuts[turn % len(cuts)]
        turn += 1
        for stream, piece in demultiplexer.feed(data[position : position + step]):
            found[stream] += piece
        position += step
    assert found == {stream: b"".join(payload for kind, payload in frames if kind == stream) for stream in (1, 2)}


@pytest.mark.parametrize("data", [b"\x07\0\0\0\0\0\0\1x", b"\1\1\0\0\0\0\0\1x", b"HTTP/1.1"])
def test_what_is_no_frame(data):
    with pytest.raises(ValueError, match="not a frame"):
        list(Demultiplexer().feed(data))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(JSON)
def test_json_is_what_json_says(value):
    assert json.loads(dumps(value)) == value
    assert loads(json.dumps(value, indent=1)) == value
    assert loads(json.dumps(value).encode()) == value


@pytest.mark.parametrize("text", ["", "{", "{} x", "nul", "[1,]", '"\\x"', "'a'"])
def test_what_is_no_json(text):
    with pytest.raises(ValueError):
        loads(text)


@pytest.mark.parametrize(
    ("image", "host"),
    [
        ("busybox", "docker.io"),
        ("a/b", "docker.io"),
        ("docker.io/a/b", "docker.io"),
        ("localhost/a", "localhost"),
        ("h:5000/a:1", "h:5000"),
        ("quay.io/a@sha256:0", "quay.io"),
    ],
)
def test_the_registry_of_a_name(image, host):
    assert transfer.registry_host(image) == host


def test_credentials_are_sent_for_their_host_only(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text('{"auths": {"h:5000": {"auth": "dXNlcjpzZWNyZXQ="}}}')
    from knarr.credentials import decode_header

    header = transfer.credentials("h:5000/a/b:1")
    assert header is not None
    assert decode_header(header) == ("user", "secret")
    assert transfer.credentials("other/a") is None
    assert transfer.credentials("busybox") is None
