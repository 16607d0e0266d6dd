"""Many clients at once: what they do to each other, and what is left of them."""

import asyncio
import hashlib
import os
import resource
import socket
import subprocess
from pathlib import Path

import aiohttp
import pytest

from tests.api import control_groups
from tests.api.http_client import Api, read_head
from tests.conftest import busybox_archive, new_engine, wait_until

CLIENTS = 64


@pytest.fixture(scope="module")
def crowd():
    own = new_engine()
    own.start()
    own.run("load", "-q", "-i", busybox_archive())
    yield own
    own.stop()


def left(engine):
    """What containers leave behind where they leave anything: names of it, by kind."""
    pids = [engine.process.pid, *engine.supervisor_pids()]
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    return {
        "descriptors": {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in pids},
        "children": [line for pid in pids for line in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()],
        "mounts": Path("/proc/self/mounts").read_text().count(str(engine.base)),
        "links": sum(f"kv{engine_id(engine)[:5]}" in line for line in links.splitlines()),
        "groups": sorted(str(path) for path in control_groups.named(f"knarr-{engine_id(engine)}/*/")),
        "directories": [os.listdir(engine.data_root / "containers"), os.listdir(engine.run_root / "containers")],
    }


def engine_id(engine):
    return hashlib.sha256(str(engine.run_root).encode()).hexdigest()[:8]


async def one_client(http, number, rounds, answers):
    """create, start, exec, list, inspect, logs, wait and remove; the statuses that came."""

    async def ask(method, path, body=None, wanted=(200, 201, 204)):
        async with http.request(method, f"http://x{path}", json=body) as response:
            data = await response.read()
            answers.append(response.status)
            assert response.status in wanted, (method, path, response.status, data)
            return (
                await response.json() if data[:1] in (b"{", b"[") and response.content_type.endswith("json") else data
            )

    for turn in range(rounds):
        name = f"crowd-{number}-{turn}"
        network = "bridge" if number % 4 == 0 else "none"
        body = {
            "Image": "busybox",
            "Cmd": ["sh", "-c", "echo up; exec sleep 100"],
            "StopSignal": "KILL",
            "HostConfig": {"NetworkMode": network},
        }
        made = (await ask("POST", f"/containers/create?name={name}", body))["Id"]
        await ask("POST", f"/containers/{made}/start")
        execution = (await ask("POST", f"/containers/{name}/exec", {"Cmd": ["echo", name], "AttachStdout": True}))["Id"]
        async with http.post(f"http://x/exec/{execution}/start", json={}) as response:
            assert name.encode() in await response.read()
        assert (await ask("GET", f"/exec/{execution}/json"))["ExitCode"] == 0
        assert made in {item["Id"] for item in await ask("GET", "/containers/json")}
        assert (await ask("GET", f"/containers/{name}/json"))["State"]["Running"]
        await ask("POST", f"/containers/{name}/stop", wanted=(204,))
        assert (await ask("POST", f"/containers/{name}/wait"))["StatusCode"] == 137
        assert b"up" in await ask("GET", f"/containers/{name}/logs?stdout=1")
        await ask("DELETE", f"/containers/{name}")


async def at_once(engine, rounds):
    answers = []
    connector = aiohttp.UnixConnector(str(engine.socket), limit=0)
    timeout = aiohttp.ClientTimeout(total=100)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        await asyncio.gather(*(one_client(http, number, rounds, answers) for number in range(CLIENTS)))
    return answers


def crowd_leaves_nothing(engine, rounds):
    asyncio.run(at_once(engine, 1))  # warm: pools, threads
    wait_until(lambda: not left(engine)["groups"], 30, what="the end of the first")
    before = left(engine)
    answers = asyncio.run(at_once(engine, rounds))
    assert 500 not in answers
    assert len(answers) == CLIENTS * rounds * 10

    def same():
        after = left(engine)
        grown = [pid for pid, count in after["descriptors"].items() if count > before["descriptors"].get(pid, 0) + 4]
        return not grown and {**after, "descriptors": 0} == {**before, "descriptors": 0}

    wait_until(same, 30, what=f"everything as before: {before}")
    assert Api(engine).ok("GET", "/containers/json?all=1") == []
    assert "Traceback" not in engine.log()


def test_a_crowd_leaves_nothing(crowd):
    crowd_leaves_nothing(crowd, 1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_crowd_over_a_long_time_leaves_nothing(crowd):
    crowd_leaves_nothing(crowd, 20)


# --- idle ones


def resident(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_thousands_of_idle_connections(crowd):
    """They cost memory in proportion, others are served meanwhile, and they still work."""
    count = 5000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before = resident(crowd.process.pid)
    idle = []
    try:
        for _ in range(count):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(crowd.socket))  # waits while the queue is full
            sock.settimeout(30)
            sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
            idle.append(sock)
        for sock in idle:
            assert b"200 OK" in sock.recv(4096)
        used = resident(crowd.process.pid) - before
        print(f"{used / count / 1024:.1f} KiB a connection")
        assert used / count < 40 << 10
        assert Api(crowd).ok("GET", "/version")["Os"] == "linux"
        assert crowd.run("run", "--rm", "--network", "none", "busybox", "echo", "x").stdout == "x\n"
        for sock in idle[::500]:
            sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in sock.recv(4096)
    finally:
        for sock in idle:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    descriptors = Path(f"/proc/{crowd.process.pid}/fd")
    wait_until(lambda: len(os.listdir(descriptors)) < 100, what="the end of their descriptors")


def test_connections_beyond_the_limit_are_told_so():
    """And the daemon goes on working for those that it has."""
    own = new_engine()
    own.prefix = ["prlimit", "--nofile=600:600"]
    own.start()
    try:
        own.run("load", "-q", "-i", busybox_archive())
        first = Api(own)
        first.ok("GET", "/version")
        connections = [first.raw(b"") for _ in range(550)]
        wait_until(lambda: "as many as the limit of open files allows" in own.log(), what="the warning")
        refused = first.raw(b"")
        status, _, rest = read_head(refused)
        assert status == "HTTP/1.1 503 Service Unavailable"
        assert b"too many connections to the daemon" in rest
        container = first.create("sh", "-c", "exit $(($(ulimit -n) - 500))")
        first.ok("POST", f"/containers/{container}/start")
        assert first.ok("POST", f"/containers/{container}/wait")["StatusCode"] == 100
        for connection in [*connections, refused]:
            connection.close()

        def served():
            try:
                return Api(own).call("GET", "/version")[0] == 200
            except ConnectionError:  # refused, and closed before it had asked
                return False

        wait_until(served, what="service for others")
        assert own.log().count("as many as the limit") == 1
        assert "Traceback" not in own.log()
    finally:
        own.stop()


def test_slow_ones_cost_nobody_else(crowd):
    """Heads and bodies that come a byte at a time. That they are cut off, tests/unit/test_api_connections.py has."""
    head = b"POST /volumes/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{"
    slow = [Api(crowd).raw(b"GET /_ping HTT") for _ in range(200)]
    bodies = [Api(crowd).raw(head) for _ in range(200)]
    assert Api(crowd).ok("GET", "/version")["Os"] == "linux"
    slow[0].sendall(b"P/1.1\r\nHost: x\r\n\r\n")
    assert "200" in read_head(slow[0])[0]
    for one in [*slow, *bodies]:
        one.close()
