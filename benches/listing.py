"""How long a list of a thousand containers takes, and what a ping waits for meanwhile."""

from __future__ import annotations

import threading
import time

from benches.engines import Connection, Knarr
from benches.measure import Row
from tests.conftest import busybox_archive

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
        stop = threading.Event()
        other = knarr.connect()

        def keep_listing() -> None:
            while not stop.is_set():
                other.call("GET", "/containers/json?all=1")

        load = threading.Thread(target=keep_listing)
        load.start()
        pings = _times(connection, "/_ping", 300)
        stop.set()
        load.join()
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
