"""User-defined networks: starts on one, names asked for, and a published port beside a bare namespace behind a veth.

Throughput and requests come from a network namespace that stands in for another host. Server and client are the same
two programs for the published port (in a container) and for the bare namespace, to which the host forwards.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from benches.engines import Connection, Knarr, docker, lifecycle
from benches.measure import Row, in_turn
from tests.conftest import busybox_archive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["rows"]

ROUNDS, PORT_ROUNDS = 30, 15
BYTES = 1 << 30
SECONDS = 2.0
OUTSIDE, BARE = "kbench-outside", "kbench-bare"

# Asks for a name through so many sockets at once; prints questions a second, and the 99th percentile in ms.
ASKER = """
import json, selectors, socket, time
packet = b'\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\3web\\0\\0\\1\\0\\1'
poll, asked, times = selectors.DefaultSelector(), {}, []
for _ in range(16):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(('127.0.0.11', 53))
    poll.register(sock, selectors.EVENT_READ)
    sock.send(packet)
    asked[sock] = time.perf_counter()
begun = time.perf_counter()
while time.perf_counter() - begun < 3:
    for key, _ in poll.select():
        assert len(key.fileobj.recv(512)) > len(packet)
        now = time.perf_counter()
        times.append(now - asked[key.fileobj])
        key.fileobj.send(packet)
        asked[key.fileobj] = now
times.sort()
print(json.dumps([len(times) / 3, times[len(times) * 99 // 100] * 1000]))
"""
# One port sends bytes, the next answers requests of HTTP/1.0, each on a connection of its own.
SERVER = """
import socket, threading
zeros, page = bytes(1 << 20), b'HTTP/1.0 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok'
def send(peer):
    with peer:
        for _ in range({count} >> 20):
            peer.sendall(zeros)
def answer(listener):
    while True:
        peer = listener.accept()[0]
        peer.recv(4096)
        peer.sendall(page)
        peer.close()
streams, pages = (socket.create_server(('', port), backlog=1024) for port in (5000, 5001))
threading.Thread(target=answer, args=(pages,)).start()
while True:
    send(streams.accept()[0])
"""
STREAM = """
import socket, sys, time
peer, left = socket.create_connection((sys.argv[1], int(sys.argv[2]))), {count}
buffer = bytearray(1 << 20)
begun = time.perf_counter()
while left:
    left -= peer.recv_into(buffer)
print({count} / (time.perf_counter() - begun))
"""
REQUESTS = """
import socket, sys, time
place, count = (sys.argv[1], int(sys.argv[2])), 0
begun = time.perf_counter()
while time.perf_counter() - begun < {seconds}:
    with socket.create_connection(place) as peer:
        peer.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
        while peer.recv(4096):
            pass
    count += 1
print(count / {seconds})
"""


def rows() -> list[Row]:
    """All of them."""
    knarr, peer = Knarr(), docker()
    try:
        knarr.knarr("load", "-q", "-i", str(busybox_archive()))
        own = knarr.connect()
        own.call("POST", "/networks/create", {"Name": "bench"})
        return [*start_rows(own, peer.connect() if peer else None), name_row(own), *port_rows(own)]
    finally:
        knarr.close()


def start_rows(own: Connection, other: Connection | None) -> list[Row]:
    """create + start + wait + delete on a user-defined network, beside none."""
    subjects: dict[str, Callable[[], object]] = {
        "none": lambda: lifecycle(own, "none"),
        "bench": lambda: lifecycle(own, "bench"),
    }
    if other:
        other.call("POST", "/networks/create", {"Name": "bench"})
        subjects["docker"] = lambda: lifecycle(other, "bench")
    figures = in_turn(subjects, ROUNDS)
    mine = figures["bench"]
    what = "API create + start + wait + delete, user network"
    found = [Row(what, str(mine), f"none {figures['none']}", mine.median / figures["none"].median, "1.3x")]
    if other:
        other.call("DELETE", "/networks/bench")
        theirs = figures["docker"]
        found.append(Row("the same", str(mine), f"Docker {theirs}", mine.median / theirs.median, ""))
    return found


def name_row(own: Connection) -> Row:
    """Names asked for from inside of a container, 16 questions at a time."""
    with running(own, "web", ["sleep", "1000"]) as pid:
        found = [json.loads(inside(["-t", str(pid)], ASKER)) for _ in range(3)]
    rate, late = (statistics.median(values) for values in zip(*found, strict=True))
    return Row(
        "names asked for in a container, 16 at a time", f"{rate:,.0f}/s", f"p99 {late:.2f} ms", None, "10,000/s, 5 ms"
    )


def port_rows(own: Connection) -> list[Row]:
    """A published port beside a bare namespace."""
    server = SERVER.format(count=BYTES)
    ports: dict[str, Any] = {"PortBindings": {f"{port}/tcp": [{}] for port in (5000, 5001)}}
    with namespaces(), running(own, "server", ["sleep", "1000"], ports) as pid:
        servers = [
            subprocess.Popen(["nsenter", f"--net={where}", sys.executable, "-c", server])
            for where in (f"/proc/{pid}/ns/net", f"/run/netns/{BARE}")
        ]
        try:
            shown = own.call("GET", "/containers/server/json")["NetworkSettings"]["Ports"]
            published = {port: ("10.254.77.1", shown[f"{port}/tcp"][0]["HostPort"]) for port in (5000, 5001)}
            bare = {port: ("10.254.78.2", str(port)) for port in (5000, 5001)}
            time.sleep(1)
            found = []
            for what, port, program in (
                ("bytes through a published port", 5000, STREAM.format(count=BYTES)),
                ("requests through a published port", 5001, REQUESTS.format(seconds=SECONDS)),
            ):
                rates: dict[str, list[float]] = {"published": [], "bare": []}
                for _ in range(PORT_ROUNDS):
                    for name, place in (("published", published[port]), ("bare", bare[port])):
                        rates[name].append(float(inside([f"--net=/run/netns/{OUTSIDE}"], program, *place)))
                mine, theirs = (statistics.median(rates[name]) for name in ("published", "bare"))
                shown_as = (lambda rate: f"{rate / 1e6:,.0f} MB/s") if port == 5000 else (lambda rate: f"{rate:,.0f}/s")
                found.append(
                    Row(what, shown_as(mine), f"bare namespace {shown_as(theirs)}", mine / theirs, "at least 0.9x")
                )
            return found
        finally:
            for process in servers:
                process.kill()
                process.wait()


def inside(namespace: list[str], program: str, *arguments: str) -> str:
    """What a Python program says in a network namespace."""
    command = ["nsenter", *namespace, *(["-n"] if namespace[0] == "-t" else []), sys.executable, "-c", program]
    return subprocess.run([*command, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


@contextlib.contextmanager
def running(own: Connection, name: str, command: list[str], host: dict[str, Any] | None = None) -> Iterator[int]:
    """A container on the network; its process."""
    body = {"Image": "busybox", "Cmd": command, "HostConfig": {"NetworkMode": "bench", **(host or {})}}
    own.call("POST", f"/containers/create?name={name}", body)
    own.call("POST", f"/containers/{name}/start")
    try:
        yield own.call("GET", f"/containers/{name}/json")["State"]["Pid"]
    finally:
        own.call("DELETE", f"/containers/{name}?force=1")


@contextlib.contextmanager
def namespaces() -> Iterator[None]:
    """Another host, and a bare namespace, each behind a veth pair of the host's."""
    run = lambda *command: subprocess.run(command, check=True)  # noqa: E731
    try:
        for name, host, network in ((OUTSIDE, "kbench0", "10.254.77"), (BARE, "kbench1", "10.254.78")):
            run("ip", "netns", "add", name)
            run("ip", "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "addr", "add", f"{network}.1/30", "dev", host)
            run("ip", "link", "set", host, "up")
            for command in (
                ("addr", "add", f"{network}.2/30", "dev", "eth0"),
                ("link", "set", "eth0", "up"),
                ("link", "set", "lo", "up"),
                ("route", "add", "default", "via", f"{network}.1"),
            ):
                run("ip", "-n", name, *command)
        yield
    finally:
        for name in (OUTSIDE, BARE):
            subprocess.run(["ip", "netns", "del", name], check=False)
