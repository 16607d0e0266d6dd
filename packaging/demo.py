"""`make demo`: the main job from nothing, with the time of each step.

Runs on roots of its own below a temporary directory, and leaves nothing behind: hello from the wheel, a command over a
throw-away overlay of this host, then a busybox image that is built here, served by a registry on loopback, pulled and
run.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import io
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sysconfig
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

KNARR = Path(sysconfig.get_path("scripts")) / "knarr"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
BUSYBOX = Path("/bin/busybox")


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    print(f"\n\033[1m==> {what}\033[0m" if os.isatty(1) else f"\n==> {what}", flush=True)
    begin = time.perf_counter()
    yield
    print(f"    ({(time.perf_counter() - begin) * 1000:.0f} ms)", flush=True)


def knarr(*arguments: str) -> None:
    print(f"$ knarr {' '.join(arguments)}", flush=True)
    subprocess.run([KNARR, *arguments], check=True)


def build() -> dict[str, bytes]:
    """An OCI image of the host's static busybox: {"layer": ..., "config": ..., "manifest": ...}."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        program = tarfile.TarInfo("bin/busybox")
        program.size, program.mode = BUSYBOX.stat().st_size, 0o755
        archive.addfile(program, io.BytesIO(BUSYBOX.read_bytes()))
        for name in subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split():
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            if name != "busybox":
                archive.addfile(link)
    plain = stream.getvalue()
    layer = gzip.compress(plain, 6)
    config = {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(plain)]},
        "history": [{"created_by": "make demo"}],
    }
    config_bytes = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config_bytes),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer)],
    }
    return {"layer": layer, "config": config_bytes, "manifest": json.dumps(manifest).encode()}


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data)}


@contextlib.contextmanager
def registry(base: Path) -> Iterator[int]:
    """A registry on a free port of loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = base / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {base}/registry}}}}\n"
        f"http: {{addr: 127.0.0.1:{port}}}\n"
    )
    with (base / "registry.log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log)
    try:
        for _ in range(250):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait()


def push(port: int, image: dict[str, bytes]) -> None:
    """Upload blobs and manifest (OCI distribution specification, Push)."""
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def request(
        method: str, path: str, body: bytes = b"", content_type: str = "application/octet-stream"
    ) -> http.client.HTTPResponse:
        connection.request(method, path, body, {"Content-Type": content_type})
        answer = connection.getresponse()
        answer.read()
        if answer.status >= 400:
            raise SystemExit(f"the registry answers {answer.status} to {method} {path}")
        return answer

    for name in ("layer", "config"):
        place = request("POST", "/v2/demo/busybox/blobs/uploads/").headers["Location"]
        path = place[place.index("/v2/") :]
        request("PUT", f"{path}{'&' if '?' in path else '?'}digest={digest(image[name])}", image[name])
    request("PUT", "/v2/demo/busybox/manifests/latest", image["manifest"], "application/vnd.oci.image.manifest.v1+json")


def stop(run_root: Path) -> None:
    """End this demo's daemon and supervisor: they are known by their run root."""
    for program in (b"daemon", b"knarr-supervisor"):
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                command = (entry / "cmdline").read_bytes().split(b"\0")
                if os.fsencode(run_root) in command and any(part.endswith(program) for part in command[:5]):
                    os.kill(int(entry.name), signal.SIGTERM)


def main() -> None:
    if os.geteuid() != 0:
        raise SystemExit("containers are started by root here: run make demo as root")
    base = Path(tempfile.mkdtemp(prefix="knarr-demo-", dir="/var/tmp"))
    run_root = base / "run"
    os.environ.update(
        KNARR_DATA_ROOT=str(base / "data"), KNARR_RUN_ROOT=str(run_root), KNARR_HOST=f"unix://{run_root}/knarr.sock"
    )
    try:
        with step("hello: the image inside the wheel (this starts the daemon, too)"):
            knarr("run", "--rm", "hello")
        with step("once more, with the daemon up"):
            knarr("run", "--rm", "hello")
        with step("a command over a throw-away overlay of this host: it can change nothing"):
            knarr(
                "run",
                "--rm",
                "--host-overlay",
                "sh",
                "-c",
                "rm -rf /etc/* /home/* 2>/dev/null; ls /etc /home; echo; echo 'gone in here, untouched outside'",
            )
        if not Path("/etc/passwd").exists():
            raise SystemExit("the host lost /etc/passwd")
        with registry(base) as port:
            reference = f"127.0.0.1:{port}/demo/busybox:latest"
            with step("build a busybox image and serve it from a registry on loopback"):
                push(port, build())
                print(reference)
            with step("pull it"):
                knarr("pull", reference)
            with step("run it"):
                knarr(
                    "run",
                    "--rm",
                    reference,
                    "sh",
                    "-c",
                    "echo hello from $(busybox | head -1); ip addr show eth0 | grep inet",
                )
            with step("run it without a network, memory limited"):
                knarr(
                    "run",
                    "--rm",
                    "--network",
                    "none",
                    "--memory",
                    "64m",
                    reference,
                    "sh",
                    "-c",
                    "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max",
                )
            knarr("images")
    finally:
        stop(run_root)
        time.sleep(0.5)
        stop(run_root)
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
