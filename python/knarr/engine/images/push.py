"""Pushes: what goes out is chosen here, and told; the bytes go through `_core.Registry`.

What an image came with goes out as it is: its manifest, or the index above it where everything that the index lists is
here. Where something is missing, the image's own manifest goes, and the client is told so, as Docker does.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from knarr._core import Progress
from knarr.credentials import ANONYMOUS
from knarr.engine.images.contents import Document, contents_of
from knarr.engine.images.manifest import FOREIGN_LAYERS, Manifest
from knarr.engine.images.progress import PushReporter
from knarr.errors import InvalidArgument, KnarrError, NotFound, PermissionDenied, Unauthorized, Unavailable, Unsupported

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from knarr._core import Store
    from knarr.credentials import Credential
    from knarr.engine.images.catalog import Catalog, Image
    from knarr.engine.images.ledger import Ledger
    from knarr.engine.images.manifest import Descriptor
    from knarr.engine.images.pieces import Pieces
    from knarr.engine.images.progress import Message
    from knarr.engine.images.registries import Registries
    from knarr.engine.images.threads import Threads
    from knarr.types import Platform, Reference

    Emit = Callable[[Message], Awaitable[None]]

log = logging.getLogger("knarr.images")

POLL_SECONDS = 0.1


@dataclass
class Plan:
    """One push: the documents, the last of which gets the tag, and the blobs below them by digest."""

    images: list[Image]
    documents: list[Document] = field(default_factory=list)
    layers: dict[str, Descriptor] = field(default_factory=dict)
    others: dict[str, Descriptor] = field(default_factory=dict)  # configs: not shown
    instead_of: Document | None = None  # the index that could not go


class Pushes:
    """Pushes images of one catalog."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        ledger: Ledger,
        pieces: Pieces,
        threads: Threads,
        registries: Registries,
        announce: Callable[[str, str, dict[str, str]], None],
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._ledger = ledger
        self._pieces = pieces
        self._threads = threads
        self._registries = registries
        self._announce = announce

    async def push(
        self, reference: Reference, platform: Platform | None, credential: Credential | None, emit: Emit
    ) -> None:
        """Push a tag, or every tag of a repository that is named without one.

        emit is given Docker's messages. NotFound, Unsupported, Unauthorized, PermissionDenied, Unavailable, Corrupt.
        """
        await emit({"status": f"The push refers to repository [{reference.repository}]"})
        if reference.digest:
            raise InvalidArgument("cannot push a digest reference")
        references = [reference] if reference.tag else self._catalog.tags_of(reference.repository)
        if not references:
            raise NotFound(f"An image does not exist locally with the tag: {reference.familiar_name}")
        registry = await self._threads.run(lambda: self._registries.open(reference.domain, credential))
        for one in references:
            image = self._catalog.get(self._catalog.target(one) or "")
            if image is None:
                raise NotFound(f"tag does not exist: {one.familiar}")
            try:
                await self._push(one, image, platform, registry, emit)
            except PermissionDenied as error:
                raise _in_dockers_words(error, anonymous=credential in {None, ANONYMOUS}) from error

    async def _push(
        self, reference: Reference, image: Image, platform: Platform | None, registry: Any, emit: Emit
    ) -> None:
        family = self._catalog.family(image)
        held = {piece for one in family for piece in one.pieces if piece.kind == "blob"}
        async with self._pieces.lease(held):
            plan = await self._threads.run(lambda: self._plan(reference, image, platform, family))
            await self._send(reference, plan, registry, emit)
            top = plan.documents[-1]
            try:
                for one in plan.images:
                    await self._ledger.add_digest(one.id, (reference.repository, top.digest))
            except Unavailable as error:  # it is pushed; what is not noted is what the repository calls it
                log.warning("%s is pushed, and not noted as %s: %s", reference.familiar, top.digest, error)
        size = len(top.data)
        if plan.instead_of:
            aux = {
                "manifestPushedInsteadOfIndex": True,
                "originalIndex": plan.instead_of.descriptor(),
                "selectedManifest": top.descriptor(),
            }
            await emit({"aux": aux})
        await emit({"status": f"{reference.tag}: digest: {top.digest} size: {size}"})
        await emit({"progressDetail": {}, "aux": {"Tag": reference.tag, "Digest": top.digest, "Size": size}})
        self._announce("push", reference.familiar, {"name": reference.familiar_name})

    async def _send(self, reference: Reference, plan: Plan, registry: Any, emit: Emit) -> None:
        sources = self._catalog.sources(reference, plan.layers)
        blobs = [
            (digest, blob.size, self._store.blob_path(digest), sources.get(digest, ""))
            for digest, blob in (*plan.layers.items(), *plan.others.items())
        ]
        progress, reporter = Progress(), PushReporter(set(plan.layers), sources)

        def work() -> None:
            registry.push(reference.path, blobs, progress)
            for document in plan.documents[:-1]:
                registry.put_manifest(reference.path, document.digest, document.media_type, document.data, progress)
            top = plan.documents[-1]
            registry.put_manifest(reference.path, reference.tag, top.media_type, top.data, progress)

        for digest in plan.layers:
            await emit(reporter.preparing(digest))
        task = asyncio.ensure_future(self._threads.run(work, progress.cancel))
        try:
            while True:
                await asyncio.wait({task}, timeout=POLL_SECONDS)
                for message in reporter.messages(progress.snapshot()):
                    await emit(message)
                if task.done():
                    return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    def _plan(self, reference: Reference, image: Image, platform: Platform | None, family: list[Image]) -> Plan:
        """What to send. NotFound where nothing is for the platform; Unsupported for layers that may not be given on."""
        if platform is not None:
            fitting = platform.candidates(strict=True)
            chosen = next((one for wanted in fitting for one in family if one.platform == wanted), None)
            if chosen is None:
                raise NotFound(
                    f"image with reference {reference.familiar} was found but does not provide "
                    f"the specified platform ({platform})"
                )
            return self._checked(Plan([chosen]), contents_of(self._store, chosen, whole=False), reference)
        whole = contents_of(self._store, image, whole=True)
        if not whole.missing:
            return self._checked(Plan(family if whole.is_index else [image]), whole, reference)
        single = contents_of(self._store, image, whole=False)
        return self._checked(Plan([image], instead_of=whole.documents[-1]), single, reference)

    def _checked(self, plan: Plan, contents: Any, reference: Reference) -> Plan:
        if contents.missing:
            raise NotFound(
                f"image {reference.familiar} cannot be pushed: content digest {contents.missing[0]}: not found; "
                "pull or load the image again"
            )
        plan.documents = contents.documents
        for document in plan.documents:
            if not isinstance(document.parsed, Manifest):
                continue
            for layer in document.parsed.layers:
                if layer.media_type in FOREIGN_LAYERS:
                    raise Unsupported(
                        f"image {reference.familiar} cannot be pushed: its layer {layer.digest} is foreign "
                        f"({layer.media_type}), and may be had from its own source only"
                    )
                plan.layers[layer.digest] = layer
            plan.others[document.parsed.config.digest] = document.parsed.config
        return plan


def _in_dockers_words(error: KnarrError, *, anonymous: bool) -> KnarrError:
    """Docker's clients look for these words."""
    text = str(error)
    if isinstance(error, Unauthorized):
        return Unauthorized(text if "unauthorized" in text or not anonymous else f"unauthorized: {text}")
    return error
