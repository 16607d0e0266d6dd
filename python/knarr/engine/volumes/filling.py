"""What an image has for a new volume: copied into it when it is empty.

A directory of ours is filled by moving in what was copied beside it; where it has a size, that is copied within the
same limit, to `_copying` first. Anything else (a bind, a file system, a plugin's
volume) is filled by moving what was copied inside it: `.knarr-copying` while it is not complete, `.knarr-copied` then.
Either way the next one who looks finishes it, or begins again. Nothing in a volume is trusted: names are resolved
below its own descriptor.
"""

from __future__ import annotations

import os
import secrets
import shutil
from typing import TYPE_CHECKING

from knarr.engine.volumes import sizes
from knarr.failpoints import reached

if TYPE_CHECKING:
    from knarr._core import Store

__all__ = ["Filling", "check_answers"]

_COPYING, _COPIED = ".knarr-copying", ".knarr-copied"


class Filling:
    """Blocks: for threads."""

    def __init__(self, store: Store, temporary: str) -> None:
        self._store = store
        self._temporary = temporary

    def fill(self, data: str, lower: list[str], path: str) -> None:
        """Fill a directory of ours, if it is empty, with what an image has at a path."""
        with os.scandir(data) as entries:
            if next(entries, None) is not None:
                return
        reached("volume.populate.copy")
        copied = f"{self._temporary}/volume-{secrets.token_hex(16)}"
        limited = sizes.limited(os.path.dirname(data))
        if limited:
            copied = f"{os.path.dirname(data)}/_copying"  # perhaps another file system
        try:
            os.mkdir(copied, 0o755)
            if not self._store.copy_up(lower, path, copied):
                os.rmdir(copied)
                return
            reached("volume.populate.rename")
            os.rename(copied, f"{os.path.dirname(data)}/_copied")
        except BaseException:
            if limited:
                shutil.rmtree(copied, ignore_errors=True)  # what stays goes at the next start
            else:
                self._store.remove_tree(copied)
            raise
        self._finish(data)

    def resume(self, data: str) -> None:
        """Finish or undo what a crash has left of that."""
        beside = os.path.dirname(data)
        if os.path.isdir(f"{beside}/_copying"):
            shutil.rmtree(f"{beside}/_copying")
        if os.path.isdir(f"{beside}/_copied"):
            self._finish(data)

    def _finish(self, data: str) -> None:
        """Move in what was copied for a volume, and make its directory what the image's is."""
        copied = f"{os.path.dirname(data)}/_copied"
        for name in os.listdir(copied):
            if not os.path.lexists(f"{data}/{name}"):
                reached("volume.populate.move")
                os.rename(f"{copied}/{name}", f"{data}/{name}")
        found = os.stat(copied)
        os.chown(data, found.st_uid, found.st_gid)
        shutil.copystat(copied, data)
        reached("volume.populate.done")
        shutil.rmtree(copied)

    def fill_within(self, place: str, lower: list[str], path: str) -> None:
        """The same with a directory that is somebody else's, or a file system of its own."""
        top = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            names = set(os.listdir(top))
            if _COPIED not in names:
                if names - {_COPYING}:
                    return
                if not self._copy_within(top, lower, path, begun=bool(names)):
                    return
            _finish_within(top)
        finally:
            os.close(top)

    def _copy_within(self, top: int, lower: list[str], path: str, *, begun: bool) -> bool:
        here = f"/proc/self/fd/{top}/{_COPYING}"
        if begun:
            shutil.rmtree(here)
        reached("volume.populate.begin")
        os.mkdir(_COPYING, 0o755, dir_fd=top)
        try:
            inner = _directory(_COPYING, top)
            try:
                if not self._store.copy_up(lower, path, f"/proc/self/fd/{inner}"):
                    os.rmdir(_COPYING, dir_fd=top)
                    return False
            finally:
                os.close(inner)
            reached("volume.populate.complete")
            os.rename(_COPYING, _COPIED, src_dir_fd=top, dst_dir_fd=top)
        except BaseException:
            shutil.rmtree(here, ignore_errors=True)  # the error to tell is the one before it
            raise
        return True


def _finish_within(top: int) -> None:
    copied = _directory(_COPIED, top)
    try:
        there = set(os.listdir(top))
        for name in os.listdir(copied):
            if name not in there:
                reached("volume.populate.enter")
                os.rename(name, name, src_dir_fd=copied, dst_dir_fd=top)
        found = os.fstat(copied)
        os.fchown(top, found.st_uid, found.st_gid)
        shutil.copystat(f"/proc/self/fd/{copied}", f"/proc/self/fd/{top}")
    finally:
        os.close(copied)
    reached("volume.populate.leave")
    shutil.rmtree(f"/proc/self/fd/{top}/{_COPIED}")


def _directory(name: str, top: int) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)


def check_answers(place: str) -> None:
    """Look at a directory, before something is done there that has no limit: a dead server shows here."""
    os.listdir(place)
