"""The engine's images on a data root of their own, without a daemon around them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

from knarr._core import Store
from knarr.config import Config
from knarr.engine.events import Events
from knarr.engine.images import Images
from knarr.store.database import Database

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self


class Place:
    """`images` on a root; `users` are the containers of each image, `running` those that run."""

    def __init__(self, root: Path, **settings) -> None:
        self.root = str(root)
        self.settings = settings
        self.users: dict[str, list[str]] = {}
        self.running: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._cleanup = contextlib.ExitStack()

    @classmethod
    @contextlib.contextmanager
    def on_small_disk(cls, directory: Path, size: str):
        mountpoint = directory / "small"
        mountpoint.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", mountpoint], check=True)
        try:
            with cls(mountpoint) as place:
                yield place
        finally:
            subprocess.run(["umount", mountpoint], check=True)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_) -> None:
        self.close()
        self._loop.close()

    def open(self) -> None:
        os.makedirs(f"{self.root}/tmp", exist_ok=True)
        self.store = Store(self.root)
        self.database = Database(f"{self.root}/state.db")
        self.events = Events()
        config = Config(data_root=self.root, run_root=f"{self.root}/run", **self.settings)
        self.images = Images(
            self.database, self.store, self.events, config,
            lambda image_id: self.users.get(image_id, []), lambda container: container in self.running,
        )  # fmt: skip
        self.run(self._start())

    async def _start(self) -> None:
        await self.images.start()
        await self.images._sweeping

    def close(self) -> None:
        self.run(self.images.close())
        self.database.close()

    def reopen(self) -> None:
        self.close()
        self.open()

    def run(self, work):
        return self._loop.run_until_complete(asyncio.wait_for(work, 60))

    def left_over(self) -> set[str]:
        """Blobs and snapshots that no image is made of, and files that no work owns."""
        needed = {piece.name for image in self.images.catalog for piece in image.pieces}
        found = {name for name, _ in self.store.blobs()} | set(self.store.snapshots())
        return (found - needed) | {f"tmp/{name}" for name in os.listdir(f"{self.root}/tmp")}

    def is_empty(self) -> bool:
        rows = sum(
            self.database.rows(f"SELECT count(*) FROM {table}")[0][0]
            for table in ("image", "layer", "image_reference", "repository_digest")
        )
        return not (
            self.left_over()
            or rows
            or self.store.blobs()
            or self.store.snapshots()
            or os.listdir(f"{self.root}/ingest")
        )
