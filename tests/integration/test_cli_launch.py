"""The command line starts the daemon when nothing listens, and only one of them."""

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import new_engine, wait_until


def daemons(engine) -> list[int]:
    """The daemons of an engine's roots."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"daemon" in words and os.fsencode(engine.run_root) in words:
            found.append(int(entry.name))
    return found


@pytest.fixture
def quiet():
    """An engine that nobody has started."""
    own = new_engine()
    yield own
    for pid in daemons(own):
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not daemons(own), what="the end of the daemon")
    own.stop()


def test_the_first_command_starts_the_daemon_and_it_stays(quiet):
    assert quiet.run("ps", "-q").stdout == ""
    (pid,) = daemons(quiet)
    assert quiet.run("ps", "-q").stdout == ""
    assert daemons(quiet) == [pid]
    assert os.getsid(pid) != os.getsid(0)
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert os.readlink(f"/proc/{pid}/fd/2") == str(quiet.run_root / "daemon.log")


def test_nothing_of_the_caller_stays_open_in_the_daemon(quiet):
    reader, writer = os.pipe()
    quiet.run("ps", pass_fds=[writer])
    os.close(writer)
    assert daemons(quiet)
    os.set_blocking(reader, False)
    assert os.read(reader, 1) == b""  # the end, and not "nothing yet": no process holds the other end
    os.close(reader)


def test_commands_at_the_same_instant_start_one_daemon(quiet):
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: quiet.run("ps", "-aq", check=False), range(8)))
    assert [(result.returncode, result.stderr) for result in results] == [(0, "")] * 8
    assert len(daemons(quiet)) == 1
    assert (quiet.run_root / "daemon.log").read_text().count(" serving ") == 1


def test_a_killed_daemon_is_started_again(quiet):
    quiet.run("ps")
    (pid,) = daemons(quiet)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not daemons(quiet), what="its end")
    quiet.run("ps")
    assert daemons(quiet) != [pid]


def test_a_daemon_that_fails_is_told_with_its_own_words(quiet):
    quiet.base.joinpath("data").write_text("not a directory")
    result = quiet.run("ps", check=False)
    assert result.returncode == 1
    assert "the daemon did not start" in result.stderr
    assert str(quiet.run_root / "daemon.log") in result.stderr
    assert str(quiet.data_root) in result.stderr
    assert not daemons(quiet)


def test_another_host_is_never_started(quiet):
    elsewhere = quiet.base / "elsewhere.sock"
    result = quiet.run("-H", f"unix://{elsewhere}", "ps", check=False)
    assert result.returncode == 1
    assert f"cannot connect to the engine at unix://{elsewhere}" in result.stderr
    assert not daemons(quiet)


@pytest.mark.parametrize("host", ["nonsense", "unix://relative", "tcp://a/b", "ftp://x:1", "tcp://x:99999", "ssh://x"])
def test_hosts_that_are_none(quiet, host):
    result = quiet.run("-H", host, "ps", check=False)
    assert result.returncode == 1
    assert f"invalid host {host!r}" in result.stderr


def test_help_and_version_start_nothing(quiet):
    for arguments in (["--version"], ["--help"], ["run", "--help"], ["run"], ["nonsense"]):
        quiet.run(*arguments, check=False)
    assert not daemons(quiet)
    assert not quiet.run_root.exists()


def test_a_lock_that_is_held_is_waited_for(quiet):
    quiet.run_root.mkdir(parents=True)
    with subprocess.Popen(["flock", quiet.run_root / "start.lock", "sleep", "1"]):
        time.sleep(0.3)
        began = time.monotonic()
        quiet.run("ps")
        assert time.monotonic() - began > 0.4
