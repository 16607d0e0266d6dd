"""The supervisor by its protocol: starts, exits, signals, logs, requests that are wrong."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.integration.supervisor_harness import PROGRAM, Refused, Supervisor, process


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


@pytest.mark.parametrize(
    ("script", "code", "number"),
    [
        ("exit 0", 0, None),
        ("exit 3", 3, None),
        ("exit 255", 255, None),
        ("kill -KILL $$; exit 8", 8, None),
        ("exec sleep 30", 137, 9),
    ],
)
def test_exit_codes(supervisor, client, script, code, number):
    # PID 1 cannot kill itself: the fourth goes on.
    container = supervisor.start(client, ["sh", "-c", script])
    if number:
        client.call("signal", container=container, signal=number)
    exit = client.exit(container)
    assert (exit["code"], exit["signal"], exit["known"], exit["oom"]) == (code, number, True, False)
    assert abs(exit["finished_at"] / 1e9 - time.time()) < 10


def test_a_start_tells_pid_and_time(supervisor, client):
    container, fields = supervisor.bundle(["sleep", "30"])
    before = time.time_ns()
    answer = client.call("start", **fields)
    assert before <= answer["started_at"] <= time.time_ns()
    assert answer["ports"] == []
    assert "sleep" in Path(f"/proc/{answer['pid']}/cmdline").read_text()
    (listed,) = client.call("hello")["containers"]
    assert listed == {
        "container": container,
        "pid": answer["pid"],
        "started_at": answer["started_at"],
        "status": "running",
        "paused": False,
        "adopted": False,
    }
    assert client.call("describe", container=container) == {**answer, "interfaces": {}}
    client.call("signal", container=container, signal=9)
    client.exit(container)
    with pytest.raises(Refused, match="is not running"):
        client.call("describe", container=container)


def test_an_exit_is_repeated_until_it_is_forgotten(supervisor, client):
    container = supervisor.start(client, ["sh", "-c", "exit 7"])
    exit = client.exit(container)
    later = supervisor.client()
    assert later.exit(container) == exit
    assert later.call("hello")["containers"][0]["status"] == "exited"
    assert (supervisor.run_root / "containers" / container / "exit.json").exists()
    later.call("forget", container=container)
    later.call("forget", container=container)
    assert not (supervisor.run_root / "containers" / container / "exit.json").exists()
    wait_until(
        lambda: not (supervisor.run_root / "containers" / container / "state.json").exists(),
        what="the removal of the record",
    )
    assert supervisor.client().call("hello")["containers"] == []


def test_a_container_starts_again_once_its_exit_is_forgotten(supervisor, client):
    container, fields = supervisor.bundle(["sh", "-c", "echo x >> /seen; cat /seen"])
    for times in (1, 2, 3):
        client.call("start", **fields)
        with pytest.raises(Refused) as refused:
            client.call("start", **fields)
        assert refused.value.kind == "Conflict"
        client.exit(container)
        assert len(supervisor.output(container).split()) == sum(range(1, times + 1))
        client.call("forget", container=container)


def test_signals_reach_the_process(supervisor, client):
    container = supervisor.start(
        client, ["sh", "-c", "trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.05; done"]
    )
    wait_until(lambda: "ready" in supervisor.output(container), what="the trap")
    client.call("signal", container=container, signal=signal.SIGUSR1)
    assert client.exit(container)["code"] == 5
    assert supervisor.output(container) == "ready\ngot\n"
    with pytest.raises(Refused) as refused:
        client.call("signal", container=container, signal=signal.SIGUSR1)
    assert refused.value.kind == "NotFound"


def test_real_time_signals_are_sent(supervisor, client):
    container = supervisor.start(client, ["sh", "-c", "trap 'exit 6' 37; echo ready; while :; do sleep 0.05; done"])
    wait_until(lambda: "ready" in supervisor.output(container), what="the trap")
    client.call("signal", container=container, signal=37)
    assert client.exit(container)["code"] == 6


def test_pause_and_unpause(supervisor, client):
    container = supervisor.start(client, ["sh", "-c", "while :; do echo tick; sleep 0.02; done"])
    wait_until(lambda: supervisor.output(container), what="output")
    client.call("pause", container=container)
    time.sleep(0.2)
    before = supervisor.output(container)
    time.sleep(0.3)
    assert supervisor.output(container) == before
    assert client.containers()[0]["paused"] is True
    client.call("unpause", container=container)
    wait_until(lambda: len(supervisor.output(container)) > len(before), what="more output")


def test_what_is_paused_can_be_killed_and_runs_nothing_new(supervisor, client):
    container = supervisor.start(client, ["sleep", "30"])
    client.call("pause", container=container)
    with pytest.raises(Refused, match="is paused, unpause the container before exec"):
        client.call("exec", container=container, exec="e", process=process(["true"]))
    client.call("signal", container=container, signal=9)
    assert client.exit(container)["code"] == 137


def test_a_start_outlives_the_client_that_asked_for_it(supervisor):
    for _ in range(20):
        container, fields = supervisor.bundle(["sleep", "30"])
        client = supervisor.client()
        client.send("start", **fields)
        client.close()
        client = supervisor.client(subscribe=False)
        assert container in [listed["container"] for listed in client.containers()]
        client.call("subscribe")
        client.call("signal", container=container, signal=9)
        assert client.exit(container)["code"] == 137
        client.call("forget", container=container)


def test_memory_kills_are_told(supervisor, client):
    container = supervisor.start(client, ["sh", "-c", "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done"], memory=16 << 20)
    exit = client.exit(container)
    assert exit["oom"] is True
    assert exit["code"] == 137


def test_a_container_begins_with_clean_signals_and_its_own_limits(supervisor, client):
    container = supervisor.start(
        client, ["sh", "-c", "grep -E '^Sig(Blk|Ign)' /proc/self/status; ulimit -n; ls /proc/self/fd | wc -l; umask"]
    )
    client.exit(container)
    blocked, ignored, files, descriptors, umask = supervisor.output(container).splitlines()
    assert int(blocked.split()[1], 16) == 0
    assert int(ignored.split()[1], 16) == 0
    assert int(files) == int(
        subprocess.run(["sh", "-c", "ulimit -Sn"], capture_output=True, text=True, check=True).stdout
    )
    assert int(descriptors) == 4  # 0 to 2, and the directory
    assert umask == "0022"


def test_the_log_is_dockers(supervisor, client):
    script = r"""printf 'a\tb\\ "q" <&>\n'; printf '\377\302\251\n'; printf 'no end' >&2"""
    container = supervisor.start(client, ["sh", "-c", script])
    client.exit(container)
    raw = (supervisor.data_root / "containers" / container / "log").read_bytes()
    assert b'{"log":"a\\u0009b\\\\ \\"q\\" \\u003c\\u0026\\u003e\\n","stream":"stdout","time":"20' in raw
    assert '{"log":"\\ufffd\u00a9\\n"'.encode() in raw
    assert b'{"log":"no end","stream":"stderr"' in raw


def test_the_log_loses_nothing_and_rotates(supervisor, client):
    container, fields = supervisor.bundle(["seq", "1", "20000"])
    fields["log"]["file"].update(max_size=200_000, max_file=20)
    client.call("start", **fields)
    client.exit(container)
    files = sorted(supervisor.data_root.glob(f"containers/{container}/log.*"), key=lambda path: -int(path.suffix[1:]))
    assert len(files) >= 5
    assert all(path.stat().st_size < 201_000 for path in files)
    seen = "".join(
        entry["log"] for path in files for entry in supervisor.entries(container, path.suffix)
    ) + supervisor.output(container)
    assert seen == "".join(f"{number}\n" for number in range(1, 20001))


def test_old_logs_go(supervisor, client):
    container, fields = supervisor.bundle(["seq", "1", "20000"])
    fields["log"]["file"].update(max_size=50_000, max_file=2)
    client.call("start", **fields)
    client.exit(container)
    names = {path.name for path in supervisor.data_root.glob(f"containers/{container}/log*")}
    assert names == {"log", "log.1"}
    assert supervisor.output(container).endswith("20000\n")


def test_long_lines_are_cut_and_whole(supervisor, client):
    container = supervisor.start(client, ["sh", "-c", "head -c 50000 /dev/zero | tr '\\0' x; echo; echo end"])
    client.exit(container)
    entries = [entry["log"] for entry in supervisor.entries(container)]
    assert [len(entry) for entry in entries] == [16384, 16384, 16384, 50000 - 3 * 16384 + 1, 4]


def test_a_full_disk_holds_up_nobody(supervisor, client, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
    try:
        container, fields = supervisor.bundle(["sh", "-c", "seq 1 20000; exit 4"])
        fields["log"]["file"].update(path=f"{disk}/log", max_size=0)
        client.call("start", **fields)
        assert client.exit(container)["code"] == 4
        lines = (disk / "log").read_bytes()
        assert lines.endswith(b"}\n")
        assert "cannot be written: No space left" in supervisor.log()
        assert supervisor.log().count("No space left") == 1
        assert "entries of its log were dropped" in supervisor.log()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_output_of_others_is_waited_for_only_so_long(supervisor, client):
    container = supervisor.start(client, ["sleep", "30"])
    code = ["sh", "-c", "sleep 20 & echo started"]
    begun = time.monotonic()
    client.call("exec", container=container, exec="e", process=process(code))
    assert client.event("exec_exit", exec="e")["code"] == 0
    assert 0.9 < time.monotonic() - begun < 3
    client.call("signal", container=container, signal=9)
    client.exit(container)


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["nosuchthing"], 127, 'exec: "nosuchthing": executable file not found in $PATH'),
        (["/etc/passwd"], 126, 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_a_command_that_cannot_run(supervisor, client, args, code, words):
    container, fields = supervisor.bundle(args)
    with pytest.raises(Refused, match="exec") as refused:
        client.call("start", **fields)
    assert words in str(refused.value)
    assert refused.value.exit_code == code
    assert client.call("hello")["containers"] == []
    assert not (supervisor.run_root / "containers" / container / "state.json").exists()


def test_users_are_the_images(supervisor, client):
    container = supervisor.start(client, ["id", "-u"], user="user")
    client.exit(container)
    assert supervisor.output(container) == "1000\n"
    container, fields = supervisor.bundle(["true"])
    with pytest.raises(Refused, match="unable to find user nobody here: no matching entries in passwd file"):
        client.call("start", **{**fields, "user": "nobody here"})


WRONG = [
    ({"op": "hello", "extra": 1}, "unknown field `extra`"),
    ({"op": "dance"}, "unknown operation"),
    ({"op": "signal", "container": "../x", "signal": 9}, "is no ID"),
    ({"op": "signal", "container": "x", "signal": 0}, "no signal"),
    ({"op": "signal", "container": "x", "signal": 65}, "no signal"),
    ({"op": "signal", "container": "x", "signal": 9}, "not running"),
    ({"op": "start", "container": "x"}, "missing field"),
    ({"op": "attach", "container": "x", "stdout": True}, "one descriptor is needed"),
    ({"op": "attach", "container": "x", "initial": "***"}, "base 64"),
    ({"op": "attach", "container": "x", "detach_keys": [256]}, "256"),
    ({"op": "exec", "container": "x", "exec": "e", "process": {"args": ["true"]}}, "not running"),
    ({"op": "resize", "container": "x", "rows": 70000, "cols": 1}, "70000"),
    ({"op": "pause", "container": "x"}, "not running"),
]


@pytest.mark.parametrize(("request_", "words"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_requests_are_refused(client, request_, words):
    with pytest.raises(Refused, match=words):
        client.call(**request_)
    assert client.call("hello")["containers"] == []


def test_what_is_no_request_is_refused(client):
    for packet in (
        b"{",
        b"[]",
        b"{}",
        b'{"id": -1, "op": "hello"}',
        b'{"id": 1}',
        b"\xff\xfe",
        b'{"id":1,"op":5}',
        b"[" * 100_000,
    ):
        client.socket.send(packet)
        answer = client.receive()
        assert answer["error"]["kind"] == "InvalidArgument", packet[:20]
    client.call("hello")


def test_too_many_descriptors_are_refused(client):
    with open("/dev/null", "rb") as null:
        socket.send_fds(client.socket, [b'{"id": 1, "op": "hello"}'], [null.fileno()] * 30)
    assert client.receive()["error"]["kind"] == "InvalidArgument"
    client.call("hello")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bundle": "/nonexistent"}, "/nonexistent/config.json"),
        ({"rootfs": {"lower": [], "upper": "/u", "work": "/w"}}, "no layers"),
        ({"rootfs": {"lower": ["relative"], "upper": "/u", "work": "/w"}}, "not an absolute path"),
        ({"rootfs": {"path": "/nonexistent"}}, "/nonexistent"),
        ({"rootfs": {"path": "/", "more": 1}}, "did not match"),
        ({"network": {"mode": "none", "way_out": "n"}}, "only a bridge"),
        ({"network": {"mode": "none", "address": "10.0.0.1/8"}}, "unknown field `address`"),
        ({"network": {"mode": "bridge"}}, "needs `interfaces`"),
        ({"network": {"mode": "container"}}, "needs a `container`"),
        ({"network": {"mode": "container", "container": "gone"}}, "non running container"),
        ({"seccomp": "/nonexistent.json"}, "/nonexistent.json"),
        ({"log": {"file": {"format": "json-file", "path": "/nonexistent/log"}}}, "/nonexistent/log"),
        ({"log": {"file": {"format": "json-file", "path": "/tmp/x", "fast": True}}}, "fast"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_starts_that_cannot_be_leave_nothing(supervisor, client, change, words):
    container, fields = supervisor.bundle(["true"])
    with pytest.raises(Refused) as refused:
        client.call("start", **{**fields, **change})
    assert words in str(refused.value)
    assert client.call("hello")["containers"] == []
    assert not (supervisor.run_root / "containers" / container / "state.json").exists()


def test_a_network_can_be_shared(supervisor, client):
    first = supervisor.start(client, ["sleep", "30"])
    container, fields = supervisor.bundle(["readlink", "/proc/self/ns/net"])
    client.call("start", **{**fields, "network": {"mode": "container", "container": first}})
    client.exit(container)
    pid = next(listed["pid"] for listed in client.call("hello")["containers"] if listed["container"] == first)
    assert supervisor.output(container).strip() == os.readlink(f"/proc/{pid}/ns/net")
    client.call("signal", container=first, signal=9)


def test_none_has_loopback_only(supervisor, client):
    container = supervisor.start(
        client, ["sh", "-c", "ls /sys/class/net; ping -c1 -W1 127.0.0.1 >/dev/null && echo up"]
    )
    client.exit(container)
    assert supervisor.output(container) == "lo\nup\n"


def test_a_second_instance_refuses(supervisor):
    again = supervisor.launch()
    assert again.returncode == 1
    assert "another supervisor serves" in again.stderr
    assert len(supervisor.pids()) == 2


def test_many_at_once_start_one(tmp_path):
    supervisor = Supervisor(tmp_path)
    command = [PROGRAM, "--run-root", supervisor.run_root, "--data-root", supervisor.data_root]
    launched = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(6)]
    assert sorted(process.wait() for process in launched) == [0, 1, 1, 1, 1, 1]
    assert supervisor.client().call("hello")["generation"] == 1
    supervisor.stop()


def test_the_command_line_is_checked():
    for arguments in (
        ["--run-root", "/x"],
        ["--run-root", "x", "--data-root", "/y"],
        ["--frobnicate"],
        ["--run-root", "/x", "--data-root", "/y", "--idle-exit", "soon"],
    ):
        assert subprocess.run([PROGRAM, *arguments], capture_output=True, check=False).returncode == 2
    assert "--run-root" in subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, check=True).stdout


def test_it_ends_when_idle(tmp_path):
    supervisor = Supervisor(tmp_path, "--idle-exit", "1")
    supervisor.launch()
    client = supervisor.client()
    container = supervisor.start(client, ["true"])
    client.exit(container)
    client.close()
    time.sleep(1.5)
    assert len(supervisor.pids()) == 2, "it ended with an exit that nobody has stored"
    client = supervisor.client()
    client.call("forget", container=container)
    time.sleep(1.5)
    assert len(supervisor.pids()) == 2, "it ended under a client"
    client.close()
    wait_until(lambda: not supervisor.pids(), 5, what="the end")
    assert not supervisor.path.exists()
    supervisor.launch()
    assert supervisor.client().call("hello")["generation"] == 1
    supervisor.stop()


def test_the_socket_is_ours_alone(supervisor):
    assert supervisor.path.stat().st_mode & 0o777 == 0o600
