"""A container's life by our runtime's verbs and runc's: states, exits, signals, limits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.integration.runtime_bundle import BOTH, OURS, bundle_of


@pytest.fixture(params=BOTH)
def bundle(request, tmp_path):
    yield from bundle_of(tmp_path, request.param)


@pytest.fixture
def ours(tmp_path):
    yield from bundle_of(tmp_path, OURS)


def until(condition, what, patience=10.0):
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"{what} did not come true")
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$; exit 3", 3)]
)
def test_exit_codes(bundle, script, code):
    # PID 1 takes no signal that it has no handler for: SIGKILL and SIGTERM from inside are ignored.
    expected = {"kill -9 $$": 0}.get(script, code)
    assert bundle.run("sh", "-c", script).returncode == expected


def test_create_start_kill_delete(bundle):
    bundle.spec["process"]["args"] = ["sleep", "60"]
    bundle.save()
    log = (bundle.path / "output").open("wb")
    subprocess.run(
        [bundle.runtime, "--root", bundle.state, "create", "-b", bundle.path, bundle.id],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        check=True,
        timeout=30,
    )
    status = bundle.status()
    assert status["status"] == "created"
    assert status["id"] == bundle.id
    assert status["bundle"] == str(bundle.path)
    assert status["pid"] > 0
    bundle.call("start", bundle.id, check=True)
    until(lambda: bundle.exec("true").returncode == 0, "exec")
    assert bundle.status()["status"] == "running"
    assert bundle.call("start", bundle.id).returncode != 0
    assert bundle.call("delete", bundle.id).returncode != 0
    bundle.call("kill", bundle.id, "KILL", check=True)
    until(lambda: bundle.status()["status"] == "stopped", "the end")
    assert bundle.exec("true").returncode != 0
    bundle.call("delete", bundle.id, check=True)
    assert bundle.call("state", bundle.id).returncode != 0


def test_a_container_that_was_never_started_is_deleted(bundle):
    bundle.spec["process"]["args"] = ["true"]
    bundle.save()
    log = (bundle.path / "output").open("wb")
    subprocess.run(
        [bundle.runtime, "--root", bundle.state, "create", "-b", bundle.path, bundle.id],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        check=True,
        timeout=30,
    )
    pid = bundle.status()["pid"]
    bundle.call("delete", bundle.id, check=True)
    assert not os.path.exists(f"/proc/{pid}/exe")


def test_two_containers_of_one_name(bundle):
    bundle.start("sleep", "60")
    again = bundle.call("run", "-b", str(bundle.path), bundle.id)
    assert again.returncode != 0
    assert "exists" in again.stderr
    assert bundle.status()["status"] == "running"


def test_signals_are_passed_on(bundle):
    bundle.spec["process"]["args"] = ["sh", "-c", "trap 'echo got; exit 9' USR1; echo up; while :; do sleep 0.05; done"]
    bundle.save()
    process = subprocess.Popen(
        [bundle.runtime, "--root", bundle.state, "run", "-b", bundle.path, bundle.id],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGUSR1)
    assert process.communicate(timeout=10)[0] == "got\n"
    assert process.returncode == 9


def test_exec_takes_its_flags(bundle):
    bundle.start("sleep", "60")
    done = bundle.exec(
        "sh",
        "-c",
        "id -u; id -g; pwd; echo $COLOUR; exit 5",
        flags=["--user", "1000:100", "--cwd", "/tmp", "--env", "COLOUR=red"],
    )
    assert (done.stdout, done.returncode) == ("1000\n100\n/tmp\nred\n", 5)


def test_exec_is_inside(bundle):
    bundle.start("sleep", "60")
    done = bundle.exec(
        "sh",
        "-c",
        "ps | grep -c '[s]leep 60'; hostname; cat /proc/self/cgroup; grep Cap /proc/self/status; ls /proc/self/fd",
    )
    inside, groups = (
        done.stdout,
        [line for line in done.stdout.splitlines() if ":memory:" in line or line.startswith("0::")],
    )
    assert inside.startswith("1\nbox\n")
    assert any(line.endswith(":/") for line in groups), groups
    assert "CapEff:\t00000000a80425fb" in inside


def test_exec_of_a_process_file(ours, tmp_path):
    bundle = ours
    bundle.start("sleep", "60")
    process = {
        "args": ["sh", "-c", "id -u; umask"],
        "cwd": "/",
        "user": {"uid": 42, "gid": 42, "umask": 63},
        "env": ["PATH=/bin"],
    }
    (tmp_path / "process.json").write_text(json.dumps(process))
    done = bundle.exec(flags=["--process", str(tmp_path / "process.json")])
    assert done.stdout == "42\n0077\n", done.stderr


def test_many_execs_at_once(bundle):
    bundle.start("sleep", "60")
    codes = []
    threads = [
        threading.Thread(target=lambda: codes.append(bundle.exec("sh", "-c", "exit 3").returncode)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [3] * 8


def test_pause_and_resume(bundle):
    bundle.start("sh", "-c", "while :; do echo tick >> /ticks; sleep 0.02; done")
    ticks = bundle.rootfs / "ticks"
    until(ticks.exists, "the first tick")
    bundle.call("pause", bundle.id, check=True)
    assert bundle.status()["status"] == "paused"
    before = ticks.stat().st_size
    time.sleep(0.2)
    assert ticks.stat().st_size == before
    bundle.call("resume", bundle.id, check=True)
    until(lambda: ticks.stat().st_size > before, "another tick")


def test_a_memory_limit_kills(bundle):
    bundle.spec["linux"]["resources"]["memory"] = {"limit": 16 << 20, "swap": 16 << 20}
    done = bundle.run("sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=60; echo survived")
    assert done.returncode == 137 or "Killed" in done.stderr + done.stdout


def test_a_limit_on_processes(bundle):
    bundle.spec["linux"]["resources"]["pids"] = {"limit": 4}
    done = bundle.run("sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; echo started")
    assert "fork" in done.stderr
    assert "started" not in done.stdout


def test_devices_are_denied(bundle):
    done = bundle.run("sh", "-c", "mknod /dev/disk b 254 0 && head -c1 /dev/disk; echo $?; head -c1 /dev/zero | wc -c")
    assert done.stdout == "1\n1\n"
    assert "not permitted" in done.stderr


def test_a_network_namespace_by_path(bundle):
    holder = subprocess.Popen(["unshare", "-n", "sleep", "60"])
    try:
        until(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != os.readlink("/proc/self/ns/net"), "the namespace")
        for namespace in bundle.spec["linux"]["namespaces"]:
            if namespace["type"] == "network":
                namespace["path"] = f"/proc/{holder.pid}/ns/net"
        assert bundle.output("readlink", "/proc/self/ns/net").strip() == os.readlink(f"/proc/{holder.pid}/ns/net")
    finally:
        holder.kill()
        holder.wait()


def test_a_shared_pid_namespace_leaves_nobody(bundle):
    bundle.spec["linux"]["namespaces"] = [
        entry for entry in bundle.spec["linux"]["namespaces"] if entry["type"] != "pid"
    ]
    pid = bundle.start("sh", "-c", "sleep 61 & sleep 62; true")
    children = f"/proc/{pid}/task/{pid}/children"
    until(lambda: len(Path(children).read_text().split()) == 2, "both")
    bundle.delete()
    left = subprocess.run(["pgrep", "-f", "^sleep 6[12]$"], capture_output=True, text=True)
    assert left.stdout == ""


def test_hooks_run_in_their_order(bundle, tmp_path):
    trace = tmp_path / "trace"
    script = tmp_path / "hook"
    script.write_text(
        f'#!/bin/sh\nread -r state\necho "$1 $(echo "$state" | grep -o \'"status": *"[a-z]*"\' | tr -d \' \')" >> {trace}\n'
    )
    script.chmod(0o755)

    def hook(name):
        return [{"path": str(script), "args": ["hook", name], "env": ["PATH=/bin:/usr/bin"]}]

    bundle.spec["hooks"] = {name: hook(name) for name in ("prestart", "createRuntime", "poststart", "poststop")}
    done = bundle.run("true")
    assert done.returncode == 0, done.stderr
    lines = [line.split()[0] for line in trace.read_text().splitlines()]
    assert lines == ["prestart", "createRuntime", "poststart", "poststop"]


def test_a_failing_hook_ends_the_start(bundle):
    bundle.spec["hooks"] = {"prestart": [{"path": "/bin/false", "args": ["false"]}]}
    done = bundle.run("echo", "ran")
    assert done.returncode != 0
    assert "ran" not in done.stdout


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["nonesuch"], 127, 'exec: "nonesuch": executable file not found in $PATH'),
        (["/nonesuch"], 127, 'exec: "/nonesuch": stat /nonesuch: no such file or directory'),
        (["/etc/passwd"], 126, 'exec: "/etc/passwd": permission denied'),
        (["/etc"], 126, 'exec: "/etc": permission denied'),
    ],
)
def test_commands_that_are_not_there(ours, command, code, words):
    done = ours.run(*command)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    ours.start("sleep", "60")
    done = ours.exec(*command)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr


def test_a_small_init(ours):
    ours.spec["annotations"] = {"knarr.init": "true"}
    done = ours.run(
        "sh", "-c", "echo $$; cat /proc/1/cmdline | tr '\\0' ' '; (sleep 0.1 &) ; sleep 0.3; ps | grep -c sleep; exit 6"
    )
    assert done.returncode == 6
    lines = done.stdout.splitlines()
    assert lines[0] == "2"
    assert lines[1].startswith("/sbin/docker-init -- sh -c")


def test_a_small_init_forwards_signals(ours):
    ours.spec["annotations"] = {"knarr.init": "true"}
    ours.start("sleep", "60")
    ours.call("kill", ours.id, "TERM", check=True)
    until(lambda: ours.status()["status"] == "stopped", "the end")


@pytest.mark.parametrize("limit", ["RLIMIT_NOFILE", "RLIMIT_NPROC"])
def test_a_limit_that_may_not_be_raised_is_a_warning(ours, limit):
    ours.spec["process"]["rlimits"] = [{"type": limit, "soft": 1 << 40, "hard": 1 << 40}]
    done = ours.run("sh", "-c", "echo ran")
    status = int(
        next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff")).split()[
            1
        ],
        16,
    )
    if status >> 24 & 1 and limit == "RLIMIT_NPROC":
        assert done.returncode == 0
    elif not status >> 24 & 1:
        assert done.stdout == "ran\n", done.stderr
        assert limit in done.stderr
