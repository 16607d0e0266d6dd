"""How long a list of a thousand containers takes, and what a ping waits for meanwhile."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from benches.engines import Connection, Knarr
from benches.measure import Row
from tests.conftest import busybox_archive

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTAINERS = 1000
RUNNING = 32
ROUNDS = 60


def rows() -> list[Row]:
    """On an engine of its own, most of whose containers were never started."""
    knarr = Knarr()
    try:
        knarr.knarr("load", "-q", "-i", str(busybox_archive()))
        connection = knarr.connect()
        body = {
            "Image": "busybox",
            "Cmd": ["sleep", "1000"],
            "Labels": {"of": "a bench", "and": "another"},
            "HostConfig": {"NetworkMode": "none"},
        }
        for number in range(CONTAINERS):
            container = str(connection.call("POST", "/containers/create", body)["Id"])
            if number % (CONTAINERS // RUNNING) == 0:
                connection.call("POST", f"/containers/{container}/start")
        listed = _times(connection, "/containers/json?all=1", ROUNDS)
        with _lister(knarr.socket):
            pings = _times(connection, "/_ping", 300)
    finally:
        knarr.close()
    return [
        Row(
            f"list {CONTAINERS} containers: p50 (p99)",
            f"{_at(listed, 0.5):.1f} ms ({_at(listed, 0.99):.1f})",
            "",
            None,
            "20 ms",
        ),
        Row("ping while another client lists them: p99", f"{_at(pings, 0.99):.1f} ms", "", None, "10 ms"),
    ]


@contextlib.contextmanager
def _lister(path: str) -> Iterator[None]:
    """A process of its own that lists again and again."""
    script = (
        "import sys\nfrom benches.engines import Connection\nconnection = Connection(sys.argv[1])\n"
        "while True: connection.call('GET', '/containers/json?all=1')"
    )
    process = subprocess.Popen([sys.executable, "-c", script, path])
    try:
        time.sleep(0.5)
        yield
        if process.poll() is not None:
            raise RuntimeError(f"the process that lists ended: {process.returncode}")
    finally:
        process.kill()
        process.wait()


def _times(connection: Connection, path: str, rounds: int) -> list[float]:
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        connection.request("GET", "/v1.56" + path)
        connection.getresponse().read()
        found.append((time.perf_counter() - begun) * 1000)
    return sorted(found)


def _at(times: list[float], part: float) -> float:
    return times[min(int(len(times) * part), len(times) - 1)]
