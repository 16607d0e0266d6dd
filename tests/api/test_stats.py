"""GET /containers/{id}/stats, against the container's own control group and namespace."""

import json
import os
import subprocess
import time

import docker
import pytest

from tests.api.control_groups import UNIFIED, read, table
from tests.api.http_client import Api, read_head
from tests.conftest import wait_until

MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
ZERO = "0001-01-01T00:00:00Z"


@pytest.fixture
def api(shared_engine):
    return Api(shared_engine)


@pytest.fixture
def busy(api):
    """A container that has written, computed, sent and then sleeps, with limits."""
    script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=8 2>/dev/null; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; ping -c 2 -s 200 $(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p') >/dev/null; echo done; exec sleep 600"
    host = {"NetworkMode": "bridge", "Memory": 64 << 20, "PidsLimit": 50, "CpuQuota": 50000, "CpuPeriod": 100000}
    identity = api.create("sh", "-c", script, HostConfig=host)
    api.ok("POST", f"/containers/{identity}/start")
    docker_client = docker.DockerClient(base_url=f"unix://{api.path}")
    wait_until(lambda: b"done" in docker_client.containers.get(identity).logs(), 20, what="the container's work")
    docker_client.close()
    yield identity
    api.call("DELETE", f"/containers/{identity}?force=1")


def stats(api, identity, query="stream=false&one-shot=true"):
    return api.ok("GET", f"/containers/{identity}/stats?{query}")


def numbers(engine, identity):
    """What the files of its group say, in the answer's terms."""

    def of(controller, name):
        return read(engine, identity, controller, name)

    throttled = table(of("cpu", "cpu.stat"))
    if UNIFIED:
        return {
            "used": [throttled[f"{kind}_usec"] * 1000 for kind in ("usage", "user", "system")],
            "per_cpu": None,
            "throttled": [throttled["nr_periods"], throttled["nr_throttled"], throttled["throttled_usec"] * 1000],
            "memory": [int(of("memory", "memory.current")), 0, table(of("memory", "memory.events"))["oom"]],
            "statistics": table(of("memory", "memory.stat")),
        }
    used = table(of("cpuacct", "cpuacct.stat"))
    names = ("usage_in_bytes", "max_usage_in_bytes", "failcnt")
    return {
        "used": [int(of("cpuacct", "cpuacct.usage")), used["user"] * 10_000_000, used["system"] * 10_000_000],
        "per_cpu": [int(word) for word in of("cpuacct", "cpuacct.usage_percpu").split()],
        "throttled": [throttled[name] for name in ("nr_periods", "nr_throttled", "throttled_time")],
        "memory": [int(of("memory", f"memory.{name}")) for name in names],
        "statistics": table(of("memory", "memory.stat")),
    }


def answered(found):
    """The same of an answer."""
    cpu, memory = found["cpu_stats"], found["memory_stats"]
    used, throttled = cpu["cpu_usage"], cpu["throttling_data"]
    return {
        "used": [used[name] for name in ("total_usage", "usage_in_usermode", "usage_in_kernelmode")],
        "per_cpu": used.get("percpu_usage"),
        "throttled": [throttled[name] for name in ("periods", "throttled_periods", "throttled_time")],
        "memory": [memory.get(name, 0) for name in ("usage", "max_usage", "failcnt")],
        "statistics": memory["stats"],
    }


def test_every_number_is_the_control_groups(shared_engine, api, busy):
    # It sleeps by now, but the kernel may still be counting.
    wait_until(lambda: answered(stats(api, busy)) == numbers(shared_engine, busy), what="agreement with the files")
    found = stats(api, busy)
    assert (found["id"], found["os_type"], found["num_procs"]) == (busy, "linux", 0)
    assert found["preread"] == ZERO
    assert found["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    assert "system_cpu_usage" not in found["precpu_stats"]
    assert found["cpu_stats"]["online_cpus"] == os.cpu_count()
    assert found["cpu_stats"]["throttling_data"]["periods"] > 0
    assert found["memory_stats"]["limit"] == 64 << 20
    assert found["memory_stats"]["usage"] >= found["memory_stats"]["stats"]["shmem"] >= 8 << 20
    assert found["pids_stats"] == {"current": 1, "limit": 50}
    operations = found["blkio_stats"]["io_serviced_recursive"]
    assert operations is None if UNIFIED else isinstance(operations, list)


def test_networks_are_those_of_the_namespace(api, busy):
    pid = api.ok("GET", f"/containers/{busy}/json")["State"]["Pid"]
    entered = subprocess.run(
        ["nsenter", "-t", str(pid), "-n", "ip", "-s", "-j", "link", "show", "eth0"],
        capture_output=True,
        text=True,
        check=True,
    )
    link = json.loads(entered.stdout)[0]["stats64"]
    found = stats(api, busy)["networks"]
    assert set(found) == {"eth0"}
    eth0 = found["eth0"]
    assert eth0["tx_bytes"] > 400
    for ours, theirs in (("rx", "rx"), ("tx", "tx")):
        for name, field in (("bytes", "bytes"), ("packets", "packets"), ("errors", "errors"), ("dropped", "dropped")):
            assert eth0[f"{ours}_{name}"] == link[theirs][field], (ours, name)


@pytest.mark.parametrize("mode", ["none", "host"])
def test_a_container_without_interfaces_of_its_own_shows_none(api, mode):
    identity = api.create("sleep", "60", HostConfig={"NetworkMode": mode})
    api.ok("POST", f"/containers/{identity}/start")
    found = stats(api, identity)
    assert "networks" not in found
    assert found["memory_stats"]["limit"] == MEMORY
    assert found["pids_stats"].get("limit", 0) == ((1 << 64) - 1 if UNIFIED else 0)
    api.ok("DELETE", f"/containers/{identity}?force=1")


def test_two_samples_make_an_answer_that_is_no_one_shot(api, busy):
    found = stats(api, busy, "stream=0")
    assert ZERO < found["preread"] < found["read"]
    before, after = found["precpu_stats"], found["cpu_stats"]
    assert 0 < before["cpu_usage"]["total_usage"] <= after["cpu_usage"]["total_usage"]
    assert 0 < before["system_cpu_usage"] < after["system_cpu_usage"]
    # Before 1.41 there were no one-shots: the parameter means nothing.
    status, old = api.call("GET", f"/v1.40/containers/{busy}/stats?stream=0&one-shot=1")
    assert status == 200
    assert old["preread"] > ZERO


def test_a_stream_goes_on_over_stop_start_and_pause_until_the_removal(api):
    identity = api.create("sleep", "600")
    path = f"GET /containers/{identity}/stats HTTP/1.1\r\nHost: x\r\n\r\n"
    sock = api.raw(path.encode())
    _, _, rest = read_head(sock)
    lines = _Lines(sock, rest)
    first = lines.next()
    assert (first["read"], first["pids_stats"], first["memory_stats"]) == (ZERO, {}, {})
    assert first["blkio_stats"] == dict.fromkeys(first["blkio_stats"])
    api.ok("POST", f"/containers/{identity}/start")
    running = lines.until(lambda found: found["pids_stats"])
    following = lines.next()
    assert following["preread"] == running["read"]
    assert following["precpu_stats"] == running["cpu_stats"]
    api.ok("POST", f"/containers/{identity}/pause")
    assert lines.until(lambda found: found["preread"] >= following["read"])["pids_stats"]["current"] == 1
    api.ok("POST", f"/containers/{identity}/kill")
    lines.until(lambda found: found["read"] == ZERO)
    api.ok("DELETE", f"/containers/{identity}")
    assert lines.rest() is None
    sock.close()


def test_a_container_that_does_not_run_answers_with_nothing(api):
    identity = api.create("true", name="idle")
    found = stats(api, identity, "stream=0")
    assert found["id"] == identity
    assert found["name"] == "/idle"
    assert found["read"] == ZERO
    assert found["cpu_stats"] == found["precpu_stats"]
    assert found["memory_stats"] == found["pids_stats"] == {}
    assert api.call("GET", "/containers/nobody/stats") == (404, {"message": "No such container: nobody"})
    api.ok("DELETE", f"/containers/{identity}")


def test_many_streams_of_which_most_are_not_read_cost_no_more_than_one(shared_engine, api, busy):
    request = f"GET /containers/{busy}/stats HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    idle = [api.raw(request) for _ in range(200)]
    gone = [api.raw(request) for _ in range(100)]
    sock = api.raw(request)
    _, _, rest = read_head(sock)
    lines = _Lines(sock, rest)
    for other in gone:
        other.close()
    numbers = [lines.next()["read"] for _ in range(3)]
    assert numbers == sorted(set(numbers))
    # All of them are answered from the same rounds: who comes late shows what the others see.
    for other in (*idle, sock):
        other.close()
    wait_until(lambda: len(os.listdir(f"/proc/{shared_engine.process.pid}/fd")) < 200, what="the end of the streams")
    assert stats(api, busy)["pids_stats"]["current"] == 1


def test_docker_py_and_the_docker_command_line(shared_engine, api, busy):
    client = docker.DockerClient(base_url=f"unix://{shared_engine.socket}")
    container = client.containers.get(busy)
    stream = container.stats(decode=True)
    assert next(stream)["memory_stats"]["limit"] == 64 << 20
    client.close()
    row = json.loads(shared_engine.docker("stats", "--no-stream", "--format", "{{json .}}", busy).stdout)
    assert row["PIDs"] == "1"
    assert row["MemUsage"].endswith(" / 64MiB")
    assert row["ID"] == busy[:12]
    assert not row["NetIO"].startswith("0B")


class _Lines:
    """The JSON lines of a chunked answer, as they come."""

    def __init__(self, sock, data):
        self.sock, self.data = sock, data
        sock.settimeout(10)

    def rest(self):
        """The next line; None at the end of the answer."""
        while b"\r\n" not in self.data or len(self.data) < self._end():
            piece = self.sock.recv(65536)
            assert piece, "closed in the middle"
            self.data += piece
        size = int(self.data.partition(b"\r\n")[0], 16)
        end = self._end()
        body, self.data = self.data[: end - 2].partition(b"\r\n")[2], self.data[end:]
        return json.loads(body) if size else None

    def _end(self):
        head, _, _ = self.data.partition(b"\r\n")
        return len(head) + 2 + int(head, 16) + 2

    def next(self):
        found = self.rest()
        assert found is not None, "the stream has ended"
        return found

    def until(self, condition):
        end = time.monotonic() + 10
        while time.monotonic() < end:
            found = self.next()
            if condition(found):
                return found
        pytest.fail("what was waited for did not come")
