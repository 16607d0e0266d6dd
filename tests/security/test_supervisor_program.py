"""No container can write to the program of the processes that start it (CVE-2019-5736)."""

import os
from pathlib import Path

from tests.conftest import SCRIPTS


def test_the_supervisors_program_is_on_a_read_only_mount(busybox):
    busybox.run("run", "--rm", "busybox", "true")
    pids = busybox.supervisor_pids()
    assert len(pids) == 2
    for pid in pids:
        assert os.statvfs(f"/proc/{pid}/exe").f_flag & os.ST_RDONLY


def test_an_exec_gives_no_way_to_the_supervisors_program(busybox):
    program = SCRIPTS / "knarr-supervisor"
    before = program.read_bytes()
    # Even with the host's root to help: whoever gets hold of /proc/PID/exe of an exec being started can't write through it.
    loop = "while :; do for p in /proc/[0-9]*; do (echo broken > $p/exe) 2>/dev/null; done; done"
    busybox.run("run", "-d", "--name", "watcher", "--cap-add", "ALL", "busybox", "sh", "-c", loop)
    for command in (["true"], ["/proc/self/exe"]) * 15:
        busybox.run("exec", "watcher", *command, check=False)
    busybox.run("rm", "-f", "watcher")
    assert Path(program).read_bytes() == before
