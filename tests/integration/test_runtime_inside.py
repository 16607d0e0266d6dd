"""What a process finds inside a container, by our runtime and by runc's: the same."""

from __future__ import annotations

import os
import resource
import socket
import subprocess

import pytest

from tests.integration.runtime_bundle import BOTH, OURS, RUNC, bundle_of


@pytest.fixture(params=BOTH)
def bundle(request, tmp_path):
    yield from bundle_of(tmp_path, request.param)


@pytest.fixture
def ours(tmp_path):
    yield from bundle_of(tmp_path, OURS)


def status(text: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def mounts(text: str) -> dict[str, tuple[str, set[str]]]:
    """By place: type and options. The last mount at a place is the one that is seen."""
    found = {}
    for line in text.splitlines():
        _, place, kind, options, *_ = line.split()
        found[place] = (kind, set(options.split(",")))
    return found


def test_the_names_of_the_box(bundle):
    bundle.spec["domainname"] = "inside"
    if "runc" in bundle.runtime:
        del bundle.spec["domainname"]
    assert bundle.output("hostname") == "box\n"


def test_processes_see_themselves_only(bundle):
    assert bundle.output("sh", "-c", "set -- /proc/[0-9]*; echo $$ $*") == "1 /proc/1\n"


def test_standard_mounts_have_their_options(bundle):
    found = mounts(bundle.output("cat", "/proc/mounts"))
    assert {"nosuid", "noexec", "nodev"} <= found["/proc"][1]
    assert found["/proc"][0] == "proc"
    assert {"nosuid", "mode=755", "size=65536k"} <= found["/dev"][1]
    assert {"gid=5", "mode=620", "ptmxmode=666", "noexec"} <= found["/dev/pts"][1]
    assert found["/dev/mqueue"][0] == "mqueue"
    assert "ro" in found["/sys"][1]
    for place in ("/sys/fs/cgroup/memory", "/sys/fs/cgroup"):
        if found.get(place, ("",))[0].startswith("cgroup"):
            assert "ro" in found[place][1]
    assert "ro" in found["/proc/sys"][1]


def test_standard_devices_are_there(bundle):
    text = bundle.output(
        "sh",
        "-c",
        "cd /dev; stat -c '%n %F %t:%T %a' null zero full random urandom tty; for x in fd stdin stdout stderr ptmx; do readlink $x; done",
    )
    assert text.splitlines() == [
        "null character special file 1:3 666",
        "zero character special file 1:5 666",
        "full character special file 1:7 666",
        "random character special file 1:8 666",
        "urandom character special file 1:9 666",
        "tty character special file 5:0 666",
        "/proc/self/fd",
        "/proc/self/fd/0",
        "/proc/self/fd/1",
        "/proc/self/fd/2",
        "pts/ptmx",
    ]


def test_masked_paths_hold_nothing(bundle):
    script = "cat /proc/keys /proc/timer_list /proc/kcore; ls -A /sys/firmware /proc/acpi | grep -v :; echo done"
    done = bundle.run("sh", "-c", script)
    assert done.stdout.strip() == "done"


def test_readonly_paths_refuse_writing(bundle):
    done = bundle.run("sh", "-c", "echo x > /proc/sys/kernel/hostname")
    assert done.returncode != 0
    assert "ead-only" in done.stderr


def test_capability_sets(bundle):
    found = status(bundle.output("cat", "/proc/self/status"))
    assert found["CapBnd"] == found["CapEff"] == found["CapPrm"] == "00000000a80425fb"
    assert found["CapInh"] == found["CapAmb"] == "0" * 16
    assert found["NoNewPrivs"] == "0"


def test_ambient_capabilities_of_a_user(bundle):
    sets = bundle.spec["process"]["capabilities"]
    sets["inheritable"] = sets["ambient"] = ["CAP_NET_BIND_SERVICE"]
    bundle.spec["process"]["user"] = {"uid": 1000, "gid": 100}
    found = status(bundle.output("cat", "/proc/self/status"))
    assert found["CapAmb"] == found["CapEff"] == "0000000000000400"


def test_a_user_without_ambient_capabilities_has_none(bundle):
    bundle.spec["process"]["user"] = {"uid": 1000, "gid": 100, "additionalGids": [63, 7]}
    bundle.spec["process"]["noNewPrivileges"] = True
    found = status(bundle.output("cat", "/proc/self/status"))
    assert found["Uid"].split() == ["1000"] * 4
    assert found["Gid"].split() == ["100"] * 4
    assert sorted(found["Groups"].split()) == ["63", "7"]
    assert found["CapEff"] == found["CapPrm"] == "0" * 16
    assert found["NoNewPrivs"] == "1"


def test_home_is_that_of_the_user(bundle):
    bundle.spec["process"]["user"] = {"uid": 1000, "gid": 100}
    assert "HOME=/home/ana" in bundle.output("env").splitlines()


def test_umask_and_working_directory(bundle):
    bundle.spec["process"]["user"]["umask"] = 0o027
    bundle.spec["process"]["cwd"] = "/made/on/demand"
    assert bundle.output("sh", "-c", "umask; pwd") == "0027\n/made/on/demand\n"


def test_limits(bundle):
    hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 4096)
    bundle.spec["process"]["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 77, "hard": hard},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    assert bundle.output("sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c") == f"77\n{hard}\n0\n"


def test_no_descriptor_but_the_first_three(bundle):
    leak, other = os.pipe()
    try:
        done = bundle.run("ls", "/proc/self/fd", pass_fds=[leak, other])
    finally:
        os.close(leak)
        os.close(other)
    # The last is the listed directory itself.
    assert done.stdout.split() == ["0", "1", "2", "3"]


def test_preserved_descriptors(bundle):
    bundle.spec["process"]["args"] = ["sh", "-c", "cat <&3"]
    bundle.save()
    (bundle.path / "passed").write_text("passed on")
    words = [bundle.runtime, "--root", bundle.state, "run", "--preserve-fds", "1", "-b", bundle.path, bundle.id]
    shell = ["sh", "-c", 'exec 3< "$0/passed"; exec "$@"', bundle.path, *words]
    done = subprocess.run(shell, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    assert done.stdout == "passed on", done.stderr


def test_a_readonly_root(bundle):
    bundle.spec["root"]["readonly"] = True
    done = bundle.run("sh", "-c", "touch /x; echo $?; touch /dev/shm/x && echo shm")
    assert done.stdout == "1\nshm\n", done.stderr


def test_kernel_parameters(bundle):
    bundle.spec["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.shmmax": "65536"}
    assert bundle.output("cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/shmmax") == "1\n65536\n"


def test_a_parameter_of_the_host_is_refused(bundle):
    bundle.spec["linux"]["sysctl"] = {"vm.swappiness": "1"}
    done = bundle.run("true")
    assert done.returncode != 0
    assert "vm.swappiness" in done.stderr


def test_the_out_of_memory_score(bundle):
    bundle.spec["process"]["oomScoreAdj"] = 321
    assert bundle.output("cat", "/proc/self/oom_score_adj") == "321\n"


def test_bind_mounts(bundle, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("from the host")
    bundle.mount("/data", type="bind", source=str(source), options=["rbind", "rw"])
    bundle.mount("/ro/data", type="bind", source=str(source), options=["rbind", "ro"])
    bundle.mount("/etc/one", type="bind", source=str(source / "file"), options=["bind"])
    text = bundle.output("sh", "-c", "cat /etc/one; touch /data/made; touch /ro/data/no 2>/dev/null || echo .refused")
    assert text == "from the host.refused\n"
    assert (source / "made").exists()
    assert not (source / "no").exists()


def test_a_recursive_read_only_bind(bundle, tmp_path):
    if "runc" in bundle.runtime:
        version = subprocess.run(
            [bundle.runtime, "--version"], capture_output=True, text=True, check=True
        ).stdout.split()[2]
        if tuple(map(int, version.split("+")[0].split(".")[:2])) < (1, 1):
            pytest.fail(f"runc {version} is too old to compare with")
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", source / "below"], check=True)
    try:
        bundle.mount("/data", type="bind", source=str(source), options=["rbind", "rro"])
        done = bundle.run("sh", "-c", "touch /data/below/x")
    finally:
        subprocess.run(["umount", source / "below"], check=True)
    assert done.returncode != 0
    assert "ead-only" in done.stderr


def test_mounts_on_the_host_reach_slaves_only(bundle, tmp_path):
    source = tmp_path / "source"
    for name in ("slave", "private"):
        (source / name / "late").mkdir(parents=True)
    subprocess.run(["mount", "--bind", source, source], check=True)
    subprocess.run(["mount", "--make-shared", source], check=True)
    try:
        # Propagation to the container also needs a root that is not private.
        bundle.spec["linux"]["rootfsPropagation"] = "rslave"
        bundle.mount("/slave", type="bind", source=str(source / "slave"), options=["rbind", "rslave"])
        bundle.mount("/private", type="bind", source=str(source / "private"), options=["rbind", "rprivate"])
        bundle.start("sleep", "60")
        for name in ("slave", "private"):
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", source / name / "late"], check=True)
            (source / name / "late" / "seen").touch()
        seen = bundle.exec("ls", "/slave/late", "/private/late").stdout
        bundle.delete()
    finally:
        subprocess.run(["umount", "-R", source], check=True)
    assert seen.count("seen") == 1


def test_tmpfs_options(bundle):
    bundle.mount(
        "/scratch",
        type="tmpfs",
        source="tmpfs",
        options=["nosuid", "noexec", "size=1m", "mode=1770", "uid=1000", "gid=100"],
    )
    assert bundle.output("stat", "-c", "%a %u %g", "/scratch") == "1770 1000 100\n"


def test_a_tmpfs_with_what_was_there(bundle):
    place = bundle.rootfs / "var/cache"
    place.mkdir(parents=True)
    (place / "kept").write_text("content")
    (place / "kept").chmod(0o640)
    os.chown(place / "kept", 1000, 100)
    (place / "link").symlink_to("kept")
    bundle.mount("/var/cache", type="tmpfs", source="tmpfs", options=["tmpcopyup", "nosuid"])
    text = bundle.output("sh", "-c", "cd /var/cache; cat link; stat -c '%a %u %g' kept; rm kept")
    assert text == "content640 1000 100\n"
    assert (place / "kept").exists()


def test_extra_devices(bundle):
    bundle.spec["linux"]["devices"] = [
        {"type": "c", "path": "/dev/kmsg2", "major": 1, "minor": 11, "fileMode": 0o640, "uid": 1000, "gid": 100}
    ]
    assert bundle.output("stat", "-c", "%F %t:%T %a %u %g", "/dev/kmsg2") == "character special file 1:b 640 1000 100\n"


def test_a_terminal_is_the_containers_own(bundle, tmp_path):
    bundle.spec["process"]["terminal"] = True
    bundle.spec["process"]["consoleSize"] = {"height": 31, "width": 97}
    bundle.spec["process"]["args"] = ["sh", "-c", "tty; stty size; stat -c %t /dev/console; echo end; read line"]
    bundle.save()
    path = str(tmp_path / "console")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(10)
        bundle.call("run", "-d", "--console-socket", path, "-b", str(bundle.path), bundle.id, check=True)
        peer, _ = listener.accept()
    _, descriptors, _, _ = socket.recv_fds(peer, 4096, 1)
    text = b""
    with os.fdopen(descriptors[0], "rb+", buffering=0) as master:
        while b"end" not in text:
            text += master.read(4096)
        master.write(b"\n")
    peer.close()
    lines = text.decode().split()
    assert lines[0] == "/dev/pts/0"
    assert lines[1:3] == ["31", "97"]
    assert lines[3] == "88"


def test_namespaces_are_new(bundle):
    text = bundle.output("sh", "-c", "for x in mnt net ipc uts pid cgroup user; do readlink /proc/self/ns/$x; done")
    mine = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "net", "ipc", "uts", "pid", "cgroup", "user")]
    theirs = text.split()
    assert [a == b for a, b in zip(mine, theirs, strict=True)] == [False] * 6 + [True]


def in_user_namespace(bundle):
    """Root inside is 100000 outside, and owns its files."""
    bundle.spec["linux"]["namespaces"].append({"type": "user"})
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bundle.spec["linux"]["uidMappings"] = bundle.spec["linux"]["gidMappings"] = maps
    subprocess.run(["chown", "-R", "-h", "100000:100000", bundle.rootfs], check=True)
    os.chmod(bundle.path.parent.parent, 0o755)
    for above in bundle.path.parents:
        if above != above.parent and above.stat().st_uid == 0 and not above.stat().st_mode & 0o001:
            above.chmod(above.stat().st_mode | 0o011)


def test_a_user_namespace(bundle):
    in_user_namespace(bundle)
    text = bundle.output("sh", "-c", "cat /proc/self/uid_map; id -u; touch /made; : > /dev/null; hostname")
    assert text.split() == ["0", "100000", "65536", "0", "box"]
    assert (bundle.rootfs / "made").stat().st_uid == 100000


def test_a_user_namespace_in_a_given_network(bundle):
    in_user_namespace(bundle)
    holder = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo up; exec sleep 60"], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"up\n"
        for namespace in bundle.spec["linux"]["namespaces"]:
            if namespace["type"] == "network":
                namespace["path"] = f"/proc/{holder.pid}/ns/net"
        # A sysfs shows the network, and is its owner's to mount.
        bundle.spec["mounts"] = [
            mount for mount in bundle.spec["mounts"] if not mount["destination"].startswith("/sys")
        ]
        inside = bundle.output("readlink", "/proc/self/ns/net").strip()
        assert inside == os.readlink(f"/proc/{holder.pid}/ns/net")
    finally:
        holder.kill()
        holder.wait()


def new_runtimes():
    """Ours, and runc where it is one that knows such mounts (1.2)."""
    version = subprocess.run([RUNC, "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    return BOTH if tuple(map(int, version.split("+")[0].split("-")[0].split(".")[:2])) >= (1, 2) else BOTH[:1]


@pytest.mark.parametrize("bundle", new_runtimes() if RUNC else BOTH[:1], indirect=True)
def test_a_mount_that_shows_other_ids(bundle, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    os.chown(source, 1234, 5678)
    users, groups = ({"containerID": theirs, "hostID": 0, "size": 1} for theirs in (1234, 5678))
    bundle.mount(
        "/data", type="bind", source=str(source), options=["rbind", "idmap"], uidMappings=[users], gidMappings=[groups]
    )
    text = bundle.output("sh", "-c", "stat -c %u:%g /data; touch /data/made; stat -c %u:%g /data/made")
    assert text.split() == ["0:0", "0:0"]
    made = (source / "made").stat()
    assert (made.st_uid, made.st_gid) == (1234, 5678)


def test_an_id_map_in_a_user_namespace(ours, tmp_path):
    """As the namespace maps its own IDs: what is root's outside is root's inside."""
    in_user_namespace(ours)
    source = tmp_path / "source"
    source.mkdir()
    ours.mount("/data", type="bind", source=str(source), options=["rbind", "ridmap"])
    text = ours.output("sh", "-c", "stat -c %u:%g /data; touch /data/made")
    assert text.split() == ["0:0"]
    assert (source / "made").stat().st_uid == 0


def test_an_id_map_that_cannot_be(ours, tmp_path):
    ours.mount("/data", type="bind", source=str(tmp_path), options=["bind", "idmap"])
    done = ours.run("true")
    assert done.returncode != 0
    assert "idmap needs uidMappings and gidMappings" in done.stderr


def test_scheduling(ours):
    ours.spec["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_IDLE", "priority": 3}
    ours.spec["process"]["scheduler"] = {"policy": "SCHED_BATCH", "nice": 5}
    ours.spec["linux"]["personality"] = {"domain": "LINUX32"}
    pid = ours.start("sleep", "60")
    assert os.sched_getscheduler(pid) == os.SCHED_BATCH
    assert os.getpriority(os.PRIO_PROCESS, pid) == 5
    assert subprocess.run(["ionice", "-p", str(pid)], capture_output=True, text=True, check=True).stdout.startswith(
        "idle"
    )
    with open(f"/proc/{pid}/personality") as file:
        assert int(file.read(), 16) == 8
