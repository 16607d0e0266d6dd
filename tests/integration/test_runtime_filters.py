"""Verdicts of the compiled system call filters in real processes, beside libseccomp's by way of runc."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.runtime_bundle import DOCKER_CAPABILITIES, OURS, RUNC, make_bundle, remove_groups

# Calls that cannot do harm with these arguments: (number, first argument). Each prints its error number.
PROBE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
static void probe(long number, long first) {
    errno = 0;
    long result = syscall(number, first, 0L, 0L, 0L, 0L, 0L);
    printf("%ld %ld %d\n", number, first, result < 0 ? errno : 0);
    if (number == SYS_socket && result >= 0) close((int)result);
}
int main(void) {
    for (long family = 0; family < 50; family++) probe(SYS_socket, family);
    long persona[] = {0, 8, 0x20000, 0x20008, 0xffffffff, 1, 0x40000};
    for (unsigned at = 0; at < sizeof persona / sizeof *persona; at++) { probe(SYS_personality, persona[at]); syscall(SYS_personality, 0L); }
    long null_calls[] = {SYS_mount, SYS_umount2, SYS_swapon, SYS_reboot, SYS_sethostname, SYS_init_module, SYS_delete_module,
        SYS_keyctl, SYS_add_key, SYS_request_key, SYS_bpf, SYS_perf_event_open, SYS_kexec_load, SYS_open_by_handle_at, SYS_setns,
        SYS_process_vm_readv, SYS_userfaultfd, SYS_move_pages, SYS_clock_settime, SYS_settimeofday, SYS_acct,
        SYS_iopl, SYS_ioperm, SYS_quotactl, SYS_lookup_dcookie, SYS_clone3, SYS_chroot, SYS_mknod, SYS_statx, SYS_openat2,
        SYS_io_uring_setup, SYS_fsopen, SYS_open_tree, SYS_move_mount, SYS_pidfd_open, SYS_epoll_wait, SYS_getrandom, SYS_uselib,
        SYS_nfsservctl, SYS_vmsplice, SYS_pivot_root, SYS__sysctl, SYS_sysfs, SYS_ustat, SYS_name_to_handle_at, SYS_kcmp};
    for (unsigned at = 0; at < sizeof null_calls / sizeof *null_calls; at++) probe(null_calls[at], 0);
    for (long number = 440; number < 480; number++) if (number != SYS_process_madvise) probe(number, 0);
    long young[] = {500, 600, 1000, 4095};
    for (unsigned at = 0; at < 4; at++) probe(young[at], 0);
    probe(SYS_unshare, 0x10000000); probe(SYS_unshare, 0);
    return 0;
}
"""


def resolved(profile: dict, capabilities: list[str]) -> dict:
    """Docker's profile as an OCI filter for these capabilities on this machine."""
    rules = []
    for rule in profile["syscalls"]:
        includes, excludes = rule.get("includes", {}), rule.get("excludes", {})
        if includes.get("arches") and "amd64" not in includes["arches"]:
            continue
        if any(name not in capabilities for name in includes.get("caps", [])):
            continue
        if "amd64" in excludes.get("arches", []) or any(name in capabilities for name in excludes.get("caps", [])):
            continue
        plain = {key: rule[key] for key in ("names", "action", "errnoRet", "args") if rule.get(key) is not None}
        each = rule.get("each")
        if each is None:
            rules.append(plain)
        else:
            # Our own short form: one rule for each value.
            rules += [
                {**plain, "args": [{"index": each["index"], "op": each["op"], "value": value}]}
                for value in each["values"]
            ]
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile.get("defaultErrnoRet", 1),
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    }


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    place = tmp_path_factory.mktemp("probe")
    (place / "probe.c").write_text(PROBE)
    subprocess.run(["cc", "-O1", "-static", "-o", place / "probe", place / "probe.c"], check=True)
    return place / "probe"


@pytest.fixture(scope="module")
def profile():
    """The engine's own default profile, in Docker's form."""
    return json.loads((Path(__file__).parents[2] / "python/knarr/resources/seccomp.json").read_text())


def outcomes(runtime: str, base: Path, probe: Path, profile: dict, **process) -> dict[tuple[int, int], int]:
    base.mkdir()
    bundle = make_bundle(base, runtime)
    shutil.copy2(probe, bundle.rootfs / "bin/probe")
    bundle.spec["linux"]["seccomp"] = resolved(profile, process.pop("capabilities", DOCKER_CAPABILITIES))
    bundle.spec["process"].update(process)
    try:
        text = bundle.output("probe")
    finally:
        bundle.delete()
        remove_groups()
    return {
        (int(number), int(first)): int(error) for number, first, error in (line.split() for line in text.splitlines())
    }


@pytest.mark.parametrize("privileges", [False, True], ids=["plain", "no-new-privileges"])
def test_the_default_profile_has_libseccomps_verdicts(tmp_path, probe, profile, privileges):
    ours = outcomes(OURS, tmp_path / "ours", probe, profile, noNewPrivileges=privileges)
    theirs = outcomes(RUNC, tmp_path / "theirs", probe, profile, noNewPrivileges=privileges)
    differences = {call: (ours[call], theirs[call]) for call in ours if ours[call] != theirs[call]}
    # An older libseccomp does not know the youngest calls and leaves their rules out.
    known = {call: pair for call, pair in differences.items() if call[0] < 450}
    assert known == {}
    assert {pair[1] for pair in differences.values()} <= {1, 38}


def test_what_the_profile_must_refuse(tmp_path, probe, profile):
    ours = outcomes(OURS, tmp_path / "ours", probe, profile)
    refused = {
        "mount": 165,
        "reboot": 169,
        "bpf": 321,
        "setns": 308,
        "keyctl": 250,
        "kexec_load": 246,
        "open_by_handle_at": 304,
    }
    assert {name: ours[number, 0] for name, number in refused.items()} == dict.fromkeys(refused, 1)
    assert ours[435, 0] == 38, "clone3 must look as if there were none"
    assert ours[41, 40] == 1, "AF_VSOCK"
    assert ours[41, 38] == 1, "AF_ALG"
    assert ours[135, 0x20000] == 0
    assert ours[135, 1] == 1


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [
        ({"action": "SCMP_ACT_ERRNO", "errnoRet": 99}, "99"),
        ({"action": "SCMP_ACT_KILL_PROCESS"}, "killed"),
        ({"action": "SCMP_ACT_TRAP"}, "killed"),
        ({"action": "SCMP_ACT_LOG"}, "0"),
        ({"action": "SCMP_ACT_TRACE", "errnoRet": 5}, "38"),
    ],
    ids=lambda value: value["action"] if isinstance(value, dict) else None,
)
@pytest.mark.parametrize("runtime", [pytest.param(OURS, id="knarr"), pytest.param(RUNC, id="runc")])
def test_actions(tmp_path, probe, runtime, rule, outcome):
    bundle = make_bundle(tmp_path, runtime)
    shutil.copy2(probe, bundle.rootfs / "bin/probe")
    bundle.spec["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["personality"], **rule}],
    }
    try:
        done = bundle.run("sh", "-c", "probe > /out; echo $?")
    finally:
        bundle.delete()
        remove_groups()
    if outcome == "killed":
        assert done.stdout.strip() == "159", done.stderr
    else:
        lines = [line.split() for line in (bundle.rootfs / "out").read_text().splitlines()]
        assert {error for number, first, error in lines if number == "135" and first == "8"} == {outcome}
