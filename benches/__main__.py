"""`python -m benches [api|rate|runtime|cli|requests|memory|list|crowd|copy|pull|streams ...]`: the figures."""

from __future__ import annotations

import os
import platform
import sys

from benches import copies, crowds, listing, memory, pulls, starts, streams
from benches.measure import Row, table

STARTS = {"api", "rate", "runtime", "cli", "requests"}


def main() -> int:
    """Run what was asked for."""
    wanted = set(sys.argv[1:])
    if unknown := wanted - STARTS - {"memory", "list", "crowd", "copy", "pull", "streams"}:
        print(f"no such bench: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    if not wanted or wanted & STARTS:
        rows += starts.rows(wanted & STARTS)
    if not wanted or "memory" in wanted:
        rows += memory.rows()
    if not wanted or "list" in wanted:
        rows += listing.rows()
    if not wanted or "crowd" in wanted:
        rows += crowds.rows()
    if not wanted or "copy" in wanted:
        rows += copies.rows()
    if not wanted or "pull" in wanted:
        rows += pulls.rows()
    if not wanted or "streams" in wanted:
        rows += streams.rows()
    machine = f"Linux {platform.release()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    print(f"{machine}; medians (quartiles)\n")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
