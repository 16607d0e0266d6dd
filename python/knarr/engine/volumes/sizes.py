"""Directories that hold no more than so many bytes: volumes with `-o size=`, containers with `--storage-opt size=`.

A project quota of the file system where it keeps any, else, for volumes, a disk of their own: a file `_disk` in the
volume's directory, whose file system is mounted on that directory (see rust/files/src/sized.rs). Both stay as they are
while no daemon runs; what is not mounted after a reboot is mounted by `attach`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from typing import TYPE_CHECKING

from knarr._core import attach_disk, detach_disk, forget_project, limit_project, make_disk, project
from knarr.errors import InvalidArgument, KnarrError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knarr._core import Store

__all__ = [
    "asked", "attach", "detached", "discard", "limit_layer", "limited", "make", "move", "parse", "try_to_discard",
    "waits",
]  # fmt: skip

log = logging.getLogger("knarr.volumes")

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:([kmgtp])(?:i?b)?|b)?", re.IGNORECASE | re.ASCII)
_LARGEST = 1 << 60


def parse(text: str) -> int:
    """Bytes of a size such as 10g (docker/go-units, RAMInBytes). InvalidArgument."""
    found = _SIZE.fullmatch(text)
    size = int(float(found[1]) * (1 << 10 * (" kmgtp".find((found[2] or " ").lower())))) if found else 0
    if not 0 < size <= _LARGEST:
        raise InvalidArgument(f"invalid size: '{text}': it is a number above 0 with k, m, g or t, such as 10g")
    return size


def asked(options: Mapping[str, str] | None) -> int:
    """Bytes that a volume's options limit it to; 0 for no limit."""
    return parse(options["size"]) if options and "size" in options else 0


def make(place: str, size: int) -> None:
    """Make a volume's directory, with its `_data`; what an error leaves is the caller's to discard."""
    os.mkdir(place, 0o755)
    if size and not limit_project([place], size):
        make_disk(place, size)
        attach_disk(place)
    os.mkdir(f"{place}/_data", 0o755)


def attach(place: str) -> None:
    """Mount what a volume's directory has waiting to be mounted."""
    attach_disk(place)


def waits(place: str) -> bool:
    """Whether it has something that is not mounted."""
    return os.path.lexists(f"{place}/_disk")


class detached(contextlib.AbstractContextManager["detached"]):  # noqa: N801  used as a function
    """A volume's directory without what is mounted on it, which comes back at the end of the block.

    Conflict where that is in use; lazily, its users keep it.
    """

    def __init__(self, place: str, *, lazily: bool = False) -> None:
        self._place = place
        self._back = detach_disk(place, lazily=lazily)

    def stay(self) -> None:
        """It has gone for good."""
        self._back = False

    def __exit__(self, *_: object) -> None:
        if self._back:
            attach_disk(self._place)


def limited(place: str) -> bool:
    """Whether a volume's directory has a limit."""
    return project(place) is not None or os.path.ismount(place)


def move(source: str, target: str) -> None:
    """Give a volume's directory another name. Conflict where its disk is in use."""
    attached = detach_disk(source)
    try:
        os.rename(source, target)
    except BaseException:
        if attached:
            attach_disk(source)
        raise
    attach_disk(target)


def discard(store: Store, place: str) -> None:
    """Delete a directory with whatever limits it, if it is there."""
    detach_disk(place, lazily=True)
    owned = project(place)
    if owned is None:
        owned = project(f"{place}/upper")
    store.remove_tree(place)
    if owned is not None:
        forget_project(os.path.dirname(place), owned)


def try_to_discard(store: Store, place: str) -> None:
    """The same where something else has failed already, whose error is to be told: the next start does it again."""
    try:
        discard(store, place)
    except (KnarrError, OSError) as error:
        log.warning("%s is left until the next start: %s", place, error)


def limit_layer(directory: str, size: int) -> None:
    """Limit what a container writes to its root file system. InvalidArgument in Docker's words where nobody can."""
    if not limit_project([f"{directory}/upper", f"{directory}/work"], size):
        raise InvalidArgument(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option (or ext4 with the "
            f"features quota and project, mounted with prjquota): the file system of {os.path.dirname(directory)} "
            "keeps no project quotas"
        )
