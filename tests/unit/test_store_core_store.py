"""The store as Python sees it: blobs, archives, copies for volumes, sweeps, kills."""

import bz2
import gzip
import io
import lzma
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import time

import pytest

from knarr import _core, errors
from tests.layers import (
    Member,
    archive,
    describe,
    digest,
    directory,
    hard_link,
    small_file_system,
    symlink,
    tree,
    unpack,
    xattrs,
)


@pytest.fixture
def store(tmp_path):
    return _core.Store(str(tmp_path / "root"))


def zstd(data):
    return subprocess.run(["zstd", "-c"], input=data, capture_output=True, check=True).stdout


def test_blobs_come_back(store):
    name = store.put_blob(b"config")
    assert name == digest(b"config") == store.put_blob(b"config")
    assert store.blob(name) == b"config"
    assert store.blob_size(name) == 6
    assert store.blobs() == [(name, 6)]
    assert store.blob_size(digest(b"other")) is None
    store.remove_blob(name)
    store.remove_blob(name)
    assert store.blobs() == []
    with pytest.raises(errors.NotFound, match=f"blob {name} is not in the store"):
        store.blob(name)


def test_limits_and_names(store):
    name = store.put_blob(b"x" * 100)
    with pytest.raises(errors.InvalidArgument, match="has 100 bytes, more than the 99 allowed"):
        store.blob(name, 99)
    for bad in [
        "",
        "sha256:",
        "sha256:" + "/" * 64,
        "sha256:../../etc/passwd",
        "md5:" + "0" * 32,
        name.upper(),
        name + "\0",
        name + "\n",
    ]:
        for method in (
            store.blob,
            store.blob_path,
            store.snapshot_path,
            store.remove_blob,
            store.remove_snapshot,
            store.has_snapshot,
        ):
            with pytest.raises(errors.InvalidArgument, match="digest"):
                method(bad)


def test_a_file_becomes_a_blob(store, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"y" * 1_000_000)
    assert store.put_file(str(path)) == (digest(b"y" * 1_000_000), 1_000_000)
    with pytest.raises(errors.NotFound, match=str(tmp_path / "none")):
        store.put_file(str(tmp_path / "none"))


@pytest.mark.parametrize(
    "compress",
    [
        bytes,
        gzip.compress,
        zstd,
        bz2.compress,
        lzma.compress,
        lambda data: gzip.compress(data[:5000]) + gzip.compress(data[5000:]),
        lambda data: bz2.compress(data[:5000]) + bz2.compress(data[5000:]),
        lambda data: lzma.compress(data[:5000]) + lzma.compress(data[5000:]),
    ],
    ids=["plain", "gzip", "zstd", "bzip2", "xz", "members", "bzip2 members", "xz members"],
)
def test_layers_of_every_compression(store, compress):
    data = random.Random(1).randbytes(400_000)
    stack = unpack(store, archive(Member("f", data)), compress=compress)
    assert (stack.paths[0] / "f").read_bytes() == data
    assert stack.sizes == [400_000]


@pytest.mark.parametrize(("magic", "name"), [(b"\x04\x22\x4d\x18", "lz4"), (b"\x1f\x9d", "compress")])
def test_other_compressions_are_named(store, magic, name):
    blob = magic + bytes(600)
    store.put_blob(blob)
    with pytest.raises(errors.Unsupported, match=f"compressed with {name}, which is not supported"):
        store.unpack([(digest(blob), len(blob), "", digest(b""), digest(b""), "")], _core.Progress())


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd], ids=["plain", "gzip", "zstd"])
def test_an_archive_becomes_blobs(store, tmp_path, compress):
    layer = os.urandom(700_000)
    plain = archive(
        directory("blobs/"),
        Member("./blobs/sha256/abc", layer),
        Member("manifest.json", b"[]"),
        symlink("one/layer.tar", "../blobs/sha256/abc"),
        symlink("two/layer.tar", "../one/layer.tar"),
        hard_link("three/layer.tar", "two/layer.tar"),
        Member("repositories", b"old"),
        Member("repositories", b"{}"),
    )
    path = tmp_path / "image.tar"
    path.write_bytes(compress(plain))
    members = {name: (blob, size) for name, blob, size in store.read_archive(str(path))}
    at_layer = (digest(layer), 700_000)
    assert members == {
        "blobs/sha256/abc": at_layer,
        "manifest.json": (digest(b"[]"), 2),
        "one/layer.tar": at_layer,
        "two/layer.tar": at_layer,
        "three/layer.tar": at_layer,
        "repositories": (digest(b"{}"), 2),
    }
    assert store.blob(digest(layer)) == layer
    assert {name for name, _ in store.blobs()} == {name for name, _ in members.values()}
    assert os.listdir(tmp_path / "root/tmp") == []


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", None, ""),
        (b"not a tar archive" * 100, errors.Corrupt, "this is no tar archive"),
        (
            gzip.compress(archive(Member("a", b"x" * 5000)), mtime=0)[:-20],
            errors.Corrupt,
            "the gzip stream is truncated",
        ),
        (archive(Member("a", b"x" * 5000))[:3000], errors.Corrupt, r'entry "a": the archive is truncated'),
        (archive(Member("../../a", b"x")), errors.Corrupt, "leads out of the root"),
        (archive(symlink("a", "../../etc/passwd")), errors.Corrupt, "leads out of the root"),
        (archive(symlink("a", "b"), symlink("b", "a")), errors.Corrupt, "too many symbolic links"),
        (
            archive(symlink("a", "/etc/passwd")),
            errors.Corrupt,
            r'entry "a": it links to "etc/passwd", which is no file of the archive',
        ),
        (
            archive(Member("a\udcff", b"x"), tar_format=tarfile.GNU_FORMAT),
            errors.Corrupt,
            r"entry \"a\\xff\": the field path is malformed",
        ),
        (b"\xfd7zXZ\0\0\0\0", errors.Corrupt, "the xz stream is "),
    ],
)
def test_bad_archives(store, tmp_path, data, error, message):
    path = tmp_path / "image.tar"
    path.write_bytes(data)
    if error is None:
        assert store.read_archive(str(path)) == []
    else:
        with pytest.raises(error, match=message) as caught:
            store.read_archive(str(path))
        assert str(path) in str(caught.value)
    assert store.blobs() == []
    assert os.listdir(tmp_path / "root/tmp") == []


def test_paths_that_are_no_archives(store, tmp_path):
    with pytest.raises(errors.InvalidArgument, match="is not a regular file"):
        store.read_archive(str(tmp_path))
    with pytest.raises(errors.NotFound, match="No such file"):
        store.read_archive(str(tmp_path / "none"))


def test_a_volume_begins_with_the_image(store, tmp_path):
    note = (("SCHILY.xattr.user.note", "hello"),)
    base = archive(
        directory("var/lib/db", mode=0o2750, uid=5, gid=6, mtime=100.5, pax=note),
        Member("var/lib/db/a", b"a", mode=0o600, uid=5, pax=note),
        hard_link("var/lib/db/b", "var/lib/db/a"),
        Member("var/lib/db/gone", b""),
        symlink("data", "/var/lib/link"),
        symlink("var/lib/link", "../lib/db"),
        Member("file", b""),
    )
    stack = unpack(
        store, base, archive(Member("var/lib/db/.wh.gone"), Member("var/lib/db/new", b"n"), symlink("loop", "loop"))
    )
    lower = [str(path) for path in stack.paths[::-1]]
    for path in ("/var/lib/db", "var/lib/db/", "/data", "/data/../db", "/../var/lib/db"):
        volume = tmp_path / path.replace("/", "-")
        volume.mkdir()
        assert store.copy_up(lower, path, str(volume)), path
        found = tree(volume)
        assert set(found) == {".", "a", "b", "new"}
        assert found["."][:4] == ("0o42750", 5, 6, 100_500_000_000)
        assert found["a"][5] == found["b"][5]
        assert xattrs(volume / "a") == xattrs(volume) == {"user.note": b"hello"}
    for path in ("/nothing", "/file", "/file/x", "/var/lib/db/gone"):
        volume = tmp_path / f"no{path.replace('/', '-')}"
        volume.mkdir()
        assert not store.copy_up(lower, path, str(volume))
        assert os.listdir(volume) == []
    with pytest.raises(errors.KnarrError, match="cannot look up loop"):
        store.copy_up(lower, "loop", str(volume))


def test_usage_counts_linked_files_once(store, tmp_path):
    top = tmp_path / "tree"
    (top / "d").mkdir(parents=True)
    (top / "d/file").write_bytes(b"x" * 100_000)
    os.link(top / "d/file", top / "again")
    blocks = sum(path.stat().st_blocks for path in (top, top / "d", top / "d/file"))
    assert store.usage(str(top)) == (blocks * 512, 3)


def test_progress_tells_and_cancels(store):
    blobs, layers = describe(archive(Member("a", b"x")), archive(Member("b", b"x")))
    for blob in blobs:
        store.put_blob(blob)
    progress = _core.Progress()
    store.unpack(layers, progress)
    assert progress.snapshot() == [(layer[0], "done", layer[1], layer[1]) for layer in layers]
    progress = _core.Progress()
    store.unpack(layers, progress)
    assert [phase for _, phase, _, _ in progress.snapshot()] == ["exists", "exists"]
    progress = _core.Progress()
    progress.cancel()
    for layer in layers:
        store.remove_snapshot(layer[4])
    with pytest.raises(errors.Unavailable, match="cancelled"):
        store.unpack(layers, progress)


def test_a_data_root_passes_nothing_on(tmp_path):
    """Below a directory with the set-group-ID bit and a default access list, an image's files have what the image says."""
    parent = tmp_path / "parent"
    parent.mkdir()
    os.chown(parent, 7, 8)
    parent.chmod(0o2777)
    nobody = 0xFFFFFFFF
    entries = [(1, 7, nobody), (2, 7, 9), (4, 7, nobody), (0x10, 7, nobody), (0x20, 5, nobody)]
    os.setxattr(
        parent,
        "system.posix_acl_default",
        struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries),
    )
    store = _core.Store(str(parent / "root"))
    root = unpack(store, archive(directory("d"), Member("d/f", b"x"), Member("i/f", b"x"))).paths[0]
    for path in [root, root / "d", root / "d/f", root / "i", root / "i/f"]:
        status = path.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (0, 0, 0o755 if path.is_dir() else 0o644), (
            path
        )
        assert xattrs(path) == {}


def test_a_mount_is_neither_counted_nor_deleted(store, tmp_path):
    container = tmp_path / "root/containers/x"
    (container / "upper/mounted").mkdir(parents=True)
    with small_file_system(container / "upper/mounted/here", 1 << 20) as point:
        (point / "precious").write_bytes(b"x" * 100_000)
        assert store.usage(str(container))[1] == 4
        with pytest.raises(errors.Conflict, match='something is mounted on "here"; unmount it first'):
            store.remove_tree(str(container))
        [moved] = (tmp_path / "root/tmp").iterdir()
        precious = moved / "upper/mounted/here/precious"
        assert precious.read_bytes() == b"x" * 100_000
        moved.rename(container)
    store.remove_tree(str(container))
    assert os.listdir(tmp_path / "root/tmp") == []


def test_encrypted_layers_are_unsupported(store):
    _, [layer] = describe(archive())
    with pytest.raises(errors.Unsupported, match=r"media type .*encrypted"):
        store.unpack([(*layer[:2], layer[2] + "+encrypted", *layer[3:])], _core.Progress())


INTERRUPTED = """
import sys
from knarr import _core
from tests.layers import archive, describe
_, layers = describe(archive())
registry = _core.Registry(sys.argv[2], scheme="http")
print("begin", flush=True)
_core.Store(sys.argv[1]).unpack(layers, _core.Progress(), registry, "some/where")
"""


def test_ctrl_c_ends_a_pull_that_stalls(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "root"), host]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"begin\n"
            silent.accept()
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, messages = process.communicate(timeout=20)
            assert messages.endswith(b"KeyboardInterrupt\n")
            assert time.monotonic() - began < 5
    assert os.listdir(tmp_path / "root/tmp") == []


WORK = """
import sys
from knarr import _core
from tests.layers import archive, describe, Member
root, seed = sys.argv[1], int(sys.argv[2])
store = _core.Store(root)
store.sweep()
import random
chance = random.Random(7)
blobs, layers = describe(*[archive(*[Member(f"d{layer}/f{n}", chance.randbytes(3000)) for n in range(600)]) for layer in range(3)])
print("begin", flush=True)
for blob in blobs:
    store.put_blob(blob)
store.unpack(layers, _core.Progress())
print("end", flush=True)
sys.stdin.read()
"""


def test_a_kill_at_any_moment_leaves_only_what_a_sweep_takes(tmp_path):
    """Snapshots that have their name are complete; the rest is in tmp/ and goes."""
    chance = random.Random(3)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    complete = None
    for attempt in range(12):
        root = tmp_path / "root"
        with subprocess.Popen(
            [sys.executable, "-c", WORK, str(root), "0"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout.readline() == b"begin\n"
            if attempt == 11:
                assert process.stdout.readline() == b"end\n"
            else:
                time.sleep(chance.uniform(0, 0.12))
            process.send_signal(signal.SIGKILL)
        store = _core.Store(str(root))
        store.sweep()
        assert os.listdir(root / "tmp") == []
        for name, size in store.blobs():
            assert len(store.blob(name)) == size
        for chain_id in store.snapshots():
            files = list((root / "snapshots" / chain_id.removeprefix("sha256:")).rglob("f*"))
            assert len(files) == 600
            assert all(path.stat().st_size == 3000 for path in files)
        if attempt == 11:
            complete = store.snapshots()
        elif attempt % 3 == 2:  # begin again from nothing now and then
            for chain_id in store.snapshots():
                store.remove_snapshot(chain_id)
            for name, _ in store.blobs():
                store.remove_blob(name)
    assert len(complete) == 3


PEAK = """
import ast, re, sys
from knarr import _core
store, layers = _core.Store(sys.argv[1]), ast.literal_eval(sys.argv[2])
peak = lambda: re.search("VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
print(peak())
store.unpack(layers, _core.Progress())
print(peak())
"""


SMALL_AND_LARGE = """
import sys
from knarr import _core
from tests.layers import Member, archive, unpack
store = _core.Store(sys.argv[1])
unpack(store, archive(*[Member(f"f{n}", b"x") for n in range(int(sys.argv[2]))]))
"""


@pytest.mark.parametrize(("files", "sync"), [(3, "fsync"), (300, "syncfs")])
def test_nothing_has_its_name_before_it_is_durable(tmp_path, files, sync):
    """As the kernel sees it: written, synced, renamed, and the directory of names synced."""
    log = tmp_path / "log"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    calls = "trace=write,rename,renameat,renameat2,fsync,fdatasync,syncfs"
    program = [sys.executable, "-c", SMALL_AND_LARGE, str(tmp_path / "root"), str(files)]
    subprocess.run(["strace", "-f", "-y", "-qq", "-e", calls, "-o", log, *program], env=environment, check=True)
    lines = log.read_text().splitlines()
    [named] = [at for at, line in enumerate(lines) if "rename" in line and "/root/snapshots/" in line]
    written = [at for at, line in enumerate(lines) if "write(" in line and "/root/tmp/layer-" in line]
    assert len(written) == files
    assert max(written) < named
    between = [line for line in lines[max(written) : named] if f" {sync}(" in line]
    if sync == "fsync":
        assert sum("/root/tmp/layer-" in line for line in between) == files + 1, "every file, and the directory"
    else:
        assert len(between) == 1
    assert any(" fsync(" in line and "/root/snapshots>" in line for line in lines[named:])


def test_a_pull_needs_little_memory(store, tmp_path):
    """The buffers of a pull are few: unpacking 200 MB takes next to nothing."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        info = tarfile.TarInfo("large")
        info.size = 200 << 20
        tar.addfile(info, io.BufferedReader(Zeros(info.size)))
    blobs, layers = describe(plain.getvalue(), compress=lambda data: gzip.compress(data, 1))
    store.put_blob(blobs[0])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    peak = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "root"), repr(layers)],
        env=environment,
        capture_output=True,
        check=True,
    )
    before, after = (int(value) for value in peak.stdout.split())
    assert after - before < 12 << 10, "KiB"


class Zeros(io.RawIOBase):
    """So many zeros."""

    def __init__(self, size):
        self.left = size

    def readable(self):
        return True

    def readinto(self, buffer):
        count = min(len(buffer), self.left)
        buffer[:count] = bytes(count)
        self.left -= count
        return count
