"""The PEP 517 build backend: maturin, with the native programs and the embedded image beside the extension.

A wheel carries four compiled things: `knarr/_core.abi3.so` (maturin's work), the static programs
`knarr-supervisor` and `knarr-runtime` and the `knarr` script (in the wheel's data/scripts, so that pip puts
them on the path), and `knarr/resources/hello.tar`, an OCI archive with one static program of ours.

Environment: `KNARR_BUILD_PROFILE=dev` builds everything unoptimised, `MATURIN_PEP517_ARGS` replaces the arguments
that make the wheel manylinux2014 (with zig as the linker).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import tarfile
from pathlib import Path

import maturin

ROOT = Path(__file__).resolve().parent.parent
TARGETS = {"x86_64": "x86_64-unknown-linux-gnu", "aarch64": "aarch64-unknown-linux-gnu"}
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
SCRIPTS = ROOT / "target" / "wheel" / "knarr.data" / "scripts"
LAUNCHER = "#!python\nimport sys\n\nfrom knarr.cli import main\n\nsys.exit(main())\n"

get_requires_for_build_sdist = maturin.get_requires_for_build_sdist
build_sdist = maturin.build_sdist


def get_requires_for_build_wheel(config_settings: dict[str, str] | None = None) -> list[str]:
    return list(maturin.get_requires_for_build_wheel(config_settings))


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: dict[str, str] | None = None) -> str:
    _arguments()
    return str(maturin.prepare_metadata_for_build_wheel(metadata_directory, config_settings))


def build_wheel(
    wheel_directory: str, config_settings: dict[str, str] | None = None, metadata_directory: str | None = None
) -> str:
    _programs()
    _arguments()
    return str(maturin.build_wheel(wheel_directory, config_settings, metadata_directory))


def _machine() -> str:
    machine = platform.machine()
    if machine not in TARGETS:
        raise SystemExit(f"knarr is built for {' and '.join(TARGETS)}; this machine is {machine}")
    return machine


def _arguments() -> None:
    """Hand maturin the arguments that its own configuration has no place for, and the folder that it wants to see."""
    SCRIPTS.mkdir(parents=True, exist_ok=True)
    dev = os.environ.get("KNARR_BUILD_PROFILE") == "dev"
    wanted = f"--target {TARGETS[_machine()]} --zig --compatibility manylinux2014"
    os.environ.setdefault("MATURIN_PEP517_ARGS", f"{wanted} --profile {'dev' if dev else 'release'}")


def _programs() -> None:
    """Build the static programs and lay them out as the wheel's data."""
    machine = _machine()
    dev = os.environ.get("KNARR_BUILD_PROFILE") == "dev"
    target_directory = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "static"
    flags = f"{os.environ.get('RUSTFLAGS', '')} -C target-feature=+crt-static".strip()
    command = ["cargo", "build", "--locked", "--target", TARGETS[machine], "-p", "knarr-bin", "-p", "knarr-hello"]
    subprocess.run(
        command if dev else [*command, "--release"],
        cwd=ROOT,
        env={**os.environ, "RUSTFLAGS": flags, "CARGO_TARGET_DIR": str(target_directory)},
        check=True,
    )
    built = target_directory / TARGETS[machine] / ("debug" if dev else "release")
    shutil.rmtree(SCRIPTS, ignore_errors=True)
    SCRIPTS.mkdir(parents=True)
    for program in ("knarr-supervisor", "knarr-runtime"):
        shutil.copy2(built / program, SCRIPTS / program)
    (SCRIPTS / "knarr").write_text(LAUNCHER)
    (SCRIPTS / "knarr").chmod(0o755)
    archive = ROOT / "python" / "knarr" / "resources" / "hello.tar"
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.write_bytes(hello_archive((built / "hello").read_bytes(), ARCHITECTURES[machine]))


def hello_archive(program: bytes, architecture: str) -> bytes:
    """An OCI archive (image-spec 1.1, image layout) of one layer that holds `/hello`: a function of its input alone."""
    layer = _tar([("hello", program, 0o755)])
    blob = gzip.compress(layer, 9, mtime=0)
    config = _json(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["/hello"], "Env": ["PATH=/"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            "history": [{"created_by": "knarr build", "comment": "the embedded image"}],
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar+gzip", blob)],
        }
    )
    entry = {
        **_descriptor("application/vnd.oci.image.manifest.v1+json", manifest),
        "platform": {"architecture": architecture, "os": "linux"},
        "annotations": {"org.opencontainers.image.ref.name": "docker.io/library/hello:latest"},
    }
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
    files = [("oci-layout", _json({"imageLayoutVersion": "1.0.0"}), 0o644), ("index.json", _json(index), 0o644)]
    files += [(f"blobs/sha256/{_digest(data)[7:]}", data, 0o644) for data in (manifest, config, blob)]
    return _tar(files)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}


def _tar(files: list[tuple[str, bytes, int]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data, mode in files:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()
