"""Timing in turn: A B C A B C ..., so that a machine whose speed drifts slows all alike.

Every figure is a wall-clock time in seconds; what is reported is the median with the quartiles as its spread.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True)
class Figure:
    """The times of one thing, in seconds."""

    times: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @property
    def spread(self) -> tuple[float, float]:
        if len(self.times) < 4:
            return min(self.times), max(self.times)
        quartiles = statistics.quantiles(self.times, n=4)
        return quartiles[0], quartiles[2]

    def __str__(self) -> str:
        low, high = self.spread
        return f"{self.median * 1000:.1f} ms ({low * 1000:.1f}-{high * 1000:.1f})"


REST = 0.05  # seconds


def in_turn(subjects: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 2) -> dict[str, Figure]:
    """Run each subject once a round; a subject may return the seconds that count, else its whole call does.

    Before each there is a moment of rest: what an engine clears up after it has answered is not the next one's.
    """
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(warmup + rounds):
        for name, subject in subjects.items():
            time.sleep(REST)
            begin = time.perf_counter()
            result = subject()
            elapsed = result if isinstance(result, float) else time.perf_counter() - begin
            if number >= warmup:
                times[name].append(elapsed)
    return {name: Figure(tuple(values)) for name, values in times.items()}


class Timer:
    """A process that times commands with posix_spawn and wait4, optionally in a mount namespace of its own.

    `prepare` is a shell command run once inside it, after unshare -m: crun 1.8 wants no unified hierarchy beside v1's.
    """

    PROGRAM = (
        "import json,os,sys,time\n"
        "null=os.open('/dev/null',os.O_RDWR)\n"
        "acts=[(os.POSIX_SPAWN_DUP2,null,0),(os.POSIX_SPAWN_DUP2,null,1)]\n"
        "for line in sys.stdin:\n"
        "    argv=json.loads(line)\n"
        "    begin=time.perf_counter()\n"
        "    pid=os.posix_spawnp(argv[0],argv,os.environ,file_actions=acts)\n"
        "    status=os.wait4(pid,0)[1]\n"
        "    elapsed=time.perf_counter()-begin\n"
        "    print(json.dumps([elapsed,os.waitstatus_to_exitcode(status)]),flush=True)\n"
    )

    def __init__(self, prepare: str = "", env: Mapping[str, str] | None = None) -> None:
        command: Sequence[str] = [sys.executable, "-I", "-S", "-c", self.PROGRAM]
        if prepare:
            command = ["unshare", "-m", "sh", "-c", f'{prepare}; exec "$@"', "sh", *command]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
        )

    def run(self, *argv: str) -> float:
        """The seconds that a command took; it must exit with 0."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(argv) + "\n")
        self._process.stdin.flush()
        elapsed, code = json.loads(self._process.stdout.readline())
        if code != 0:
            raise RuntimeError(f"{' '.join(argv)}: exit {code}")
        return float(elapsed)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@dataclass(frozen=True)
class Row:
    """A line of the table: what, whose figure beside whose, the ratio and the ratio to reach."""

    what: str
    own: str
    peer: str
    ratio: float | None
    target: str


HEAD = "| what | knarr | beside | ratio | to reach |\n| --- | --- | --- | --- | --- |"


def line(row: Row) -> str:
    """A row of the Markdown table below HEAD."""
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}x"
    return f"| {row.what} | {row.own} | {row.peer} | {ratio} | {row.target} |"
