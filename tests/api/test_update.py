"""POST /containers/{id}/update, live and not, against the control group's own files."""

import docker
import pytest

from tests.api.control_groups import UNIFIED, read
from tests.api.http_client import Api

MIB = 1 << 20


@pytest.fixture
def api(shared_engine):
    return Api(shared_engine)


@pytest.fixture
def running(api):
    identity = api.create("sleep", "600", HostConfig={"Memory": 64 * MIB, "NetworkMode": "none"})
    api.ok("POST", f"/containers/{identity}/start")
    yield identity
    api.call("DELETE", f"/containers/{identity}?force=1")


def host(api, identity):
    return api.ok("GET", f"/containers/{identity}/json")["HostConfig"]


def limits(engine, identity):
    """What the kernel holds it to."""
    if UNIFIED:
        quota, period = read(engine, identity, "", "cpu.max").split()
        found = {
            "memory": read(engine, identity, "", "memory.max"),
            "reservation": read(engine, identity, "", "memory.low"),
            "weight": read(engine, identity, "", "cpu.weight"),
            "cpus": read(engine, identity, "", "cpuset.cpus"),
        }
    else:
        quota = read(engine, identity, "cpu", "cpu.cfs_quota_us")
        period = read(engine, identity, "cpu", "cpu.cfs_period_us")
        found = {
            "memory": read(engine, identity, "memory", "memory.limit_in_bytes"),
            "reservation": read(engine, identity, "memory", "memory.soft_limit_in_bytes"),
            "weight": read(engine, identity, "cpu", "cpu.shares"),
        }
    return {**found, "quota": quota, "period": period, "pids": read(engine, identity, "pids", "pids.max")}


def test_every_limit_changes_while_it_runs_and_inspect_follows(shared_engine, api, running):
    given = {
        "Memory": 128 * MIB, "MemorySwap": 256 * MIB, "MemoryReservation": 32 * MIB, "CpuShares": 512,
        "CpuQuota": 60000, "CpuPeriod": 200000, "CpusetCpus": "0", "CpusetMems": "0", "PidsLimit": 77,
    }  # fmt: skip
    assert api.ok("POST", f"/containers/{running}/update", given) == {"Warnings": None}
    found = limits(shared_engine, running)
    assert found["memory"] == str(128 * MIB)
    assert found["reservation"] == str(32 * MIB)
    assert (found["quota"], found["period"], found["pids"]) == ("60000", "200000", "77")
    assert found["weight"] == ("59" if UNIFIED else "512")
    assert read(shared_engine, running, "cpuset", "cpuset.cpus") == "0"
    if not UNIFIED:
        assert read(shared_engine, running, "memory", "memory.memsw.limit_in_bytes") == str(256 * MIB)
        pid = api.ok("GET", f"/containers/{running}/json")["State"]["Pid"]
        assert str(pid) in read(shared_engine, running, "cpuset", "cgroup.procs").split()
    assert {name: host(api, running)[name] for name in given} == given
    # What is not given stays; empty values are not given.
    api.ok("POST", f"/containers/{running}/update", {"Memory": 0, "CpusetCpus": "", "CpuShares": 256, "PidsLimit": -1})
    again = limits(shared_engine, running)
    assert again["memory"] == str(128 * MIB)
    assert again["pids"] == "max"
    assert again["weight"] != found["weight"]
    assert host(api, running)["PidsLimit"] == 0
    assert host(api, running)["CpuShares"] == 256
    # Down again: memory before memory and swap.
    api.ok("POST", f"/containers/{running}/update", {"Memory": 32 * MIB, "MemorySwap": 32 * MIB})
    assert limits(shared_engine, running)["memory"] == str(32 * MIB)
    # They are the container's own now: it starts again with them.
    api.ok("POST", f"/containers/{running}/restart?t=0")
    last = limits(shared_engine, running)
    assert last["memory"] == str(32 * MIB)
    assert (last["quota"], last["period"]) == ("60000", "200000")
    assert read(shared_engine, running, "cpuset", "cpuset.cpus") == "0"
    api.ok("DELETE", f"/containers/{running}?force=1")


def test_what_is_refused_changes_nothing(shared_engine, api, running):
    before, shown = limits(shared_engine, running), host(api, running)
    # The last of these is refused by the kernel, after the others were set.
    status, answer = api.call(
        "POST",
        f"/containers/{running}/update",
        {
            "Memory": 128 * MIB,
            "MemorySwap": 256 * MIB,
            "CpuShares": 300,
            "CpuQuota": 50000,
            "CpuRealtimeRuntime": 500000,
        },
    )
    assert status == 400, answer
    assert answer["message"].startswith(f"Cannot update container {running}: ")
    assert limits(shared_engine, running) == before
    assert host(api, running) == shown


@pytest.mark.parametrize(
    ("given", "status", "message"),
    [
        ({"Memory": 1024}, 400, "Minimum memory limit allowed is 6MB"),
        ({"Memory": 8 * MIB, "MemorySwap": 7 * MIB}, 400, "Minimum memoryswap limit should be larger than memory limit"),
        ({"Memory": 500 * MIB}, 409, "update the memoryswap at the same time"),
        ({"CpuQuota": 999}, 400, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        ({"NanoCpus": 10**9, "CpuQuota": 5000}, 400, "Nano CPUs and CPU Quota cannot both be set"),
        ({"BlkioWeight": 5}, 400, "Range of blkio weight is from 10 to 1000"),
        ({"KernelMemory": 64 * MIB}, 400, "KernelMemory cannot be updated"),
        ({"Privileged": True}, 400, "Privileged cannot be updated"),
        ({"Nonsense": 1}, 400, "Nonsense cannot be updated"),
        ({"Memory": "much"}, 400, "Memory"),
        ({"RestartPolicy": {"Name": "sometimes"}}, 400, "invalid restart policy: unknown policy 'sometimes'"),
        ({"RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}}, 400, "maximum retry count"),
    ],
)  # fmt: skip
def test_docker_s_words(api, running, given, status, message):
    found, answer = api.call("POST", f"/containers/{running}/update", given)
    assert (found, message in answer["message"]) == (status, True), answer


def test_processors_by_one_way_or_the_other(api, running):
    api.ok("POST", f"/containers/{running}/update", {"NanoCpus": 500_000_000})
    status, answer = api.call("POST", f"/containers/{running}/update", {"CpuQuota": 20000})
    assert status == 409
    assert answer["message"].endswith(
        "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set"
    )


def test_a_container_that_does_not_run_keeps_them_for_its_start(shared_engine, api):
    identity = api.create("sleep", "600")
    api.ok("POST", f"/containers/{identity}/update", {"PidsLimit": 33, "RestartPolicy": {"Name": "unless-stopped"}})
    api.ok("POST", f"/containers/{identity}/start")
    assert read(shared_engine, identity, "pids", "pids.max") == "33"
    assert host(api, identity)["RestartPolicy"] == {"Name": "unless-stopped", "MaximumRetryCount": 0}
    api.ok("POST", f"/containers/{identity}/pause")
    api.ok("POST", f"/containers/{identity}/update", {"PidsLimit": 34})
    assert read(shared_engine, identity, "pids", "pids.max") == "34"
    api.ok("DELETE", f"/containers/{identity}?force=1")
    gone = api.create("true", HostConfig={"AutoRemove": True, "NetworkMode": "none"})
    status, answer = api.call("POST", f"/containers/{gone}/update", {"RestartPolicy": {"Name": "always"}})
    assert status == 409
    assert "AutoRemove is enabled" in answer["message"]
    assert api.call("POST", f"/v1.39/containers/{gone}/update", {"PidsLimit": 5})[0] == 200
    assert not host(api, gone)["PidsLimit"]
    api.ok("DELETE", f"/containers/{gone}")
    assert api.call("POST", "/containers/nobody/update", {"PidsLimit": 5})[0] == 404


def test_docker_py_and_the_docker_command_line(shared_engine, running):
    client = docker.DockerClient(base_url=f"unix://{shared_engine.socket}")
    assert client.containers.get(running).update(mem_limit="80m", memswap_limit="90m")["Warnings"] is None
    client.close()
    assert limits(shared_engine, running)["memory"] == str(80 * MIB)
    assert shared_engine.docker("update", "--cpus", "0.5", "--restart", "always", running).stdout.strip() == running
    assert (limits(shared_engine, running)["quota"], limits(shared_engine, running)["period"]) == ("50000", "100000")
