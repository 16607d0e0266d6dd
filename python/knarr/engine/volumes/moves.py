"""The directories of local volumes: made, moved to their places and away.

An empty one is made in its place, and then recorded. What was copied or imported, or has a size, is made complete at
`volumes/@<hex>` (no volume has such a name), then recorded with that name in it (`was`), then moved. A rename is the
same with the old name. So a record without a directory whose `was` is there is finished by the next start, and `@...`
without a record goes. What is removed is moved away first, and then forgotten. All of it blocks: for threads.
"""

from __future__ import annotations

import logging
import os
import secrets
from typing import TYPE_CHECKING

from knarr._core import exchange
from knarr.engine.volumes import sizes
from knarr.errors import Conflict, Failed, KnarrError
from knarr.failpoints import reached

if TYPE_CHECKING:
    from knarr._core import Store
    from knarr.store.volumes import VolumeRecord, Volumes

__all__ = ["Moves"]

log = logging.getLogger("knarr.volumes")


class Moves:
    """The directories of one engine's volumes."""

    def __init__(self, data_root: str, records: Volumes, store: Store) -> None:
        self._directory = f"{data_root}/volumes"
        self._temporary = f"{data_root}/tmp"  # noqa: S108  ours alone
        self._snapshots = f"{data_root}/volume-snapshots"
        self._records = records
        self._store = store

    def finish(self, recorded: list[VolumeRecord]) -> None:
        """Before anybody uses them: give what was made or renamed its name, and mount what has its own file system."""
        known = {record.name for record in recorded}
        for record in recorded:
            source, target = f"{self._directory}/{record.was}", f"{self._directory}/{record.name}"
            if record.was and record.was not in known:
                if os.path.isdir(source) and not os.path.isdir(target):
                    log.info("volume %s is moved to its place", record.name)
                    sizes.move(source, target)
                self._move_snapshots(record.was, record.name)
        for name in os.listdir(self._directory):
            place = f"{self._directory}/{name}"
            if name.startswith("@"):
                sizes.try_to_discard(self._store, place)
                continue
            try:
                self.attach(name)
            except Failed as error:
                log.warning("volume %s cannot be used: %s", name, error)

    def attach(self, name: str) -> None:
        """Mount the file system that a volume may have of its own, unless it is mounted. Failed."""
        try:
            sizes.attach(f"{self._directory}/{name}")
        except (KnarrError, OSError) as error:
            raise Failed(f"its file system cannot be mounted: {error}") from error

    def waits(self, name: str) -> bool:
        """Whether a volume has a file system of its own that is not mounted."""
        return sizes.waits(f"{self._directory}/{name}")

    def staging(self) -> str:
        """A place for a volume in the making."""
        return f"{self._directory}/@{secrets.token_hex(16)}"

    def make(self, record: VolumeRecord) -> None:
        """Make a volume of nothing, and record it."""
        if size := sizes.asked(record.options):
            self._make_sized(record, size)
            return
        place = f"{self._directory}/{record.name}"
        try:
            reached("volume.create.directory")
            os.makedirs(f"{place}/_data", 0o755, exist_ok=True)
            reached("volume.create.record")
            self._records.insert(record)
        except BaseException:
            self._store.remove_tree(place)
            raise

    def _make_sized(self, record: VolumeRecord, size: int) -> None:
        staged = self.staging()
        try:
            reached("volume.create.sized")
            sizes.make(staged, size)
            self.adopt(record, staged)
        finally:
            sizes.try_to_discard(self._store, staged)

    def adopt(self, record: VolumeRecord, staged: str) -> None:
        """Record a new volume, and move what is complete at `staging` to its place."""
        place = f"{self._directory}/{record.name}"
        if os.path.lexists(place):
            raise Conflict(f"{place}: there is something already that is no volume: move it away")
        record.was = os.path.basename(staged)
        reached("volume.adopt.record")
        self._records.insert(record)
        try:
            reached("volume.adopt.move")
            sizes.move(staged, place)
        except BaseException:
            self._records.delete(record.name)
            if not os.path.lexists(staged):  # it was moved, and then could not be mounted
                sizes.try_to_discard(self._store, place)
            raise

    def replace(self, name: str, staged: str) -> None:
        """Give a volume the files that are complete at `staging`; its own are there then."""
        place = f"{self._directory}/{name}"
        with sizes.detached(place), sizes.detached(staged):
            reached("volume.replace.exchange")
            exchange(place, staged)

    def rename(self, record: VolumeRecord, renamed: VolumeRecord) -> None:
        """Record a volume under another name, and move its directory and its snapshots. Conflict where it is in use."""
        source, target = f"{self._directory}/{record.name}", f"{self._directory}/{renamed.name}"
        reached("volume.rename.record")
        self._records.rename(record.name, renamed)
        try:
            reached("volume.rename.move")
            sizes.move(source, target)
            reached("volume.rename.snapshots")
            self._move_snapshots(record.name, renamed.name)
        except BaseException:
            self._records.rename(renamed.name, record)
            if os.path.isdir(target):
                sizes.move(target, source)
            raise

    def _move_snapshots(self, name: str, new: str) -> None:
        source, target = f"{self._snapshots}/{name}", f"{self._snapshots}/{new}"
        if os.path.isdir(source) and not os.path.isdir(target):
            os.rename(source, target)

    def remove(self, name: str) -> None:
        """Move a volume's directory away, forget its record, and delete its files, or leave them to the next start."""
        moved, place = f"{self._temporary}/volume-{secrets.token_hex(16)}", f"{self._directory}/{name}"
        reached("volume.remove.move")
        with sizes.detached(place, lazily=True) as detached:
            os.rename(place, moved)
            try:
                reached("volume.remove.record")
                self._records.delete(name)
            except BaseException:
                os.rename(moved, place)
                raise
            detached.stay()
        try:
            reached("volume.remove.files")
            sizes.discard(self._store, moved)
        except (KnarrError, OSError) as error:
            log.warning("files of volume %s are left until the next start: %s", name, error)
