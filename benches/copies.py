"""`cp` of a tree of 500 MB in many files, out of a container and into one, beside one `tar` to another on that disk.

Each round writes to fresh directories, and nothing is deleted before the end: ext4 avoids inodes that were just freed.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benches.engines import SCRIPTS, Knarr
from benches.measure import Figure, Row, in_turn
from tests.conftest import busybox_archive

if TYPE_CHECKING:
    from collections.abc import Callable

FILES = 20_000
BYTES = 500_000_000
ROUNDS = 3


def make_tree(top: Path) -> None:
    """Files of all sizes, half of the bytes in a few, as source trees and node_modules have them."""
    chance = random.Random(1)
    block = chance.randbytes(1 << 20)
    weights = [chance.paretovariate(1.2) for _ in range(FILES)]
    scale = BYTES / sum(weights)
    for number, weight in enumerate(weights):
        directory = top / f"{number % 40}" / f"{number % 400}"
        if number < 400:
            directory.mkdir(parents=True)
        size = int(weight * scale)
        with (directory / f"file{number}").open("wb") as file:
            for start in range(0, size, len(block)):
                file.write(block[: min(len(block), size - start)])


def rows() -> list[Row]:
    """Measured on an engine of its own."""
    base = Path(tempfile.mkdtemp(prefix="knarr-bench-copies-", dir="/var/tmp"))
    knarr = Knarr()
    try:
        make_tree(base / "tree")
        knarr.knarr("load", "-q", "-i", str(busybox_archive()))
        knarr.knarr("run", "-d", "--name", "box", "--network", "none", "busybox", "sleep", "10000")
        knarr.knarr("cp", str(base / "tree"), "box:/tree")
        os.sync()
        return _rows(base, knarr)
    finally:
        knarr.close()
        shutil.rmtree(base)


def _rows(base: Path, knarr: Knarr) -> list[Row]:
    count = 0

    def fresh() -> Path:
        nonlocal count
        count += 1
        place = base / f"out{count}"
        place.mkdir()
        return place

    def cp(*arguments: str) -> None:
        subprocess.run([SCRIPTS / "knarr", "cp", *arguments], env=knarr.env, check=True, stdin=subprocess.DEVNULL)

    def out() -> None:
        cp("box:/tree", str(fresh()))

    def into() -> None:
        nonlocal count
        count += 1
        cp(str(base / "tree"), f"box:/in{count}")

    def tar() -> None:
        command = 'tar -C "$1" -c tree | tar -C "$2" -x'
        subprocess.run(["bash", "-c", f"set -o pipefail; {command}", "tar", base, fresh()], check=True)

    subjects: dict[str, Callable[[], object]] = {"out": out, "into": into, "tar": tar}
    figures = in_turn(subjects, ROUNDS, warmup=1)
    return [
        _row("cp of 500 MB out of a container", figures["out"], figures["tar"]),
        _row("cp of 500 MB into a container", figures["into"], figures["tar"]),
    ]


def _row(what: str, own: Figure, peer: Figure) -> Row:
    return Row(what, str(own), f"`tar` to `tar` {peer}", own.median / peer.median, "1.5x")
