"""Images and specifications that try to reach the host through the runtime.

Each case is the shape of an attack that one runtime or another fell for; the number is that of its CVE.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.runtime_bundle import OURS, bundle_of


@pytest.fixture
def bundle(tmp_path):
    yield from bundle_of(tmp_path, OURS)


@pytest.fixture
def outside(tmp_path):
    """A directory of the host that no container may touch."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "secret").write_text("the host's")
    return place


def untouched(place: Path) -> None:
    assert sorted(path.name for path in place.iterdir()) == ["secret"]
    assert (place / "secret").read_text() == "the host's"


@pytest.mark.parametrize("target", ["absolute", "relative"])
@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_a_mount_point_that_is_a_link(bundle, outside, name, target):
    # CVE-2019-19921, CVE-2019-16884, CVE-2023-27561: /proc as a link, to be mounted elsewhere.
    (bundle.rootfs / name).rmdir()
    path = str(outside) if target == "absolute" else os.path.relpath(outside, bundle.rootfs)
    (bundle.rootfs / name).symlink_to(path)
    done = bundle.run("sh", "-c", "cat /proc/self/status | grep -c Cap; : > /dev/null; echo up")
    untouched(outside)
    # The link is resolved inside the container: either everything is there, or nothing runs.
    assert done.returncode != 0 or done.stdout == "5\nup\n"
    assert "secret" not in done.stdout + done.stderr


def test_a_volume_over_a_link(bundle, outside, tmp_path):
    # CVE-2021-30465: a volume's place leads out of the root.
    source = tmp_path / "volume"
    source.mkdir()
    (source / "mine").write_text("volume")
    (bundle.rootfs / "data").symlink_to(outside)
    (bundle.rootfs / "up").symlink_to("../../../../../../../../.." + str(outside) + "-too")
    bundle.mount("/data/sub", type="bind", source=str(source), options=["rbind"])
    bundle.mount("/up", type="bind", source=str(source), options=["rbind"])
    done = bundle.run("sh", "-c", "cat /up/mine /data/sub/mine")
    untouched(outside)
    assert done.stdout == "volumevolume", done.stderr


def test_a_mount_point_below_a_volume(bundle, outside, tmp_path):
    # What is mounted first may hold links for what is mounted next.
    source = tmp_path / "volume"
    source.mkdir()
    (source / "next").symlink_to(outside)
    (source / "proc").symlink_to("/proc/self/fd")
    bundle.mount("/data", type="bind", source=str(source), options=["rbind"])
    bundle.mount("/data/next/made", type="tmpfs", source="tmpfs", options=["nosuid"])
    done = bundle.run("true")
    untouched(outside)
    assert done.returncode != 0
    assert "/data/next/made" in done.stderr


@pytest.mark.parametrize(
    "path", ["/proc/self/fd/3", "/proc/self/fd/7", "/proc/self/fd/10", "/proc/1/cwd/../../..", "/proc/self/root/../.."]
)
def test_a_working_directory_outside(bundle, path):
    # CVE-2024-21626: a descriptor of the runtime's as working directory.
    bundle.spec["process"]["cwd"] = path
    done = bundle.run("sh", "-c", "ls -a; pwd")
    # A path through links of procfs is refused; one without is the container's, wherever that is.
    assert "config.json" not in done.stdout
    assert done.returncode != 0 or done.stdout.split()[-1].startswith("/")
    bundle.spec["process"]["cwd"] = "/"
    bundle.start("sleep", "60")
    done = bundle.exec("ls", "-a", flags=["--cwd", path])
    assert "config.json" not in done.stdout


def test_a_working_directory_by_link(bundle):
    (bundle.rootfs / "work").symlink_to("/proc/self/fd/4")
    bundle.spec["process"]["cwd"] = "/work"
    assert bundle.run("pwd").returncode != 0


@pytest.mark.parametrize("how", ["program", "interpreter", "link"])
def test_the_runtimes_own_program(bundle, how):
    # CVE-2019-5736: the runtime executed again inside, to be opened for writing from there.
    before = Path(bundle.runtime).read_bytes()
    if how == "link":
        (bundle.rootfs / "bin/evil").symlink_to("/proc/self/exe")
    else:
        (bundle.rootfs / "bin/evil").write_text("#!/proc/self/exe\n")
        (bundle.rootfs / "bin/evil").chmod(0o755)
    command = {"program": "/proc/self/exe", "interpreter": "/bin/evil", "link": "/bin/evil"}[how]
    bundle.run(command)
    bundle.start("sh", "-c", "while :; do for p in /proc/[0-9]*; do (echo broken > $p/exe) 2>/dev/null; done; done")
    for _ in range(20):
        bundle.exec(command)
        bundle.exec("true")
    bundle.delete()
    assert Path(bundle.runtime).read_bytes() == before


def test_a_descriptor_of_the_runtimes_program_stays_read_only(bundle):
    # The holder of /proc/PID/exe tries again once the program has ended and its text is not busy.
    before = Path(bundle.runtime).read_bytes()
    bundle.spec["annotations"] = {"knarr.init": "true"}
    script = "exec 9< /proc/1/exe; (echo broken > /proc/self/fd/9) 2>&1; (echo broken > /proc/1/exe) 2>&1; dd if=/dev/zero of=/proc/self/fd/9 count=1 2>&1"
    done = bundle.run("sh", "-c", script)
    assert Path(bundle.runtime).read_bytes() == before
    assert (
        done.stdout.count("ermission denied")
        + done.stdout.count("not permitted")
        + done.stdout.count("busy")
        + done.stdout.count("nonexistent")
        >= 3
    )


def test_a_null_device_that_is_none(bundle):
    # CVE-2025-31133: what masks paths must be the null device and nothing that the image put there.
    bundle.spec["mounts"] = [mount for mount in bundle.spec["mounts"] if not mount["destination"].startswith("/dev")]
    (bundle.rootfs / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    done = bundle.run("sh", "-c", "cat /proc/keys; echo evil > /proc/keys; echo end")
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before
    assert done.stdout == "end\n"


def test_a_console_that_leads_elsewhere(bundle, outside, tmp_path):
    # CVE-2025-52565: /dev/console and /dev/pts/N as links while the terminal is put there.
    import socket

    bundle.spec["mounts"] = [
        mount for mount in bundle.spec["mounts"] if mount["destination"] not in ("/dev", "/dev/shm", "/dev/mqueue")
    ]
    for name, target in {
        "console": str(outside / "secret"),
        "pts": str(outside),
        "ptmx": str(outside / "secret"),
    }.items():
        (bundle.rootfs / "dev" / name).symlink_to(target)
    bundle.spec["process"]["terminal"] = True
    bundle.spec["process"]["args"] = ["sh", "-c", "echo written > /dev/console"]
    bundle.save()
    path = str(tmp_path / "console")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        bundle.call("run", "-d", "--console-socket", path, "-b", str(bundle.path), bundle.id)
    time.sleep(0.2)
    untouched(outside)


def test_parameters_that_lead_elsewhere(bundle, tmp_path):
    # CVE-2025-52881: writes to procfs redirected to other files of it by what the image mounts there.
    fake = tmp_path / "fake"
    (fake / "sys/net/ipv4").mkdir(parents=True)
    target = bundle.rootfs / "trap"
    target.write_text("unwritten")
    (fake / "sys/net/ipv4/ip_forward").symlink_to("/trap")
    bundle.mount("/proc", type="bind", source=str(fake), options=["rbind"])
    bundle.spec["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    bundle.spec["linux"]["maskedPaths"] = bundle.spec["linux"]["readonlyPaths"] = []
    bundle.run("true")
    assert target.read_text() == "unwritten"


@pytest.mark.parametrize(
    "name",
    ["net/../kernel/core_pattern", "net.ipv4/../../kernel/core_pattern", "kernel.core_pattern", "net//x", "", "../x"],
)
def test_parameters_that_are_not_the_containers(bundle, name):
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    bundle.spec["linux"]["sysctl"] = {name: "evil"}
    assert bundle.run("true").returncode != 0
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


@pytest.mark.parametrize("path", ["/../evil", "/a/../../evil", "..", "/", "a\0b"])
def test_control_groups_stay_below_their_root(bundle, path):
    bundle.spec["linux"]["cgroupsPath"] = path
    done = bundle.run("true")
    assert done.returncode != 0
    assert "cgroupsPath" in done.stderr or "NUL" in done.stderr or "nul" in done.stderr
    assert not Path("/sys/fs/cgroup/pids/evil").exists()


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "", "a b", "x" * 300])
def test_names_are_no_paths(bundle, name):
    bundle.save()
    done = bundle.call("run", "-b", str(bundle.path), name)
    assert done.returncode == 1
    assert "ID" in done.stderr


def break_mount(spec):
    spec["mounts"].append({"destination": "/x", "type": "nonesuch", "source": "none"})


def break_device(spec):
    spec["linux"]["devices"] = [{"type": "c", "path": "/dev/null/x", "major": 1, "minor": 3}]


def break_source(spec):
    spec["mounts"].append({"destination": "/x", "type": "bind", "source": "/nonesuch", "options": ["bind"]})


def break_option(spec):
    spec["mounts"].append({"destination": "/x", "type": "tmpfs", "source": "x", "options": ["size=rubbish"]})


def break_limit(spec):
    spec["linux"]["resources"]["memory"] = {"limit": 1 << 30, "swap": 1 << 20}


def break_memory(spec):
    spec["linux"]["resources"]["memory"] = {"limit": 4096}


def break_namespace(spec):
    spec["linux"]["namespaces"].append({"type": "user", "path": "/proc/self/ns/nonesuch"})


def break_capability(spec):
    spec["process"]["capabilities"]["bounding"] = ["CAP_FLY"]


def break_rlimit(spec):
    spec["process"]["rlimits"] = [{"type": "RLIMIT_LUCK", "soft": 1, "hard": 1}]


def break_filter(spec):
    spec["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_PERHAPS"}


def break_exec_by_filter(spec):
    spec["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}],
    }


def break_command(spec):
    spec["process"]["args"] = ["/nonesuch"]


def break_hook(spec):
    spec["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "sleep 20"], "timeout": 1}]}


@pytest.mark.parametrize(
    "injure",
    [value for name, value in sorted(globals().items()) if name.startswith("break_")],
    ids=lambda f: f.__name__,
)
def test_a_start_that_fails_leaves_nothing(bundle, injure):
    injure(bundle.spec)
    bundle.save()
    done = bundle.call("run", "-b", str(bundle.path), bundle.id)
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert bundle.leftovers() == []
    words = [bundle.runtime, "--root", bundle.state, "create", "-b", bundle.path, bundle.id]
    created = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30
    )
    if created.returncode != 0:
        assert bundle.leftovers() == []


def test_a_killed_runtime_leaves_no_process_and_can_be_swept(bundle):
    bundle.spec["process"]["args"] = ["sleep", "63"]
    bundle.save()
    words = [bundle.runtime, "--root", bundle.state, "create", "-b", bundle.path, bundle.id]
    for milliseconds in range(16):
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(milliseconds / 2000)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.05)
        bundle.delete()
        assert bundle.leftovers() == []
    left = subprocess.run(["pgrep", "-f", f"{bundle.state} create"], capture_output=True, text=True)
    assert left.stdout == ""


def test_nobody_inside_sees_the_host(bundle, outside):
    text = bundle.output("sh", "-c", f"ls {outside} 2>&1; cat /proc/self/mountinfo; ls /proc/1/root/")
    assert "secret" not in text
    assert all(line.split()[4].startswith("/") for line in text.splitlines() if " - " in line)
    host = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()} - {
        "/",
        "/proc",
        "/sys",
        "/dev",
        "/dev/pts",
        "/dev/shm",
        "/dev/mqueue",
    }
    inside = {line.split()[4] for line in text.splitlines() if " - " in line}
    assert not (host & inside) - {place for place in host if place.startswith(("/sys/fs/cgroup", "/proc/"))}
