"""Layers out of upper directories: what overlay shows after random changes is what the layer brings back."""

import gzip
import os
import stat
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from knarr import _core, errors
from tests.layers import _libc, digest, overlay, tree, unpack
from tests.unit.test_store_core_random import Grower


@pytest.fixture
def store(tmp_path):
    return _core.Store(str(tmp_path / "root"))


@contextmanager
def writable(lower, scratch):
    """An overlay to write to, as the runtime mounts it: the mount and its upper directory."""
    upper, work, point = (scratch / name for name in ("upper", "work", "point"))
    for path in (upper, work, point):
        path.mkdir(exist_ok=True)
    layers = ":".join(str(path) for path in lower)
    options = f"lowerdir={layers},upperdir={upper},workdir={work},redirect_dir=off,metacopy=off"
    assert _libc.mount(b"overlay", str(point).encode(), b"overlay", 0, options.encode()) == 0
    try:
        yield point, upper
    finally:
        assert _libc.umount2(str(point).encode(), 2) == 0


def base(store, tmp_path, seed):
    source = tmp_path / "source"
    source.mkdir()
    grower = Grower(seed, source)
    for _ in range(50):
        grower.add()
    grower.settle()
    packed = subprocess.run(
        ["tar", "--format=posix", "--xattrs", "-cf", "-", "-C", source, "."], capture_output=True, check=True
    )
    return unpack(store, packed.stdout)


def commit(store, stack, upper, made=()):
    """The stack with the layer on top of it; None where there is nothing in it."""
    packed = store.put_layer(str(upper), [str(path) for path in stack.paths[::-1]], list(made))
    if packed is None:
        return None
    blob, size, diff_id = packed
    below = stack.layers[-1][4]
    chain_id = digest(f"{below} {diff_id}".encode())
    layers = [*stack.layers, (blob, size, "application/vnd.oci.image.layer.v1.tar+gzip", diff_id, chain_id, below)]
    store.unpack(layers, _core.Progress())
    plain = gzip.decompress(store.blob(blob))
    assert digest(plain) == diff_id
    return store.snapshot_path(chain_id), plain


@pytest.mark.parametrize("seed", range(8))
def test_a_layer_brings_back_what_overlay_showed(store, tmp_path, seed):
    stack = base(store, tmp_path, seed)
    with writable(stack.paths, tmp_path) as (point, upper):
        grower = Grower(seed + 100, point)
        grower.count = 1000  # names of its own
        for _ in range(4):
            grower.change()
        grower.settle()
        shown = tree(point)
        before = tree(stack.paths[0])
        told = dict(_core.changes(str(upper), [str(stack.paths[0])], []))
    snapshot, plain = commit(store, stack, upper)
    with overlay([snapshot, *stack.paths], tmp_path) as merged:
        found = tree(merged)
    # Which names are one file: a file with names in a lower layer is copied by a write through one of them.
    assert without_links(found) == without_links(shown)
    # The same layer once more is the same bytes.
    assert gzip.decompress(store.blob(store.put_layer(str(upper), [str(path) for path in stack.paths], [])[0])) == plain
    # GNU tar reads it as well.
    listed = subprocess.run(["tar", "-tf", "-"], input=plain, capture_output=True, check=True)
    assert listed.stderr == b""
    # And what has changed is told of exactly what differs.
    expected = {}
    for name in (set(before) | set(shown)) - {"."}:
        raw = os.fsencode(name)
        if name not in shown:
            parent = os.path.dirname(name)
            if not parent or (parent in shown and stat.S_ISDIR(int(shown[parent][0], 8))):
                expected[raw] = 2
        elif name not in before:
            expected[raw] = 1
        elif differs(before[name], shown[name]):
            expected[raw] = 0
    for raw in list(expected):
        parts = raw.split(b"/")
        for depth in range(1, len(parts)):
            expected.setdefault(b"/".join(parts[:depth]), 0)
    assert told == expected


def without_links(entries):
    """All but which names are one file, and the root's own time, which no layer holds."""
    return {name: (*entry[:3], name != "." and entry[3], entry[4], entry[6]) for name, entry in entries.items()}


def differs(old, new):
    """By Docker's rules: kind, mode, owner; of anything but directories its size, device and time as well."""
    if old[:3] != new[:3]:
        return True
    if stat.S_ISDIR(int(new[0], 8)):
        return False
    content = [len(value[4]) if isinstance(value[4], (bytes, str)) else value[4] for value in (old, new)]
    return content[0] != content[1] or old[3] != new[3]


def test_holes_stay_holes(store, tmp_path):
    stack = base(store, tmp_path, 1)
    with writable(stack.paths, tmp_path) as (point, upper):
        with (point / "holes").open("wb") as file:
            file.seek(100 << 20)
            file.write(b"end")
            file.truncate(200 << 20)
        (point / "nothing").touch()
        os.truncate(point / "nothing", 50 << 20)
    snapshot, plain = commit(store, stack, upper)
    assert len(plain) < 1 << 20
    for name, size in (("holes", 200 << 20), ("nothing", 50 << 20)):
        found = os.stat(f"{snapshot}/{name}")
        assert (found.st_size, found.st_blocks < 1000) == (size, True)


def test_nothing_makes_no_layer(store, tmp_path):
    stack = base(store, tmp_path, 1)
    before = sorted(store.blobs())
    with writable(stack.paths, tmp_path) as (point, upper):
        assert commit(store, stack, upper) is None
        (point / "dev").mkdir()
        (point / "etc").mkdir()
        (point / "etc/hosts").touch()
        made = ["dev", "etc", "etc/hosts", "proc"]
        assert commit(store, stack, upper, made) is None
        assert _core.changes(str(upper), [str(stack.paths[0])], made) == []
        (point / "etc/own").touch()
        assert _core.changes(str(upper), [str(stack.paths[0])], made) == [(b"etc", 1), (b"etc/own", 1)]
        _, plain = commit(store, stack, upper, made)
    names = subprocess.run(["tar", "-tf", "-"], input=plain, capture_output=True, check=True).stdout.split()
    assert names == [b"etc/", b"etc/own"]
    assert len(store.blobs()) == len(before) + 1


def test_a_name_that_would_remove_something_is_refused(store, tmp_path):
    stack = base(store, tmp_path, 1)
    before = sorted(store.blobs())
    with writable(stack.paths, tmp_path) as (point, upper):
        (point / ".wh.etc").touch()
        with pytest.raises(errors.InvalidArgument, match=r'"\.wh\.etc" begins with "\.wh\."'):
            commit(store, stack, upper)
    assert sorted(store.blobs()) == before
    assert os.listdir(f"{tmp_path}/root/tmp") == []


def test_what_changes_meanwhile_is_left_out_or_taken_as_it_is(store, tmp_path):
    """Files that come, go, grow, shrink and become other things while a layer is made: it is made, and it can be unpacked."""
    stack = base(store, tmp_path, 1)
    with writable(stack.paths, tmp_path) as (point, upper):
        for number in range(200):
            (point / f"f{number}").write_bytes(os.urandom(20_000))
        ending = threading.Event()

        def disturb():
            number = 0
            while not ending.is_set():
                number = (number + 7) % 200
                path = point / f"f{number}"
                path.unlink(missing_ok=True)
                if number % 3 == 0:
                    os.mkfifo(path)
                elif number % 3 == 1:
                    path.write_bytes(os.urandom(number * 200))
                else:
                    path.symlink_to("/etc/passwd")

        thread = threading.Thread(target=disturb)
        thread.start()
        try:
            for _ in range(5):
                snapshot, _ = commit(store, stack, upper)
                for path in Path(snapshot).iterdir():
                    if path.is_file() and not path.is_symlink():
                        assert not path.read_bytes().startswith(b"root:"), "a link was followed"
        finally:
            ending.set()
            thread.join()
