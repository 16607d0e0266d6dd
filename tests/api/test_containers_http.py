"""Containers over plain HTTP: statuses, messages and headers as Docker's clients expect them."""

import calendar
import fcntl
import json
import os
import re
import signal
import socket
import termios
import time

import pytest

from tests.api.http_client import Api, frames, read_all, read_head
from tests.conftest import wait_until


@pytest.fixture
def api(shared_engine):
    made = Api(shared_engine)
    yield made
    for item in made.ok("GET", "/containers/json?all=1"):
        made.call("DELETE", f"/containers/{item['Id']}?force=1&v=1")


def test_versions_and_headers(api):
    for path in ("/_ping", "/v1.24/_ping", "/v1.56/_ping"):
        api.connection.request("GET", path)
        response = api.connection.getresponse()
        assert (response.status, response.read()) == (200, b"OK")
        assert response.headers["Api-Version"] == "1.56"
        assert response.headers["Ostype"] == "linux"
        assert response.headers["Server"].startswith("knarr/")
    status, answer = api.call("GET", "/v1.99/version")
    assert (status, answer["message"]) == (400, "client version 1.99 is too new. Maximum supported API version is 1.56")
    for version in ("1.12", "1", "0.9.7"):
        api.connection.request("GET", f"/v{version}/version")
        response = api.connection.getresponse()
        assert response.status == 400
        assert response.headers["Content-Type"].startswith("text/plain")
        assert (
            response.read()
            .decode()
            .startswith(f"client version {version} is too old. Minimum supported API version is 1.24")
        )
    for version in ("2", "999999999999999999999.1", "1.56000"):
        status, answer = api.call("GET", f"/v{version}/version")
        assert status == 400
        assert answer["message"].startswith(f"client version {version} is too new. ")
    status, answer = api.call("POST", "/v1.99/containers/x/attach")
    assert status == 400
    assert "too new" in answer["message"]
    assert api.call("GET", "/nonsense") == (404, {"message": "page not found"})
    for method, path in (("PUT", "/containers/json"), ("HEAD", "/info"), ("GET", "/v1.44/nonsense"), ("GET", "/v1.44")):
        assert api.call(method, path)[0] == 404
    assert api.call("POST", "/_ping") == (404, {"message": "page not found"})
    assert api.call("HEAD", "/_ping")[0] == 200


def test_pings_are_alike_however_they_are_asked(api):
    """Those that are answered at once, and those that take the way of other requests."""

    def ask(data, size):
        sock = api.raw(data[:7])
        sock.sendall(data[7:])
        sock.settimeout(5)
        status, head, rest = read_head(sock)
        while len(rest) < size:
            rest += sock.recv(100)
        sock.close()
        return status, {line for line in head.split("\r\n") if not line.startswith("date:")}, rest

    for method, size in (("GET", 2), ("HEAD", 0)):
        plain = [
            ask(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode(), size)
            for path, more in (
                ("/_ping", ""),
                ("/v1.44/_ping", "Connection: keep-alive\r\n"),
                ("/_ping?x=y", ""),
                ("/_ping", "Content-Length: 0\r\n"),
                ("/_ping", "Accept: */*\r\n"),
            )
        ]
        assert all(one == plain[0] for one in plain)
        assert plain[0][2] == b"OK"[:size]
    assert "close" in str(ask(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 2)[1])
    assert ask(b"GET /_ping HTTP/1.0\r\n\r\n", 2)[2] == b"OK"
    two = api.raw(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
    time.sleep(0.1)
    assert two.recv(4096).count(b"200 OK") == 2
    smuggled = api.raw(b"GET /_ping HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert "200" in read_head(smuggled)[0]


def test_execs_are_alike_however_they_are_asked(api):
    """Made and inspected in one piece, a byte at a time, in chunks, one behind the other, and with what is wrong."""

    def ask(data, step=1 << 20):
        sock = api.raw(b"")
        for at in range(0, len(data), step):
            sock.sendall(data[at : at + step])
        sock.settimeout(5)
        status, head, rest = read_head(sock)
        length = int(re.search(r"content-length: (\d+)", head)[1])
        while len(rest) < length:
            rest += sock.recv(4096)
        assert "date: " in head
        names = sorted(line.partition(":")[0] for line in head.split("\r\n"))
        sock.close()
        return status, names, json.loads(rest)

    def post(path, body, kind="application/json"):
        first = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n".encode()
        chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        plain = b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        forms = [ask(first + plain), ask(first + plain, 1), ask(first + plain, 90), ask(first + chunked)]
        forms.append(ask(first.replace(b" HTTP", b"?x=y HTTP") + plain))
        return forms

    container = api.create("sleep", "100")
    api.ok("POST", f"/containers/{container}/start")
    made = post(f"/v1.44/containers/{container}/exec", b'{"Cmd": ["echo", "x"], "AttachStdout": true}')
    assert {status for status, _, _ in made} == {"HTTP/1.1 201 Created"}
    assert all(names == made[0][1] for _, names, _ in made)
    assert len({answer["Id"] for _, _, answer in made}) == len(made), "each has made one"
    name = made[0][2]["Id"]
    inspect = b"GET /exec/%s/json HTTP/1.1\r\nHost: x\r\n\r\n" % name.encode()
    shown = [ask(inspect), ask(inspect, 1), ask(inspect.replace(b"json", b"json?x=y"))]
    assert all(one == shown[0] for one in shown)
    assert shown[0][2]["ProcessConfig"]["arguments"] == ["x"]
    two = api.raw(inspect * 2)
    wait_until(lambda: two.recv(65536, socket.MSG_PEEK).count(b"200 OK") == 2, what="both answers")
    for path, body, kind, status in (
        ("/containers/none/exec", b'{"Cmd": ["x"]}', "application/json", 404),
        (f"/containers/{container}/exec", b'{"Cmd": ["x"]}', "text/html", 400),
        (f"/containers/{container}/exec", b'{"Cmd": "x"}', "application/json", 400),
        (f"/containers/{container}/exec", b"{", "application/json", 400),
        (f"/containers/{container}/exec", b'{"Cmd": []}', "application/json", 400),
        (f"/v1.99/containers/{container}/exec", b'{"Cmd": ["x"]}', "application/json", 400),
    ):
        refused = post(path, body, kind)
        assert all(one == refused[0] for one in refused), path
        assert str(status) in refused[0][0]


def test_bodies_in_chunks(api):
    """Cut anywhere, for requests that aiohttp reads and for those that are read before it."""

    def send(path, body, expect):
        pieces = [body[:3], body[3:4], body[4:]]
        chunks = b"".join(b"%x;x=y\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n\r\n"
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        sock = api.raw(head.encode())
        for start in range(0, len(chunks), 7):
            sock.sendall(chunks[start : start + 7])
            time.sleep(0.001)
        status, head, rest = read_head(sock)
        assert expect in status, (status, rest)
        return sock, rest

    body = json.dumps({"Image": "busybox", "Cmd": ["sleep", "9"], "HostConfig": {"NetworkMode": "none"}}).encode()
    send("/containers/create?name=chunky", body, "201")[0].close()
    api.ok("POST", "/containers/chunky/start")
    made = api.ok("POST", "/containers/chunky/exec", {"Cmd": ["echo", "x"], "AttachStdout": True})["Id"]
    assert frames(read_all(*send(f"/exec/{made}/start", b'{"Detach": false}', "200"))) == [(1, b"x\n")]


def test_bodies_are_json_and_say_so(api):
    def send(data, kind, path="/containers/create"):
        api.connection.request("POST", path, data, {"Content-Type": kind} if kind else {})
        response = api.connection.getresponse()
        return response.status, json.loads(response.read())["message"]

    good = json.dumps({"Image": "no-such-image"})
    assert send(good, "application/json; charset=utf-8") == (404, "No such image: no-such-image:latest")
    assert send(good, "text/plain") == (400, "unsupported Content-Type header (text/plain): must be 'application/json'")
    assert send(good, "") == (400, "malformed Content-Type header (): mime: no media type")
    assert send(good + "{}", "application/json") == (400, "unexpected content after JSON")
    assert send("{", "application/json")[1].startswith("invalid JSON: ")
    assert send("", "application/json") == (400, "invalid JSON: got EOF while reading request body")
    container = api.create("sleep", "100")
    api.ok("POST", f"/containers/{container}/start")
    made = api.ok("POST", f"/containers/{container}/exec", {"Cmd": ["true"]})["Id"]
    assert send("{}", "text/html", f"/exec/{made}/start") == (
        400,
        "unsupported Content-Type header (text/html): must be 'application/json'",
    )
    large = json.dumps({"Image": "busybox", "Labels": {"x": "y" * (9 << 20)}})
    assert send(large, "application/json")[0] == 413


def test_a_life(api):
    container = api.create("sh", "-c", "exit 3", name="life")
    assert api.ok("GET", "/containers/life/json")["State"]["Status"] == "created"
    assert api.call("POST", "/containers/life/start")[0] == 204
    assert api.ok("POST", "/containers/life/wait")["StatusCode"] == 3
    found = api.ok("GET", f"/containers/{container[:12]}/json")
    assert found["State"]["Status"] == "exited"
    assert found["State"]["ExitCode"] == 3
    assert found["State"]["FinishedAt"] > found["State"]["StartedAt"] > "2020"
    assert found["Name"] == "/life"
    assert api.call("POST", "/containers/life/stop")[0] == 304
    assert api.call("DELETE", "/containers/life") == (204, None)
    assert api.call("GET", "/containers/life/json") == (404, {"message": "No such container: life"})


def test_doing_it_twice(api):
    api.create("sleep", "100", name="twice")
    assert api.call("POST", "/containers/twice/start")[0] == 204
    assert api.call("POST", "/containers/twice/start")[0] == 304
    status, answer = api.call("DELETE", "/containers/twice")
    assert status == 409
    assert (
        answer["message"]
        == 'cannot remove container "twice": container is running: stop the container before removing or force remove'
    )
    status, answer = api.call("POST", "/containers/create?name=twice", {"Image": "busybox"})
    assert status == 409
    assert answer["message"].startswith('Conflict. The container name "/twice" is already in use by container "')
    assert api.call("POST", "/containers/twice/stop?t=0")[0] == 204
    assert api.call("POST", "/containers/twice/stop?t=0")[0] == 304
    status, answer = api.call("POST", "/containers/twice/kill")
    assert status == 409
    assert "is not running" in answer["message"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "/containers/create", None, 400, "invalid JSON"),
        ("POST", "/containers/create", [1], 400, "must be an object"),
        ("POST", "/containers/create", {"Image": "no-such-image"}, 404, "No such image: no-such-image:latest"),
        ("POST", "/containers/create", {"Image": ""}, 400, "no image specified"),
        ("POST", "/containers/create", {"Image": "busybox", "Cmd": 5}, 400, "Cmd"),
        ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Memory": "x"}}, 400, "Memory"),
        ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Links": ["a"]}}, 400, "container for a"),
        (
            "POST",
            "/containers/create",
            {"Image": "busybox", "HostConfig": {"NetworkMode": "nowhere"}},
            400,  # clients pull an image that a 404 is taken to speak of
            "network nowhere not found",
        ),
        (
            "POST",
            "/containers/create",
            {"Image": "busybox", "HostConfig": {"NetworkMode": "container:nobody"}},
            400,
            "No such container: nobody",
        ),
        (
            "POST",
            "/containers/create",
            {"Image": "busybox", "HostConfig": {"VolumesFrom": ["nobody"]}},
            400,
            "No such container: nobody",
        ),
        ("POST", "/containers/create?name=a/b", {"Image": "busybox"}, 400, "Invalid container name"),
        ("POST", "/containers/none/start", None, 404, "No such container: none"),
        ("POST", "/containers/none/attach", None, 404, "No such container: none"),
        ("POST", "/exec/none/start", {}, 404, "No such exec instance: none"),
        ("GET", "/exec/none/json", None, 404, "No such exec instance: none"),
        ("GET", "/containers/json?filters={", None, 400, "invalid filter"),
        ("GET", '/containers/json?filters={"nonsense":["x"]}', None, 400, "invalid filter 'nonsense'"),
        ("GET", "/volumes/none", None, 404, "no such volume"),
        ("POST", "/volumes/create", {"Name": "../up"}, 400, "up"),
        (
            "POST",
            "/volumes/create",
            {"Name": "x1", "DriverOpts": {"type": "nfs"}},
            400,
            'missing required option: "device"',
        ),
        ("GET", "/networks/none-such", None, 404, "network none-such not found"),
        ("POST", "/networks/create", {"Name": "x", "EnableIPv4": False}, 400, "IPv4 or IPv6 must be enabled"),
        ("GET", "/containers/none/stats", None, 404, "No such container: none"),
        ("POST", "/build", None, 501, "building an image is not supported"),
        ("POST", "/session", None, 501, "BuildKit's session is not supported"),
        ("POST", "/grpc", None, 501, "BuildKit's session is not supported"),
    ],
)
def test_errors_name_what_is_wrong(api, method, path, body, status, words):
    found, answer = api.call(method, path.replace("{", "%7B").replace('"', "%22").replace("}", "%7D"), body)
    assert found == status, answer
    assert words in answer["message"]


def test_nothing_is_left_of_a_refused_create(api, shared_engine):
    before = set((shared_engine.data_root / "containers").iterdir())
    assert (
        api.call("POST", "/containers/create?name=refused", {"Image": "busybox", "HostConfig": {"Binds": ["/a:b"]}})[0]
        == 400
    )
    assert set((shared_engine.data_root / "containers").iterdir()) == before
    api.create("true", name="refused")


def test_wait_sends_its_headers_at_once(api):
    container = api.create("sleep", "100")
    sock = api.raw(f"POST /containers/{container}/wait?condition=removed HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    status, head, rest = read_head(sock)
    assert "200" in status
    assert "transfer-encoding: chunked" in head
    assert rest == b""
    api.ok("POST", f"/containers/{container}/start")
    api.ok("DELETE", f"/containers/{container}?force=1")
    assert b'{"StatusCode": 137}' in sock.recv(4096)
    sock.close()


def test_wait_for_the_next_exit_passes_over_the_last(api):
    container = api.create("true")
    api.ok("POST", f"/containers/{container}/start")
    assert api.ok("POST", f"/containers/{container}/wait")["StatusCode"] == 0
    sock = api.raw(f"POST /containers/{container}/wait?condition=next-exit HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    read_head(sock)
    sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    api.ok("POST", f"/containers/{container}/start")
    sock.settimeout(10)
    assert b'{"StatusCode": 0}' in sock.recv(4096)


@pytest.mark.parametrize("upgrade", [True, False])
def test_attach_takes_the_connection_with_what_was_sent_already(api, upgrade):
    container = api.create("cat", OpenStdin=True, StdinOnce=True, AttachStdin=True)
    headers = "Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else ""
    sock = api.raw(
        f"POST /v1.44/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: x\r\n{headers}\r\nfirst ".encode()
    )
    status, head, rest = read_head(sock)
    assert ("101" in status) == upgrade
    kind = "multiplexed" if upgrade else "raw"  # as Docker says it, though the stream is the same
    assert f"application/vnd.docker.{kind}-stream" in head
    assert ("upgrade: tcp" in head) == upgrade
    api.ok("POST", f"/containers/{container}/start")
    sock.sendall(b"second\n")
    sock.shutdown(1)
    data = read_all(sock, rest)
    assert b"".join(content for number, content in frames(data) if number == 1) == b"first second\n"
    assert api.ok("POST", f"/containers/{container}/wait")["StatusCode"] == 0


def test_attach_byte_by_byte(api):
    """A request that comes in small pieces is the same request."""
    container = api.create("sh", "-c", "echo out; echo err >&2")
    request = f"POST /containers/{container}/attach?stream=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
    sock = api.raw(b"")
    for number in range(len(request)):
        sock.sendall(request[number : number + 1])
    _, _, rest = read_head(sock)
    api.ok("POST", f"/containers/{container}/start")
    assert sorted(frames(read_all(sock, rest))) == [(1, b"out\n"), (2, b"err\n")]


@pytest.mark.parametrize("cut", [1, 3, 5, 40])
def test_attach_whose_beginning_is_read_alone(api, cut):
    """Where the daemon has read a part of the request, be it less than a method's name, the rest still counts."""
    container = api.create("true")
    request = f"POST /containers/{container}/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    sock = api.raw(request[:cut])
    while any(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4))):  # until the daemon has read it
        time.sleep(0.001)
    sock.sendall(request[cut:])
    assert "200" in read_head(sock)[0]


def test_a_refused_attach_leaves_the_connection_usable(api):
    sock = api.raw(
        b"POST /containers/none/attach HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\nGET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"[
            :77
        ]
    )
    status, _, _ = read_head(sock)
    assert "404" in status
    sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
    assert "200" in read_head(sock)[0]


def test_a_body_that_looks_like_an_attach_is_a_body(api):
    """What comes within a request's body is not read as a request, however it is cut."""
    body = b"POST /containers/x/attach HTTP/1.1\r\nHost: x\r\n\r\n"
    sock = api.raw(
        b"POST /volumes/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % len(body)
    )
    time.sleep(0.1)
    sock.sendall(body)
    status, _, rest = read_head(sock)
    assert "400" in status
    assert b"invalid JSON" in rest
    sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
    assert "200" in read_head(sock)[0]


def start_exec(api, exec_id, body=b'{"Detach":false}'):
    sock = api.raw(
        b"POST /exec/%s/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (exec_id.encode(), len(body), body)
    )
    status, _, rest = read_head(sock)
    return status, read_all(sock, rest)


def test_output_comes_after_docker_py_has_read_the_head(api):
    """It reads the head through a buffer, and the rest without it."""
    container = api.create("sleep", "100")
    api.ok("POST", f"/containers/{container}/start")
    made = api.ok("POST", f"/containers/{container}/exec", {"Cmd": ["echo", "x"], "AttachStdout": True})["Id"]
    head = f"POST /exec/{made}/start HTTP/1.1\r\nHost: x\r\nUser-Agent: docker-sdk-python/7.2.0\r\n"
    sock = api.raw(f"{head}Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}".encode())
    time.sleep(0.05)
    assert sock.recv(65536).endswith(b"\r\n\r\n")
    assert frames(read_all(sock)) == [(1, b"x\n")]


def test_exec_and_its_exit_code(api):
    container = api.create("sleep", "100", Env=["A=outer", "B=outer"])
    status, answer = api.call("POST", f"/containers/{container}/exec", {"Cmd": ["true"]})
    assert status == 409
    assert "is not running" in answer["message"]
    api.ok("POST", f"/containers/{container}/start")
    config = {
        "Cmd": ["sh", "-c", "echo $A $B; pwd; id -u >&2; exit 9"],
        "AttachStdout": True,
        "AttachStderr": True,
        "Env": ["B=inner"],
        "WorkingDir": "/tmp",
        "User": "app",
    }
    made = api.ok("POST", f"/containers/{container}/exec", config)["Id"]
    status, data = start_exec(api, made)
    assert "101" in status
    assert b"".join(content for number, content in frames(data) if number == 1) == b"outer inner\n/tmp\n"
    assert b"".join(content for number, content in frames(data) if number == 2) == b"1000\n"
    found = api.ok("GET", f"/exec/{made}/json")
    assert (found["ExitCode"], found["Running"]) == (9, False)
    status, answer = api.call("POST", f"/exec/{made}/start", {"Detach": True})
    assert status == 409


def test_exec_detached(api):
    container = api.create("sleep", "100")
    api.ok("POST", f"/containers/{container}/start")
    made = api.ok("POST", f"/containers/{container}/exec", {"Cmd": ["sh", "-c", "exit 4"]})["Id"]
    assert api.call("POST", f"/exec/{made}/start", {"Detach": True}) == (200, None)
    wait_until(lambda: api.ok("GET", f"/exec/{made}/json")["ExitCode"] == 4, what="the exec's end")


def test_exec_of_nothing(api):
    container = api.create("sleep", "100")
    api.ok("POST", f"/containers/{container}/start")
    made = api.ok("POST", f"/containers/{container}/exec", {"Cmd": ["no-such-program"], "AttachStdout": True})["Id"]
    _, data = start_exec(api, made)
    assert b"executable file not found in $PATH" in data
    assert api.ok("GET", f"/exec/{made}/json")["ExitCode"] == 127


def test_a_failed_start_says_why_and_stays_created(api):
    container = api.create("/no/such/program")
    status, answer = api.call("POST", f"/containers/{container}/start")
    assert status == 400
    assert "no such file or directory" in answer["message"]
    state = api.ok("GET", f"/containers/{container}/json")["State"]
    assert (state["Status"], state["ExitCode"]) == ("created", 127)
    assert state["Error"]


def test_auto_remove(api):
    container = api.create("true", HostConfig={"AutoRemove": True}, Volumes={"/data": {}})
    volume = api.ok("GET", f"/containers/{container}/json")["Mounts"][0]["Name"]
    api.ok("POST", f"/containers/{container}/start")
    wait_until(lambda: api.call("GET", f"/containers/{container}/json")[0] == 404, what="the removal")
    wait_until(lambda: api.call("GET", f"/volumes/{volume}")[0] == 404, what="the volume's removal")


def test_restart_policies(api):
    container = api.create(
        "sh", "-c", "exit 1", HostConfig={"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}}
    )
    api.ok("POST", f"/containers/{container}/start")
    wait_until(lambda: api.ok("GET", f"/containers/{container}/json")["State"]["Status"] == "exited", what="giving up")
    found = api.ok("GET", f"/containers/{container}/json")
    assert found["RestartCount"] == 2
    always = api.create("sh", "-c", "sleep 0.05", HostConfig={"RestartPolicy": {"Name": "always"}})
    api.ok("POST", f"/containers/{always}/start")
    wait_until(lambda: api.ok("GET", f"/containers/{always}/json")["RestartCount"] >= 2, what="two restarts")
    api.ok("POST", f"/containers/{always}/stop")
    time.sleep(1)
    assert api.ok("GET", f"/containers/{always}/json")["State"]["Status"] == "exited"


def test_pause(api):
    container = api.create("sleep", "100")
    api.ok("POST", f"/containers/{container}/start")
    assert api.call("POST", f"/containers/{container}/pause")[0] == 204
    assert api.ok("GET", f"/containers/{container}/json")["State"]["Paused"] is True
    assert api.call("POST", f"/containers/{container}/pause")[0] == 409
    status, answer = api.call("POST", f"/containers/{container}/exec", {"Cmd": ["true"]})
    assert status == 409
    assert "paused" in answer["message"]
    assert api.call("POST", f"/containers/{container}/unpause")[0] == 204
    assert api.call("POST", f"/containers/{container}/unpause")[0] == 500  # as Docker
    api.ok("POST", f"/containers/{container}/pause")
    assert api.call("DELETE", f"/containers/{container}?force=1")[0] == 204


def test_pausing_what_is_about_to_end(api):
    """Its control group has gone before the daemon has heard of the end."""
    container = api.create("sleep", "100")
    for turn in range(30):
        api.ok("POST", f"/containers/{container}/start")
        os.kill(api.ok("GET", f"/containers/{container}/json")["State"]["Pid"], signal.SIGKILL)
        time.sleep(turn % 6 / 1000)
        status, answer = api.call("POST", f"/containers/{container}/pause")
        assert status == 204 or (status, answer["message"]) == (409, f"container {container} is not running")
        assert api.call("POST", f"/containers/{container}/stop?t=0")[0] in (204, 304)
    api.ok("DELETE", f"/containers/{container}?force=1")


def test_sets_of_ports_and_volumes_hold_nothing_else(api):
    odd = {"ExposedPorts": {"80/tcp": {"x": None}}, "Volumes": {"/data": {"x": 1}}}
    container = api.create("true", **odd)
    config = api.ok("GET", f"/containers/{container}/json")["Config"]
    assert (config["ExposedPorts"], config["Volumes"]) == ({"80/tcp": {}}, {"/data": {}})
    image = api.ok("POST", f"/commit?container={container}", odd)["Id"]
    config = api.ok("GET", f"/images/{image}/json")["Config"]
    assert (config["ExposedPorts"], config["Volumes"]) == ({"80/tcp": {}}, {"/data": {}})
    api.ok("DELETE", f"/containers/{container}?v=1")
    api.ok("DELETE", f"/images/{image}")


def test_rename(api):
    api.create("true", name="before")
    api.create("true", name="other")
    assert api.call("POST", "/containers/before/rename?name=after")[0] == 204
    assert api.call("GET", "/containers/before/json")[0] == 404
    assert api.ok("GET", "/containers/after/json")["Name"] == "/after"
    assert api.call("POST", "/containers/after/rename?name=other")[0] == 409
    assert api.call("POST", "/containers/after/rename?name=after")[0] == 400
    assert api.call("POST", "/containers/after/rename?name=a/b")[0] == 400


def test_list_filters(api):
    one = api.create("sleep", "100", name="filter-one", Labels={"a": "1"})
    two = api.create("sh", "-c", "exit 5", name="filter-two", Labels={"a": "2", "b": ""})
    for container in (one, two):
        api.ok("POST", f"/containers/{container}/start")
    api.ok("POST", f"/containers/{two}/wait")

    def listed(**filters):
        text = json.dumps(filters).replace("{", "%7B").replace("}", "%7D").replace('"', "%22").replace(" ", "")
        return [item["Id"] for item in api.ok("GET", f"/containers/json?all=1&filters={text}")]

    assert [item["Id"] for item in api.ok("GET", "/containers/json")] == [one]
    assert [item["Id"] for item in api.ok("GET", "/containers/json?limit=1")] == [two]
    assert listed(name=["filter"]) == [two, one]
    assert listed(label=["a=1"]) == [one]
    assert listed(label=["a", "b"]) == [two]
    assert listed(status=["exited"]) == [two]
    assert listed(exited=["5"]) == [two]
    assert listed(id=[one[:8]]) == [one]
    assert listed(since=["filter-one"]) == [two]
    assert listed(before=["filter-two"]) == [one]
    assert listed(ancestor=["busybox"]) == [two, one]
    assert listed(ancestor=["nothing"]) == []
    assert listed(network=["none"]) == [two, one]
    line = api.ok("GET", "/containers/json?size=1")[0]
    assert line["SizeRootFs"] > 100_000
    assert line["Status"].startswith("Up ")


def test_logs(api):
    container = api.create("sh", "-c", "echo one; sleep 0.2; echo two >&2; sleep 0.2; echo three")
    api.ok("POST", f"/containers/{container}/start")
    api.ok("POST", f"/containers/{container}/wait")

    def logs(query):
        api.connection.request("GET", f"/containers/{container}/logs?{query}")
        response = api.connection.getresponse()
        assert response.status == 200
        assert response.headers["Content-Type"] == "application/vnd.docker.multiplexed-stream"
        return frames(response.read())

    assert logs("stdout=1&stderr=1") == [(1, b"one\n"), (2, b"two\n"), (1, b"three\n")]
    assert logs("stdout=1") == [(1, b"one\n"), (1, b"three\n")]
    assert logs("stdout=1&stderr=1&tail=1") == [(1, b"three\n")]
    assert logs("stdout=1&stderr=1&tail=0") == []
    stamped = logs("stdout=1&timestamps=1&tail=3")[0][1].decode()
    assert stamped[:4].isdigit()
    assert stamped.endswith(" one\n")
    moment = logs("stdout=1&timestamps=1")[1][1].decode().split()[0]
    whole, _, fraction = moment.rstrip("Z").partition(".")
    since = f"{calendar.timegm(time.strptime(whole, '%Y-%m-%dT%H:%M:%S'))}.{fraction}"
    assert logs(f"stdout=1&stderr=1&since={since}") == [(1, b"three\n")]
    assert api.call("GET", f"/containers/{container}/logs")[0] == 400


def test_top(api):
    container = api.create("sleep", "12345")
    assert api.call("GET", f"/containers/{container}/top")[0] == 409
    api.ok("POST", f"/containers/{container}/start")
    found = api.ok("GET", f"/containers/{container}/top")
    assert found["Titles"][-1] == "CMD"
    assert [row[-1] for row in found["Processes"]] == ["sleep 12345"]


def test_volumes(api):
    made = api.ok("POST", "/volumes/create", {"Name": "kept", "Labels": {"x": "y"}})
    assert made["Driver"] == "local"
    assert api.ok("POST", "/volumes/create", {"Name": "kept"})["Labels"] == {"x": "y"}
    container = api.create("sh", "-c", "echo content > /data/file", HostConfig={"Binds": ["kept:/data"]})
    status, answer = api.call("DELETE", "/volumes/kept")
    assert status == 409
    assert answer["message"] == f"remove kept: volume is in use - [{container}]"
    api.ok("POST", f"/containers/{container}/start")
    api.ok("POST", f"/containers/{container}/wait")
    api.ok("DELETE", f"/containers/{container}?v=1")
    reader = api.create(
        "grep",
        "-q",
        "content",
        "/data/file",
        HostConfig={"Mounts": [{"Type": "volume", "Source": "kept", "Target": "/data", "ReadOnly": True}]},
    )
    api.ok("POST", f"/containers/{reader}/start")
    assert api.ok("POST", f"/containers/{reader}/wait")["StatusCode"] == 0
    api.ok("DELETE", f"/containers/{reader}")
    assert api.call("DELETE", "/volumes/kept")[0] == 204
    assert api.call("DELETE", "/volumes/kept")[0] == 404
    assert api.call("DELETE", "/volumes/kept?force=1")[0] == 204


def test_a_new_volume_begins_with_what_the_image_has(api):
    container = api.create("test", "-x", "/copy/busybox", HostConfig={"Binds": ["copied:/bin2", "bins:/bin"]})
    api.ok("DELETE", f"/containers/{container}")
    check = api.create("test", "-x", "/copy/busybox", HostConfig={"Binds": ["bins:/copy:ro"]})
    api.ok("POST", f"/containers/{check}/start")
    assert api.ok("POST", f"/containers/{check}/wait")["StatusCode"] == 0
    api.ok("DELETE", f"/containers/{check}")
    for name in ("bins", "copied"):
        api.ok("DELETE", f"/volumes/{name}")


def test_networks_that_there_are(api):
    found = {item["Name"]: item for item in api.ok("GET", "/networks")}
    assert {name: item["Driver"] for name, item in found.items()} == {
        "bridge": "bridge",
        "host": "host",
        "none": "null",
    }
    container = api.create("sleep", "100", HostConfig={"NetworkMode": "bridge"})
    api.ok("POST", f"/containers/{container}/start")
    members = api.ok("GET", "/networks/bridge")["Containers"]
    address = api.ok("GET", f"/containers/{container}/json")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert members[container]["IPv4Address"].split("/")[0] == address


def test_prune(api):
    keep = api.create("sleep", "100", Labels={"p": "1"})
    api.ok("POST", f"/containers/{keep}/start")
    gone = api.create("true", Labels={"p": "1"})
    spared = api.create("true")
    filters = "%7B%22label%22:[%22p%22]%7D"
    assert api.ok("POST", f"/containers/prune?filters={filters}")["ContainersDeleted"] == [gone]
    assert {item["Id"] for item in api.ok("GET", "/containers/json?all=1")} == {keep, spared}


def test_events_since(api):
    begin = time.time()
    container = api.create("true", Labels={"story": "told"})
    api.ok("POST", f"/containers/{container}/start")
    api.ok("POST", f"/containers/{container}/wait")
    api.ok("DELETE", f"/containers/{container}")
    filters = (
        json.dumps({"container": [container], "type": ["container"]})
        .replace("{", "%7B")
        .replace("}", "%7D")
        .replace('"', "%22")
        .replace(" ", "")
    )
    api.connection.request("GET", f"/events?since={begin}&until={time.time()}&filters={filters}")
    lines = [json.loads(line) for line in api.connection.getresponse().read().splitlines()]
    assert [line["Action"] for line in lines] == ["create", "start", "die", "destroy"]
    assert lines[2]["Actor"]["Attributes"]["exitCode"] == "0"
    assert lines[0]["Actor"]["Attributes"]["story"] == "told"


def test_two_at_once_get_one_start(api, shared_engine):
    import threading

    container = api.create("sleep", "100")
    statuses = []

    def start():
        statuses.append(Api(shared_engine).call("POST", f"/containers/{container}/start")[0])

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [204, 304, 304, 304, 304, 304]
    removals = []

    def remove():
        removals.append(Api(shared_engine).call("DELETE", f"/containers/{container}?force=1")[0])

    threads = [threading.Thread(target=remove) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert removals.count(204) == 1
    assert set(removals) <= {204, 404, 409}


def test_a_host_overlay_cannot_change_the_host(api, tmp_path):
    (tmp_path / "file").write_text("untouched")
    container = api.ok(
        "POST", "/containers/create",
        {"Image": "", "Cmd": ["sh", "-c", f"rm -rf {tmp_path}/file /etc/passwd; ! test -e {tmp_path}/file"], "HostConfig": {"NetworkMode": "none", "Knarr": {"HostOverlay": True, "OverlaySize": 4 << 20}}},
    )["Id"]  # fmt: skip
    api.ok("POST", f"/containers/{container}/start")
    assert api.ok("POST", f"/containers/{container}/wait")["StatusCode"] == 0
    assert (tmp_path / "file").read_text() == "untouched"


def test_each_version_shows_what_it_has(api):
    api.create("sleep", "100", name="versions", HostConfig={"NetworkMode": "bridge", "Annotations": {"a": "b"}})
    assert api.call("POST", "/containers/versions/start")[0] == 204
    new, old = (api.ok("GET", f"{prefix}/containers/versions/json") for prefix in ("", "/v1.41"))
    assert set(new["NetworkSettings"]) == {"SandboxID", "SandboxKey", "Ports", "Networks"}
    assert old["NetworkSettings"]["IPAddress"] == new["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] != ""
    assert ("Storage" in new, "GraphDriver" in new, "Storage" in old, "GraphDriver" in old) == (
        True,
        False,
        False,
        True,
    )
    assert new["ImageManifestDescriptor"]["size"] > 0
    assert "ImageManifestDescriptor" not in old
    assert new["HostConfig"]["Annotations"] == {"a": "b"}
    assert "Annotations" not in old["HostConfig"]
    assert api.ok("GET", "/containers/json")[0]["HostConfig"] == {"NetworkMode": "bridge", "Annotations": {"a": "b"}}
    assert api.ok("GET", "/v1.45/containers/json")[0]["HostConfig"] == {"NetworkMode": "bridge"}


def test_the_words_of_a_container_s_endpoints(api):
    """Each as Docker's: statuses and messages compared with its head."""
    container = api.create("sleep", "100", name="worded")
    for method, path, status, message in (
        ("POST", "resize?h=x&w=1", 400, 'invalid resize height "x": invalid syntax'),
        ("POST", "resize?h=1", 400, 'invalid resize width "": invalid syntax'),
        ("POST", "resize?h=1&w=65536", 400, 'invalid resize width "65536": value out of range'),
        ("POST", "resize?h=1&w=1", 409, f"container {container} is not running"),
        ("POST", "wait?condition=odd", 400, 'invalid condition: "odd"'),
        ("POST", "start?checkpoint=x", 400, "checkpoint is only supported in experimental mode"),
        ("POST", "rename?name=/", 400, "Neither old nor new names may be empty"),
        ("POST", "rename?name=worded", 400, "Renaming a container with the same name as its current name"),
        ("POST", "rename?name=a%2Fb", 400,
         "Error when allocating new name: Invalid container name (/a/b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
    ):  # fmt: skip
        assert api.call(method, f"/containers/worded/{path}") == (status, {"message": message})
    taken = api.create("true", name="other")
    status, answer = api.call("POST", "/containers/worded/rename?name=other")
    assert status == 409
    assert answer["message"].startswith(
        f'Error when allocating new name: Conflict. The container name "/other" is already in use by container "{taken}"'
    )
    status, answer = api.call("POST", "/containers/worded/start", {"HostConfig": {}})
    assert status == 400
    assert "non-empty request body" in answer["message"]
    assert api.call("POST", "/containers/worded/start", {}) == (204, None)
    assert api.call("POST", "/containers/worded/resize?h=1&w=1") == (200, None)  # it has no terminal: nothing to do
    assert api.call("POST", "/containers/worded/pause") == (204, None)
    status, answer = api.call("DELETE", "/containers/worded")
    assert (status, answer["message"]) == (
        409,
        'cannot remove container "worded": container is paused and must be unpaused first',
    )


def test_a_name_that_was_refused_is_free(api):
    for host in (
        {"Memory": 1},
        {"NetworkMode": "nowhere"},
        {"Links": ["nobody"], "NetworkMode": "bridge"},
        {"Binds": ["/a:b"]},
    ):
        assert api.call("POST", "/containers/create?name=again", {"Image": "busybox", "HostConfig": host})[0] == 400
    api.create("true", name="again")
