"""Commit: a container's changes as a new image upon its own."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knarr.engine.containers import merge
from knarr.engine.containers.files import MADE
from knarr.engine.images import instructions
from knarr.engine.images.making import NewLayer, now, run_config
from knarr.errors import Conflict
from knarr.failpoints import reached

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knarr.engine.containers.container import Container, Context
    from knarr.engine.containers.files import Files
    from knarr.engine.containers.still import Still
    from knarr.engine.images.images import Image
    from knarr.store.containers import Config
    from knarr.types import Reference

__all__ = ["Commit", "Commits"]


@dataclass(frozen=True, slots=True)
class Commit:
    """What is asked for. config: in the place of the container's own."""

    reference: Reference | None
    config: Config | None = None
    changes: Sequence[str] = ()
    author: str = ""
    comment: str = ""
    pause: bool = True


class Commits:
    """Commits containers. Belongs to the event loop."""

    def __init__(self, context: Context, files: Files, still: Still) -> None:
        self._context = context
        self._files = files
        self._still = still

    async def commit(self, container: Container, wanted: Commit) -> Image:
        """Make the image. InvalidArgument for its changes, Conflict where the container is being removed."""
        record, images = container.record, self._context.images
        if container.removing:
            raise Conflict(f"You cannot commit container {record.id} which is being removed")
        config: dict[str, Any] = dict(wanted.config or record.config)
        if wanted.changes:
            config = instructions.apply(config, wanted.changes)
        merge.merge(config, dict(record.config))  # type: ignore[arg-type]
        upper, lower = await self._files.layers(container)
        base = await images.resolve(record.image_id)

        async def take() -> NewLayer | None:
            async with self._still.one(container) if wanted.pause else contextlib.nullcontext():
                reached("container.commit.layer")
                packed = await images.making.blocking(lambda: self._context.store.put_layer(upper, lower, MADE))
            return NewLayer(*packed, "gzip") if packed else None

        def describe(layered: bool) -> dict[str, Any]:
            return _document(base, config, wanted, " ".join(record.config["Cmd"] or ()), layered=layered)

        with images.hold(base.id):
            image = await images.make(base, take, describe, wanted.reference)
        name = wanted.reference.familiar if wanted.reference else ""
        self._context.announce(container, "commit", comment=wanted.comment, imageID=image.id, imageRef=name)
        reached("container.commit.answer")
        return image


def _document(base: Image, config: dict[str, Any], wanted: Commit, command: str, *, layered: bool) -> dict[str, Any]:
    """The new image's config, without its diff IDs."""
    before, moment = base.config, now()
    author = wanted.author or before.get("author") or ""
    entry = {"created": moment, "created_by": command, "author": author, "comment": wanted.comment}
    found: dict[str, Any] = {
        name: before[name]
        for name in ("architecture", "os", "variant", "os.version", "os.features")
        if before.get(name)
    }
    found |= {"created": moment, "config": run_config(config)}
    if author:
        found["author"] = author
    found["history"] = [
        *(before.get("history") or ()),
        {name: value for name, value in entry.items() if value} | ({} if layered else {"empty_layer": True}),
    ]
    return found
