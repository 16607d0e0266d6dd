"""How fast output flows: attach beside `cat` through a pipe, and logs that were written ahead."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from benches.engines import Docker, Knarr, docker
from benches.measure import Figure, Row, in_turn
from tests.conftest import busybox_archive

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["rows"]

ATTACHED = 512 << 20  # bytes of one attach
LOGGED = 1 << 30  # bytes of text in the log that is read
PEER_LOGGED = 64 << 20  # the same for Docker, which takes more than a minute for a GiB
ROUNDS = 5
LINE = "2026-11-25T22:50:42 INFO the quick brown fox jumps over the lazy dog, and away from the hound of 42"
_BUFFER = bytearray(1 << 20)


def _drain(stream: socket.socket) -> int:
    total = 0
    while count := stream.recv_into(_BUFFER):
        total += count
    return total


def _open(path: str, request: str) -> socket.socket:
    """A connection whose answer has begun; its head is left for whoever counts bytes."""
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(path)
    stream.sendall(request.encode())
    return stream


def _attach(engine: Knarr | Docker, driver: str, script: str, size: int) -> Callable[[], float]:
    """Seconds from the start of a container to the end of its output."""

    def run() -> float:
        with contextlib.closing(engine.connect()) as connection:
            body = {
                "Image": "busybox",
                "Cmd": ["sh", "-c", script],
                "HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": driver}},
            }
            container = connection.call("POST", "/containers/create", body)["Id"]
            request = (
                f"POST /v1.44/containers/{container}/attach?stream=1&stdout=1 HTTP/1.1\r\n"
                "Host: d\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n"
            )
            with contextlib.closing(_open(engine.socket, request)) as stream:
                stream.recv(65536)
                connection.call("POST", f"/containers/{container}/start")
                begin = time.perf_counter()
                total = _drain(stream)
                elapsed = time.perf_counter() - begin
            connection.call("DELETE", f"/containers/{container}?force=1")
        if total < size:
            raise RuntimeError(f"attach gave {total} of {size} bytes")
        return elapsed

    return run


def _pipe(script: str) -> Callable[[], float]:
    """The same output through a pipe, without any engine."""

    def run() -> float:
        begin = time.perf_counter()
        subprocess.run(["sh", "-c", f"busybox sh -c {script!r} | cat >/dev/null"], check=True)
        return time.perf_counter() - begin

    return run


def _log(engine: Knarr | Docker, driver: str, size: int) -> str:
    """A container whose log has as many bytes."""
    command = f"yes {LINE!r} | head -c {size}"
    with contextlib.closing(engine.connect()) as connection:
        body = {
            "Image": "busybox",
            "Cmd": ["sh", "-c", command],
            "HostConfig": {
                "NetworkMode": "none",
                "LogConfig": {"Type": driver, "Config": {"max-size": "4g", "max-file": "2", "compress": "false"}},
            },
        }
        container = str(connection.call("POST", "/containers/create", body)["Id"])
        connection.call("POST", f"/containers/{container}/start")
        connection.call("POST", f"/containers/{container}/wait")
    return container


def _read(engine: Knarr | Docker, container: str, size: int, query: str) -> Callable[[], float]:
    def run() -> float:
        request = (
            f"GET /v1.44/containers/{container}/logs?stdout=1{query} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
        )
        begin = time.perf_counter()
        with contextlib.closing(_open(engine.socket, request)) as stream:
            total = _drain(stream)
        if total < size:
            raise RuntimeError(f"logs gave {total} of {size} bytes")
        return time.perf_counter() - begin

    return run


def _rate(size: int, figure: Figure) -> str:
    return f"{size / figure.median / 1e6:.0f} MB/s"


def rows() -> list[Row]:
    """The rows of the table."""
    own = Knarr()
    found = []
    try:
        own.knarr("load", "-q", "-i", str(busybox_archive()))
        peer = docker()
        zeros = f"dd if=/dev/zero bs=1M count={ATTACHED >> 20} 2>/dev/null"  # the writer is not to be what is slow
        text = f'yes "{LINE}" | head -c {ATTACHED}'
        for what, driver, script in (
            ("attach, no log", "none", zeros),
            ("attach of text, no log", "none", text),
            ("attach of text, json-file", "json-file", text),
            ("attach of text, local", "local", text),
        ):
            subjects = {"knarr": _attach(own, driver, script, ATTACHED), "pipe": _pipe(script)}
            if peer is not None:
                subjects["docker"] = _attach(peer, driver, script, ATTACHED)
            figures = in_turn(subjects, ROUNDS, warmup=1)
            mine = figures["knarr"]
            for name, target in (("pipe", ""), ("docker", "")):
                if name in figures:
                    ratio = mine.median / figures[name].median
                    found.append(
                        Row(what, _rate(ATTACHED, mine), f"{name} {_rate(ATTACHED, figures[name])}", ratio, target)
                    )
        for driver in ("json-file", "local"):
            logs = {"knarr": (own, _log(own, driver, LOGGED), LOGGED)}
            if peer is not None:
                logs["docker"] = (peer, _log(peer, driver, PEER_LOGGED), PEER_LOGGED)
            for what, query in (("", ""), (" with timestamps", "&timestamps=1")):
                subjects = {name: _read(*log, query) for name, log in logs.items()}
                figures = in_turn(subjects, ROUNDS, warmup=1)
                mine = figures["knarr"]
                theirs = figures.get("docker")
                found.append(
                    Row(
                        f"read 1 GiB of {driver} log{what}",
                        _rate(LOGGED, mine),
                        f"docker {_rate(PEER_LOGGED, theirs)}" if theirs else "",
                        (mine.median / LOGGED) / (theirs.median / PEER_LOGGED) if theirs else None,
                        "300 MB/s",
                    )
                )
            for engine, container, _ in logs.values():
                with contextlib.closing(engine.connect()) as connection:
                    connection.call("DELETE", f"/containers/{container}?force=1")
            os.sync()
    finally:
        own.close()
    return found
