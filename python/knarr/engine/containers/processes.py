"""The processes of a container, from its control group.

`ps -ef`, which is what people ask for, is read from /proc (proc_pid_stat(5)); all else is the host's ps, as with
Docker: nothing of the image is run.
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import time

from knarr.errors import Conflict, Failed, InvalidArgument, Unsupported

__all__ = ["TITLES", "check", "processes"]

TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
PATIENCE = 10  # seconds that ps may take
_TICKS = os.sysconf("SC_CLK_TCK")
# A column that is called PID and is another: rows would be chosen by it.
_RENAMED = re.compile(r"\s+(\S*)=\s*(PID\S*)")


def check(arguments: str) -> None:
    """Refuse arguments that would choose rows by anything but their PIDs, or that are none."""
    if "\0" in arguments:
        raise InvalidArgument("invalid options of ps: they hold a NUL byte")
    for column, title in _RENAMED.findall(arguments):
        if column != "pid":
            raise Failed(f'specifying "{column}={title}" is not allowed')


def processes(group: str, arguments: str) -> tuple[list[str], list[list[str]]]:
    """(titles, rows) of a control group, by its path. Blocks: for threads. Raises Failed in the words of ps."""
    pids = _pids(group)
    if arguments not in ("", "-ef"):
        return parse(_ps(pids, arguments.split(" ")), set(pids))
    boot = time.time() - float(_read("/proc/uptime").split()[0])
    rows = [row for row in (_row(pid, boot) for pid in pids) if row is not None]
    return TITLES, rows


def _pids(group: str) -> list[int]:
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"):
        top = f"{root}{group}"
        if os.path.isdir(top):
            found: set[int] = set()
            for directory, _, files in os.walk(top):
                if "cgroup.procs" in files:
                    found |= {int(line) for line in _read(f"{directory}/cgroup.procs").split()}
            return sorted(found)
    raise Conflict(f"there is no control group {group}: the container has ended")


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


def _ps(pids: list[int], arguments: list[str]) -> str:
    """What the host's ps says of some processes, with somebody's own options."""
    only = "-q" + ",".join(map(str, pids))
    try:
        result = _run([*arguments, only])
        if result.returncode:  # some options do not go with -q: then of all processes
            result = _run(arguments)
    except FileNotFoundError:
        raise Unsupported(
            "top with ps options needs the host's ps, which is not installed: leave the options out"
        ) from None
    except subprocess.TimeoutExpired:
        raise Failed(f"ps: no answer within {PATIENCE} s") from None
    if result.returncode:
        raise Failed(f"ps: {result.stderr.partition(chr(10))[0] or f'exit status {result.returncode}'}")
    return result.stdout


def _run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ps", *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=PATIENCE,
        stdin=subprocess.DEVNULL,
    )


def parse(output: str, pids: set[int]) -> tuple[list[str], list[list[str]]]:
    """The titles, and the rows of those processes. A row with a dash for a PID is a thread of the one above it."""
    first, *lines = output.split("\n")
    titles = _words(first)
    if "PID" not in titles:
        raise Failed("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows, ours = [], False
    for line in lines:
        words = _words(line)
        if len(words) <= column:
            continue
        if words[column] != "-":
            if not words[column].isdigit():
                raise Failed(f"Unexpected pid '{words[column]}': it is no number")
            ours = int(words[column]) in pids
        if ours:
            last = len(titles) - 1
            rows.append([*words[:last], " ".join(words[last:])])
    return titles, rows


def _words(line: str) -> list[str]:
    """Split at ASCII spaces only: names may hold others."""
    return [word for word in re.split(r"[ \t\n\f\r]+", line) if word]
