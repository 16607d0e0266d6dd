"""Bundles for black-box tests of an OCI runtime's command line, ours and runc's alike."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import subprocess
import sysconfig
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

APPLETS = [
    "sh",
    "true",
    "false",
    "ls",
    "cat",
    "id",
    "sleep",
    "mount",
    "ps",
    "env",
    "echo",
    "pwd",
    "stat",
    "touch",
    "mkdir",
    "hostname",
    "head",
    "grep",
    "umask",
    "kill",
    "readlink",
    "test",
    "wc",
    "tr",
    "sort",
    "dd",
    "ln",
    "rm",
    "chmod",
    "nc",
    "stty",
    "tty",
    "umount",
    "mknod",
    "sync",
    "seq",
    "tail",
    "df",
]

# The parent of the tests' control groups: one for each run, so that runs do not meet.
PARENT = f"knarr-runtime-test-{os.getpid()}"
OURS = os.environ.get("KNARR_RUNTIME") or os.path.join(sysconfig.get_path("scripts"), "knarr-runtime")
DOCKER_CAPABILITIES = [
    f"CAP_{name}"
    for name in [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ]
]


def base_spec() -> dict[str, Any]:
    """What an engine's default comes to: private everything, Docker's masked paths and capabilities."""
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["true"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": {name: list(DOCKER_CAPABILITIES) for name in ("bounding", "effective", "permitted")},
        },
        "root": {"path": "rootfs"},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            },
            {
                "destination": "/dev/shm",
                "type": "tmpfs",
                "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
            },
            {
                "destination": "/dev/mqueue",
                "type": "mqueue",
                "source": "mqueue",
                "options": ["nosuid", "noexec", "nodev"],
            },
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {
                "destination": "/sys/fs/cgroup",
                "type": "cgroup",
                "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
            },
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            "maskedPaths": [
                "/proc/acpi",
                "/proc/kcore",
                "/proc/keys",
                "/proc/timer_list",
                "/proc/scsi",
                "/sys/firmware",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


@dataclass
class Bundle:
    """A bundle on disk, a runtime to run it, and a container ID that is nobody else's."""

    path: Path
    runtime: str
    state: Path
    spec: dict[str, Any] = field(default_factory=base_spec)
    id: str = field(default_factory=lambda: f"rt-{uuid.uuid4().hex[:12]}")

    @property
    def rootfs(self) -> Path:
        return self.path / "rootfs"

    @property
    def group(self) -> str:
        return f"/{PARENT}/{self.id}"

    def save(self) -> None:
        spec = copy.deepcopy(self.spec)
        spec["linux"].setdefault("cgroupsPath", self.group)
        (self.path / "config.json").write_text(json.dumps(spec))

    def call(self, verb: str, *words: str, check: bool = False, **options: Any) -> subprocess.CompletedProcess[str]:
        options.setdefault("stdin", subprocess.DEVNULL)
        done = subprocess.run(
            [self.runtime, "--root", self.state, verb, *words], capture_output=True, text=True, timeout=30, **options
        )
        if check and done.returncode != 0:
            pytest.fail(f"{verb} {words}: {done.returncode}: {done.stderr or done.stdout}")
        return done

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in the foreground."""
        if command:
            self.spec["process"]["args"] = list(command)
        self.save()
        return self.call("run", "-b", str(self.path), self.id, **options)

    def output(self, *command: str) -> str:
        """The output of a command that succeeds."""
        done = self.run(*command)
        if done.returncode != 0:
            pytest.fail(f"{command}: {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    def start(self, *command: str) -> int:
        """Start a command in the background; its PID."""
        if command:
            self.spec["process"]["args"] = list(command)
        self.save()
        file = self.path / "pid"
        log = (self.path / "output").open("wb")
        done = subprocess.run(
            [self.runtime, "--root", self.state, "run", "-b", self.path, "-d", "--pid-file", file, self.id],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            timeout=30,
        )
        if done.returncode != 0:
            pytest.fail((self.path / "output").read_text())
        return int(file.read_text())

    def status(self) -> dict[str, Any]:
        return json.loads(self.call("state", self.id, check=True).stdout)

    def exec(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        flags = options.pop("flags", [])
        return self.call("exec", *flags, self.id, *words, **options)

    def delete(self) -> None:
        self.call("delete", "--force", self.id)

    def mount(self, destination: str, **fields: Any) -> None:
        self.spec["mounts"].append({"destination": destination, **fields})

    def leftovers(self) -> list[str]:
        """Everything that a container of this name has left on the host."""
        found = [str(path) for path in self.state.glob(f"{self.id}*")]
        top = Path("/sys/fs/cgroup")
        for hierarchy in (top, *(path for path in top.iterdir() if path.is_dir())):
            place = hierarchy / self.group.lstrip("/")
            if place.exists():
                found.append(str(place))
        with open("/proc/self/mountinfo") as table:
            found += [line for line in table if self.id in line or str(self.path) in line]
        return found


def make_rootfs(root: Path) -> None:
    (root / "bin").mkdir(parents=True)
    shutil.copy2("/bin/busybox", root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    for name in ("etc", "proc", "sys", "dev", "tmp", "root"):
        (root / name).mkdir()
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nana:x:1000:100:Ana:/home/ana:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nusers:x:100:\naudio:x:63:ana\n")


def make_bundle(base: Path, runtime: str) -> Bundle:
    path = base / "bundle"
    make_rootfs(path / "rootfs")
    state = base / "state"
    state.mkdir()
    return Bundle(path, runtime, state)


def remove_groups() -> None:
    """Remove the tests' parent group where nothing is in it any more: what a failed test left is its own matter."""
    for place in (Path("/sys/fs/cgroup") / PARENT, *Path("/sys/fs/cgroup").glob(f"*/{PARENT}")):
        with contextlib.suppress(OSError):
            place.rmdir()


RUNC = shutil.which("runc", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
BOTH = [pytest.param(OURS, id="knarr"), pytest.param(RUNC, id="runc")]


def bundle_of(base: Path, runtime: str):
    """A bundle whose container leaves nothing behind: the body of the fixtures."""
    bundle = make_bundle(base, runtime)
    yield bundle
    bundle.delete()
    left = bundle.leftovers()
    remove_groups()
    assert left == []
