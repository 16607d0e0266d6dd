"""Pulling onto a fresh ext4, in turn with Docker.

`KNARR_BENCH_IMAGE` names the image (host:port/name:tag, on loopback). Docker's share needs its daemon on a fresh
file system each time, so it is started by `KNARR_BENCH_DOCKER_START DATA_DIRECTORY` (prints its socket) and ended by
`KNARR_BENCH_DOCKER_STOP DATA_DIRECTORY`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benches.engines import SCRIPTS, Knarr, resident
from benches.measure import Row, in_turn

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = int(os.environ.get("KNARR_BENCH_PULLS", "5"))
PEAKS: list[int] = []


@contextlib.contextmanager
def fresh_ext4() -> Iterator[Path]:
    """An empty ext4 in a file: a used one slows down what comes after a removal."""
    with tempfile.TemporaryDirectory(prefix="knarr-ext4-", dir="/var/tmp") as base:
        image, mount = Path(base) / "image", Path(base) / "mount"
        mount.mkdir()
        with image.open("wb") as file:
            file.truncate(8 << 30)
        subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=1", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, mount], check=True)
        try:
            yield mount
        finally:
            subprocess.run(["umount", mount], check=True)


def knarr_pull(image: str) -> float:
    """Seconds of `knarr pull`, noting the peak of daemon, supervisor and command line together."""
    with fresh_ext4() as mount:
        knarr = Knarr(mount / "data")
        try:
            begin = time.perf_counter()
            process = subprocess.Popen(
                [SCRIPTS / "knarr", "pull", "-q", image], env=knarr.env, stdout=subprocess.DEVNULL
            )
            peak_cli = 0
            while process.poll() is None:
                with contextlib.suppress(OSError, KeyError):
                    peak_cli = max(peak_cli, resident(process.pid)[1])
                time.sleep(0.02)
            elapsed = time.perf_counter() - begin
            if process.returncode:
                raise RuntimeError(f"knarr pull: exit {process.returncode}")
            PEAKS.append(peak_cli + sum(resident(pid)[1] for pid in [knarr.daemon, *knarr.supervisors()]))
        finally:
            knarr.close()
    return elapsed


def docker_pull(image: str) -> float:
    """Seconds of `docker pull` by a daemon on a fresh file system."""
    with fresh_ext4() as mount:
        socket = subprocess.run(
            [os.environ["KNARR_BENCH_DOCKER_START"], str(mount)], check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()
        try:
            begin = time.perf_counter()
            cli = os.environ.get("KNARR_BENCH_DOCKER_CLI", "docker")
            subprocess.run([cli, "-H", f"unix://{socket}", "pull", "-q", image], check=True, stdout=subprocess.DEVNULL)
            return time.perf_counter() - begin
        finally:
            subprocess.run([os.environ["KNARR_BENCH_DOCKER_STOP"], str(mount)], check=True)


def rows() -> list[Row]:
    """The pull, where an image was named."""
    image = os.environ.get("KNARR_BENCH_IMAGE")
    if not image:
        print("KNARR_BENCH_IMAGE is not set: no pull is measured")
        return []
    beside = "KNARR_BENCH_DOCKER_START" in os.environ
    subjects = {"knarr": lambda: knarr_pull(image), **({"docker": lambda: docker_pull(image)} if beside else {})}
    figures = in_turn(subjects, ROUNDS, warmup=1)
    own, theirs = figures["knarr"], figures.get("docker")
    return [
        Row(
            "pull onto a fresh ext4",
            str(own),
            f"Docker {theirs}" if theirs else "",
            own.median / theirs.median if theirs else None,
            "0.5x",
        ),
        Row("daemon, supervisor and command line at the pull's peak", f"{max(PEAKS) / 1e6:.0f} MB", "", None, "120 MB"),
    ]
