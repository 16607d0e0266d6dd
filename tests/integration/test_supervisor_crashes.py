"""kill -9 of supervisor and keeper, at many moments, and what is left behind: nothing."""

import json
import os
import random
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.integration.supervisor_harness import Attached, Client, Refused, Supervisor, kill, process

COUNT = "i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); usleep 2000; done; exit %d"


@pytest.fixture
def supervisor(tmp_path):
    supervisor = Supervisor(tmp_path)
    launched = supervisor.launch()
    assert launched.returncode == 0, launched.stderr
    yield supervisor
    supervisor.stop()


@pytest.fixture
def client(supervisor):
    return supervisor.client()


def hello(supervisor, generation: int) -> tuple[Client, dict]:
    """A client of that generation, once it is there."""

    def reached():
        client = supervisor.client(subscribe=False)
        try:
            answer = client.call("hello")
        except (EOFError, ConnectionError):
            return None
        return (client, answer) if answer["generation"] >= generation else None

    client, answer = wait_until(reached, what=f"generation {generation}")
    client.call("subscribe")
    return client, answer


def lines_of(supervisor, container) -> list[int]:
    return [int(entry["log"].split()[1]) for entry in supervisor.entries(container)]


def test_containers_outlive_the_supervisor(supervisor, client):
    container = supervisor.start(client, ["sh", "-c", COUNT % (400, 33)])
    wait_until(lambda: len(lines_of(supervisor, container)) > 20, what="output")
    before = client.call("hello")
    kill(before["pid"])
    client, after = hello(supervisor, 2)
    (listed,) = after["containers"]
    assert listed == {**before["containers"][0], "adopted": True}
    assert after["keeper_pid"] == before["keeper_pid"]
    exit = client.exit(container)
    assert (exit["code"], exit["known"], exit["pid"]) == (33, True, listed["pid"])
    seen = lines_of(supervisor, container)
    # At most what the dead one had read and not written may be missing: a few lines.
    assert seen == sorted(set(seen))
    assert len(seen) >= 390
    assert seen[-1] == 399


def test_an_adopted_container_can_do_everything(supervisor, client):
    script = "trap 'echo bye; exit 5' TERM; read a; echo read $a; while :; do usleep 20000; done"
    container = supervisor.start(client, ["sh", "-c", script], stdin=True, stdin_once=False)
    kill(client.call("hello")["pid"])
    client, _ = hello(supervisor, 2)
    attached = Attached(client, container)
    attached.socket.sendall(b"typed\n")
    attached.read_until(b"read typed\n")
    client.call("exec", container=container, exec="e", process=process(["sh", "-c", "exit 9"]))
    assert client.event("exec_exit", exec="e")["code"] == 9
    client.call("pause", container=container)
    client.call("unpause", container=container)
    client.call("signal", container=container, signal=signal.SIGTERM)
    assert client.exit(container)["code"] == 5
    assert attached.frames()[1] == b"bye\n"
    assert "bye" in supervisor.output(container)
    client.call("forget", container=container)


def test_the_end_of_input_reaches_an_adopted_container(supervisor, client):
    container = supervisor.start(client, ["cat"], stdin=True, stdin_once=True)
    kill(client.call("hello")["pid"])
    client, _ = hello(supervisor, 2)
    attached = Attached(client, container)
    attached.socket.sendall(b"all\n")
    attached.socket.shutdown(socket.SHUT_WR)
    assert attached.frames()[1] == b"all\n"
    assert client.exit(container)["code"] == 0


def test_adopted_terminals_and_execs(supervisor, client):
    container = supervisor.start(client, ["sh"], terminal=True, stdin=True)
    client.call("exec", container=container, exec="e", process=process(["sh", "-c", "sleep 1; exit 17"]))
    kill(client.call("hello")["pid"])
    client, _ = hello(supervisor, 2)
    attached = Attached(client, container)
    client.call("resize", container=container, rows=40, cols=100)
    attached.socket.sendall(b"stty size\r")
    attached.read_until(b"40 100\r\n")
    assert client.event("exec_exit", exec="e")["code"] == 17
    attached.socket.sendall(b"exit 6\r")
    assert client.exit(container)["code"] == 6


def test_exits_without_a_supervisor_are_known(supervisor, client):
    containers = {
        supervisor.start(client, ["sh", "-c", f"sleep 0.3; echo done; exit {code}"]): code for code in range(10, 20)
    }
    answer = client.call("hello")
    os.kill(answer["keeper_pid"], signal.SIGSTOP)
    kill(answer["pid"])
    time.sleep(1)
    os.kill(answer["keeper_pid"], signal.SIGCONT)
    client, _ = hello(supervisor, 2)
    for container, code in containers.items():
        exit = client.exit(container)
        assert (exit["code"], exit["known"]) == (code, True)
        assert supervisor.output(container) == "done\n"


def test_exits_not_forgotten_survive_every_crash(supervisor, client):
    container = supervisor.start(client, ["sh", "-c", "exit 8"])
    exit = client.exit(container)
    answer = client.call("hello")
    for generation in (2, 3):
        kill(answer["pid"])
        client, answer = hello(supervisor, generation)
        assert client.exit(container) == exit
    supervisor.kill_all()
    assert supervisor.launch().returncode == 0
    assert supervisor.client().exit(container) == exit


def test_the_keeper_may_die(supervisor, client):
    container = supervisor.start(client, ["sh", "-c", COUNT % (500, 34)])
    first = client.call("hello")
    kill(first["keeper_pid"])
    wait_until(lambda: client.call("hello")["keeper_pid"] != first["keeper_pid"], what="another keeper")
    second = client.call("hello")
    assert (second["pid"], second["generation"]) == (first["pid"], 1)
    wait_until(lambda: "in place of a keeper that died" in supervisor.log(), what="the heir's word")
    # Now the supervisor dies: the heir has the container's output and the way to its exit.
    kill(second["pid"])
    client, third = hello(supervisor, 2)
    assert third["keeper_pid"] == second["keeper_pid"]
    exit = client.exit(container)
    assert (exit["code"], exit["known"]) == (34, True)
    seen = lines_of(supervisor, container)
    assert len(seen) >= 490
    assert seen[-1] == 499
    assert supervisor.launch().returncode == 1, "the lock was lost with the first keeper"


def test_keepers_that_do_not_last_are_not_replaced_in_a_rush(supervisor, client):
    container = supervisor.start(client, ["sleep", "60"])
    pid = client.call("hello")["pid"]
    keepers = set()
    end = time.monotonic() + 2
    while time.monotonic() < end:
        for one in supervisor.pids():
            if one != pid and "keeper" in comm(one):
                keepers.add(one)
                kill(one)
        time.sleep(0.005)
    assert 2 <= len(keepers) <= 4
    assert client.call("hello")["pid"] == pid
    wait_until(lambda: client.call("hello")["keeper_pid"], what="another keeper")
    wait_until(lambda: supervisor.log().count("in place of a keeper") > 1, what="its word")
    kill(pid)
    client, answer = hello(supervisor, 2)
    assert answer["containers"][0]["container"] == container
    client.call("signal", container=container, signal=9)
    assert client.exit(container)["code"] == 137


def test_both_may_die_and_the_process_is_found_again(supervisor, client):
    container = supervisor.start(client, ["sh", "-c", "trap '' PIPE; sleep 2; exit 3"])
    pid = client.call("hello")["containers"][0]["pid"]
    supervisor.kill_all()
    assert Path(f"/proc/{pid}").exists()
    assert supervisor.launch().returncode == 0
    client, answer = hello(supervisor, 1)
    assert answer["containers"][0]["status"] == "running"
    assert "what it writes is lost" in supervisor.log()
    exit = client.exit(container)
    assert (exit["code"], exit["known"]) == (3, True)


def test_what_cannot_be_known_is_marked(supervisor, client):
    container = supervisor.start(client, ["sleep", "30"])
    supervisor.kill_all()
    path = supervisor.run_root / "containers" / container / "state.json"
    state = json.loads(path.read_text())
    kill(state["pid"])
    # As after its reaping by the host's init, and with its PID in use by another.
    path.write_text(json.dumps({**state, "pid": 1}))
    assert supervisor.launch().returncode == 0
    client, answer = hello(supervisor, 1)
    assert answer["containers"][0]["status"] == "unknown"
    exit = client.exit(container)
    assert (exit["code"], exit["known"]) == (255, False)


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_nothing_is_lost(supervisor, seed):
    """Starts and exits under random kills: what was answered is known, what was not has left nothing."""
    random.seed(seed)
    stop = threading.Event()

    def killer():
        while not stop.is_set():
            time.sleep(random.uniform(0.05, 1.2))
            children = [pid for pid in supervisor.pids() if "supervise" in comm(pid)]
            for pid in children:
                kill(pid)

    thread = threading.Thread(target=killer)
    started: dict[str, int] = {}
    tried: list[str] = []
    thread.start()
    try:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                client = supervisor.client(subscribe=False)
                while time.monotonic() < end:
                    code = random.randrange(100)
                    container, fields = supervisor.bundle(
                        ["sh", "-c", f"usleep {random.randrange(30000)}; exit {code}"]
                    )
                    tried.append(container)
                    client.call("start", **fields)
                    started[container] = code
            except (EOFError, ConnectionError):
                continue
    finally:
        stop.set()
        thread.join()
    client = supervisor.client()
    known = {listed["container"] for listed in client.containers()}
    assert started, "nothing was started"
    assert set(started) <= known
    for container, code in started.items():
        exit = client.exit(container)
        assert (exit["code"], exit["known"]) == (code, True), container
    for container in known - set(started):
        client.exit(container)
    for container in known:
        client.call("forget", container=container)
    wait_until(lambda: not cgroups(tried), what="the removal of control groups")
    wait_until(lambda: not list(supervisor.run_root.glob("containers/*/state.json")), what="the removal of records")
    assert not list(supervisor.run_root.glob("containers/*/exit.json"))


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def cgroups(containers) -> list[Path]:
    return [
        path
        for pattern in ("knarr-test/*", "*/knarr-test/*")
        for path in Path("/sys/fs/cgroup").glob(pattern)
        if path.name in set(containers)
    ]


def test_a_supervisor_that_dies_again_and_again_is_not_restarted_in_a_rush(supervisor, client):
    supervisor.start(client, ["sleep", "30"])
    deaths = 0
    end = time.monotonic() + 2
    while time.monotonic() < end:
        for pid in supervisor.pids():
            if "supervise" in comm(pid):
                kill(pid)
                deaths += 1
        time.sleep(0.002)
    assert deaths < 40
    hello(supervisor, 2)


def test_asked_to_end_the_keeper_wants_to_be_asked_twice(supervisor, client):
    container = supervisor.start(client, ["sh", "-c", "sleep 30"])
    answer = client.call("hello")
    os.kill(answer["keeper_pid"], signal.SIGTERM)
    wait_until(lambda: "ask again" in supervisor.log(), what="the refusal")
    client.call("hello")
    os.kill(answer["keeper_pid"], signal.SIGTERM)
    wait_until(lambda: not supervisor.pids(), what="the end")
    assert Path(f"/proc/{answer['containers'][0]['pid']}").exists()
    assert not supervisor.path.exists()
    assert supervisor.launch().returncode == 0
    client, _ = hello(supervisor, 1)
    client.call("signal", container=container, signal=9)
    assert client.exit(container)["container"] == container


def test_asked_to_end_while_nothing_runs_it_ends(supervisor, client):
    client.exit(supervisor.start(client, ["true"]))
    os.kill(client.call("hello")["keeper_pid"], signal.SIGTERM)
    wait_until(lambda: not supervisor.pids(), what="the end")


def test_the_supervisor_ignores_requests_to_end(supervisor, client):
    pid = client.call("hello")["pid"]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, number)
    time.sleep(0.2)
    assert client.call("hello")["pid"] == pid
    assert "changes nothing" in supervisor.log()


def left_behind(supervisor, containers) -> dict[str, list]:
    """What is on the host by these containers or this engine."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    names = [entry.name for entry in Path("/sys/class/net").iterdir()]
    ours = (f"kv{supervisor.engine()[:5]}", f"knarr-{supervisor.engine()}")
    return {
        "mounts": [line for line in mounts if str(supervisor.base) in line],
        "links": [name for name in names if name.startswith(ours)],
        "groups": cgroups(containers),
    }


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_short_containers_leave_nothing_behind(supervisor, client, count):
    client.exit(supervisor.start(client, ["true"]))
    time.sleep(0.5)
    answer = client.call("hello")
    pids = (answer["pid"], answer["keeper_pid"])
    open_before = [descriptors(pid) for pid in pids]
    all_containers = []
    for _ in range(count // 20):
        containers = [supervisor.start(client, ["sh", "-c", "echo short"]) for _ in range(20)]
        for container in containers:
            assert client.exit(container)["code"] == 0
            client.call("forget", container=container)
        all_containers += containers
    nothing = {"mounts": [], "links": [], "groups": []}
    wait_until(lambda: left_behind(supervisor, all_containers) == nothing, what="the removal of everything")
    wait_until(lambda: [descriptors(pid) for pid in pids] <= open_before, what="the closing of descriptors")

    def files() -> list[str]:
        return sorted(
            path.name for path in supervisor.run_root.rglob("*") if path.is_file() and path.name != "config.json"
        )

    wait_until(
        lambda: files() == ["exit.json", "state.json", "supervisor.lock", "supervisor.log"],
        what="the removal of records",
    )
    assert not Path(f"/proc/{pids[0]}/task/{pids[0]}/children").read_text().split()


def test_an_idle_container_costs_little(supervisor, client):
    pid = client.call("hello")["pid"]
    client.exit(supervisor.start(client, ["true"]))

    def resident() -> int:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return int(next(line for line in text.splitlines() if line.startswith("Rss")).split()[1])

    time.sleep(0.2)
    before = resident()
    containers = [supervisor.start(client, ["sleep", "300"], stdin=True) for _ in range(40)]
    time.sleep(0.3)
    cost = (resident() - before) / len(containers)
    assert cost < 100, f"{cost:.0f} KB each"
    for container in containers:
        client.call("signal", container=container, signal=9)
    for container in containers:
        client.exit(container)


def test_state_is_plain(supervisor, client):
    container = supervisor.start(client, ["sleep", "30"])
    state = json.loads((supervisor.run_root / "containers" / container / "state.json").read_text())
    assert state["pid"] == client.call("hello")["containers"][0]["pid"]
    with pytest.raises(Refused):
        client.call("exec", container=container, exec="../x", process=process(["true"]))
