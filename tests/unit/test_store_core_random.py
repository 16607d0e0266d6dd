"""Random trees: packed by GNU tar and applied, or changed step by step and seen through overlay and copy_up."""

import os
import random
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from knarr import _core
from tests.layers import overlay, tree, unpack

NAMES = ["a", "bb", "ünï", "with space", "new\nline", "x" * 120, "y" * 255, ".hidden", "-dash", "*"]


@pytest.fixture
def store(tmp_path):
    return _core.Store(str(tmp_path / "root"))


class Grower:
    """Makes and changes trees, the same for the same seed."""

    def __init__(self, seed: int, top: Path) -> None:
        self.random = random.Random(seed)
        self.top = top
        self.count = 0

    def name(self) -> str:
        self.count += 1
        return f"{self.random.choice(NAMES)[:248]}{self.count}"

    def directories(self) -> list[Path]:
        return [self.top, *(path for path in sorted(self.top.rglob("*")) if path.is_dir() and not path.is_symlink())]

    def files(self) -> list[Path]:
        return [path for path in sorted(self.top.rglob("*")) if not path.is_dir() or path.is_symlink()]

    def place(self) -> Path:
        shallow = [path for path in self.directories() if len(bytes(path)) < 1500]
        return self.random.choice(shallow) / self.name()

    def attributes(self, path: Path, *, is_link: bool = False) -> None:
        roll = self.random.random
        os.chown(
            path, self.random.choice([0, 0, 5, 1000, 2_000_000]), self.random.choice([0, 0, 6]), follow_symlinks=False
        )
        if not is_link:
            os.chmod(path, self.random.choice([0o644, 0o755, 0o600, 0o4755, 0o2755, 0o1777, 0o000]))
            if roll() < 0.3 and (path.is_file() or path.is_dir()):
                os.setxattr(path, "user.note", os.urandom(self.random.choice([0, 1, 40, 3000])))
        moment = self.random.choice([0, 1, 1_700_000_000_123_456_789, 5_000_000_000_000_000_001, -7_250_000_000])
        os.utime(path, ns=(moment, moment), follow_symlinks=False)

    def add(self) -> None:
        path = self.place()
        kind = self.random.choice(["file"] * 6 + ["directory"] * 3 + ["symlink", "hard", "fifo", "device", "sparse"])
        if kind == "file":
            path.write_bytes(self.random.randbytes(self.random.choice([0, 1, 511, 512, 513, 4096, 70_000, 300_000])))
        elif kind == "directory":
            path.mkdir()
        elif kind == "symlink":
            path.symlink_to(self.random.choice(["nowhere", "/etc/passwd", "../" * 5, "t" * 200 + "/" + "t" * 200, "."]))
            return self.attributes(path, is_link=True)
        elif kind == "hard":
            # GNU tar knows links to regular files only.
            candidates = [file for file in self.files() if file.is_file() and not file.is_symlink()]
            if not candidates:
                return None
            os.link(self.random.choice(candidates), path)
            return None
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "device":
            os.mknod(
                path, stat.S_IFCHR | 0o600, os.makedev(self.random.randrange(1, 500), self.random.randrange(100_000))
            )
        else:
            with path.open("wb") as file:
                for offset in sorted(self.random.sample(range(50), self.random.choice([0, 1, 3, 30]))):
                    file.seek(offset * 65536)
                    file.write(self.random.randbytes(self.random.choice([1, 4096, 9000])))
                file.truncate(51 * 65536)
        self.attributes(path)
        return None

    def settle(self) -> None:
        """Directory times, last: adding changes them."""
        for path in self.directories()[::-1]:
            if self.random.random() < 0.8:
                moment = self.random.choice([3, 1_600_000_000_000_000_001])
                os.utime(path, ns=(moment, moment))

    def change(self) -> None:
        """Remove, rewrite, replace by another type, add."""
        for _ in range(6):
            everything = [path for path in [*self.files(), *self.directories()[1:]] if os.path.lexists(path)]
            if not everything:
                break
            path = self.random.choice(everything)
            action = self.random.choice(["remove", "rewrite", "replace", "touch"])
            is_directory = path.is_dir() and not path.is_symlink()
            if action == "touch":
                if not path.is_symlink():
                    os.chmod(path, 0o711)
                continue
            if action == "rewrite" and is_directory:
                continue
            shutil.rmtree(path) if is_directory else path.unlink()
            if action == "rewrite":
                path.write_bytes(b"new")
            elif action == "replace":
                path.mkdir() if not is_directory else path.write_bytes(b"was a directory")
                if not is_directory and self.random.random() < 0.5:
                    (path / "inside").write_bytes(b"fresh")
        for _ in range(5):
            self.add()


@pytest.mark.parametrize(
    "options",
    [
        ["--format=gnu"],
        ["--format=posix", "--xattrs"],
        ["--format=posix", "--xattrs", "--sparse", "--sparse-version=0.0"],
        ["--format=posix", "--xattrs", "--sparse", "--sparse-version=0.1"],
        ["--format=posix", "--xattrs", "--sparse", "--sparse-version=1.0"],
        ["--format=gnu", "--sparse", "--blocking-factor=1"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("seed", range(4))
def test_a_tree_comes_back_as_gnu_tar_packed_it(store, tmp_path, options, seed):
    source = tmp_path / "source"
    source.mkdir()
    grower = Grower(seed, source)
    for _ in range(60):
        grower.add()
    grower.settle()
    packed = subprocess.run(
        ["tar", *options, "--sort=inode", "-cf", "-", "-C", source, "."], capture_output=True, check=True
    )
    root = unpack(store, packed.stdout).paths[0]
    exact = "--format=posix" in options
    expected, found = tree(source), tree(root)
    if not exact:  # whole seconds, no attributes
        cut = {
            name: (mode, uid, gid, time // 10**9, content, same, {})
            for name, (mode, uid, gid, time, content, same, _) in expected.items()
        }
        expected = cut
        found = {name: (*entry[:3], entry[3] // 10**9, *entry[4:]) for name, entry in found.items()}

    def linked(entries):
        """Which names are one file, whatever the order."""
        groups = {}
        for name, entry in entries.items():
            groups.setdefault(entry[5], set()).add(name)
        return sorted(sorted(group) for group in groups.values())

    assert linked(found) == linked(expected)
    assert {name: (*entry[:5], entry[6]) for name, entry in found.items()} == {
        name: (*entry[:5], entry[6]) for name, entry in expected.items()
    }
    if "--sparse" in options:
        for name, entry in tree(source).items():
            if isinstance(entry[4], bytes) and len(entry[4]) == 51 * 65536:
                assert (root / name).stat().st_blocks * 512 < 51 * 65536, f"{name} lost its holes"


def difference(old: dict, new: dict, top: Path, target: Path) -> None:
    """A layer that turns one tree into another, as image builders make it: what is new or changed, and whiteouts."""
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(set(old) - set(new)):
            if os.path.dirname(name) in new or "/" not in name:
                whiteout = tarfile.TarInfo(os.path.join(os.path.dirname(name), ".wh." + os.path.basename(name)))
                tar.addfile(whiteout)
        for name in sorted(new):
            if old.get(name) == new[name]:
                continue
            path = top / name
            if stat.S_ISDIR(path.lstat().st_mode) and name in old and not old[name][0].startswith("0o4"):
                tar.addfile(tarfile.TarInfo(os.path.join(os.path.dirname(name), ".wh." + os.path.basename(name))))
            info = tar.gettarinfo(path, name)
            moment = path.lstat().st_mtime_ns
            info.pax_headers = {"mtime": f"{'-' * (moment < 0)}{abs(moment) // 10**9}.{abs(moment) % 10**9:09}"}
            if info.isreg():
                with path.open("rb") as file:
                    tar.addfile(info, file)
            else:
                tar.addfile(info)


def without_what_tarfile_lacks(entries: dict) -> dict:
    """No extended attributes; links to lower layers are copies, so which names are one file may differ."""
    return {name: entry[:5] for name, entry in entries.items() if name != "."}


@pytest.mark.parametrize("seed", range(8))
def test_a_stack_of_changes_is_the_last_tree(store, tmp_path, seed):
    source = tmp_path / "source"
    source.mkdir()
    grower = Grower(seed, source)
    for _ in range(40):
        grower.add()
    archives, old = [], {}
    for step in range(4):
        new = tree(source)
        target = tmp_path / f"{step}.tar"
        difference(old, new, source, target)
        archives.append(target.read_bytes())
        old = new
        if step < 3:
            grower.change()
    expected = without_what_tarfile_lacks(tree(source))
    stack = unpack(store, *archives)
    lower = stack.paths[::-1]
    with overlay(lower, tmp_path) as point:
        assert without_what_tarfile_lacks(tree(point)) == expected
    volume = tmp_path / "volume"
    volume.mkdir()
    assert store.copy_up([str(path) for path in lower], "/", str(volume))
    with overlay(lower, tmp_path) as point:
        shown, copied = tree(point), tree(volume)
    assert without_what_tarfile_lacks(copied) == expected
    assert {name: entry[3] for name, entry in copied.items()} == {name: entry[3] for name, entry in shown.items()}
    assert {name: entry[6] for name, entry in copied.items()} == {name: entry[6] for name, entry in shown.items()}
