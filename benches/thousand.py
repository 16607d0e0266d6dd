"""`python -m benches.thousand [CONTAINERS [NETWORK]]`: many running containers, and what each further one costs.

A line for each hundred: starts a second, what a start took of the processor in the daemon and in the supervisor (which
other work on the machine does not change), the time of a list of everything; then the memory of each process, and the
rates of stopping and removing. On the default bridge there is room for 1,023 ports, a few of which are kept ready.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benches.engines import Connection, Knarr, resident
from tests.conftest import busybox_archive

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["main"]

STEP = 100
LISTS = 10


def main() -> int:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    network = sys.argv[2] if len(sys.argv) > 2 else "bridge"
    knarr = Knarr()
    try:
        knarr.knarr("load", "-q", "-i", str(busybox_archive()))
        measure(knarr, count, network)
    finally:
        knarr.close()
    return 0


def measure(knarr: Knarr, count: int, network: str) -> None:
    """All of it, on one engine."""
    connection = knarr.connect()
    if network not in ("bridge", "none", "host"):
        connection.call("POST", "/networks/create", {"Name": network})
    body = {"Image": "busybox", "Cmd": ["sleep", "100000"], "HostConfig": {"NetworkMode": network}}

    def start(_: int) -> str:
        container = str(connection.call("POST", "/containers/create", body)["Id"])
        connection.call("POST", f"/containers/{container}/start")
        return container

    ids = [start(0)]
    keeper, supervisor = keeper_and_supervisor(knarr)
    processes = {"daemon": knarr.daemon, "supervisor": supervisor, "keeper": keeper}
    before = {name: resident(pid)[0] for name, pid in processes.items()}
    print("running   started/s   CPU ms a start: daemon  supervisor   list ms")
    while len(ids) < count:
        used = [processor(pid) for pid in processes.values()]
        begun = time.monotonic()
        ids += [start(number) for number in range(min(STEP, count - len(ids)))]
        rate = STEP / (time.monotonic() - begun)
        mine = [(processor(pid) - was) / STEP for pid, was in zip(processes.values(), used, strict=True)]
        print(
            f"{len(ids):7} {rate:11.1f} {mine[0]:23.2f} {mine[1]:11.2f} {listing(connection, len(ids)):9.1f}",
            flush=True,
        )
    time.sleep(2)
    print("\nprocess         with 1       with all     each")
    for name, pid in processes.items():
        now = resident(pid)[0]
        each = (now - before[name]) / (len(ids) - 1)
        print(f"{name:12} {before[name] / 1e6:7.1f} MB {now / 1e6:10.1f} MB {each / 1e3:6.1f} KB")
    print()
    speed("stopped", ids, lambda one: connection.call("POST", f"/containers/{one}/stop?t=0"))
    speed("removed", ids, lambda one: connection.call("DELETE", f"/containers/{one}"))
    time.sleep(2)
    for name, pid in processes.items():
        print(f"{name} afterwards: {resident(pid)[0] / 1e6:.1f} MB")


def speed(what: str, ids: list[str], act: Callable[[str], object]) -> None:
    begun = time.monotonic()
    for one in ids:
        act(one)
    print(f"{what}: {len(ids) / (time.monotonic() - begun):.1f} a second", flush=True)


def listing(connection: Connection, count: int) -> float:
    """The median time of a list of everything, in ms."""
    times = []
    for _ in range(LISTS):
        begun = time.monotonic()
        listed = connection.call("GET", "/containers/json?all=1")
        times.append(time.monotonic() - begun)
        if len(listed) != count:
            raise RuntimeError(f"{len(listed)} containers were listed, not {count}")
    return statistics.median(times) * 1000


def keeper_and_supervisor(knarr: Knarr) -> tuple[int, int]:
    """Their process IDs: the keeper is the other's parent."""
    pids = knarr.supervisors()
    parents = {pid: int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]) for pid in pids}
    (supervisor,) = [pid for pid in pids if parents[pid] in pids]
    return parents[supervisor], supervisor


def processor(pid: int) -> float:
    """Milliseconds that a process has used, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
