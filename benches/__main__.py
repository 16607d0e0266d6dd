"""`python -m benches [api|rate|runtime|cli|requests|memory|list|crowd|networks|copy|pull|streams ...]`: the figures."""

from __future__ import annotations

import os
import platform
import sys
from typing import TYPE_CHECKING

from benches import copies, crowds, listing, memory, networks, pulls, starts, streams
from benches.measure import HEAD, line

if TYPE_CHECKING:
    from benches.measure import Row

STARTS = {"api", "rate", "runtime", "cli", "requests"}
SECTIONS = {
    "memory": memory.rows,
    "list": listing.rows,
    "crowd": crowds.rows,
    "networks": networks.rows,
    "copy": copies.rows,
    "pull": pulls.rows,
    "streams": streams.rows,
}


def main() -> int:
    """Run what was asked for; each section's rows appear when it is done."""
    wanted = set(sys.argv[1:]) or STARTS | SECTIONS.keys()
    if unknown := wanted - STARTS - SECTIONS.keys():
        print(f"no such bench: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    machine = f"Linux {platform.release()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    print(f"{machine}; medians (quartiles)\n\n{HEAD}", flush=True)
    if wanted & STARTS:
        _show(starts.rows(wanted & STARTS))
    for name, section in SECTIONS.items():
        if name in wanted:
            _show(section())
    return 0


def _show(rows: list[Row]) -> None:
    for row in rows:
        print(line(row), flush=True)


if __name__ == "__main__":
    sys.exit(main())
