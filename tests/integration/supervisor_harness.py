"""A supervisor on roots of its own, a client of its protocol, and bundles made of busybox."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sysconfig
import time
import uuid
from pathlib import Path

import pytest

from tests.conftest import wait_until

PROGRAM = os.environ.get("KNARR_SUPERVISOR") or f"{sysconfig.get_path('scripts')}/knarr-supervisor"
CAPABILITIES = [
    f"CAP_{name}"
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ]
]


class Refused(Exception):
    """An error answer."""

    def __init__(self, error: dict) -> None:
        super().__init__(error["message"])
        self.kind = error["kind"]
        self.exit_code = error.get("exit_code")


class Client:
    """One connection. Events that come between answers are kept in order."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(15)
        wait_until(lambda: self._connect(path), what="a connection to the supervisor")
        self.number = 0
        self.events: list[dict] = []

    def _connect(self, path: Path) -> bool:
        try:
            self.socket.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    def close(self) -> None:
        self.socket.close()

    def receive(self) -> dict:
        packet = self.socket.recv(128 * 1024)
        if not packet:
            raise EOFError("the supervisor closed the connection")
        return json.loads(packet)

    def send(self, op: str, fds=(), **fields) -> int:
        self.number += 1
        packet = json.dumps({"id": self.number, "op": op, **fields}).encode()
        if fds:
            socket.send_fds(self.socket, [packet], list(fds))
        else:
            self.socket.send(packet)
        return self.number

    def result(self, number: int) -> dict:
        while True:
            message = self.receive()
            if "event" in message:
                self.events.append(message)
            elif message["id"] == number:
                if "error" in message:
                    raise Refused(message["error"])
                return message["ok"]

    def call(self, op: str, fds=(), **fields) -> dict:
        return self.result(self.send(op, fds, **fields))

    def event(self, kind: str, **fields) -> dict:
        """The next event of that kind and these fields."""
        while True:
            for event in self.events:
                if event["event"] == kind and all(event.get(key) == value for key, value in fields.items()):
                    self.events.remove(event)
                    return event
            message = self.receive()
            assert "event" in message, message
            self.events.append(message)

    def containers(self) -> list[dict]:
        """All that `hello` lists, page by page."""
        listed: list[dict] = []
        while True:
            answer = self.call("hello", **({"after": listed[-1]["container"]} if listed else {}))
            listed += answer["containers"]
            if not answer["more"]:
                return listed

    def exit(self, container: str) -> dict:
        return self.event("exit", container=container)


class Supervisor:
    """knarr-supervisor on temporary roots."""

    def __init__(self, base: Path, *options: str) -> None:
        self.base = base
        self.options = options
        self.run_root = base / "run"
        self.data_root = base / "data"
        self.run_root.mkdir()
        self.data_root.mkdir()
        self.lower = base / "lower"
        make_busybox(self.lower)
        self.clients: list[Client] = []

    @property
    def path(self) -> Path:
        return self.run_root / "supervisor.sock"

    def launch(self) -> subprocess.CompletedProcess:
        command = [PROGRAM, "--run-root", self.run_root, "--data-root", self.data_root, *self.options]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)

    def client(self, *, subscribe: bool = True) -> Client:
        client = Client(self.path)
        self.clients.append(client)
        if subscribe:
            client.call("subscribe")
        return client

    def log(self) -> str:
        path = self.run_root / "supervisor.log"
        return path.read_text() if path.exists() else ""

    def pids(self) -> list[int]:
        """Our processes, keeper and supervisor."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            except OSError:
                continue
            if words and words[0].endswith(b"knarr-supervisor") and str(self.run_root).encode() in words:
                found.append(int(entry.name))
        return found

    def engine(self) -> str:
        """What is global on the host is named after this."""
        return hashlib.sha256(str(self.run_root).encode()).hexdigest()[:8]

    def kill_all(self) -> None:
        """kill -9 of keeper and supervisor, and of those that they start in each other's place meanwhile."""
        quiet = 0
        while quiet < 5:
            pids = self.pids()
            quiet = 0 if pids else quiet + 1
            for pid in pids:
                kill(pid)
            time.sleep(0.01)

    def stop(self) -> None:
        """End everything, whatever state it is in."""
        for client in self.clients:
            client.close()
        self.kill_all()
        for state in self.run_root.glob("containers/*/state.json"):
            kill(json.loads(state.read_text())["pid"])

    def bundle(
        self, args, *, terminal: bool = False, network: bool = True, memory: int | None = None, rlimits=()
    ) -> tuple[str, dict]:
        """A new container: its ID and the fields of `start` that most tests want."""
        container = uuid.uuid4().hex
        bundle = self.run_root / "containers" / container
        bundle.mkdir(parents=True)
        (bundle / "config.json").write_text(json.dumps(spec(container, args, terminal, network, memory, rlimits)))
        data = self.data_root / "containers" / container
        (data / "upper").mkdir(parents=True)
        (data / "work").mkdir()
        fields = {
            "container": container,
            "bundle": str(bundle),
            "rootfs": {"lower": [str(self.lower)], "upper": str(data / "upper"), "work": str(data / "work")},
            "network": {"mode": "none" if network else "host"},
            "terminal": terminal,
            "log": {"file": {"format": "json-file", "path": str(data / "log"), "max_size": 10_000_000, "max_file": 3}},
        }
        return container, fields

    def start(self, client: Client, args, **options) -> str:
        """Start a container that runs `args`; its ID."""
        fields = {key: options.pop(key) for key in ("stdin", "stdin_once", "size", "log", "user") if key in options}
        container, request = self.bundle(args, **options)
        client.call("start", **{**request, **fields})
        return container

    def entries(self, container: str, suffix: str = "") -> list[dict]:
        path = self.data_root / "containers" / container / f"log{suffix}"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def output(self, container: str, stream: str = "stdout") -> str:
        return "".join(entry["log"] for entry in self.entries(container) if entry["stream"] == stream)


def kill(pid: int) -> None:
    if pid > 1:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def make_busybox(root: Path) -> None:
    for directory in ("bin", "etc", "dev", "proc", "sys", "tmp", "root"):
        (root / directory).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for applet in subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")


def process(args, terminal: bool = False) -> dict:
    sets = ("bounding", "effective", "permitted")
    return {
        "terminal": terminal,
        "user": {"uid": 0, "gid": 0},
        "args": list(args),
        "cwd": "/",
        "env": ["PATH=/bin", "TERM=xterm"],
        "capabilities": dict.fromkeys(sets, CAPABILITIES),
        "noNewPrivileges": False,
    }


def spec(container: str, args, terminal: bool, network: bool, memory: int | None, rlimits) -> dict:
    kinds = ["pid", "ipc", "uts", "mount", "cgroup"] + (["network"] if network else [])
    resources: dict = {"devices": [{"allow": False, "access": "rwm"}]}
    if memory:
        resources["memory"] = {"limit": memory, "swap": memory}
    return {
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "hostname": container[:12],
        "process": {**process(args, terminal), "rlimits": list(rlimits)},
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
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "cgroupsPath": f"/knarr-test/{container}",
            "resources": resources,
        },
    }


class Attached:
    """The client's side of an attached connection."""

    def __init__(self, client: Client, container: str, *, exec: str | None = None, **fields) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(15)
        self.theirs = theirs
        names = {"container": container, **({"exec": exec} if exec else {})}
        options = {"stdin": True, "stdout": True, "stderr": True, "multiplexed": True, **fields}
        client.call("attach", [theirs.fileno()], **names, **options)
        theirs.close()

    def read(self) -> bytes:
        """Everything up to the end."""
        chunks = []
        while chunk := self.socket.recv(65536):
            chunks.append(chunk)
        return b"".join(chunks)

    def read_until(self, end: bytes) -> bytes:
        data = b""
        while end not in data:
            chunk = self.socket.recv(65536)
            if not chunk:
                pytest.fail(f"the connection ended before {end!r}: {data!r}")
            data += chunk
        return data

    def frames(self) -> dict[int, bytes]:
        """Everything up to the end, by stream."""
        return unframed(self.read())


def unframed(data: bytes) -> dict[int, bytes]:
    streams = {1: b"", 2: b""}
    while data:
        stream, length = struct.unpack(">BxxxI", data[:8])
        assert len(data) >= 8 + length, "a frame is torn"
        streams[stream] += data[8 : 8 + length]
        data = data[8 + length :]
    return streams
