"""What a pull costs below Python: `rust/registry/examples/pull.rs` onto a fresh ext4, beside Docker when asked.

    python benches/pull_bench.py PROGRAM HOST REPOSITORY TAG [--rounds N] [--docker SCRIPT]

Each round makes an empty ext4 in a file and mounts it. PROGRAM is the built example. SCRIPT is called as
`SCRIPT start` and `SCRIPT stop` with PEERS_DATA in its environment; `start` prints the socket of a Docker
daemon that keeps its data there. `benches/pulls.py` measures the same through daemon and command line.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 6 << 30


class Round(NamedTuple):
    """One pull: seconds, seconds of CPU (None where another process spent them), peak resident KiB."""

    wall: float
    cpu: float | None
    peak: int | None


@contextlib.contextmanager
def fresh_ext4() -> Iterator[Path]:
    """An empty ext4: one that was just emptied is slower than either a fresh or an aged one."""
    with tempfile.TemporaryDirectory(prefix="knarr-ext4-", dir="/var/tmp") as base:
        image, mount = Path(base) / "image", Path(base) / "mount"
        mount.mkdir()
        with image.open("wb") as file:
            file.truncate(SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, mount], check=True)
        try:
            yield mount
        finally:
            subprocess.run(["umount", mount], check=True)


def ours(program: str, image: list[str]) -> Round:
    """Run the example once."""
    with fresh_ext4() as mount:
        os.sync()
        begin = time.perf_counter()
        process = subprocess.Popen([program, *image, str(mount / "data")], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{program} exited with {process.returncode}")
        return Round(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)


def docker(script: str, image: list[str]) -> Round:
    """Pull once with a Docker daemon of its own."""
    host, repository, tag = image
    with fresh_ext4() as mount:
        env = {**os.environ, "PEERS_DATA": str(mount / "docker")}
        started = subprocess.run([script, "start"], env=env, check=True, capture_output=True, text=True)
        try:
            os.sync()
            begin = time.perf_counter()
            client = ["docker", "-H", f"unix://{started.stdout.split()[-1]}"]
            subprocess.run([*client, "pull", "-q", f"{host}/{repository}:{tag}"], check=True, stdout=subprocess.DEVNULL)
            return Round(time.perf_counter() - begin, None, None)
        finally:
            subprocess.run([script, "stop"], env=env, check=True)


def report(name: str, rounds: list[Round]) -> None:
    """One line of medians, with the range of the times."""
    walls = [one.wall for one in rounds]
    line = f"{name}: {statistics.median(walls):.2f} s ({min(walls):.2f}-{max(walls):.2f}, {len(walls)} rounds)"
    cpus = [one.cpu for one in rounds if one.cpu is not None]
    peaks = [one.peak for one in rounds if one.peak is not None]
    if cpus and peaks:
        line += f", CPU {statistics.median(cpus):.2f} s, peak {max(peaks) / 1024:.0f} MiB"
    print(line, flush=True)


def main() -> None:
    """Rounds in turn, then the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("image", nargs=3, metavar=("HOST", "REPOSITORY", "TAG"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--docker", metavar="SCRIPT")
    arguments = parser.parse_args()
    own: list[Round] = []
    peer: list[Round] = []
    for _ in range(arguments.rounds):
        own.append(ours(arguments.program, arguments.image))
        if arguments.docker:
            peer.append(docker(arguments.docker, arguments.image))
    report("knarr", own)
    if peer:
        report("docker", peer)


if __name__ == "__main__":
    main()
