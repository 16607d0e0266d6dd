"""Limits of a specification in the files of the control groups, and what a container shares with another: as with runc."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.integration.runtime_bundle import BOTH, OURS, RUNC, Bundle, bundle_of

TOP = Path("/sys/fs/cgroup")
UNIFIED = (TOP / "cgroup.controllers").exists()


def a_disk() -> tuple[int, int]:
    """The numbers of a block device that takes limits."""
    for name in sorted(os.listdir("/sys/block")):
        if not name.startswith(("loop", "ram", "zram")):
            major, minor = Path(f"/sys/block/{name}/dev").read_text().strip().split(":")
            return int(major), int(minor)
    return 7, 0


MAJOR, MINOR = a_disk()
RATE = [{"major": MAJOR, "minor": MINOR, "rate": 1 << 20}]


@pytest.fixture(params=BOTH)
def bundle(request, tmp_path):
    yield from bundle_of(tmp_path, request.param)


@pytest.fixture
def ours(tmp_path):
    yield from bundle_of(tmp_path, OURS)


def group_file(bundle: Bundle, controller: str, name: str) -> str:
    """A file of the container's group."""
    for directory in [TOP] if UNIFIED else [path for path in TOP.iterdir() if controller in path.name.split(",")]:
        return (directory / bundle.group.lstrip("/") / name).read_text()
    pytest.fail(f"no {controller} controller")


@pytest.mark.parametrize(
    ("resources", "first", "second"),
    [
        ({"memory": {"limit": 64 << 20}}, ("memory", "memory.limit_in_bytes", f"{64 << 20}"), ("memory.max", f"{64 << 20}")),
        (
            {"memory": {"limit": 64 << 20, "swap": 96 << 20}},
            ("memory", "memory.memsw.limit_in_bytes", f"{96 << 20}"),
            ("memory.swap.max", f"{32 << 20}"),
        ),
        ({"memory": {"reservation": 32 << 20}}, ("memory", "memory.soft_limit_in_bytes", f"{32 << 20}"), ("memory.low", f"{32 << 20}")),
        ({"cpu": {"shares": 512}}, ("cpu", "cpu.shares", "512"), ("cpu.weight", "59")),
        ({"cpu": {"quota": 20000, "period": 50000}}, ("cpu", "cpu.cfs_quota_us", "20000"), ("cpu.max", "20000 50000")),
        ({"cpu": {"cpus": "0", "mems": "0"}}, ("cpuset", "cpuset.cpus", "0"), ("cpuset.cpus", "0")),
        ({"pids": {"limit": 77}}, ("pids", "pids.max", "77"), ("pids.max", "77")),
        (
            {"blockIO": {"throttleReadBpsDevice": RATE}},
            ("blkio", "blkio.throttle.read_bps_device", f"{MAJOR}:{MINOR} {1 << 20}"),
            ("io.max", f"{MAJOR}:{MINOR} rbps={1 << 20} wbps=max riops=max wiops=max"),
        ),
        (
            {"blockIO": {"throttleWriteBpsDevice": RATE}},
            ("blkio", "blkio.throttle.write_bps_device", f"{MAJOR}:{MINOR} {1 << 20}"),
            ("io.max", f"{MAJOR}:{MINOR} rbps=max wbps={1 << 20} riops=max wiops=max"),
        ),
        (
            {"blockIO": {"throttleReadIOPSDevice": RATE}},
            ("blkio", "blkio.throttle.read_iops_device", f"{MAJOR}:{MINOR} {1 << 20}"),
            ("io.max", f"{MAJOR}:{MINOR} rbps=max wbps=max riops={1 << 20} wiops=max"),
        ),
        (
            {"blockIO": {"throttleWriteIOPSDevice": RATE}},
            ("blkio", "blkio.throttle.write_iops_device", f"{MAJOR}:{MINOR} {1 << 20}"),
            ("io.max", f"{MAJOR}:{MINOR} rbps=max wbps=max riops=max wiops={1 << 20}"),
        ),
    ],
    ids=lambda value: str(value)[:48] if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_limit_is_in_its_file(bundle, resources, first, second):
    bundle.spec["linux"]["resources"] |= resources
    bundle.start("sleep", "100")
    controller, name, value = ("", *second) if UNIFIED else first
    assert group_file(bundle, controller, name).strip() == value


@pytest.mark.parametrize(
    ("resources", "controller", "name", "value"),
    [
        ({"memory": {"swappiness": 7}}, "memory", "memory.swappiness", "7"),
        ({"memory": {"disableOOMKiller": True}}, "memory", "memory.oom_control", "oom_kill_disable 1"),
        ({"blockIO": {"weight": 321}}, "blkio", "blkio.bfq.weight", "321"),
    ],
)
def test_what_version_2_can_go_without(bundle, resources, controller, name, value):
    bundle.spec["linux"]["resources"] |= resources
    if UNIFIED:
        assert bundle.run("true").returncode == 0
        return
    bundle.start("sleep", "100")
    assert value in group_file(bundle, controller, name)


def test_a_weight_for_a_device_goes_to_its_scheduler_or_is_left_out_with_a_warning(ours):
    """runc refuses the start where the device has another scheduler; a weight is no limit, so ours goes on."""
    weight = {"major": MAJOR, "minor": MINOR, "weight": 200}
    ours.spec["linux"]["resources"]["blockIO"] = {"weightDevice": [weight]}
    done = ours.run("true")
    assert done.returncode == 0
    scheduler = [
        path.read_text()
        for path in Path("/sys/block").glob("*/queue/scheduler")
        if (path.parents[1] / "dev").read_text() == f"{MAJOR}:{MINOR}\n"
    ]
    if "[bfq]" not in scheduler[0]:
        assert "weight" in done.stderr
        assert f"{MAJOR}:{MINOR} 200" in done.stderr


def test_leaf_weights_are_left_out_with_a_warning(ours):
    ours.spec["linux"]["resources"]["blockIO"] = {"leafWeight": 100}
    assert "leaf weights are left out" in ours.run("true").stderr


def test_a_limit_for_a_device_that_is_not_there(bundle):
    bundle.spec["linux"]["resources"]["blockIO"] = {"throttleReadBpsDevice": [{"major": 9, "minor": 99, "rate": 1}]}
    done = bundle.run("true")
    assert done.returncode != 0
    assert "o such" in done.stderr


def test_an_ipc_namespace_by_path(bundle, tmp_path):
    """Queues, and what shows them, are the other's; /dev/shm is a mount and is not."""
    other = Bundle(bundle.path, bundle.runtime, bundle.state)
    pid = other.start("sleep", "100")
    try:
        spaces = bundle.spec["linux"]["namespaces"]
        spaces[[space["type"] for space in spaces].index("ipc")]["path"] = f"/proc/{pid}/ns/ipc"
        assert bundle.output("readlink", "/proc/self/ns/ipc").strip() == os.readlink(f"/proc/{pid}/ns/ipc")
        other.exec("touch", "/dev/mqueue/ours", check=True)
        bundle.delete()
        assert "ours" in bundle.output("ls", "/dev/mqueue")
    finally:
        other.delete()


def test_a_mount_of_another_container(ours):
    other = Bundle(ours.path, ours.runtime, ours.state)
    pid = other.start("sh", "-c", "echo theirs > /dev/shm/note; ln -s /etc /tmp/link; sleep 100")
    try:
        while not Path(f"/proc/{pid}/root/dev/shm/note").exists():
            pass
        shm = next(mount for mount in ours.spec["mounts"] if mount["destination"] == "/dev/shm")
        shm |= {
            "type": "bind",
            "source": f"/proc/{pid}/root/dev/shm",
            "options": ["rbind", "rprivate", "nosuid", "noexec", "nodev"],
        }
        out = ours.output(
            "sh", "-c", "cat /dev/shm/note; echo mine > /dev/shm/answer; grep /dev/shm /proc/mounts"
        ).splitlines()
        assert out[0] == "theirs"
        assert {"nosuid", "noexec", "nodev"} <= set(out[1].split()[3].split(","))
        assert other.exec("cat", "/dev/shm/answer").stdout == "mine\n"
        ours.delete()
        shm["source"] = f"/proc/{pid}/root/tmp/link"
        done = ours.run("true")
        assert done.returncode != 0
        assert "ink" in done.stderr
        shm["source"] = "/proc/4194304/root/dev/shm"
        done = ours.run("true")
        assert done.returncode != 0
        assert "no such file" in done.stderr
    finally:
        other.delete()


def test_a_bind_of_what_lies_beneath_its_source(ours, tmp_path):
    volume = tmp_path / "volume"
    (volume / "deep/er").mkdir(parents=True)
    (volume / "deep/er/file").write_text("found")
    (volume / "inner").symlink_to("deep/er")
    (volume / "outer").symlink_to("../../..")
    (volume / "root").symlink_to("/")
    mount = {"destination": "/tmp/it", "type": "bind", "source": str(volume)}
    for path, what in (("deep/er", "file"), ("inner", "file")):
        ours.spec["mounts"] = [*ours.spec["mounts"][:7], mount | {"options": ["rbind", f"knarr.beneath={path}"]}]
        assert ours.output("ls", "/tmp/it").strip() == what
        ours.delete()
    ours.spec["mounts"][-1]["options"] = ["bind", "ro", "knarr.beneath=deep/er/file"]
    ours.spec["mounts"][-1]["destination"] = "/tmp/one"
    assert ours.output("cat", "/tmp/one") == "found"
    ours.delete()
    for path in ("outer", "root", "..", "/etc", "deep/../../x"):
        ours.spec["mounts"][-1]["options"] = ["rbind", f"knarr.beneath={path}"]
        done = ours.run("true")
        assert done.returncode != 0
        assert "it leads out" in done.stderr, path
    ours.spec["mounts"][-1]["options"] = ["rbind", "knarr.beneath=missing"]
    assert "no such file" in ours.run("true").stderr


@pytest.mark.parametrize("kind", ["uts", "cgroup", "ipc"])
def test_a_namespace_of_the_hosts(bundle, kind):
    bundle.spec["linux"]["namespaces"] = [one for one in bundle.spec["linux"]["namespaces"] if one["type"] != kind]
    if kind == "uts":
        del bundle.spec["hostname"]
    if kind == "ipc":
        bundle.spec["mounts"] = [one for one in bundle.spec["mounts"] if one["destination"] != "/dev/mqueue"]
    assert bundle.output("readlink", f"/proc/self/ns/{kind}").strip() == os.readlink(f"/proc/self/ns/{kind}")


assert RUNC, "runc is installed: these tests compare with it"
