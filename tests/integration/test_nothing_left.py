"""What was started leaves nothing behind: no mount, namespace, control group, interface, file or process."""

import hashlib
import os
import subprocess
from pathlib import Path

import docker
import pytest

from tests.api.http_client import Api
from tests.conftest import wait_until

CONTROLLERS = [path for path in Path("/sys/fs/cgroup").iterdir() if path.is_dir()]


def engine_id(engine) -> str:
    return hashlib.sha256(str(engine.run_root).encode()).hexdigest()[:8]


def traces(engine) -> dict[str, object]:
    """Everything of an engine that is global on the host, and its own files."""
    name = engine_id(engine)
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    ruleset = subprocess.run(
        ["nft", "list", "table", "inet", f"knarr-{name}"], capture_output=True, text=True, check=False
    ).stdout
    return {
        "mounts": sum(str(engine.base) in line for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        "cgroups": sorted(str(path) for root in CONTROLLERS for path in root.glob(f"knarr-{name}/*/")),
        "links": sorted(
            line.split(":")[1].strip().split("@")[0] for line in links.splitlines() if f"kv{name[:5]}" in line
        ),
        "elements": ruleset.count(" : ") if ruleset else 0,
        "container directories": sorted(path.name for path in (engine.data_root / "containers").glob("*")),
        "run directories": sorted(path.name for path in (engine.run_root / "containers").glob("*")),
        "temporary": sorted(path.name for path in (engine.data_root / "tmp").glob("*")),
    }


def at_rest(engine) -> dict[str, object]:
    """The traces of an engine without containers, once the last removal is through."""

    def empty():
        now = traces(engine)
        return (
            not any(now[key] for key in ("mounts", "cgroups", "container directories", "run directories", "temporary"))
            and now
        )

    return wait_until(empty, 15, 0.1, "the end of the last removal")


def settled(engine, before) -> None:
    """Ready-made spares and the kernel's own clean-up may take a moment; then all must be as before."""

    def same():
        now = traces(engine)
        # Spare interfaces, made ahead of need, are not leaks: their number is bounded.
        return {key: value for key, value in now.items() if key != "links"} == {
            key: value for key, value in before.items() if key != "links"
        } and len(now["links"]) <= len(before["links"]) + 8

    try:
        wait_until(same, 15, 0.1)
    except BaseException:
        after = traces(engine)
        differences = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
        pytest.fail(f"left behind (before, after): {differences}")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.parametrize("network", ["none", "bridge"])
def test_short_lived_containers_leave_nothing(busybox, network):
    busybox.run("run", "--rm", "--network", network, "busybox", "true")
    before = at_rest(busybox)
    pids = [*busybox.supervisor_pids(), busybox.process.pid]
    open_before = {pid: descriptors(pid) for pid in pids}
    for _ in range(30):
        busybox.run(
            "run",
            "--rm",
            "--network",
            network,
            "-p" if network == "bridge" else "--label",
            "0:80" if network == "bridge" else "a=b",
            "busybox",
            "true",
        )
    settled(busybox, before)
    wait_until(
        lambda: all(descriptors(pid) <= open_before[pid] + 12 for pid in pids),
        10,
        0.1,
        "the number of open descriptors",
    )


def test_failed_starts_leave_nothing(busybox):
    busybox.run("run", "--rm", "busybox", "true")
    before = at_rest(busybox)
    for arguments in (
        ["busybox", "no-such-program"],
        ["-u", "nobody-there", "busybox", "true"],
        ["-v", "/proc/nothing/here:/x", "busybox", "true"],
        ["-w", "/etc/passwd", "busybox", "true"],
        ["--device", "/dev/no-such-device", "busybox", "true"],
        ["--sysctl", "kernel.no_such_thing=1", "busybox", "true"],
    ):
        result = busybox.run("run", "--rm", *arguments, check=False)
        assert result.returncode in {125, 126, 127}, (arguments, result)
        assert result.stderr.strip()
    settled(busybox, before)


# Kilobytes that a thousand containers may add to what the processes hold after the first hundred. Measured: 600 for the
# daemon, 130 for the supervisor, none for the keeper; four thousand add 800, 180 and none, so that is the allocators' own.
# Where the daemon forgets none of them it is 6,400.
GROWTH = {"daemon": 3000, "supervisor": 600, "keeper": 200}


def memory(engine) -> dict[str, int]:
    """Resident kilobytes by process."""
    keeper, supervisor = engine.keeper_and_supervisor()
    found = {}
    for name, pid in (("daemon", engine.process.pid), ("supervisor", supervisor), ("keeper", keeper)):
        found[name] = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_containers_take_no_memory(busybox):
    api = Api(busybox)

    def life(number):
        host = {"NetworkMode": "none" if number % 2 else "bridge"}
        container = api.create("sh", "-c", "echo hello", HostConfig=host)
        api.ok("POST", f"/containers/{container}/start")
        api.ok("POST", f"/containers/{container}/wait")
        api.connection.request("GET", f"/containers/{container}/logs?stdout=1")
        assert b"hello" in api.connection.getresponse().read()
        api.ok("DELETE", f"/containers/{container}")

    for number in range(100):
        life(number)
    at_rest(busybox)
    before = memory(busybox)
    for number in range(1000):
        life(number)
    at_rest(busybox)
    after = memory(busybox)
    grown = {name: after[name] - before[name] for name in after}
    assert all(grown[name] <= most for name, most in GROWTH.items()), (grown, before)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_containers_leave_nothing(busybox):
    busybox.run("run", "--rm", "busybox", "true")
    before = at_rest(busybox)
    client = docker.DockerClient(base_url=busybox.host)
    for number in range(1000):
        client.containers.run("busybox", "true", remove=True, network_mode="none" if number % 2 else "bridge")
    client.close()
    settled(busybox, before)
