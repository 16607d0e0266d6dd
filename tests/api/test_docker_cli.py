"""The real docker command line drives knarr."""

import contextlib
import os
import pty
import re
import select
import subprocess
import time
import uuid

import pytest

from tests.conftest import busybox_archive, push, wait_until


@pytest.fixture
def name(shared_engine):
    value = "cli-" + uuid.uuid4().hex[:8]
    yield value
    shared_engine.docker("rm", "-f", "-v", value, check=False)


def test_version_and_info(shared_engine):
    assert "Server:" in shared_engine.docker("version").stdout
    info = shared_engine.docker("info").stdout
    assert "Server Version" in info
    assert "WARNING" not in info


def test_pull_images_tag_and_rmi(shared_engine, registry):
    reference = push(busybox_archive(), registry, "cli/busybox:1")
    out = shared_engine.docker("pull", reference).stdout
    assert "Digest: sha256:" in out
    assert f"Status: Downloaded newer image for {reference}" in out
    assert "Image is up to date" in shared_engine.docker("pull", reference).stdout
    assert f"{registry.host}/cli/busybox" in shared_engine.docker("images").stdout
    shared_engine.docker("tag", reference, "cli/other:2")
    assert "cli/other" in shared_engine.docker("images").stdout
    assert "Untagged: cli/other:2" in shared_engine.docker("rmi", "cli/other:2").stdout
    shared_engine.docker("rmi", reference)
    assert reference not in shared_engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout


def test_load_says_what_it_loaded(shared_engine):
    assert "Loaded image: busybox:latest" in shared_engine.docker("load", "-i", busybox_archive()).stdout


def test_run_gives_output_streams_and_exit_code(shared_engine):
    result = shared_engine.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 7)


def test_run_reads_standard_input(shared_engine):
    assert (
        shared_engine.docker("run", "-i", "--rm", "busybox", "wc", "-c", input="x" * 100000).stdout.strip() == "100000"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["busybox", "no-such-program"], 127, "executable file not found in $PATH"),
        (["busybox", "/etc/passwd"], 126, "permission denied"),
        (["--user", "nobody-here", "busybox", "true"], 126, "unable to find user nobody-here"),
        (["--pull", "never", "no/such:image", "true"], 125, "No such image"),
        (["busybox", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137, ""),
    ],
)
def test_exit_codes(shared_engine, arguments, code, words):
    result = shared_engine.docker("run", "--rm", *arguments, check=False)
    assert words in result.stderr
    # The clients themselves choose among 125 and 126 from the words of the answer.
    assert result.returncode == code or (code == 126 and result.returncode == 125)


def test_detached_life(shared_engine, name):
    container = shared_engine.docker(
        "run", "-d", "--name", name, "busybox", "sh", "-c", "echo started; exec sleep 100"
    ).stdout.strip()
    assert re.fullmatch(r"[0-9a-f]{64}", container)
    assert name in shared_engine.docker("ps").stdout
    wait_until(lambda: shared_engine.docker("logs", name).stdout == "started\n", what="the log")
    assert shared_engine.docker("exec", name, "hostname").stdout.strip() == container[:12]
    assert shared_engine.docker("exec", name, "sh", "-c", "exit 9", check=False).returncode == 9
    assert (
        shared_engine.docker("inspect", "-f", "{{.State.Status}} {{.Config.Image}}", name).stdout.strip()
        == "running busybox"
    )
    assert "sleep 100" in shared_engine.docker("top", name).stdout
    shared_engine.docker("pause", name)
    assert "(Paused)" in shared_engine.docker("ps").stdout
    shared_engine.docker("unpause", name)
    shared_engine.docker("stop", "-t", "1", name)
    assert shared_engine.docker("wait", name).stdout.strip() == "137"
    assert "Exited (137)" in shared_engine.docker("ps", "-a").stdout
    shared_engine.docker("start", name)
    shared_engine.docker("restart", "-t", "0", name)
    shared_engine.docker("rename", name, name + "x")
    shared_engine.docker("rm", "-f", name + "x")
    assert name not in shared_engine.docker("ps", "-a").stdout


def test_logs_follow_until_the_end(shared_engine, name):
    shared_engine.docker(
        "run", "-d", "--name", name, "busybox", "sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done"
    )
    assert shared_engine.docker("logs", "-f", name).stdout.split() == ["1", "2", "3", "4", "5"]
    assert shared_engine.docker("logs", "--tail", "2", name).stdout.split() == ["4", "5"]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z 1\n", shared_engine.docker("logs", "-t", name).stdout)


def test_a_terminal_is_real(shared_engine):
    """run -it on a pseudo-terminal: size, echo, job control, exit code."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        ["docker", "run", "-it", "--rm", "busybox", "sh"],
        stdin=child,
        stdout=child,
        stderr=child,
        env=shared_engine.env,
        start_new_session=True,
    )
    os.close(child)
    seen = b""

    def until(words: bytes):
        nonlocal seen
        end = time.monotonic() + 15
        while words not in seen:
            assert time.monotonic() < end, seen
            if select.select([parent], [], [], 0.2)[0]:
                with contextlib.suppress(OSError):
                    seen += os.read(parent, 65536)

    until(b"# ")
    os.write(parent, b"tty; test -t 0 && echo is-a''-terminal\n")
    until(b"is-a-terminal")
    assert b"/dev/pts/0" in seen
    os.write(parent, b"sleep 1000\n")
    time.sleep(0.5)
    os.write(parent, b"\x03")
    os.write(parent, b"echo inter''rupted\n")
    until(b"interrupted")
    os.write(parent, b"exit 5\n")
    assert process.wait(15) == 5
    os.close(parent)


def test_limits_reach_the_kernel(shared_engine):
    script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max"
    out = shared_engine.docker(
        "run", "--rm", "--memory", "64m", "--pids-limit", "50", "busybox", "sh", "-c", script
    ).stdout
    assert out.split() == [str(64 << 20), "50"]


def test_rights_are_dockers(shared_engine):
    out = shared_engine.docker(
        "run", "--rm", "busybox", "grep", "-E", "CapEff|Seccomp:|NoNewPrivs", "/proc/self/status"
    ).stdout.split()
    assert out == ["CapEff:", "00000000a80425fb", "NoNewPrivs:", "0", "Seccomp:", "2"]
    out = shared_engine.docker(
        "run",
        "--rm",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "busybox",
        "grep",
        "-E",
        "CapEff|NoNewPrivs",
        "/proc/self/status",
    ).stdout.split()
    assert out == ["CapEff:", "0000000000000000", "NoNewPrivs:", "1"]


def test_volumes_and_mounts(shared_engine, name, tmp_path):
    (tmp_path / "file").write_text("from the host")
    shared_engine.docker(
        "run",
        "--rm",
        "-v",
        f"{tmp_path}:/data",
        "-v",
        f"{name}:/keep",
        "busybox",
        "sh",
        "-c",
        "cp /data/file /keep/copy; echo more >/data/new",
    )
    assert (tmp_path / "new").read_text() == "more\n"
    assert (
        shared_engine.docker("run", "--rm", "-v", f"{name}:/keep:ro", "busybox", "cat", "/keep/copy").stdout
        == "from the host"
    )
    denied = shared_engine.docker(
        "run",
        "--rm",
        "--mount",
        f"type=bind,src={tmp_path},dst=/data,readonly",
        "busybox",
        "touch",
        "/data/x",
        check=False,
    )
    assert "Read-only file system" in denied.stderr
    assert (
        "tmpfs"
        in shared_engine.docker(
            "run", "--rm", "--tmpfs", "/scratch:size=1m", "busybox", "grep", "/scratch", "/proc/mounts"
        ).stdout
    )
    shared_engine.docker("volume", "rm", name)


def test_system_prune_comes_to_its_end(shared_engine):
    shared_engine.docker("run", "--name", "to-be-pruned", "--label", "fate=pruned", "busybox", "true")
    result = shared_engine.docker("system", "prune", "-f", "--filter", "label=fate=pruned")
    assert "Total reclaimed space" in result.stdout
    assert "to-be-pruned" not in shared_engine.run("ps", "-a").stdout
