"""An engine whose daemon fails where it is told to (knarr/failpoints.py), and what must hold whenever it has recovered.

Its daemon is forked from the test's own process, where knarr is imported already: what a daemon needs for its
start is mostly the interpreter's start and its imports, and here it starts several times a second.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest

import knarr
from knarr import daemon, failpoints
from tests.api import control_groups
from tests.api.http_client import Api
from tests.conftest import Engine, wait_until
from tests.integration.test_nothing_left import traces

SOURCES = Path(knarr.__file__).parent
CRATES = Path(__file__).parents[2] / "rust"
POINT = re.compile(r'(?:\breached\(|\bat=)"([a-z]+\.[a-z]+\.[a-z]+)"')


def points_in_the_source() -> set[str]:
    """Every fail point that there is, in the daemon and in the store's own crate."""
    sources = [*SOURCES.rglob("*.py"), *CRATES.glob("*/src/**/*.rs")]
    return {point for path in sources if path.name != "failpoints.py" for point in POINT.findall(path.read_text())}


class Forked:
    """A daemon as a child of this process, with what `subprocess.Popen` has of interest."""

    def __init__(self, engine: FaultyEngine) -> None:
        ready, write = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            self._be_a_daemon(engine, write)
        os.close(write)
        self.returncode: int | None = None
        self.started = False
        with os.fdopen(ready, "rb") as pipe:
            self.started = bool(pipe.read(1))

    def _be_a_daemon(self, engine: FaultyEngine, ready: int) -> None:
        try:
            os.setsid()
            log = os.open(engine.run_root / "test-daemon.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            for number, source in enumerate((os.open("/dev/null", os.O_RDONLY), log, log)):
                os.dup2(source, number)
            os.dup2(ready, 3)
            os.closerange(4, 4096)
            os.set_inheritable(3, False)
            sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115  the daemon's
            logging.root.handlers.clear()
            os.environ.update(engine.env, KNARR_FAILPOINTS=str(engine.plan))
            failpoints._plan = str(engine.plan)
            roots = {"data_root": str(engine.data_root), "run_root": str(engine.run_root)}
            status = daemon.main(3, {**roots, "hosts": [engine.host]})
        except BaseException:
            traceback.print_exc()
            status = 70
        finally:
            sys.stderr.flush()
            os._exit(status)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = 20.0) -> int:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("knarr daemon", timeout)
            time.sleep(0.005)
        return self.returncode

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)


class FaultyEngine(Engine):
    """An engine, the plan of what fails in it, and what can be seen of it from outside."""

    process: Forked

    @property
    def plan(self) -> Path:
        return self.base / "plan"

    def start(self) -> None:
        if not self.try_to_start():
            pytest.fail("the daemon did not start:\n" + self.log()[-4000:])

    def try_to_start(self) -> bool:
        """Start a daemon; False where it dies before it serves."""
        self.run_root.mkdir(parents=True, exist_ok=True)
        self.process = Forked(self)
        return self.process.started

    @contextlib.contextmanager
    def failing(self, point: str, action: str):
        """While the block runs, the daemon does this at that point."""
        self.plan.write_text(f"{point} {action}")
        try:
            yield
        finally:
            self.plan.unlink()

    def dies(self, point: str) -> None:
        """The daemon has killed itself, at that point."""
        try:
            status = self.process.wait(15)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{point} was not reached:\n{self.log()[-3000:]}")
        assert status == -signal.SIGKILL, self.log()[-3000:]

    def stops(self, point: str) -> None:
        """The daemon has stopped itself, at that point."""
        stat = Path(f"/proc/{self.process.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", what=f"a stop at {point}")

    def go_on(self) -> None:
        """After a stop: it is none any more when this returns."""
        os.kill(self.process.pid, signal.SIGCONT)

    def records(self, table: str) -> list[str]:
        """The IDs in a table of the database."""
        database = sqlite3.connect(f"file:{self.data_root}/state.db?mode=ro", uri=True)
        try:
            return [row[0] for row in database.execute(f"SELECT id FROM {table}")]
        finally:
            database.close()

    def ask(self, method: str, path: str, body: object = None, *, data: bytes | None = None) -> tuple[int, str]:
        """One request on a connection of its own: (status, error message); status 0 where no answer came.

        An error at the end of a stream of messages counts as 500.
        """
        api = Api(self)
        if body is not None:
            data = json.dumps(body).encode()
        try:
            headers = {"Content-Type": "application/json"} if data else {}
            api.connection.request(method, path, data, headers)
            response = api.connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            api.connection.close()
        lines = [line for line in content.splitlines() if line.strip()]
        last = json.loads(lines[-1]) if lines and "json" in (response.headers["Content-Type"] or "") else {}
        if isinstance(last, dict) and "errorDetail" in last:
            return 500, last["errorDetail"]["message"]
        return response.status, last.get("message", "") if isinstance(last, dict) else ""

    # --- what can be seen

    def visible(self) -> dict[str, object]:
        """What a user sees, without what differs from one time to another."""
        api = Api(self)
        containers = {}
        for listed in api.ok("GET", "/containers/json?all=1"):
            found = api.ok("GET", f"/containers/{listed['Id']}/json")
            state, network = found["State"], found["NetworkSettings"]
            status = state["Status"]
            fails = found["Config"]["Cmd"] == ["false"] or found["HostConfig"]["RestartPolicy"]["Name"] == "always"
            if fails and status == "running":
                status = "restarting"  # tests let such containers fail again and again
            bridged = found["HostConfig"]["NetworkMode"] == "bridge" and status in ("running", "paused")
            published = [place for places in (network["Ports"] or {}).values() for place in places or ()]
            containers[found["Name"]] = {
                "status": status,
                "exit": state["ExitCode"] if status != "restarting" else 0,
                "address": bool(network["Networks"].get("bridge", {}).get("IPAddress")) == bridged,
                "ports": len(published),
                "limits": self.limits(found),
                "volumes": sum(1 for mount in found["Mounts"] if mount["Type"] == "volume"),
                "networks": sorted(network["Networks"]),
                "put": (self.data_root / "containers" / listed["Id"] / "upper/put").exists(),
            }
        images: dict[str, list] = {}  # by ID; what is made here, with another ID each time, by its comment
        for image in api.ok("GET", "/images/json?all=1"):
            found = api.ok("GET", f"/images/{image['Id']}/json")
            names = sorted(found["RepoTags"] or []), sorted(found["RepoDigests"] or [])
            images.setdefault(found.get("Comment") or image["Id"], []).append(names)
        volumes = {}
        for volume in api.ok("GET", "/volumes")["Volumes"] or ():
            name = volume["Name"]
            content = sorted(path.name for path in Path(volume["Mountpoint"]).rglob("*"))
            volumes.setdefault("anonymous" if re.fullmatch(r"[0-9a-f]{64}", name) else name, []).append(content)
        snapshots = {}
        for path in sorted((self.data_root / "volume-snapshots").glob("*/*")):
            snapshots[f"{path.parent.name}@{path.name}"] = sorted(found.name for found in (path / "_data").rglob("*"))
        networks = sorted(found["Name"] for found in api.ok("GET", "/networks"))
        for name in {*networks} - {"bridge", "host", "none"}:
            networks += [f"{name}/{entry['Name']}" for entry in api.ok("GET", f"/networks/{name}/lb")]
        api.connection.close()
        return {
            "containers": containers,
            "images": images,
            "volumes": volumes,
            "snapshots": snapshots,
            "networks": networks,
        }

    def limits(self, found: dict) -> list[int]:
        """What a container's record says of its limit of processes, and what its control group says."""
        limit = found["HostConfig"]["PidsLimit"] or 0
        running = found["State"]["Status"] in ("running", "paused") and found["Config"]["Cmd"] == ["sleep", "1000"]
        if not running:
            return [limit]
        text = control_groups.read(self, found["Id"], "pids", "pids.max")
        return [limit, 0 if text == "max" else int(text)]

    def leaks(self) -> dict[str, object]:
        """What is there that nothing speaks of, or is not there that something speaks of."""
        api = Api(self)
        containers = {one["Id"]: one for one in api.ok("GET", "/containers/json?all=1")}
        running = {key for key, one in containers.items() if one["State"] in ("running", "paused")}
        volumes = {one["Name"] for one in api.ok("GET", "/volumes")["Volumes"] or ()}
        api.connection.close()
        found = traces(self)
        groups = {Path(path).name for path in found["cgroups"]}
        records = {path.parent.name for path in (self.run_root / "containers").glob("*/state.json")}
        execs = [path.name for path in (self.run_root / "containers").glob("*/exec-*")]
        published = sum(len([port for port in one["Ports"] if port.get("PublicPort")]) for one in containers.values())
        bundles = {path.name for path in (self.run_root / "containers").iterdir()}
        directories = {path.name for path in (self.data_root / "containers").iterdir()}
        return {
            name: value
            for name, value in {
                "mounts": found["mounts"] - sum((self.data_root / "volumes" / name).is_mount() for name in volumes),
                "control groups": groups ^ running if any(found["cgroups"]) or running else set(),
                "processes": self.strangers(running),
                "supervisor's records": records ^ running,
                "execs": execs,
                "bundles": bundles - set(containers),
                "container directories": directories ^ set(containers),
                "volume directories": {path.name for path in (self.data_root / "volumes").iterdir()} ^ volumes,
                "half copied": [str(path) for path in (self.data_root / "volumes").glob("*/_copied")],
                "temporary": found["temporary"],
                "interfaces": found["links"][len(running) + 8 :],
                "elements": self.elements() if not published else 0,
                **self.image_leaks(),
            }.items()
            if value
        }

    def stored(self) -> bool:
        """Whether the records say of every container what the daemon says."""
        api = Api(self)
        told = set()
        for one in api.ok("GET", "/containers/json?all=1"):
            state = api.ok("GET", f"/containers/{one['Id']}/json")["State"]
            told.add((one["Id"], state["Status"], state["ExitCode"]))
        api.connection.close()
        database = sqlite3.connect(f"file:{self.data_root}/state.db?mode=ro", uri=True)
        try:
            rows = database.execute("SELECT id, state FROM container").fetchall()
        finally:
            database.close()
        states = {key: json.loads(text) for key, text in rows}
        return told == {(key, state["status"], state["exit_code"]) for key, state in states.items()}

    def elements(self) -> int:
        """Ports that lead to containers."""
        table = ["nft", "list", "table", "inet", f"knarr-{self.identity}"]
        ruleset = subprocess.run(table, capture_output=True, text=True, check=False).stdout
        return len(re.findall(r'comment "[0-9a-f]{64}"', ruleset))

    def strangers(self, running: set[str]) -> list[str]:
        """Processes in the engine's control groups that belong to no running container."""
        engine = f"/knarr-{self.identity}/"
        found = []
        for path in Path("/proc").glob("[0-9]*/cgroup"):
            with contextlib.suppress(OSError):
                text = path.read_text()
                if engine in text and not any(one in text for one in running):
                    found.append(path.parent.name)
        return found

    @property
    def identity(self) -> str:
        from tests.integration.test_nothing_left import engine_id

        return engine_id(self)

    def image_leaks(self) -> dict[str, object]:
        """Blobs and snapshots beside the records, from the disk and the database themselves."""
        database = sqlite3.connect(f"file:{self.data_root}/state.db?mode=ro", uri=True)
        try:
            rows = database.execute("SELECT record FROM image").fetchall()
            layers = {row[0] for row in database.execute("SELECT chain_id FROM layer")}
        finally:
            database.close()
        blobs, snapshots = set(), set()
        for (text,) in rows:
            record = json.loads(text)
            blobs |= set(record["blobs"]) | {layer[0] for layer in record["layers"]}
            snapshots |= {layer[4] for layer in record["layers"]}
        on_disk = {f"sha256:{path.name}" for path in (self.data_root / "blobs/sha256").iterdir()}
        unpacked = {f"sha256:{path.name}" for path in (self.data_root / "snapshots").iterdir()}
        return {
            "blobs": on_disk ^ blobs,
            "snapshots": unpacked ^ snapshots,
            "layers": layers ^ snapshots,
            "ingest": sorted(path.name for path in (self.data_root / "ingest").iterdir()),
        }

    def settled(self, expected: dict[str, object], what: str) -> None:
        """Soon everything is as expected, and nothing is left over."""
        last: list[object] = []

        def holds() -> bool:
            last[:] = [self.visible(), self.leaks()]
            return last == [expected, {}]

        try:
            wait_until(holds, 10, 0.03, what)
        except BaseException:
            pytest.fail(f"{what}\nexpected: {expected}\nvisible:  {last[0]}\nleft:     {last[1]}\n{self.log()[-2500:]}")
