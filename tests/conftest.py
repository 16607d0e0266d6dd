"""Engines, registries and images that tests run against: all real, each with roots of its own.

Options: `--slow` also runs what is marked slow (`make test-slow`).
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SCRIPTS = Path(sysconfig.get_path("scripts"))
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes minutes; runs with --slow (make test-slow)")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's jobs in the background have it
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


def pytest_sessionstart(session):
    if os.geteuid() != 0:
        pytest.exit("the tests start containers: run them as root", returncode=2)


def wait_until(condition, timeout=10.0, interval=0.02, what="the condition"):
    """Wait for a condition and return its value; fail with its name."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"{what} did not hold within {timeout} s")
        time.sleep(interval)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Engine:
    """An engine on roots of its own, started by hand, with the command line pointed at it."""

    base: Path
    process: subprocess.Popen | None = None
    extra_env: dict[str, str] = field(default_factory=dict)
    elsewhere: Path | None = None  # a data root that is not below `base`
    prefix: list = field(default_factory=list)  # what runs the daemon
    flags: list = field(default_factory=list)  # of the daemon, beside those for its roots and its socket

    @property
    def data_root(self) -> Path:
        return self.elsewhere or self.base / "data"

    @property
    def run_root(self) -> Path:
        return self.base / "run"

    @property
    def number(self) -> str:
        """Its engine ID, which is in the names of all that is global on the host."""
        return hashlib.sha256(str(self.run_root).encode()).hexdigest()[:8]

    @property
    def socket(self) -> Path:
        return self.run_root / "knarr.sock"

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{SCRIPTS}:{os.environ['PATH']}:/usr/sbin:/sbin",
            "KNARR_HOST": self.host,
            "KNARR_DATA_ROOT": str(self.data_root),
            "KNARR_RUN_ROOT": str(self.run_root),
            "DOCKER_HOST": self.host,
            **self.extra_env,
        }

    def start(self) -> None:
        self.run_root.mkdir(parents=True, exist_ok=True)
        ready, write = os.pipe()
        with (self.run_root / "test-daemon.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.prefix,
                    SCRIPTS / "knarr",
                    "daemon",
                    "--data-root",
                    self.data_root,
                    "--run-root",
                    self.run_root,
                    "--host",
                    self.host,
                    "--ready-fd",
                    str(write),
                    *map(str, self.flags),
                ],
                pass_fds=[write],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.env,
                start_new_session=True,
            )
        os.close(write)
        with os.fdopen(ready, "rb") as pipe:
            if not pipe.read(1):
                pytest.fail("the daemon did not start:\n" + self.log()[-4000:])

    def log(self) -> str:
        return (self.run_root / "test-daemon.log").read_text(errors="replace")

    def kill(self) -> None:
        """kill -9 of the daemon: containers run on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def run(self, *arguments, check=True, timeout=60, **keywords):
        """knarr ARGUMENTS: the finished process, with its text output."""
        keywords.setdefault("text", True)
        if "input" not in keywords:
            keywords.setdefault("stdin", subprocess.DEVNULL)
        result = subprocess.run(
            [SCRIPTS / "knarr", *map(str, arguments)],
            env=self.env,
            capture_output=True,
            timeout=timeout,
            check=False,
            **keywords,
        )
        if check and result.returncode:
            pytest.fail(
                f"knarr {' '.join(map(str, arguments))}: exit {result.returncode}\n{result.stdout}\n{result.stderr}\n{self.log()[-2000:]}"
            )
        return result

    def docker(self, *arguments, check=True, timeout=60, **keywords):
        """The real docker command line against this engine."""
        if "input" not in keywords:
            keywords.setdefault("stdin", subprocess.DEVNULL)
        result = subprocess.run(
            ["docker", *map(str, arguments)],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            **keywords,
        )
        if check and result.returncode:
            pytest.fail(
                f"docker {' '.join(map(str, arguments))}: exit {result.returncode}\n{result.stdout}\n{result.stderr}"
            )
        return result

    def keeper_and_supervisor(self) -> tuple[int, int]:
        """Their processes: the keeper is the other's parent. Waits for both to be there."""

        def both() -> tuple[int, int] | None:
            pids = self.supervisor_pids()
            try:
                stats = {pid: Path(f"/proc/{pid}/stat").read_text() for pid in pids}
            except FileNotFoundError:  # one has just ended
                return None
            parents = {pid: int(stat.rpartition(")")[2].split()[1]) for pid, stat in stats.items()}
            found = [(parent, pid) for pid, parent in parents.items() if parent in pids]
            return found[0] if len(pids) == 2 and found else None

        return wait_until(both, 10, 0.05, "keeper and supervisor")

    def supervisor_pid(self) -> int:
        """The supervisor."""
        return self.keeper_and_supervisor()[1]

    def supervisor_pids(self) -> list[int]:
        """The keeper and the supervisor of this engine."""
        pids = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                command = (entry / "cmdline").read_bytes().split(b"\0")
                if command[0].endswith(b"knarr-supervisor") and os.fsencode(self.run_root) in command:
                    pids.append(int(entry.name))
        return pids

    def stop(self) -> None:
        """End everything of this engine: containers, daemon, supervisor."""
        if self.process is not None and self.process.poll() is None:
            names = self.run("ps", "-aq", check=False).stdout.split()
            if names:
                self.run("rm", "-f", "-v", *names, check=False)
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None
        for _ in range(2):  # once asks, twice insists
            for pid in self.supervisor_pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            end = time.monotonic() + 5
            while self.supervisor_pids() and time.monotonic() < end:
                time.sleep(0.02)
        for pid in self.supervisor_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._unmount()
        shutil.rmtree(self.base, ignore_errors=True)

    def _unmount(self) -> None:
        """Unmount the volumes that are file systems of their own, where a test has left any."""
        for line in Path("/proc/self/mounts").read_text().splitlines():
            place = line.split()[1]
            if place.startswith((f"{self.base}/", f"{self.data_root}/volumes/")):
                subprocess.run(["umount", "-l", place], check=False, env=self.env)


def new_engine() -> Engine:
    return Engine(Path(tempfile.mkdtemp(prefix="knarr-test-", dir="/var/tmp")))


@pytest.fixture
def engine():
    """An engine of this test's own, which it may kill."""
    own = new_engine()
    own.start()
    yield own
    own.stop()


@pytest.fixture(scope="session")
def shared_engine():
    """One engine for all tests that only use it, with busybox loaded."""
    own = new_engine()
    own.start()
    own.run("load", "-q", "-i", busybox_archive())
    yield own
    own.stop()


def tar_of(entries) -> bytes:
    """A tar archive of (TarInfo or name, bytes or None) pairs."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry, data in entries:
            info = tarfile.TarInfo(entry) if isinstance(entry, str) else entry
            if data is not None:
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data) if data is not None else None)
    return stream.getvalue()


def oci_archive(
    layers: list[bytes], config: dict | None = None, reference: str = "test:latest", architecture: str = ARCHITECTURE
) -> bytes:
    """An OCI archive with one image of gzip layers made from plain tars."""
    blobs: dict[str, bytes] = {}

    def add(data: bytes, media_type: str) -> dict:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    document = {
        "architecture": architecture,
        "os": "linux",
        "config": config or {},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]},
        "history": [{"created_by": "test"} for _ in layers],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": add(json.dumps(document).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [
            add(gzip.compress(layer, 1, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip") for layer in layers
        ],
    }
    entry = add(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": reference}
    entry["platform"] = {"architecture": architecture, "os": "linux"}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
    files = [("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", json.dumps(index).encode())]
    files += [(f"blobs/sha256/{digest[7:]}", data) for digest, data in blobs.items()]
    return tar_of(files)


def busybox_layer() -> bytes:
    """A root file system of Debian's static busybox, with the users and directories that tests ask for."""
    entries = []

    def directory(name, mode=0o755):
        info = tarfile.TarInfo(name)
        info.type, info.mode = tarfile.DIRTYPE, mode
        entries.append((info, None))

    for name in ("bin", "etc", "home", "home/app", "root", "usr", "usr/bin", "var", "dev", "proc", "sys"):
        directory(name)
    directory("tmp", 0o1777)
    program = tarfile.TarInfo("bin/busybox")
    program.mode = 0o755
    entries.append((program, Path("/bin/busybox").read_bytes()))
    for applet in subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname, link.mode = tarfile.SYMTYPE, "busybox", 0o777
            entries.append((link, None))
    entries.append(("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:App:/home/app:/bin/sh\n"))
    entries.append(("etc/group", b"root:x:0:\napp:x:1000:\nextra:x:2000:app\n"))
    return tar_of(entries)


_busybox: list[Path] = []


def busybox_archive() -> Path:
    """The path of an OCI archive of busybox:latest, made once a run."""
    if not _busybox:
        directory = Path(tempfile.mkdtemp(prefix="knarr-images-"))
        _busybox.append(directory / "busybox.tar")
        config = {"Cmd": ["sh"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
        _busybox[0].write_bytes(oci_archive([busybox_layer()], config, "docker.io/library/busybox:latest"))
    return _busybox[0]


def pytest_sessionfinish(session):
    if _busybox:
        shutil.rmtree(_busybox[0].parent, ignore_errors=True)


@pytest.fixture
def busybox(engine):
    """The test's own engine, with busybox loaded."""
    engine.run("load", "-q", "-i", busybox_archive())
    return engine


@dataclass
class Registry:
    """A docker-registry on loopback."""

    port: int
    root: Path
    process: subprocess.Popen

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextlib.contextmanager
def running_registry(extra: str = ""):
    root = Path(tempfile.mkdtemp(prefix="knarr-registry-"))
    port = free_port()
    (root / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {root}/data}}\n  delete: {{enabled: true}}\nhttp: {{addr: 127.0.0.1:{port}}}\n{extra}"
    )
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", root / "config.yml"], stdout=log, stderr=log)
    try:

        def up():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        wait_until(up, what="the registry on loopback")
        yield Registry(port, root, process)
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def registry():
    """One registry for the whole run; tests use repositories of their own."""
    with running_registry() as running:
        yield running


def push(archive: Path, registry: Registry, name: str) -> str:
    """Copy an OCI archive into the registry; the reference to pull it by."""
    reference = f"{registry.host}/{name}"
    subprocess.run(
        [
            "skopeo",
            "copy",
            "-q",
            "--insecure-policy",
            "--dest-tls-verify=false",
            f"oci-archive:{archive}",
            f"docker://{reference}",
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return reference


assert sys.version_info >= (3, 10)
