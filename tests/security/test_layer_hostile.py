"""Layers that lie or attack: each a clear error that names the entry, nothing outside the root, nothing left behind."""

import contextlib
import gzip
import http.server
import os
import re
import subprocess
import tarfile
import threading

import pytest

from knarr import _core, errors
from tests.layers import (
    Member,
    apply,
    archive,
    describe,
    digest,
    directory,
    hard_link,
    small_file_system,
    symlink,
    unpack,
)

CHAR = tarfile.CHRTYPE


@pytest.fixture
def store(tmp_path):
    return _core.Store(str(tmp_path / "root"))


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tmp_path):
    """Nothing in tmp/, and nothing beside the data root."""
    yield
    assert os.listdir(tmp_path / "root/tmp") == []
    assert os.listdir(tmp_path) == ["root"]


def header(
    name: bytes,
    size: int | bytes = 0,
    kind: bytes = b"0",
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    **fields: bytes,
) -> bytes:
    """A header block with a right checksum and anything else at will."""
    block = bytearray(512)

    def put(at, value):
        block[at : at + len(value)] = value

    put(0, name)
    put(100, fields.get("mode", b"0000644\0"))
    put(108, fields.get("uid", b"0000000\0"))
    put(116, b"0000000\0")
    put(124, b"%011o\0" % size if isinstance(size, int) else size)
    put(136, b"00000000000\0")
    put(156, kind)
    put(157, link)
    put(257, magic)
    put(329, fields.get("major", b"0000000\0"))
    put(337, b"0000000\0")
    put(386, fields.get("sparse", b""))
    put(148, b"%06o\0 " % (sum(block) + 8 * 32))
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def extended(records: bytes, kind: bytes = b"x") -> bytes:
    return header(b"pax", len(records), kind) + padded(records)


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    while len(b"%d" % length) + len(key) + len(value) + 3 != length:
        length = len(b"%d" % length) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (length, key, value)


END = bytes(1024)
DEEP = "/".join(["d" * 200] * 30)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        pytest.param([Member("../escape", b"x")], r'entry "\.\./escape": its path leads out', id="dots"),
        pytest.param([Member("a/../../escape", b"x")], r"leads out of the root", id="dots inside"),
        pytest.param([Member("/../../escape", b"x")], r"leads out of the root", id="absolute with dots"),
        pytest.param([directory("..", mode=0o777)], r"leads out of the root", id="the parent itself"),
        pytest.param(
            [hard_link("l", "../../../etc/passwd")],
            r'entry "l": it links to "../../../etc/passwd", which leads out',
            id="hard link out",
        ),
        pytest.param(
            [hard_link("l", "/etc/passwd")],
            r'links to "etc/passwd", which does not exist in this layer or below',
            id="absolute hard link",
        ),
        pytest.param(
            [symlink("s", "/etc"), hard_link("l", "s/passwd")],
            r"which does not exist in this layer or below",
            id="hard link through a link",
        ),
        pytest.param([hard_link("l", "l")], r"which is the link itself", id="hard link to itself"),
        pytest.param([directory("d"), hard_link("l", "d")], r"which is a directory", id="hard link to a directory"),
        pytest.param(
            [Member(".wh.f"), hard_link("l", "f")], r"which this layer has removed", id="hard link to a whiteout"
        ),
        pytest.param(
            [Member("f", type=CHAR), hard_link("l", "f")],
            r"which this layer has removed",
            id="hard link to a device 0:0",
        ),
        pytest.param([hard_link("l", ".wh.f")], r"which cannot be linked to", id="hard link to a whiteout's name"),
        pytest.param([hard_link("l", "")], r"which cannot be linked to", id="hard link to nothing"),
        pytest.param(
            [directory("d"), Member("d/f", b"x"), hard_link("d", "d/f")],
            r"which the link itself replaces",
            id="hard link over its target",
        ),
        pytest.param(
            [Member("f", b"x"), Member("f/g", b"y")], r'entry "f/g": "f" is not a directory', id="below a file"
        ),
        pytest.param(
            [symlink("a", "b"), symlink("b", "a"), Member("a/x", b"")],
            r"too many symbolic links",
            id="links in a circle",
        ),
        pytest.param([Member("a/.wh.", b"")], r"a whiteout without a name", id="whiteout without a name"),
        pytest.param([Member("a/.wh..", b"")], r"a whiteout without a name", id="whiteout of the directory itself"),
        pytest.param([Member("a/.wh...", b"")], r"a whiteout without a name", id="whiteout of the parent"),
        pytest.param([Member(".wh.d/f", b"")], r"reserved for whiteouts", id="below a whiteout"),
        pytest.param(
            [symlink("s", ".wh.x"), Member("s/f", b"")], r"reserved for whiteouts", id="a whiteout made through a link"
        ),
        pytest.param([Member("n" * 256, b"")], r"or a name longer than 255", id="long name"),
        pytest.param([Member(DEEP, b"")], r"a path is longer than 4096 bytes", id="long path"),
        pytest.param([Member("/", b"x")], r'"/" is not a directory', id="the root as a file"),
        pytest.param([symlink(".", "/etc")], r'"/" is not a directory', id="the root as a link"),
        pytest.param([symlink("s", "")], r"field linkpath is malformed", id="empty link"),
    ],
)
def test_hostile_entries(store, members, message):
    with pytest.raises(errors.Corrupt, match=message):
        apply(store, *members)
    assert store.snapshots() == []


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        pytest.param(header(b"f", 1000) + b"x" * 700, r'entry "f": the archive is truncated in an entry\'s data', id="truncated data"),
        pytest.param(header(b"f", 1000) + b"x" * 1000, r"truncated in an entry's data", id="truncated padding"),
        pytest.param(header(b"f")[:300], r"truncated in a header", id="truncated header"),
        pytest.param(extended(record(b"path", b"x")) + END, r"an extension header without its entry", id="lonely extension"),
        pytest.param(header(b"f")[:-1] + b"x" + END, r"checksum does not hold", id="checksum"),
        pytest.param(b"no archive " * 200, r"checksum does not hold: this is no tar archive", id="no archive"),
        pytest.param(header(b"f", size=b"\xff" * 12) + END, r"field size is malformed", id="negative size"),
        pytest.param(header(b"f", size=b"8" * 11 + b"\0") + END, r"field size is malformed", id="no octal"),
        pytest.param(header(b"f", size=b"\x80\0\0\0" + b"\x7f" * 8) + END, r"the size of a file exceeds the limit", id="endless size"),
        pytest.param(header(b"f", uid=b"\x80\0\0\0\xff\xff\xff\xff") + END, r"field uid is malformed", id="no owner"),
        pytest.param(header(b"f", kind=b"3", major=b"7777777\0") + END, r"field devmajor is malformed", id="device number"),
        pytest.param(header(b"") + END, r"field path is malformed", id="no name"),
        pytest.param(extended(record(b"path", b"a\0b")) + header(b"f") + END, r"field path is malformed", id="NUL in a path"),
        pytest.param(extended(record(b"linkpath", b"a\0b")) + header(b"f", kind=b"2") + END, r"field linkpath is malformed", id="NUL in a link"),
        pytest.param(extended(record(b"path", b"../x")) + header(b"f") + END, r'entry "../x": its path leads out', id="dots in pax"),
        pytest.param(header(b"L", 5, b"L") + padded(b"../x\0") + header(b"f") + END, r'entry "../x": its path leads out', id="dots in a long name"),
        pytest.param(extended(record(b"path", b"../x"), b"g") + header(b"f") + END, r"its path leads out", id="dots for all"),
        pytest.param(extended(record(b"size", b"99999999999999999999")) + header(b"f") + END, r"field size", id="size in pax"),
        pytest.param(extended(record(b"uid", b"-1")) + header(b"f") + END, r"field uid", id="owner in pax"),
        pytest.param(extended(b"99 path=x\n") + header(b"f") + END, r"a pax header is malformed: a record's length", id="record too long"),
        pytest.param(header(b"x", 8 << 20, b"x") + bytes(8 << 20) + END, r"the size of a pax header or long name exceeds the limit of 1048576", id="pax bomb"),
        pytest.param(header(b"x", 8 << 20, b"L") + bytes(8 << 20) + END, r"long name exceeds the limit", id="name bomb"),
        pytest.param(extended(record(b"SCHILY.xattr.user.a\0b", b"x")) + header(b"f") + END, r"attribute's name", id="NUL in an attribute"),
        pytest.param(
            extended(record(b"GNU.sparse.map", b"0,10,5,10") + record(b"GNU.sparse.size", b"100")) + header(b"f", 20) + bytes(512) + END,
            r"pieces overlap",
            id="overlapping pieces",
        ),
        pytest.param(
            extended(record(b"GNU.sparse.map", b"0,99999") + record(b"GNU.sparse.size", b"100000")) + header(b"f", 20) + bytes(512) + END,
            r"do not add up",
            id="pieces without data",
        ),
        pytest.param(
            extended(record(b"GNU.sparse.map", b"0,0") + record(b"GNU.sparse.size", b"%d" % (1 << 60))) + header(b"f") + END,
            r"the size of a file exceeds the limit of 1099511627776",
            id="endless hole",
        ),
        pytest.param(
            header(b"f", 0, b"S", magic=b"ustar  \0", sparse=b"%011o\0%011o\0" % (1 << 30, 10)) + END,
            r"a piece ends beyond the file|do not add up",
            id="old sparse",
        ),
        pytest.param(
            extended(record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0") + record(b"GNU.sparse.realsize", b"10"))
            + header(b"f", 512) + padded(b"99999999\n") + END,
            r"number of pieces of a sparse file exceeds",
            id="endless sparse map",
        ),
    ],
)  # fmt: skip
def test_malformed_archives(store, plain, message):
    with pytest.raises(errors.Corrupt, match=message):
        unpack(store, plain)
    assert store.snapshots() == []


def test_an_unknown_type_is_unsupported(store):
    with pytest.raises(errors.Unsupported, match=r"entry \"f\": an entry has the unsupported type 'M'"):
        unpack(store, header(b"f", kind=b"M") + END)


@pytest.mark.parametrize("size", [1, 100, 5000])
def test_a_truncated_blob(store, size):
    [blob], [layer] = describe(archive(Member("f", os.urandom(10_000))))
    cut = blob[:size]
    store.put_blob(cut)
    with pytest.raises(errors.Corrupt, match=r"truncated|checksum|no tar archive"):
        store.unpack([(digest(cut), len(cut), *layer[2:])], _core.Progress())


def test_a_blob_with_flipped_bits(store):
    [blob], [layer] = describe(archive(Member("f", os.urandom(10_000))))
    wrong = bytearray(blob)
    wrong[5000] ^= 1
    store.put_blob(bytes(wrong))
    with pytest.raises(errors.Corrupt, match=re.escape(digest(bytes(wrong)))):
        store.unpack([(digest(bytes(wrong)), len(wrong), *layer[2:])], _core.Progress())


def test_a_blob_changed_on_disk(store):
    data = b"config"
    name = store.put_blob(data)
    with open(store.blob_path(name), "wb") as blob:
        blob.write(b"forged")
    with pytest.raises(errors.Corrupt, match=f"blob {name} is corrupt"):
        store.blob(name)


def test_another_diff_id(store):
    [blob], [layer] = describe(archive(Member("f", b"x")))
    store.put_blob(blob)
    other = digest(b"other")
    with pytest.raises(
        errors.Corrupt, match=f"unpacked layer {other} is corrupt: its bytes have the digest {layer[3]}"
    ):
        store.unpack([(layer[0], layer[1], layer[2], other, other, "")], _core.Progress())


def test_a_chain_id_that_does_not_follow(store):
    [blob], [layer] = describe(archive(Member("f", b"x")))
    store.put_blob(blob)
    with pytest.raises(errors.InvalidArgument, match=f"which should be {layer[3]}"):
        store.unpack([(*layer[:4], digest(b"other"), "")], _core.Progress())


def test_ten_to_the_fifth_to_one(store):
    """zstd packs a gigabyte of zeros into some 32 KiB; deflate cannot exceed 1,032 to 1."""
    zeros = subprocess.run("head -c 1G /dev/zero | zstd -19 -c", shell=True, capture_output=True, check=True).stdout
    assert len(zeros) < 110_000
    store.put_blob(zeros)
    anything = digest(b"x")
    with pytest.raises(errors.Corrupt, match=r"compressed bytes unpack to more than \d+ bytes, which is the limit"):
        store.unpack([(digest(zeros), len(zeros), "", anything, anything, "")], _core.Progress())


def test_too_many_layers(store):
    _, layers = describe(*[archive(Member(str(number))) for number in range(501)])
    with pytest.raises(errors.Corrupt, match="501 layers, more than the 500 allowed"):
        store.unpack(layers, _core.Progress())


def test_many_entries_are_bounded(store):
    """Two million and one headers: a gigabyte that packs into next to nothing, and makes no file."""
    # gzip's members are one stream.
    blob = gzip.compress(header(b".wh..wh.n") * 10_000) * 201
    store.put_blob(blob)
    anything = digest(b"x")
    with pytest.raises(errors.Corrupt, match="the number of entries exceeds the limit of 2000000"):
        store.unpack([(digest(blob), len(blob), "", anything, anything, "")], _core.Progress())


def test_memory_for_directories_is_bounded(store, tmp_path):
    """Directories are remembered until the layer is complete; deep ones weigh most."""
    deep = "/".join(["d" * 250] * 15)
    members = [directory(f"{deep}/{number}") for number in range(18_000)]
    with (
        small_file_system(tmp_path / "memory", 1 << 30) as point,
        pytest.raises(errors.Corrupt, match="more directories and links than can be kept in 67108864 bytes"),
    ):
        apply(_core.Store(str(point / "root")), *members, compress=lambda data: gzip.compress(data, 1))


def test_a_full_disk(store, tmp_path):
    """Which layer, which entry, where, and what to do; and room again afterwards."""
    fits, large = archive(Member("fits", b"x" * 1000)), archive(Member("large", bytes(3 << 20)))
    with small_file_system(tmp_path / "small", 1 << 20) as point:
        small = _core.Store(str(point / "root"))
        with pytest.raises(
            errors.Unavailable,
            match=rf"layer sha256:\w+, unpacked to {point}/.*: entry \"large\": cannot write it: the file system is full; free",
        ):
            unpack(small, large)
        assert os.listdir(point / "root/tmp") == []
        assert small.snapshots() == []
        assert unpack(small, fits).sizes == [1000]
        with pytest.raises(errors.Unavailable, match=f"{point}/.*: the file system is full"):
            small.put_blob(os.urandom(2 << 20))
        big = tmp_path / "root" / "big.tar"
        big.write_bytes(large)
        with pytest.raises(errors.Unavailable, match=f"{point}/.*: the file system is full"):
            small.read_archive(str(big))
        with pytest.raises(errors.Unavailable, match=f"{point}/.*: the file system is full"):
            small.put_file(str(big))
        assert os.listdir(point / "root/tmp") == []


def test_a_disk_that_fills_up_during_a_pull(store, tmp_path):
    """What has arrived goes as well: kept for a resumption it would keep the disk full."""
    [blob], [layer] = describe(archive(Member("large", os.urandom(3 << 20))))

    class Blobs(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(blob)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(blob)

        def log_message(self, *_):
            pass

    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Blobs) as server,
        small_file_system(tmp_path / "small", 2 << 20) as point,
    ):
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            small = _core.Store(str(point / "root"))
            registry = _core.Registry(f"127.0.0.1:{server.server_address[1]}", scheme="http")
            with pytest.raises(errors.Unavailable, match=f"{point}/root/.*: the file system is full; free some space"):
                small.unpack([layer], _core.Progress(), registry, "some/where")
            assert os.listdir(point / "root/ingest") == os.listdir(point / "root/tmp") == []
        finally:
            server.shutdown()
            thread.join()


def test_deep_directories_are_made_and_deleted(store):
    """Deeper than a process has descriptors."""
    path = "/".join(["d"] * 2000)
    stack = unpack(store, archive(Member(path, b"x")))
    assert stack.sizes == [1]
    assert store.usage(str(stack.paths[0]))[1] == 2001
    store.remove_snapshot(stack.layers[0][4])
    assert not stack.paths[0].exists()


def test_links_inside_never_lead_out(store, tmp_path):
    """Everything below links that point out lands in the layer."""
    outside = tmp_path / "root" / "outside"
    outside.mkdir()
    root = apply(
        store,
        symlink("abs", str(outside)),
        symlink("up", "../" * 20 + str(outside)),
        Member("abs/a", b"1"),
        Member("up/b", b"2"),
        Member("up/.wh.c"),
    )
    assert os.listdir(outside) == []
    assert (root / str(outside).lstrip("/") / "a").read_bytes() == b"1"
    assert (root / str(outside).lstrip("/") / "b").read_bytes() == b"2"


def test_a_swap_of_a_directory_for_a_link_is_not_followed(store, tmp_path):
    """A directory whose descriptor is cached becomes a link; what follows goes where the link points, in the layer."""
    root = apply(store, directory("d"), Member("d/a", b"1"), symlink("d", "/e"), Member("d/b", b"2"))
    assert os.readlink(root / "d") == "/e"
    assert (root / "e/b").read_bytes() == b"2"
    assert not (root / "e/a").exists()


def test_many_at_once(store):
    """Pulls that share layers wait for one another, and one failure takes nobody else's layers along."""
    shared = archive(*[Member(f"f{number}", os.urandom(2000)) for number in range(300)])
    good = [describe(shared, archive(Member(f"own{number}", b"x"))) for number in range(4)]
    bad = describe(shared, archive(Member("../x", b"")))
    for blobs, _ in [*good, bad]:
        for blob in blobs:
            store.put_blob(blob)
    results = {}

    def work(name, layers):
        try:
            results[name] = store.unpack(layers, _core.Progress())
        except errors.KnarrError as error:
            results[name] = error

    threads = [threading.Thread(target=work, args=(name, layers)) for name, (_, layers) in enumerate([*good, bad])]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert [results[name] for name in range(4)] == [[600_000, 1]] * 4
    assert isinstance(results[4], errors.Corrupt)
    assert len(store.snapshots()) == 5


def test_struct_of_archives_from_the_nineties(store):
    """Version 7 headers without a magic, names without a NUL, and garbage behind the end are read as GNU tar reads them."""
    plain = (
        header(b"d/", kind=b"\0", magic=b"")
        + header(b"n" * 100, 3, b"\0", magic=b"")
        + padded(b"abc")
        + END
        + b"garbage" * 100
    )
    root = unpack(store, plain).paths[0]
    assert (root / "d").is_dir()
    assert (root / ("n" * 100)).read_bytes() == b"abc"
