"""Hostile and wrong requests: each gets a clear error that names the object and the cause, and the right status."""

import json
import socket

import pytest

from tests.conftest import wait_until


def call(engine, method, path, body=None, raw=None):
    """(status, decoded answer) of one request."""
    data = raw if raw is not None else (json.dumps(body).encode() if body is not None else b"")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(engine.socket))
        connection.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode()
            + data
        )
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head, _, rest = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    if b"chunked" in head.lower():
        return status, rest
    return status, json.loads(rest) if rest[:1] in (b"{", b"[") else rest


CREATE = [
    ({"Image": "busybox", "HostConfig": {"Memory": -5}}, 400, "memory"),
    ({"Image": "busybox", "HostConfig": {"Memory": 1024}}, 400, "memory"),
    ({"Image": "busybox", "HostConfig": {"NetworkMode": "no-such-network"}}, 400, "no-such-network"),
    ({"Image": "busybox", "HostConfig": {"RestartPolicy": {"Name": "sometimes"}}}, 400, "sometimes"),
    ({"Image": "busybox", "HostConfig": {"Binds": ["relative:/x"]}}, (201, 400), ""),
    ({"Image": "busybox", "HostConfig": {"Binds": ["/a:relative"]}}, 400, "relative"),
    ({"Image": "busybox", "HostConfig": {"Binds": ["../../etc:/x"]}}, 400, "../../etc"),
    ({"Image": "busybox", "HostConfig": {"CapAdd": ["CAP_EVERYTHING"]}}, 400, "EVERYTHING"),
    ({"Image": "busybox", "HostConfig": {"SecurityOpt": ["seccomp=/no/such/file"]}}, 400, "seccomp"),
    ({"Image": "busybox", "HostConfig": {"LogConfig": {"Type": "carrier-pigeon"}}}, 400, "carrier-pigeon"),
    ({"Image": "busybox", "StopSignal": "SIGNONSENSE"}, 400, "SIGNONSENSE"),
    ({"Image": "busybox", "WorkingDir": "not/absolute"}, 400, "not/absolute"),
    ({"Image": "busybox", "Hostname": "a b"}, 400, "a b"),
    ({"Image": "busybox", "Hostname": "a\nb"}, 400, "control characters"),
    ({"Image": "busybox", "Env": ["A\0B=1"]}, 400, ""),
    ({"Image": "busybox", "Cmd": ["a\0b"]}, 400, ""),
    ({"Image": "../../etc/passwd"}, 400, "invalid reference format"),
    ({"Image": "busybox\0"}, 400, "invalid reference format"),
    ({"Image": "a" * 5000}, 400, "invalid reference format"),
    ({"Image": ""}, 400, ""),
    ({"Image": "no-such-image"}, 404, "No such image: no-such-image:latest"),
    ([], 400, ""),
    ({"Image": 5}, 400, "Image"),
]


@pytest.mark.parametrize(
    ("body", "status", "words"), CREATE, ids=lambda value: str(value)[:60] if isinstance(value, (dict, list)) else None
)
def test_create_refuses(shared_engine, body, status, words):
    got, answer = call(shared_engine, "POST", "/v1.44/containers/create", body)
    if got == 201:
        call(shared_engine, "DELETE", f"/v1.44/containers/{answer['Id']}")
    assert got in (status if isinstance(status, tuple) else (status,)), answer
    if got >= 400:
        assert words in answer["message"]


@pytest.mark.parametrize("name", ["a/b", "..", "../x", "a%00b", "", "-x", "a b", "x" * 5000])
def test_names_that_are_not_names(shared_engine, name):
    status, answer = call(
        shared_engine,
        "POST",
        f"/v1.44/containers/create?name={name.replace(' ', '%20')}",
        {"Image": "busybox", "Cmd": ["true"]},
    )
    if name == "":
        assert status == 201  # no name asked for: one is chosen
        call(shared_engine, "DELETE", f"/v1.44/containers/{answer['Id']}")
    else:
        assert status == 400
        assert "name" in answer["message"].lower() or "line" in answer["message"].lower()


@pytest.mark.parametrize("identifier", ["..%2f..%2fetc", "%00", "a" * 3000, "no-such"])
@pytest.mark.parametrize(
    ("method", "tail"), [("GET", "/json"), ("POST", "/start"), ("DELETE", ""), ("GET", "/logs?stdout=1")]
)
def test_containers_that_do_not_exist(shared_engine, method, tail, identifier):
    status, answer = call(shared_engine, method, f"/v1.44/containers/{identifier}{tail}")
    assert status in {400, 404}
    assert answer["message"]


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"null", b'{"Image": "busybox", "Cmd": ' + b"[" * 5000, b"\xff\xfe", b'"x"']
)
def test_bodies_that_are_not_json_objects(shared_engine, raw):
    status, answer = call(shared_engine, "POST", "/v1.44/containers/create", raw=raw)
    assert status == 400
    assert answer["message"]


def test_a_client_that_stops_in_the_middle_is_forgotten(shared_engine):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(shared_engine.socket))
        connection.sendall(b"POST /v1.44/containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 1000\r\n\r\n{")
    assert call(shared_engine, "GET", "/_ping")[0] == 200


def test_a_client_that_does_not_read_stalls_nobody(shared_engine):
    shared_engine.run(
        "run",
        "-d",
        "--name",
        "talker",
        "busybox",
        "sh",
        "-c",
        "i=0; while [ $i -lt 200 ]; do head -c 100000 /dev/zero | tr '\\0' 'x'; echo; i=$((i+1)); done",
    )
    try:
        with socket.socket(socket.AF_UNIX) as silent:
            silent.connect(str(shared_engine.socket))
            silent.sendall(b"GET /v1.44/containers/talker/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: d\r\n\r\n")
            attached = socket.socket(socket.AF_UNIX)
            attached.connect(str(shared_engine.socket))
            attached.sendall(
                b"POST /v1.44/containers/talker/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
            )
            wait_until(
                lambda: call(shared_engine, "GET", "/v1.44/containers/talker/json")[1]["State"]["Status"] == "exited",
                30,
                what="the end of a container that nobody reads",
            )
            attached.close()
    finally:
        shared_engine.run("rm", "-f", "talker")
