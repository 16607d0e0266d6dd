"""The tour's files: scripts, answers and differences, all of one plain form.

    # a comment
    @ a shell command that prepares something: it must work, and what it says is not looked at
    $ a shell command: a step
    1 a line that it wrote to standard output
    2 a line that it wrote to standard error
    ? its exit code, where that is not 0

A script (chapters/*.tour) has the commands alone; answers/<command line>/*.answers has what Docker's engine made of them;
differences.txt has, for some steps, what knarr makes of them, below a line or more of `! why`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Step:
    """One command, and what came of it (normalised)."""

    command: str
    is_preparation: bool = False
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    code: int = 0
    why: str = ""

    def lines(self) -> list[str]:
        """The step as it stands in a file."""
        result = [f"! {line}" for line in self.why.splitlines()]
        result.append(("@ " if self.is_preparation else "$ ") + self.command)
        result += [f"1 {line}".rstrip() for line in self.out]
        result += [f"2 {line}".rstrip() for line in self.err]
        if self.code:
            result.append(f"? {self.code}")
        return result


def read(path: Path) -> list[Step]:
    """The steps of a file."""
    steps: list[Step] = []
    why: list[str] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        mark, rest = line[:2].rstrip(), line[2:]
        if mark in ("$", "@"):
            steps.append(Step(rest, mark == "@", why="\n".join(why)))
            why = []
        elif mark == "!":
            why.append(rest)
        elif mark == "1":
            steps[-1].out.append(rest)
        elif mark == "2":
            steps[-1].err.append(rest)
        elif mark == "?":
            steps[-1].code = int(rest)
        elif line and mark != "#":
            raise ValueError(f"{path}:{number}: {line!r} is no line of a transcript")
    return steps


def write(path: Path, heading: str, steps: list[Step]) -> None:
    """Write them to a file."""
    lines = [f"# {heading}"]
    for step in steps:
        lines += step.lines()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
