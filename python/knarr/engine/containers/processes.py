"""The processes of a container, as `ps -ef` lists them, from its control group and /proc (proc_pid_stat(5))."""

from __future__ import annotations

import os
import pwd
import subprocess
import time

from knarr.errors import Conflict, Unsupported

__all__ = ["TITLES", "processes"]

TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
_TICKS = os.sysconf("SC_CLK_TCK")


def processes(engine_id: str, container_id: str, arguments: str) -> tuple[list[str], list[list[str]]]:
    """(titles, rows). Blocks: for threads."""
    pids = _pids(engine_id, container_id)
    if arguments not in ("", "-ef", "aux", "-aux"):
        return _ps(pids, arguments.split())
    boot = time.time() - float(_read("/proc/uptime").split()[0])
    rows = [row for row in (_row(pid, boot) for pid in pids) if row is not None]
    return TITLES, rows


def _pids(engine_id: str, container_id: str) -> list[int]:
    place = f"knarr-{engine_id}/{container_id}"
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"):
        top = f"{root}/{place}"
        if os.path.isdir(top):
            found: set[int] = set()
            for directory, _, files in os.walk(top):
                if "cgroup.procs" in files:
                    found |= {int(line) for line in _read(f"{directory}/cgroup.procs").split()}
            return sorted(found)
    raise Conflict(f"container {container_id} has no control group: it has ended")


def _row(pid: int, boot: float) -> list[str] | None:
    try:
        status = _read(f"/proc/{pid}/stat")
        command = _read(f"/proc/{pid}/cmdline")
        owner = os.stat(f"/proc/{pid}").st_uid
    except (FileNotFoundError, ProcessLookupError):
        return None
    name, _, rest = status[status.index("(") + 1 :].rpartition(")")
    fields = rest.split()
    ticks = int(fields[11]) + int(fields[12])
    started = boot + int(fields[19]) / _TICKS
    seconds = ticks // _TICKS
    age = max(time.time() - started, 1)
    try:
        user = pwd.getpwuid(owner).pw_name
    except KeyError:
        user = str(owner)
    return [
        user,
        str(pid),
        fields[1],
        str(int(seconds * 100 / age)),
        time.strftime("%H:%M" if age < 86400 else "%b%d", time.localtime(started)),
        _terminal(int(fields[4])),
        f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}",
        command.replace("\0", " ").strip() or f"[{name}]",
    ]


def _terminal(number: int) -> str:
    if not number:
        return "?"
    major, minor = os.major(number), os.minor(number)
    return f"pts/{minor + (major - 136) * 256}" if 136 <= major <= 143 else f"tty{minor}"


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _ps(pids: list[int], arguments: list[str]) -> tuple[list[str], list[list[str]]]:
    """The host's ps, with somebody's own columns, cut down to the container's processes."""
    try:
        result = subprocess.run(
            ["ps", *arguments], capture_output=True, text=True, check=False, timeout=10, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise Unsupported(
            "top with ps options needs the host's ps, which is not installed: leave the options out"
        ) from None
    lines = result.stdout.splitlines()
    if result.returncode or not lines:
        raise Conflict(f"ps {' '.join(arguments)}: {result.stderr.strip() or 'no output'}")
    titles = lines[0].split()
    if "PID" not in titles:
        raise Conflict("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = [line.split(None, len(titles) - 1) for line in lines[1:]]
    return titles, [row for row in rows if len(row) > column and row[column].isdigit() and int(row[column]) in pids]
