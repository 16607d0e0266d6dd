"""Starting containers: through the API, sustained, from the command line, and the runtime by itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benches.engines import SCRIPTS, Docker, Knarr, docker, exec_true, lifecycle
from benches.measure import Row, Timer, in_turn
from tests.conftest import busybox_archive, busybox_layer

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 30
WITHOUT_UNIFIED = "umount /sys/fs/cgroup/unified 2>/dev/null"  # crun 1.8 refuses a hybrid hierarchy


class Bundle:
    """One OCI bundle of busybox `true` with the engine's default profile, run by each runtime's `run`."""

    def __init__(self, knarr: Knarr) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="knarr-bundle-", dir="/var/tmp"))
        layer = self.base / "layer.tar"
        layer.write_bytes(busybox_layer())
        with tarfile.open(layer) as archive:
            archive.extractall(self.base / "rootfs", filter="fully_trusted")
        spec = json.loads(
            subprocess.run(["runc", "spec"], cwd=self.base, check=True, capture_output=True).stdout or b"null"
        )
        spec = spec or json.loads((self.base / "config.json").read_text())
        spec["ociVersion"] = "1.0.2"
        spec["process"].update(terminal=False, args=["/bin/true"])
        spec["process"].pop("rlimits", None)
        spec["linux"]["seccomp"] = default_seccomp(knarr)
        (self.base / "config.json").write_text(json.dumps(spec))
        self.count = 0

    def run(self, timer: Timer, program: str, *options: str) -> Callable[[], float]:
        def once() -> float:
            self.count += 1
            return timer.run(program, *options, "run", "--bundle", str(self.base), f"bench{os.getpid()}x{self.count}")

        return once

    def close(self) -> None:
        shutil.rmtree(self.base)


def default_seccomp(knarr: Knarr) -> object:
    """The resolved default profile, as the engine gives it to the supervisor."""
    lifecycle(knarr.connect(), "none")
    (profile, *_) = (knarr.run_root / "seccomp").glob("*.json")
    return json.loads(profile.read_text())


def runtime_rows(knarr: Knarr) -> list[Row]:
    """`run` of a bundle: knarr-runtime, crun and runc in turn."""
    bundle, plain, private = Bundle(knarr), Timer(), Timer(WITHOUT_UNIFIED)
    head = Path(os.environ.get("KNARR_BENCH_RUNC", shutil.which("runc") or "runc"))
    try:
        figures = in_turn(
            {
                "knarr": bundle.run(plain, str(SCRIPTS / "knarr-runtime")),
                "crun": bundle.run(private, "crun"),
                "runc": bundle.run(plain, str(head)),
            },
            ROUNDS,
        )
    finally:
        plain.close()
        private.close()
        bundle.close()
    own = figures["knarr"]
    return [
        Row(
            "`run` of a bundle, default seccomp profile",
            str(own),
            f"crun {figures['crun']}",
            own.median / figures["crun"].median,
            "0.5x",
        ),
        Row("the same", str(own), f"runc {figures['runc']}", own.median / figures["runc"].median, "0.2x"),
    ]


def api_rows(knarr: Knarr, peer: Docker | None) -> list[Row]:
    """create + start + wait + delete through the API beside a bare `crun run` of the same root file system."""
    bundle, private = Bundle(knarr), Timer(WITHOUT_UNIFIED)
    own = knarr.connect()
    subjects: dict[str, Callable[[], object]] = {
        "none": lambda: lifecycle(own, "none"),
        "bridge": lambda: lifecycle(own, "bridge"),
        "crun": bundle.run(private, "crun"),
    }
    if peer:
        other = peer.connect()
        subjects["docker none"] = lambda: lifecycle(other, "none")
        subjects["docker bridge"] = lambda: lifecycle(other, "bridge")
    try:
        figures = in_turn(subjects, ROUNDS)
    finally:
        private.close()
        bundle.close()
    rows = []
    for network, target in (("none", "0.7x"), ("bridge", "1.0x")):
        mine = figures[network]
        what = f"API create + start + wait + delete, {network}"
        rows.append(Row(what, str(mine), f"`crun run` {figures['crun']}", mine.median / figures["crun"].median, target))
        if peer:
            theirs = figures[f"docker {network}"]
            rows.append(Row("the same", str(mine), f"Docker {theirs}", mine.median / theirs.median, ""))
    return rows


CLIENT = """
import sys, time
from benches.engines import Connection, lifecycle
connection = Connection(sys.argv[1])
lifecycle(connection, sys.argv[2])
print('ready', flush=True)
sys.stdin.readline()
end, count = time.monotonic() + float(sys.argv[3]), 0
while time.monotonic() < end:
    lifecycle(connection, sys.argv[2])
    count += 1
print(count, flush=True)
"""


def rate(path: str, network: str, clients: int = 4, seconds: float = 8.0) -> float:
    """Lifecycles a second of several clients at once, each in a process of its own."""
    command = [sys.executable, "-c", CLIENT, path, network, str(seconds)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(clients)
    ]
    for client in running:
        assert client.stdout is not None
        if client.stdout.readline() != "ready\n":
            raise RuntimeError("a client did not get through its first container")
    begin = time.monotonic()
    for client in running:
        assert client.stdin is not None
        client.stdin.write("\n")
        client.stdin.flush()
    total = sum(int(client.communicate()[0]) for client in running)
    return total / (time.monotonic() - begin)


def rate_rows(knarr: Knarr, peer: Docker | None) -> list[Row]:
    """Sustained rates, the engines in turn."""
    rows = []
    for network, target in (("none", "80/s"), ("bridge", "50/s")):
        own = rate(knarr.socket, network)
        theirs = rate(peer.socket, network) if peer else None
        rows.append(
            Row(
                f"sustained lifecycles, 4 clients, {network}",
                f"{own:.1f}/s",
                f"Docker {theirs:.1f}/s" if theirs else "",
                own / theirs if theirs else None,
                target,
            )
        )
    return rows


def cli_rows(knarr: Knarr, peer: Docker | None) -> list[Row]:
    """`run --rm` end to end, and what of it is the interpreter's start."""
    own, theirs, rows = Timer(env=knarr.env), Timer(env=peer.env if peer else None), []
    try:
        subjects: dict[str, Callable[[], object]] = {
            "python": lambda: own.run(str(SCRIPTS / "python"), "-c", "pass"),
            "version": lambda: own.run(str(SCRIPTS / "knarr"), "--version"),
        }
        for network in ("none", "bridge"):
            arguments = ("run", "--rm", "--network", network, "busybox", "true")
            subjects[network] = lambda arguments=arguments: own.run(str(SCRIPTS / "knarr"), *arguments)  # type: ignore[misc]
            if peer:
                cli = peer.cli
                subjects[f"docker {network}"] = lambda arguments=arguments, cli=cli: theirs.run(cli, *arguments)  # type: ignore[misc]
        figures = in_turn(subjects, ROUNDS)
    finally:
        own.close()
        theirs.close()
    for network in ("none", "bridge"):
        mine, other = figures[network], figures.get(f"docker {network}")
        ratio = mine.median / other.median if other else None
        rows.append(
            Row(
                f"`run --rm` from the command line, {network}",
                str(mine),
                f"Docker {other}" if other else "",
                ratio,
                "0.25x",
            )
        )
    rows.append(Row("of which Python's start (`python -c pass`)", str(figures["python"]), "", None, ""))
    rows.append(Row("`knarr --version`", str(figures["version"]), "", None, ""))
    return rows


def request_rows(knarr: Knarr, peer: Docker | None) -> list[Row]:
    """exec, and listing 50 containers."""
    engines = {"knarr": knarr.connect(), **({"docker": peer.connect()} if peer else {})}
    made: list[tuple[str, str]] = []
    long = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}}
    try:
        for name, connection in engines.items():
            for number in range(50):
                container = connection.call("POST", "/containers/create", long)["Id"]
                made.append((name, container))
                if number == 0:
                    connection.call("POST", f"/containers/{container}/start")
        first = {name: next(container for owner, container in made if owner == name) for name in engines}
        execs = in_turn({n: (lambda n=n: exec_true(engines[n], first[n])) for n in engines}, ROUNDS)  # type: ignore[misc]
        lists = in_turn({n: (lambda n=n: engines[n].call("GET", "/containers/json?all=1")) for n in engines}, ROUNDS)  # type: ignore[misc]
    finally:
        for name, container in made:
            engines[name].call("DELETE", f"/containers/{container}?force=1")
    rows = []
    for what, figures, target in (
        ("exec `true` through the API", execs, "0.1x"),
        ("`GET /containers/json`, 50 containers", lists, "0.1x"),
    ):
        mine, other = figures["knarr"], figures.get("docker")
        ratio = mine.median / other.median if other else None
        rows.append(Row(what, str(mine), f"Docker {other}" if other else "", ratio, target))
    return rows


def rows(only: set[str]) -> list[Row]:
    """The named parts of the table of starts."""
    knarr, peer = Knarr(), docker()
    archive = str(busybox_archive())
    found: list[Row] = []
    try:
        knarr.knarr("load", "-q", "-i", archive)
        if peer:
            peer.docker("load", "-q", "-i", archive)
        for name, part in (
            ("api", lambda: api_rows(knarr, peer)),
            ("rate", lambda: rate_rows(knarr, peer)),
            ("runtime", lambda: runtime_rows(knarr)),
            ("cli", lambda: cli_rows(knarr, peer)),
            ("requests", lambda: request_rows(knarr, peer)),
        ):
            if name in only:
                found += part()
    finally:
        knarr.close()
    return found
