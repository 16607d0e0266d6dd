"""What becomes of each kind of entry (rust/store/src/layer): in a layer of its own, and seen through the kernel's overlay."""

import os
import stat
import tarfile

import pytest

from knarr import _core
from tests.layers import Member, apply, archive, directory, hard_link, overlay, symlink, tree, unpack, xattrs

FIFO, CHAR, BLOCK = tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE


@pytest.fixture
def store(tmp_path):
    return _core.Store(str(tmp_path / "root"))


def is_whiteout(path):
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path):
    return xattrs(path).get("trusted.overlay.opaque") == b"y"


def seen(stack, tmp_path):
    """What the kernel shows of a stack: names, modes and content."""
    with overlay(stack.paths[::-1], tmp_path) as point:
        return {name: (mode, content) for name, (mode, _, _, _, content, _, _) in tree(point).items() if name != "."}


def test_every_type_has_its_attributes(store):
    root = apply(
        store,
        directory("d", mode=0o1777, uid=3, gid=4, mtime=1.000000001),
        Member("d/file", b"data", mode=0o640, uid=1000, gid=100, mtime=1234567890.123456),
        Member("d/su", b"x", mode=0o6755, uid=0, gid=5),
        Member("d/closed", b"x", mode=0),
        Member("d/fifo", type=FIFO, mode=0o622, uid=7),
        Member("d/null", type=CHAR, mode=0o666, device=(1, 3)),
        Member("d/disk", type=BLOCK, mode=0o660, gid=6, device=(259, 70000)),
        symlink("d/absolute", "/etc/passwd"),
        symlink("d/up", "../../../x"),
        hard_link("d/same", "d/file"),
    )
    status = {path.name: path.lstat() for path in (root / "d").iterdir()}
    assert (root / "d").stat().st_mode == stat.S_IFDIR | 0o1777
    assert ((root / "d").stat().st_uid, (root / "d").stat().st_gid, (root / "d").stat().st_mtime_ns) == (
        3,
        4,
        1_000_000_001,
    )
    assert (status["file"].st_mode, status["file"].st_uid, status["file"].st_gid) == (stat.S_IFREG | 0o640, 1000, 100)
    assert abs(status["file"].st_mtime_ns - 1234567890_123456000) < 1000
    assert status["su"].st_mode == stat.S_IFREG | 0o6755
    assert status["closed"].st_mode == stat.S_IFREG
    assert (status["fifo"].st_mode, status["fifo"].st_uid) == (stat.S_IFIFO | 0o622, 7)
    assert (status["null"].st_mode, status["null"].st_rdev) == (stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert (status["disk"].st_mode, status["disk"].st_rdev) == (stat.S_IFBLK | 0o660, os.makedev(259, 70000))
    assert (os.readlink(root / "d/absolute"), os.readlink(root / "d/up")) == ("/etc/passwd", "../../../x")
    assert status["same"].st_ino == status["file"].st_ino


def test_a_umask_takes_nothing_from_modes(store):
    before = os.umask(0o077)
    try:
        root = apply(
            store, directory("d", mode=0o775), Member("d/f", b"x", mode=0o666), Member("d/p", type=FIFO, mode=0o666)
        )
    finally:
        os.umask(before)
    assert [(root / name).stat().st_mode & 0o777 for name in ("d", "d/f", "d/p")] == [0o775, 0o666, 0o666]


def test_attributes_are_set_and_those_that_steer_the_host_are_dropped(store):
    capability = bytes.fromhex("0100000200040000000000000000000000000000").decode("ascii")
    wanted = {"user.note": "ü", "security.capability": capability}
    hostile = {
        "trusted.overlay.redirect": "/etc",
        "trusted.overlay.opaque": "y",
        "trusted.note": "x",
        "user.overlay.opaque": "y",
        "security.selinux": "label",
        "security.ima": "x",
    }
    records = tuple((f"SCHILY.xattr.{name}", value) for name, value in (wanted | hostile).items())
    members = [
        Member("file", b"x", uid=5, pax=records),
        directory("d", pax=records[:1] + records[2:5]),
        symlink("l", "x"),
    ]
    root = apply(store, *members)
    assert xattrs(root / "file") == {"user.note": "ü".encode(), "security.capability": capability.encode("ascii")}
    assert xattrs(root / "d") == {"user.note": "ü".encode()}


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        pytest.param([Member("a", b"1"), Member("a", b"22")], {"a": b"22"}, id="file-file"),
        pytest.param(
            [Member("a", b"1"), hard_link("b", "a"), Member("a", b"22")],
            {"a": b"22", "b": b"1"},
            id="linked file replaced",
        ),
        pytest.param(
            [directory("a"), Member("a/x", b"1"), directory("a")], {"a": None, "a/x": b"1"}, id="directory-directory"
        ),
        pytest.param([directory("a"), Member("a/b/c/x", b"1"), Member("a", b"2")], {"a": b"2"}, id="directory-file"),
        pytest.param(
            [Member("a", b"1"), directory("a"), Member("a/x", b"2")], {"a": None, "a/x": b"2"}, id="file-directory"
        ),
        pytest.param(
            [symlink("a", "b"), directory("a"), Member("a/x", b"")], {"a": None, "a/x": b""}, id="link-directory"
        ),
        pytest.param([directory("b"), symlink("a", "b"), Member("a", b"1")], {"a": b"1", "b": None}, id="link-file"),
        pytest.param(
            [directory("b"), symlink("a", "b"), Member("a/x", b"1")],
            {"a": "b", "b": None, "b/x": b"1"},
            id="below a link",
        ),
        pytest.param(
            [symlink("a", "/b/c"), Member("a/x", b"1")],
            {"a": "/b/c", "b": None, "b/c": None, "b/c/x": b"1"},
            id="below an absolute link",
        ),
        pytest.param(
            [symlink("a", "../../b"), Member("a/x", b"1")],
            {"a": "../../b", "b": None, "b/x": b"1"},
            id="below a link that climbs",
        ),
        pytest.param([Member("a", b"1"), hard_link("a", "a")], {"a": b"1"}, id="link to itself"),
        pytest.param(
            [Member("a", b"1"), Member("b", b"2"), hard_link("b", "a")], {"a": b"1", "b": b"1"}, id="link replaces"
        ),
        pytest.param([symlink("s", "x"), hard_link("t", "s")], {"s": "x", "t": "x"}, id="link to a link"),
        pytest.param([hard_link("b", "a"), Member("a", b"1")], {"a": b"1", "b": b"1"}, id="link before its target"),
        pytest.param(
            [Member("/a", b"1"), Member("./b", b"2"), Member("x/../c", b"3")],
            {"a": b"1", "b": b"2", "c": b"3"},
            id="spellings",
        ),
        pytest.param(
            [Member(".wh..wh.plnk/7", b"1"), Member(".wh..wh.aufs", b""), Member("a", b"")],
            {"a": b""},
            id="bookkeeping",
        ),
    ],
)
def test_the_later_entry_wins(store, members, expected):
    found = {name: entry[4] for name, entry in tree(apply(store, *members)).items() if name != "."}
    assert found == expected


BASE = [
    directory("d", mode=0o711, uid=5, gid=6, mtime=77.5),
    Member("d/old", b"old", mode=0o600, uid=9),
    Member("d/keep", b"keep"),
    directory("d/sub", mode=0o700),
    Member("d/sub/x", b"x"),
    Member("f", b"f"),
    symlink("l", "d"),
]


@pytest.mark.parametrize(
    ("members", "gone", "new"),
    [
        pytest.param([Member("d/.wh.old")], ["d/old"], {}, id="a whiteout"),
        pytest.param([Member(".wh.d")], ["d", "d/old", "d/keep", "d/sub", "d/sub/x"], {}, id="of a directory"),
        pytest.param(
            [Member("d/.wh..wh..opq"), Member("d/n", b"n")],
            ["d/old", "d/keep", "d/sub", "d/sub/x"],
            {"d/n": b"n"},
            id="opaque",
        ),
        pytest.param(
            [Member("d/n", b"n"), Member("d/.wh..wh..opq")],
            ["d/old", "d/keep", "d/sub", "d/sub/x"],
            {"d/n": b"n"},
            id="opaque at the end",
        ),
        pytest.param(
            [Member(".wh.d"), directory("d"), Member("d/n", b"n")],
            ["d/old", "d/keep", "d/sub", "d/sub/x"],
            {"d/n": b"n"},
            id="replaced directory",
        ),
        pytest.param(
            [directory("d"), Member("d/n", b"n"), Member(".wh.d")],
            ["d/old", "d/keep", "d/sub", "d/sub/x"],
            {"d/n": b"n"},
            id="whiteout behind its replacement",
        ),
        pytest.param(
            [Member(".wh.d"), Member("d/n", b"n")],
            ["d/old", "d/keep", "d/sub", "d/sub/x"],
            {"d/n": b"n"},
            id="implicit replacement",
        ),
        pytest.param([Member(".wh.f"), Member("f", b"new")], [], {"f": b"new"}, id="whiteout and file"),
        pytest.param([Member("f", b"new"), Member(".wh.f")], [], {"f": b"new"}, id="file and whiteout"),
        pytest.param([Member("f", type=CHAR, device=(0, 0))], ["f"], {}, id="a device 0:0"),
        pytest.param(
            [Member("d", b"file now")],
            ["d/old", "d/keep", "d/sub", "d/sub/x"],
            {"d": b"file now"},
            id="file over directory",
        ),
        pytest.param([Member("f/x", b"x")], [], {"f": None, "f/x": b"x"}, id="directory over file"),
        pytest.param(
            [Member(".wh.nothing"), Member("d/.wh.no"), Member("new/.wh.x")],
            [],
            {"new": None},
            id="whiteouts of nothing",
        ),
        pytest.param(
            [hard_link("d/copy", "d/old"), hard_link("d/again", "d/old")],
            [],
            {"d/copy": b"old", "d/again": b"old"},
            id="links to a lower layer",
        ),
        pytest.param(
            [Member("d/sub/.wh.x"), Member("d/sub/y", b"y")],
            ["d/sub/x"],
            {"d/sub/y": b"y"},
            id="below implicit directories",
        ),
    ],
)
def test_overlay_shows_what_the_layers_say(store, tmp_path, members, gone, new):
    before = seen(unpack(store, archive(*BASE)), tmp_path)
    stack = unpack(store, archive(*BASE), archive(*members))
    after = seen(stack, tmp_path)
    expected = {name: content for name, (_, content) in before.items() if name not in gone} | new
    assert {name: content for name, (_, content) in after.items()} == expected
    # The store's own merged view is the kernel's.
    volume = tmp_path / "volume"
    volume.mkdir()
    assert store.copy_up([str(path) for path in stack.paths[::-1]], "/", str(volume))
    copied = {name: (mode, content) for name, (mode, _, _, _, content, _, _) in tree(volume).items() if name != "."}
    assert copied == after


def test_directories_without_an_entry_show_those_they_cover(store, tmp_path):
    stack = unpack(store, archive(*BASE), archive(Member("d/sub/n", b"")), archive(Member("d/sub/m", b"")))
    for path in stack.paths[1:]:
        status = (path / "d").stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns) == (
            0o711,
            5,
            6,
            77_500_000_000,
        )
        assert stat.S_IMODE((path / "d/sub").stat().st_mode) == 0o700
    fresh = unpack(store, archive(Member("p/q/r", b""))).paths[0]
    assert [stat.S_IMODE((fresh / name).stat().st_mode) for name in (".", "p", "p/q")] == [0o755] * 3


def test_a_copied_link_keeps_what_its_target_had(store):
    stack = unpack(store, archive(*BASE), archive(hard_link("a", "d/old"), hard_link("b", "d/old")))
    (first, second), lower = [(stack.paths[1] / name).stat() for name in "ab"], (stack.paths[0] / "d/old").stat()
    assert first.st_ino == second.st_ino != lower.st_ino
    assert (first.st_mode, first.st_uid, first.st_mtime_ns) == (lower.st_mode, lower.st_uid, lower.st_mtime_ns)


def test_marks_are_overlays_own(store):
    root = unpack(store, archive(*BASE), archive(Member(".wh.f"), Member("d/.wh..wh..opq"))).paths[1]
    assert is_whiteout(root / "f")
    assert is_opaque(root / "d")
    assert not is_opaque(root)
    assert not (root / "d/.wh..wh..opq").exists()


def test_the_root_has_an_entry_of_its_own(store):
    root = apply(store, directory("./", mode=0o1755, uid=1, mtime=5), Member("a", b""))
    status = root.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_mtime) == (0o1755, 1, 5)
