"""The daemon's comings and goings: locks, sweeps, what it finds and what it leaves."""

import json
import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from tests.api.http_client import Api
from tests.conftest import SCRIPTS, new_engine, wait_until


def daemon(*arguments, env):
    return subprocess.run(
        [SCRIPTS / "knarr", "daemon", *map(str, arguments)], env=env, capture_output=True, text=True, timeout=30
    )


def test_a_second_daemon_is_refused_by_either_root(engine, tmp_path):
    result = daemon("--data-root", engine.data_root, "--run-root", tmp_path / "run", env=engine.env)
    assert result.returncode == 1
    assert "another knarr daemon runs on" in result.stderr
    assert str(engine.data_root) in result.stderr
    result = daemon("--data-root", tmp_path / "data", "--run-root", engine.run_root, env=engine.env)
    assert result.returncode == 1
    assert str(engine.run_root) in result.stderr
    assert Api(engine).call("GET", "/version")[0] == 200, "the first one still serves"


def test_a_taken_socket_is_not_stolen(engine, tmp_path):
    result = daemon(
        "--data-root", tmp_path / "data", "--run-root", tmp_path / "run", "--host", engine.host, env=engine.env
    )
    assert result.returncode == 1
    assert "listens on" in result.stderr
    assert Api(engine).call("GET", "/version")[0] == 200


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "ftp://0.0.0.0:2375"], "unsupported proto 'ftp'"),
        (["--data-root", "/proc/nonsense"], "/proc/nonsense"),
    ],
)
def test_bad_settings_are_named(tmp_path, arguments, words):
    env = {**os.environ, "KNARR_RUN_ROOT": str(tmp_path / "run"), "KNARR_DATA_ROOT": str(tmp_path / "data")}
    result = daemon(*arguments, env=env)
    assert result.returncode == 1
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def policies(pid):
    return {int(task): os.sched_getscheduler(int(task)) for task in os.listdir(f"/proc/{pid}/task")}


def test_the_event_loop_comes_first_and_nothing_else_does(busybox):
    """Its thread alone: neither its workers nor what it starts."""
    name = busybox.run("run", "-d", "--network", "none", "busybox", "sleep", "100").stdout.strip()
    busybox.run("exec", name, "true")
    daemon = policies(busybox.process.pid)
    try_it = "import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))"
    allowed = subprocess.run([sys.executable, "-c", try_it], capture_output=True, check=False).returncode == 0
    expected = os.SCHED_RR | os.SCHED_RESET_ON_FORK if allowed else os.SCHED_OTHER
    assert daemon.pop(busybox.process.pid) == expected
    assert daemon, "it has worker threads"
    container = int(busybox.run("inspect", "-f", "{{.State.Pid}}", name).stdout)
    others = {container, *busybox.supervisor_pids()}
    for pid in others:
        daemon |= policies(pid)
    assert set(daemon.values()) == {os.SCHED_OTHER}
    busybox.run("rm", "-f", name)


@pytest.mark.parametrize("how", ["a setting", "a policy of somebody else's", "a refusal"])
def test_the_event_loop_is_scheduled_as_others_after(how, tmp_path):
    own = new_engine()
    wanted = os.SCHED_OTHER
    if how == "a setting":
        settings = tmp_path / "config.json"
        settings.write_text(json.dumps({"realtime": False}))
        own.extra_env["KNARR_CONFIG"] = str(settings)
    elif how == "a policy of somebody else's":
        own.prefix, wanted = ["chrt", "--batch", "0"], os.SCHED_BATCH
    else:
        own.prefix = ["setpriv", "--bounding-set=-sys_nice"]
    own.start()
    try:
        assert policies(own.process.pid)[own.process.pid] == wanted
        assert ("real-time scheduling is not allowed here" in own.log()) == (how == "a refusal")
    finally:
        own.stop()


def test_the_socket_is_for_root_and_its_group(engine):
    found = engine.socket.stat()
    assert stat.S_IMODE(found.st_mode) == 0o660
    assert found.st_uid == 0


def test_sigterm_ends_it_and_containers_run_on(busybox):
    api = Api(busybox)
    container = api.create("sleep", "100")
    api.ok("POST", f"/containers/{container}/start")
    pid = api.ok("GET", f"/containers/{container}/json")["State"]["Pid"]
    busybox.process.send_signal(signal.SIGTERM)
    assert busybox.process.wait(15) == 0
    assert not busybox.socket.exists()
    os.kill(pid, 0)
    busybox.start()
    state = Api(busybox).ok("GET", f"/containers/{container}/json")["State"]
    assert (state["Status"], state["Pid"]) == ("running", pid)


def test_exits_during_its_absence_are_found(busybox):
    api = Api(busybox)
    ids = [api.create("sh", "-c", f"sleep 0.3; exit {code}") for code in (0, 7, 255)]
    removed = api.create("sleep", "0.3", HostConfig={"AutoRemove": True})
    for container in [*ids, removed]:
        api.ok("POST", f"/containers/{container}/start")
    busybox.kill()
    time.sleep(1)
    busybox.start()
    api = Api(busybox)
    wait_until(
        lambda: all(api.ok("GET", f"/containers/{one}/json")["State"]["Status"] == "exited" for one in ids),
        what="the exits",
    )
    assert [api.ok("GET", f"/containers/{one}/json")["State"]["ExitCode"] for one in ids] == [0, 7, 255]
    wait_until(lambda: api.call("GET", f"/containers/{removed}/json")[0] == 404, what="the removal that was asked for")


def test_addresses_survive_a_restart(busybox):
    api = Api(busybox)
    first = api.create("sleep", "100", HostConfig={"NetworkMode": "bridge"})
    api.ok("POST", f"/containers/{first}/start")
    before = api.ok("GET", f"/containers/{first}/json")["NetworkSettings"]["Networks"]["bridge"]
    subnet = api.ok("GET", "/networks/bridge")["IPAM"]["Config"]
    busybox.restart()
    api = Api(busybox)
    assert api.ok("GET", f"/containers/{first}/json")["NetworkSettings"]["Networks"]["bridge"] == before
    assert api.ok("GET", "/networks/bridge")["IPAM"]["Config"] == subnet
    second = api.create("sleep", "100", HostConfig={"NetworkMode": "bridge"})
    api.ok("POST", f"/containers/{second}/start")
    assert (
        api.ok("GET", f"/containers/{second}/json")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        != before["IPAddress"]
    )


def test_restart_policies_act_at_the_start(busybox):
    api = Api(busybox)
    made = {}
    for name in ("no", "always", "unless-stopped"):
        made[name] = api.create("sleep", "100", HostConfig={"RestartPolicy": {"Name": name}})
        api.ok("POST", f"/containers/{made[name]}/start")
        api.ok("POST", f"/containers/{made[name]}/stop?t=0")
    made["never-started"] = api.create("sleep", "100", HostConfig={"RestartPolicy": {"Name": "always"}})
    busybox.restart()
    api = Api(busybox)

    def status(name):
        return api.ok("GET", f"/containers/{made[name]}/json")["State"]["Status"]

    wait_until(lambda: status("always") == "running", what="the container that always runs")
    assert (status("no"), status("unless-stopped"), status("never-started")) == ("exited", "exited", "created")


def test_what_a_crash_left_is_swept(busybox):
    api = Api(busybox)
    container = api.create("true")
    half = busybox.data_root / "containers" / ("f" * 64)
    bundle = busybox.run_root / "containers" / ("e" * 64)
    dead = busybox.data_root / "tmp" / "container-dead"
    for path in (half / "upper", bundle, dead):
        path.mkdir(parents=True)
    (bundle / "config.json").write_text("{}")
    orphan = busybox.data_root / "volumes" / "orphan" / "_data"
    orphan.mkdir(parents=True)
    (orphan / "precious").write_text("kept")
    empty = busybox.data_root / "volumes" / "half-made"
    empty.mkdir()
    busybox.restart()
    api = Api(busybox)
    assert not half.exists()
    assert not bundle.exists()
    assert not dead.exists()
    assert not empty.exists()
    assert api.ok("GET", "/volumes/orphan")["Name"] == "orphan"
    assert (orphan / "precious").read_text() == "kept"
    assert api.ok("GET", f"/containers/{container}/json")["Id"] == container


def test_a_container_that_nobody_recorded_is_ended(busybox):
    """As after a power cut that took the record and spared the process."""
    api = Api(busybox)
    container = api.create("sleep", "100")
    api.ok("POST", f"/containers/{container}/start")
    pid = api.ok("GET", f"/containers/{container}/json")["State"]["Pid"]
    busybox.kill()
    import sqlite3

    with sqlite3.connect(busybox.data_root / "state.db") as database:
        database.execute("DELETE FROM container")
    database.close()
    busybox.start()
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), what="the end of the unknown container")
    assert Api(busybox).ok("GET", "/containers/json?all=1") == []


def test_a_start_that_was_not_written_down_is_taken_over(busybox):
    api = Api(busybox)
    container = api.create("sleep", "100")
    api.ok("POST", f"/containers/{container}/start")
    pid = api.ok("GET", f"/containers/{container}/json")["State"]["Pid"]
    busybox.kill()
    import sqlite3

    with sqlite3.connect(busybox.data_root / "state.db") as database:
        (text,) = database.execute("SELECT state FROM container").fetchone()
        database.execute(
            "UPDATE container SET state = ?",
            (json.dumps(json.loads(text) | {"status": "created", "pid": 0, "started_ns": 0}),),
        )
    database.close()
    busybox.start()
    state = Api(busybox).ok("GET", f"/containers/{container}/json")["State"]
    assert (state["Status"], state["Pid"]) == ("running", pid)


def test_a_damaged_database_is_named(tmp_path):
    own = new_engine()
    own.data_root.mkdir(parents=True)
    (own.data_root / "state.db").write_bytes(b"this is no database" * 1000)
    try:
        result = daemon("--data-root", own.data_root, "--run-root", own.run_root, env=own.env)
        assert result.returncode == 1
        assert "state.db" in result.stderr
        assert "Traceback" not in result.stderr
    finally:
        own.stop()


def test_a_newer_database_is_refused(tmp_path):
    import sqlite3

    own = new_engine()
    own.data_root.mkdir(parents=True)
    with sqlite3.connect(own.data_root / "state.db") as database:
        database.execute("PRAGMA user_version = 999")
    database.close()
    try:
        result = daemon("--data-root", own.data_root, "--run-root", own.run_root, env=own.env)
        assert result.returncode == 1
        assert "written by a newer knarr" in result.stderr
    finally:
        own.stop()


def test_a_missing_supervisor_is_named(tmp_path):
    env = {**os.environ, "KNARR_SUPERVISOR": "/nonexistent/knarr-supervisor"}
    result = daemon("--data-root", tmp_path / "data", "--run-root", tmp_path / "run", env=env)
    assert result.returncode == 1
    assert "/nonexistent/knarr-supervisor" in result.stderr
    assert "Traceback" not in result.stderr
