"""What must work on another kernel than the one that knarr is developed on: run inside the virtual machine.

Each check is a function; all are run, each says on one line what came of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import traceback
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path("/var/lib/knarr-" + "long-" * 30)
RUN = Path("/run/knarr")
CGROUP = Path("/sys/fs/cgroup")


def knarr(*arguments: str, expect: int = 0) -> str:
    """Run it: what it prints. Another exit code than the one expected fails the check."""
    done = subprocess.run(["knarr", *arguments], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != expect:
        raise AssertionError(f"knarr {' '.join(arguments)}: exit code {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def same(got: object, wanted: object) -> None:
    if got != wanted:
        raise AssertionError(f"{got!r} instead of {wanted!r}")


def until(what: str, condition: object, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)


def archive(path: Path, name: str, layers: list[dict[str, bytes | str]]) -> None:
    """A `docker save` archive; a layer's files are contents (bytes) or targets of links (str)."""
    blobs = []
    for layer in layers:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            for file, content in layer.items():
                entry = tarfile.TarInfo(file)
                entry.mode = 0o755
                if isinstance(content, str):
                    entry.type, entry.linkname = tarfile.SYMTYPE, content
                    tar.addfile(entry)
                else:
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
        blobs.append(stream.getvalue())
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(blob).hexdigest() for blob in blobs]},
    }
    names = [f"{at}/layer.tar" for at in range(len(blobs))]
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": names}]
    files = [("config.json", json.dumps(config).encode()), ("manifest.json", json.dumps(manifest).encode())]
    with tarfile.open(path, "w") as tar:
        for file, content in [*files, *zip(names, blobs, strict=True)]:
            entry = tarfile.TarInfo(file)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def busybox() -> dict[str, bytes | str]:
    program = Path("/bin/busybox")
    names = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split()
    layer: dict[str, bytes | str] = {"bin/busybox": program.read_bytes()}
    layer.update({f"bin/{name}": "busybox" for name in names if name != "busybox"})
    layer["etc/passwd"] = b"root:x:0:0::/:/bin/sh\nalice:x:1234:1235::/:/bin/sh\n"
    layer["etc/group"] = b"root:x:0:\nalice:x:1235:\nmore:x:77:alice\n"
    return layer


def inspect(name: str) -> dict[str, dict[str, object]]:
    return json.loads(knarr("inspect", name))[0]  # type: ignore[no-any-return]


def process(*words: str) -> int:
    """The youngest process whose command line has all of these."""
    found = 0
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            line = (entry / "cmdline").read_text().replace("\0", " ")
            if all(word in line for word in words):
                found = max(found, int(entry.name))
    if not found:
        raise AssertionError(f"no process {words}")
    return found


def check_hello() -> None:
    knarr("run", "--rm", "hello")
    knarr("run", "--rm", "--network", "none", "hello")


def check_images() -> None:
    archive(Path("/tmp/busybox.tar"), "busybox:latest", [busybox()])
    knarr("load", "-i", "/tmp/busybox.tar")
    layers: list[dict[str, bytes | str]] = [{f"layer{at}": str(at).encode()} for at in range(39)]
    archive(Path("/tmp/forty.tar"), "forty:latest", [busybox(), *layers])
    knarr("load", "-i", "/tmp/forty.tar")
    got = knarr("run", "--rm", "--network", "none", "forty", "sh", "-c", "cat /layer*; echo x > /bin/new; cat /bin/new")
    same(len(got), len("".join(map(str, range(39)))) + 1)


def check_host_table() -> None:
    before = Path("/proc/self/mountinfo").read_text()
    knarr("run", "-d", "--name", "table", "--network", "none", "busybox", "sleep", "1000")
    try:
        same(Path("/proc/self/mountinfo").read_text(), before)
    finally:
        knarr("rm", "-f", "table")


def check_host_overlay() -> None:
    same(knarr("run", "--rm", "--host-overlay", "sh", "-c", "echo x > /etc/new; cat /etc/new"), "x")
    same(Path("/etc/new").exists(), False)


def check_limits() -> None:
    limits = ["--memory", "64m", "--pids-limit", "50", "--cpus", "0.5", "--network", "none"]
    knarr("run", "-d", "--name", "limits", *limits, "busybox", "sleep", "1000")
    try:
        (group,) = CGROUP.glob(f"knarr-*/{inspect('limits')['Id']}")
        same((group / "memory.max").read_text(), "67108864\n")
        same((group / "pids.max").read_text(), "50\n")
        same((group / "cpu.max").read_text(), "50000 100000\n")
        same(knarr("exec", "limits", "cat", "/sys/fs/cgroup/memory.max"), "67108864")
    finally:
        knarr("rm", "-f", "limits")


def check_out_of_memory() -> None:
    arguments = ["--name", "oom", "--memory", "16m", "--network", "none", "busybox"]
    knarr("run", *arguments, "sh", "-c", "exec tail /dev/zero", expect=137)
    same(inspect("oom")["State"]["OOMKilled"], True)
    knarr("rm", "oom")


def check_exec_users_logs_stop() -> None:
    knarr("run", "-d", "--name", "many", "--init", "--user", "alice", "busybox", "sh", "-c", "id; exec sleep 1000")
    try:
        until("the log", lambda: "uid=1234(alice) gid=1235(alice) groups=77(more)" in knarr("logs", "many"))
        same(knarr("exec", "-u", "root", "many", "id", "-u"), "0")
        knarr("exec", "many", "sh", "-c", "exit 7", expect=7)
        knarr("stop", "-t", "5", "many")
        same(inspect("many")["State"]["Status"], "exited")
    finally:
        knarr("rm", "-f", "many")


def check_bridge_and_ports() -> None:
    script = "mkdir /www; echo found > /www/index.html; exec httpd -f -p 80 -h /www"
    knarr("run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sh", "-c", script)

    def answers() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen("http://127.0.0.1:8080/", timeout=2) as answer:
            return bool(answer.read() == b"found\n")
        return False

    try:
        until("an answer on the published port", answers)
    finally:
        knarr("rm", "-f", "web")


def host(command: str) -> str:
    return subprocess.run(command.split(), capture_output=True, text=True, timeout=60, check=True).stdout


def check_networks_on_interfaces() -> None:
    """Drivers macvlan and ipvlan, on a wire to another machine, on a VLAN of it, and on nothing."""
    host("ip netns add lan")
    host("ip link add wire0 type veth peer name eth0 netns lan")
    host("ip link set wire0 up")
    there = "ip netns exec lan"
    for command in (
        "addr add 10.77.0.250/24 dev eth0",
        "link set eth0 up",
        "link add link eth0 name five type vlan id 5",
    ):
        host(f"{there} ip {command}")
    host(f"{there} ip addr add 10.77.5.250/24 dev five")
    host(f"{there} ip link set five up")
    mac = host("ip -o link show wire0").partition("link/ether ")[2].split()[0]
    routes = {"l3s": "default dev eth0"}
    serve = "mkdir /www; echo found > /www/index.html; exec httpd -f -p 80 -h /www"
    for driver, parent, mode in (
        ("macvlan", "wire0.5", "bridge"),
        ("ipvlan", "wire0", "l2"),
        ("ipvlan", "wire0", "l3s"),
    ):
        net = "10.77.5" if parent == "wire0.5" else "10.77.0"
        options = ["-d", driver, "-o", f"parent={parent}", "-o", f"{driver}_mode={mode}"]
        knarr("network", "create", *options, "--subnet", f"{net}.0/24", "--gateway", f"{net}.250", "lan")
        try:
            same(os.path.exists(f"/sys/class/net/{parent}"), True)
            for _ in range(2):  # at once after one another, with the same address
                knarr(
                    "run", "-d", "--name", "web", "--network", "lan", "--ip", f"{net}.9", "busybox", "sh", "-c", serve
                )
                if mode in routes:
                    host(f"{there} ip neigh replace {net}.9 lladdr {mac} dev eth0")
                fetch = f"{there} busybox wget -qO- http://{net}.9/"
                until(
                    f"an answer over {driver} {parent} {mode}",
                    lambda fetch=fetch: not subprocess.run(fetch.split(), capture_output=True, check=False).returncode,
                )
                route = routes.get(mode, f"default via {net}.250 dev eth0")
                same(route in knarr("exec", "web", "ip", "route"), True)
                knarr("rm", "-f", "web")
        finally:
            subprocess.run(["knarr", "rm", "-f", "web"], capture_output=True, check=False)
            knarr("network", "rm", "lan")
            host(f"{there} ip neigh flush all")
        same(os.path.exists("/sys/class/net/wire0.5"), False)
    for driver in ("macvlan", "ipvlan"):
        knarr("network", "create", "-d", driver, "lan")
        (dummy,) = [name for name in os.listdir("/sys/class/net") if name.startswith(("dm-", "di-"))]
        host(f"ip link del {dummy}")  # as if the machine had been started anew
        try:
            knarr("run", "-d", "--name", "web", "--network", "lan", "busybox", "sleep", "1000")
            knarr("run", "--rm", "--network", "lan", "busybox", "ping", "-c", "1", "-W", "5", "web")
        finally:
            subprocess.run(["knarr", "rm", "-f", "web"], capture_output=True, check=False)
            knarr("network", "rm", "lan")
        same([name for name in os.listdir("/sys/class/net") if name.startswith(("dm-", "di-"))], [])
    host("ip link del wire0")
    host("ip netns del lan")


def check_networks_on_interfaces_with_ipv6() -> None:
    """Both families at once, and IPv6 alone."""
    host("ip netns add lan")
    host("ip link add wire0 type veth peer name eth0 netns lan")
    host("ip link set wire0 up")
    there = "ip netns exec lan"
    host(f"{there} ip addr add fd77::250/64 dev eth0 nodad")
    host(f"{there} ip link set eth0 up")
    mac = host("ip -o link show wire0").partition("link/ether ")[2].split()[0]
    serve = "mkdir /www; echo found > /www/index.html; exec httpd -f -p 80 -h /www"
    both = ["--ipv6", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64", "--gateway", "fd77::250"]
    alone = ["--ipv6", "--ipv4=false", "--subnet", "fd77::/64", "--gateway", "fd77::250"]
    for driver, mode, families in (
        ("macvlan", "bridge", both),
        ("ipvlan", "l2", both),
        ("ipvlan", "l2", alone),
        ("ipvlan", "l3", alone),
        ("ipvlan", "l3s", alone),
    ):
        knarr("network", "create", "-d", driver, "-o", "parent=wire0", "-o", f"{driver}_mode={mode}", *families, "lan")
        try:
            knarr("run", "-d", "--name", "web", "--network", "lan", "--ip6", "fd77::9", "busybox", "sh", "-c", serve)
            if mode.startswith("l3"):
                host(f"{there} ip neigh replace fd77::9 lladdr {mac} dev eth0")
                host("ip -6 route replace fd77::250 dev wire0")  # IPv6 takes nothing to be on a link without a route
            read = "import urllib.request as u; print(u.urlopen('http://[fd77::9]/', timeout=3).read())"
            fetch = [*there.split(), "python3", "-c", read]
            until(
                f"an answer over {driver} {mode}",
                lambda fetch=fetch: not subprocess.run(fetch, capture_output=True, check=False).returncode,
            )
            route = "default dev eth0" if mode.startswith("l3") else "default via fd77::250 dev eth0"
            same(route in knarr("exec", "web", "ip", "-6", "route"), True)
            same("inet " in knarr("exec", "web", "ip", "addr", "show", "eth0"), families is both)
        finally:
            subprocess.run(["knarr", "rm", "-f", "web"], capture_output=True, check=False)
            knarr("network", "rm", "lan")
            host(f"{there} ip neigh flush all")
    host("ip link del wire0")
    host("ip netns del lan")


NAMES = """
import socket, struct
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("198.18.0.2", 53))
print("ready", flush=True)
while True:
    packet, client = server.recvfrom(2048)
    end = packet.index(b"\\0", 12) + 5
    found = packet[12:end] + struct.pack("!IH", 60, 4) + socket.inet_aton("198.18.0.3")
    count = int(packet[end - 3] == 1)
    server.sendto(packet[:2] + struct.pack("!HHHHH", 0x8180, 1, count, 0, 0) + packet[12:end] + found * count, client)
"""


def check_allow_lists() -> None:
    """What names lead to is opened, and opened for longer, on a kernel that changes no time-out of an element."""
    host("ip netns add world")
    host("ip link add wire0 type veth peer name eth0 netns world")
    host("ip addr add 198.18.0.1/24 dev wire0")
    host("ip link set wire0 up")
    there = "ip netns exec world"
    for command in ("addr add 198.18.0.2/24 dev eth0", "addr add 198.18.0.3/24 dev eth0", "link set eth0 up"):
        host(f"{there} ip {command}")
    host(f"{there} ip route add default via 198.18.0.1")
    server = subprocess.Popen([*there.split(), "python3", "-c", NAMES], stdout=subprocess.PIPE)
    web = subprocess.Popen([*there.split(), "python3", "-m", "http.server", "80"], stderr=subprocess.DEVNULL)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        knarr("network", "create", "--egress", "good.example:80", "closed")
        knarr(
            "run", "-d", "--name", "in-closed", "--network", "closed", "--dns", "198.18.0.2", "busybox", "sleep", "1000"
        )
        limit = ["--egress", "good.example:80,198.18.0.2:81", "--dns", "198.18.0.2"]
        knarr("run", "-d", "--name", "limited", *limit, "busybox", "sleep", "1000")
        reach = ["nc", "-w", "5"]
        for name in ("limited", "in-closed"):
            knarr("exec", name, *reach, "198.18.0.3", "80", expect=1)
            for _ in range(3):
                knarr("exec", name, *reach, "good.example", "80")
            knarr("exec", name, *reach, "198.18.0.3", "80")
            knarr("exec", name, *reach, "198.18.0.2", "80", expect=1)
            knarr("exec", name, *reach, "bad.example", "80", expect=1)
        forge = "ip addr add 10.222.0.9/16 dev eth0; ip route replace default dev eth0 src 10.222.0.9"
        knarr(
            "run",
            "-d",
            "--name",
            "forger",
            "--cap-add",
            "NET_ADMIN",
            *limit,
            "busybox",
            "sh",
            "-c",
            f"{forge}; sleep 99",
        )
        knarr("exec", "forger", *reach, "198.18.0.3", "80", expect=1)
    finally:
        subprocess.run(["knarr", "rm", "-f", "limited", "in-closed", "forger"], capture_output=True, check=False)
        subprocess.run(["knarr", "network", "rm", "closed"], capture_output=True, check=False)
        server.kill()
        web.kill()
        host("ip link del wire0")
        host("ip netns del world")
    until("no table of the bridges'", lambda: "table bridge" not in host("nft list tables"), 10)


def check_sctp() -> None:
    """A published port of SCTP: Debian's kernel has it as a module."""
    host("modprobe sctp")
    serve = "import socket; s = socket.socket(2, 1, 132); s.bind(('', 9)); s.listen(); s.accept()[0].send(b'found')"
    run = ["run", "-d", "--name", "sctp", "--host-overlay", "-p", "127.0.0.1:9009:9/sctp"]
    knarr(*run, "--network", "bridge", "python3", "-c", serve)
    ask = "import socket; s = socket.socket(2, 1, 132); s.connect(('127.0.0.1', 9009)); print(s.recv(9))"
    try:
        until(
            "an answer over SCTP",
            lambda: (
                b"found" in subprocess.run(["python3", "-c", ask], capture_output=True, timeout=20, check=False).stdout
            ),
        )
    finally:
        knarr("rm", "-f", "sctp")


def check_devices() -> None:
    base = ["run", "--rm", "--network", "none"]
    knarr(*base, "busybox", "sh", "-c", ": </dev/null && : >/dev/zero")
    # mknod is among the default capabilities; the device controller must refuse the disk all the same.
    disk = os.stat("/dev/vda").st_rdev
    read = f"mknod /d b {os.major(disk)} {os.minor(disk)}; dd if=/d of=/dev/null count=1 2>&1 || exit 9"
    said = knarr(*base, "busybox", "sh", "-c", read, expect=9)
    same("Operation not permitted" in said, True)
    knarr(*base, "--privileged", "busybox", "sh", "-c", read)


def check_kills() -> None:
    script = "n=0; while :; do n=$((n+1)); echo line $n; sleep 0.2; done"
    knarr("run", "-d", "--name", "tough", "--network", "none", "busybox", "sh", "-c", script)
    try:
        until("lines", lambda: "line 3" in knarr("logs", "tough"))
        os.kill(process("knarr", "daemon"), signal.SIGKILL)
        until("lines after the daemon's end", lambda: "line 10" in knarr("logs", "tough"))
        os.kill(process("knarr-supervisor", "--run-root"), signal.SIGKILL)
        count = len(knarr("logs", "tough").splitlines())
        until("lines after the supervisor's end", lambda: len(knarr("logs", "tough").splitlines()) > count + 5)
        same(knarr("exec", "tough", "echo", "in"), "in")
        knarr("stop", "-t", "1", "tough")
        same(inspect("tough")["State"]["ExitCode"], 137)
    finally:
        knarr("rm", "-f", "tough")


@contextlib.contextmanager
def elsewhere(data: str, run: str) -> Iterator[None]:
    """Another engine while the block runs; it ends with it."""
    before = {name: os.environ[name] for name in ("KNARR_DATA_ROOT", "KNARR_RUN_ROOT")}
    os.environ.update(KNARR_DATA_ROOT=data, KNARR_RUN_ROOT=run)
    try:
        yield
    finally:
        os.environ.update(before)
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if f"KNARR_RUN_ROOT={run}\0" in (entry / "environ").read_text() and int(entry.name) != os.getpid():
                    os.kill(int(entry.name), signal.SIGKILL)


def project_quotas(name: str, make: list[str], options: str) -> None:
    """Sizes of volumes and of containers' layers on a file system that keeps project quotas."""
    image, place = Path(f"/root/{name}.image"), Path(f"/mnt/{name}")
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run([*make, image], check=True, capture_output=True)
    place.mkdir(parents=True)
    subprocess.run(["mount", "-o", f"loop,{options}", image, place], check=True)
    base = ["run", "--rm", "--network", "none"]
    with elsewhere(f"{place}/data", f"/run/{name}"):
        knarr("load", "-i", "/tmp/busybox.tar")
        knarr("volume", "create", "-o", "size=16m", "data")
        place_of = Path(json.loads(knarr("volume", "inspect", "data"))[0]["Mountpoint"])
        same((place_of.parent / "lost+found").exists(), False)  # no file system of its own
        fill = "dd if=/dev/zero of=/d/big bs=1M count=40 2>/dev/null"
        knarr(*base, "-v", "data:/d", "busybox", "sh", "-c", fill, expect=1)
        same(12 << 20 < (place_of / "big").stat().st_size <= 16 << 20, True)
        os.truncate(place_of / "big", 8 << 20)  # a copy may need more for itself than what it is of
        knarr("volume", "clone", "data", "copy")
        knarr(*base, "-v", "copy:/d", "busybox", "sh", "-c", fill.replace("big", "more"), expect=1)
        knarr("volume", "snapshot", "data", "first")
        knarr(*base, "-v", "data:/d", "busybox", "rm", "/d/big")
        knarr("volume", "restore", "data@first")
        same((place_of / "big").exists(), True)
        knarr("volume", "create", "-o", "size=1m", "small")
        said = subprocess.run(
            "knarr volume export data | knarr volume import - small",
            shell=True,
            capture_output=True,
            text=True,
            check=False,
        )
        same((said.returncode, "full" in said.stderr or "quota" in said.stderr), (1, True))
        write = "dd if=/dev/zero of=/big bs=1M count=40 2>/dev/null; stat -c %s /big"
        size = int(knarr(*base, "--storage-opt", "size=8m", "busybox", "sh", "-c", write))
        same(4 << 20 < size <= 8 << 20, True)
        knarr("volume", "rename", "copy", "renamed")
        knarr("volume", "rm", "data@first", "data", "renamed", "small")
    subprocess.run(["umount", "-l", place], check=True)


def check_copies_that_share_their_blocks() -> None:
    """A clone of a volume on a file system that can have two files in the same blocks."""
    image, place = Path("/root/shared.image"), Path("/mnt/shared")
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True, capture_output=True)
    place.mkdir(parents=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)

    def used() -> int:
        os.sync()
        found = os.statvfs(place)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    with elsewhere(f"{place}/data", "/run/shared"):
        knarr("volume", "create", "data")
        big = Path(json.loads(knarr("volume", "inspect", "data"))[0]["Mountpoint"]) / "big"
        big.write_bytes(os.urandom(40 << 20))
        before = used()
        knarr("volume", "clone", "data", "copy")
        copy = Path(json.loads(knarr("volume", "inspect", "copy"))[0]["Mountpoint"]) / "big"
        same(copy.read_bytes() == big.read_bytes(), True)
        same(used() - before < 8 << 20, True)
        copy.write_bytes(b"other")
        same(big.stat().st_size, 40 << 20)
        knarr("volume", "rm", "data", "copy")
    subprocess.run(["umount", "-l", place], check=True)


def check_project_quotas_of_ext4() -> None:
    project_quotas("ext4", ["mkfs.ext4", "-q", "-O", "quota,project"], "prjquota")


def check_project_quotas_of_xfs() -> None:
    project_quotas("xfs", ["mkfs.xfs", "-q"], "pquota")


def check_bundle() -> None:
    bundle = Path("/tmp/bundle")
    for file, content in busybox().items():
        path = bundle / "rootfs" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
            path.chmod(0o755)
    (bundle / "rootfs/proc").mkdir()
    kinds = ("pid", "mount", "network", "ipc", "uts", "cgroup")
    spec = {
        "ociVersion": "1.0.2",
        "process": {"args": ["sh", "-c", "echo $$; exit 3"], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0}},
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": kind} for kind in kinds]},
    }
    spec["process"]["user"]["gid"] = 0  # type: ignore[index]
    (bundle / "config.json").write_text(json.dumps(spec))
    done = subprocess.run(
        ["knarr-runtime", "run", "-b", bundle, "one"], capture_output=True, text=True, timeout=60, check=False
    )
    same((done.returncode, done.stdout, done.stderr), (3, "1\n", ""))


def check_nothing_left() -> None:
    same(knarr("ps", "-aq"), "")
    groups = [str(path) for path in CGROUP.glob("knarr-*/*") if path.is_dir()]
    same(groups, [])
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "knarr" in line]
    same(mounts, [])
    until("no veth", lambda: not [name for name in os.listdir("/sys/class/net") if name.startswith("kv")], 10)


def main() -> int:
    os.environ.update(KNARR_DATA_ROOT=str(DATA), KNARR_RUN_ROOT=str(RUN))
    controllers = (CGROUP / "cgroup.controllers").read_text().strip()
    print(f"kernel {os.uname().release}; cgroup v2 with {controllers}", flush=True)
    failures = 0
    for name, check in list(globals().items()):
        if not name.startswith("check_"):
            continue
        begin = time.monotonic()
        try:
            check()
        except Exception:  # noqa: BLE001 - told, and counted; the next check is run all the same
            failures += 1
            print(f"FAILED {name[6:]}\n{traceback.format_exc()}", flush=True)
        else:
            print(f"ok     {name[6:]} ({time.monotonic() - begin:.1f} s)", flush=True)
    if failures:
        for log in (*RUN.glob("*.log"), *DATA.glob("*.log")):
            print(f"--- {log}\n{log.read_text()[-3000:]}", flush=True)
    return failures


if __name__ == "__main__":
    sys.exit(main())
