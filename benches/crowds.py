"""A crowd of clients: how soon others are answered meanwhile, and what thousands of idle connections weigh.

The crowd and the one that pings are processes of their own (`python -m benches.crowds crowd|ping SOCKET SECONDS`), so
that neither is held up by the other's work.
"""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
import threading
import time

from benches.engines import Connection, Docker, Knarr, docker, exec_true, resident
from benches.measure import Row
from tests.conftest import busybox_archive

__all__ = ["rows"]

CLIENTS = 64
SECONDS = 15.0
IDLE = 5000
PING = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"


def crowd(path: str, seconds: float) -> int:
    """CLIENTS at once, each again and again: create, start, exec, list, kill, remove. How many containers were."""
    end = time.monotonic() + seconds
    made: list[str] = []

    def client() -> None:
        connection = Connection(path)
        while time.monotonic() < end:
            body = {"Image": "busybox", "Cmd": ["sleep", "100"], "HostConfig": {"NetworkMode": "none"}}
            container = str(connection.call("POST", "/containers/create", body)["Id"])
            connection.call("POST", f"/containers/{container}/start")
            exec_true(connection, container)
            connection.call("GET", "/containers/json")
            connection.call("DELETE", f"/containers/{container}?force=1")
            made.append(container)

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(made)


def ping(path: str, seconds: float) -> list[float]:
    """Seconds that each of many pings took, one after the other on one connection."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        end = time.monotonic() + seconds
        taken = []
        while time.monotonic() < end:
            begin = time.perf_counter()
            sock.sendall(PING)
            if not sock.recv(4096).startswith(b"HTTP/1.1 200"):
                raise RuntimeError("the ping was not answered")
            taken.append(time.perf_counter() - begin)
            time.sleep(0.005)
    return taken


def _child(what: str, path: str, seconds: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benches.crowds", what, path, str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def _under_load(path: str) -> tuple[str, float, float]:
    """(text, p99 in seconds, containers a second) of pings while a crowd is at it."""
    busy = _child("crowd", path, SECONDS)
    time.sleep(1)
    asking = _child("ping", path, SECONDS - 2)
    taken = sorted(json.loads(asking.communicate()[0]))
    rate = json.loads(busy.communicate()[0]) / SECONDS
    middle, high = taken[len(taken) // 2], taken[len(taken) * 99 // 100]
    return f"p50 {middle * 1000:.1f}, p99 {high * 1000:.1f}, most {taken[-1] * 1000:.0f} ms", high, rate


def _idle(knarr: Knarr) -> Row:
    """What a connection costs that was used once and waits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before = resident(knarr.daemon)[0]
    sockets = []
    try:
        for _ in range(IDLE):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(knarr.socket)
            sock.sendall(PING)
            sock.recv(4096)
            sockets.append(sock)
        each = (resident(knarr.daemon)[0] - before) / IDLE
    finally:
        for sock in sockets:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return Row(f"an idle connection, of {IDLE}", f"{each / 1000:.1f} KB", "", None, "20 KB")


def rows() -> list[Row]:
    """Measured on an engine of the bench's own, and on Docker where there is one."""
    knarr = Knarr()
    peer: Docker | None = docker()
    try:
        knarr.knarr("load", "-q", "-i", str(busybox_archive()))
        text, high, rate = _under_load(knarr.socket)
        found = [Row(f"`_ping` while {CLIENTS} clients start {rate:.0f} containers/s", text, "", None, "p99 10 ms")]
        if peer:
            theirs, their_high, their_rate = _under_load(peer.socket)
            found.append(Row("the same", text, f"Docker, {their_rate:.0f}/s: {theirs}", high / their_high, ""))
        found.append(_idle(knarr))
    finally:
        knarr.close()
    return found


if __name__ == "__main__":
    print(json.dumps({"crowd": crowd, "ping": ping}[sys.argv[1]](sys.argv[2], float(sys.argv[3]))))
