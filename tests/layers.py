"""Layers made by hand or by GNU tar, applied by the core, and compared with what they were made from."""

from __future__ import annotations

import ctypes
import gzip
import hashlib
import io
import os
import stat
import tarfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from knarr import _core


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Member:
    """One entry of an archive that a test makes."""

    name: str
    data: bytes = b""
    type: bytes = tarfile.REGTYPE
    link: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: float = 1_000_000_000
    device: tuple[int, int] = (0, 0)
    pax: tuple[tuple[str, str], ...] = ()


def directory(name: str, mode: int = 0o755, **more) -> Member:
    return Member(name, type=tarfile.DIRTYPE, mode=mode, **more)


def symlink(name: str, target: str) -> Member:
    return Member(name, type=tarfile.SYMTYPE, link=target, mode=0o777)


def hard_link(name: str, target: str) -> Member:
    return Member(name, type=tarfile.LNKTYPE, link=target)


def archive(*members: Member, tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.type, info.linkname, info.mode, info.mtime = member.type, member.link, member.mode, member.mtime
            info.uid, info.gid, info.size = member.uid, member.gid, len(member.data)
            info.devmajor, info.devminor = member.device
            info.pax_headers = dict(member.pax)
            tar.addfile(info, io.BytesIO(member.data))
    return buffer.getvalue()


@dataclass
class Stack:
    """An image's layers in a store."""

    layers: list[tuple[str, int, str, str, str, str]]
    paths: list[Path]
    sizes: list[int]


def describe(*archives: bytes, compress=gzip.compress) -> tuple[list[bytes], list[tuple[str, int, str, str, str, str]]]:
    """The blobs of some layers, and the layers as `Store.unpack` wants them."""
    blobs, layers, parent = [], [], ""
    for plain in archives:
        blob = compress(plain)
        diff_id = digest(plain)
        chain_id = digest(f"{parent} {diff_id}".encode()) if parent else diff_id
        blobs.append(blob)
        layers.append(
            (digest(blob), len(blob), "application/vnd.oci.image.layer.v1.tar+gzip", diff_id, chain_id, parent)
        )
        parent = chain_id
    return blobs, layers


def unpack(store: _core.Store, *archives: bytes, compress=gzip.compress) -> Stack:
    blobs, layers = describe(*archives, compress=compress)
    for blob in blobs:
        store.put_blob(blob)
    sizes = store.unpack(layers, _core.Progress())
    return Stack(layers, [Path(store.snapshot_path(layer[4])) for layer in layers], sizes)


def apply(store: _core.Store, *members: Member, **options) -> Path:
    """One layer's directory."""
    return unpack(store, archive(*members), **options).paths[0]


def xattrs(path: str | Path) -> dict[str, bytes]:
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def tree(top: Path, *, times: bool = True, directory_times: bool = True) -> dict[str, tuple]:
    """Everything that can be known of a tree, by relative path. Hard links are told by the first name they have."""
    found: dict[str, tuple] = {}
    first: dict[int, str] = {}
    paths = [top, *sorted(Path(base) / name for base, folders, files in os.walk(top) for name in folders + files)]
    for path in paths:
        status = path.lstat()
        name = str(path.relative_to(top))
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        elif not stat.S_ISDIR(status.st_mode):
            content = status.st_rdev
        same = first.setdefault(status.st_ino, name) if not stat.S_ISDIR(status.st_mode) else name
        timed = times and (directory_times or not stat.S_ISDIR(status.st_mode))
        own = {key: value for key, value in xattrs(path).items() if not key.startswith("trusted.overlay.")}
        found[name] = (
            oct(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns if timed else 0,
            content,
            same,
            own,
        )
    return found


_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def overlay(lower: list[Path], scratch: Path):
    """The kernel's own view of some layers, the top-most first."""
    empty, point = scratch / "empty", scratch / "merged"
    empty.mkdir(exist_ok=True)
    point.mkdir(exist_ok=True)
    directories = ":".join(str(path) for path in [*lower, empty])
    read_only = 1
    if _libc.mount(b"overlay", str(point).encode(), b"overlay", read_only, f"lowerdir={directories}".encode()) != 0:
        raise OSError(ctypes.get_errno(), f"cannot mount an overlay of {directories}")
    try:
        yield point
    finally:
        detach = 2
        assert _libc.umount2(str(point).encode(), detach) == 0


@contextmanager
def small_file_system(point: Path, size: int):
    """A tmpfs of so many bytes."""
    point.mkdir(exist_ok=True)
    if _libc.mount(b"tmpfs", str(point).encode(), b"tmpfs", 0, f"size={size}".encode()) != 0:
        raise OSError(ctypes.get_errno(), "cannot mount a tmpfs")
    try:
        yield point
    finally:
        detach = 2
        assert _libc.umount2(str(point).encode(), detach) == 0
        point.rmdir()
