"""`engine.images`: every image of one engine, and what can be done with them.

Layout: `catalog` is what there is, in memory; `ledger` changes it and the records together; `pieces` decides
which blobs and snapshots may go; `fetch` and `archive` read what comes from outside, through `manifest`,
`config` and `document`; `pull`, `intake` and `removal` are the three ways in which images come and go. `push` and
`export` send out what `contents` finds of an image in the store; `registries` and `distribution` ask others;
`details` is what is shown of an image.

Order of an arrival, whichever way: lease on all pieces → blobs and snapshots on the disk, synced, renamed
→ one durable transaction → catalog → lease closed. Of a removal: out of the catalog → one durable transaction →
files. The locks are described where they are: `ledger` (order of changes) and `pieces` (what may go).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from knarr import credentials
from knarr._core import Progress
from knarr.engine.images import distribution, embedded, export, instructions
from knarr.engine.images import filters as image_filters
from knarr.engine.images.catalog import Catalog, Image, Piece, image_of
from knarr.engine.images.details import Details
from knarr.engine.images.endpoints import endpoints
from knarr.engine.images.fetch import fetch
from knarr.engine.images.intake import Intake
from knarr.engine.images.ledger import Ledger
from knarr.engine.images.making import Making, NewLayer, now, run_config
from knarr.engine.images.pieces import Pieces
from knarr.engine.images.pull import Pull, Pulls
from knarr.engine.images.push import Pushes
from knarr.engine.images.registries import Registries
from knarr.engine.images.removal import Removal
from knarr.engine.images.threads import Threads
from knarr.errors import Corrupt, InvalidArgument, KnarrError, NotFound
from knarr.failpoints import reached
from knarr.store.images import ImageRecords
from knarr.types import Platform, Reference

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
    from typing import Any

    from knarr._core import Store
    from knarr.config import Config
    from knarr.credentials import Credential
    from knarr.engine.events import Events
    from knarr.engine.images.endpoints import Endpoint
    from knarr.engine.images.fetch import Fetched
    from knarr.engine.images.ledger import Candidate
    from knarr.engine.images.making import Describe, Take
    from knarr.engine.images.progress import Message
    from knarr.store.database import Database

    Emit = Callable[[Message], Awaitable[None]]

__all__ = ["Image", "Images"]

log = logging.getLogger("knarr.images")


class Images:
    """The images of one engine. Belongs to the event loop.

    in_use(image ID): the IDs of the containers that were made from it; running(container ID): whether it runs.
    """

    def __init__(
        self,
        database: Database,
        store: Store,
        events: Events,
        config: Config,
        in_use: Callable[[str], Sequence[str]],
        running: Callable[[str], bool] = lambda _: True,
    ) -> None:
        records = ImageRecords(database)
        self._store = store
        self._events = events
        self._config = config
        self._held: Counter[str] = Counter()
        self._in_use = in_use
        self.catalog = Catalog()
        present = set(store.snapshots())
        loaded = [image_of(record, store.snapshot_path, present) for record in records.images()]
        self.catalog.load(loaded, records.names(), records.layers())
        for image in loaded:
            if not image.complete:
                log.warning("image %s lacks a snapshot: it is made anew when it is next asked for", image.id)
        self._threads = Threads()
        self._pieces = Pieces(store, self.catalog)
        self._ledger = Ledger(store, records, self.catalog)
        self._pulls = Pulls(self._pull)
        self._intake = Intake(store, self._ledger, self._pieces, self._threads, os.path.join(config.data_root, "tmp"))
        self.making = Making(store, self._ledger, self._pieces, self._threads)
        self._removal = Removal(
            self.catalog, self._ledger, self._pieces, in_use, running, lambda image_id: self._held[image_id] > 0,
            self._announce,
        )  # fmt: skip
        self.details = Details(store, self.catalog, in_use)
        self.registries = Registries(config.registries)
        self._pushes = Pushes(
            store, self.catalog, self._ledger, self._pieces, self._threads, self.registries, self._announce
        )
        self._has_embedded = os.path.exists(embedded.ARCHIVE)
        self._embedding = asyncio.Lock()
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to sweep what no record speaks of, beside everything else."""
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep(), name="sweep")

    async def close(self) -> None:
        """End the pulls; what they have fetched stays for the next attempt."""
        await self._pulls.close()
        if self._sweeping:
            await asyncio.wait({self._sweeping})
        self._threads.close()

    async def _sweep(self) -> None:
        try:
            unfinished = await asyncio.to_thread(self._store.sweep)
            gone = await self._pieces.sweep()
        except (KnarrError, OSError) as error:
            log.warning("what belongs to no image stays until the next start: %s", error)
        else:
            if unfinished or gone.bytes:
                log.info("swept %d unfinished objects, and %d bytes that belonged to no image", unfinished, gone.bytes)

    async def resolve(self, reference_or_id: str, platform: str | None = None) -> Image:
        """The image that a name or an ID means, ready to use.

        NotFound `No such image: x:latest`; InvalidArgument for what cannot be a name.
        """
        wanted = Platform.parse(platform) if platform else None
        try:
            image = self.catalog.find(reference_or_id, wanted)
        except NotFound:
            own = await self._embedded(reference_or_id, wanted)
            if own is None:
                raise
            image = own
        return image if image.complete else await self._repair(image, reference_or_id)

    @contextlib.contextmanager
    def hold(self, image_id: str) -> Iterator[None]:
        """Keep an image from being removed while a container is made from it. NotFound where it has gone already."""
        if self.catalog.get(image_id) is None:
            raise NotFound(f"No such image: {image_id}")
        self._held[image_id] += 1
        try:
            yield
        finally:
            self._held[image_id] -= 1

    async def pull(
        self,
        reference: str,
        platform: str | None = None,
        auth: Credential | None = None,
        progress: Emit | None = None,
    ) -> Image:
        """Pull an image; a tag defaults to latest, a platform to this machine's, credentials to this user's own.

        progress is given Docker's messages. The first comes when the registry has the image: errors before that are
        NotFound (no such image or platform, access denied), Unauthorized, Unavailable, Corrupt, InvalidArgument.
        """
        parsed = Reference.parse(reference).with_default_tag()
        if parsed.familiar_name == "scratch":
            raise InvalidArgument("'scratch' is a reserved name")
        wanted = Platform.parse(platform) if platform else None
        if parsed == embedded.REFERENCE and self._has_embedded:
            image = await self._pull_embedded(parsed, wanted, progress)
            if image is not None:
                return image
        return await self._pulls.join(parsed, wanted, auth, progress)

    async def pull_all(
        self, repository: str, platform: str | None = None, auth: Credential | None = None, progress: Emit | None = None
    ) -> None:
        """Pull every tag of a repository, one after the other; the first that fails ends it. As `pull`."""
        parsed = Reference.parse(repository)
        own = await self._own_credential(parsed.domain, auth)
        for tag in await self._threads.run(lambda: self.registries.tags(parsed, own)):
            await self.pull(str(parsed.with_tag(tag)), platform, auth, progress)

    async def push(self, reference: Reference, platform: str | None, auth: Credential | None, progress: Emit) -> None:
        """Push a tag, or every tag of a repository that is named without one; credentials default to this user's own.

        progress is given Docker's messages. NotFound, Unsupported, Unauthorized, PermissionDenied, Unavailable.
        """
        wanted = Platform.parse(platform) if platform else None
        own = await self._own_credential(reference.domain, auth)
        await self._pushes.push(reference, wanted, own, progress)

    async def login(self, domain: str, auth: Credential) -> str:
        """Whether a registry takes a credential: its identity token for it, or "". Unauthorized, Unavailable."""
        return await self._threads.run(lambda: self.registries.login(domain, auth))

    async def search(
        self, term: str, limit: int, filters: Mapping[str, Sequence[str]], auth: Credential | None
    ) -> list[dict[str, Any]]:
        """What a registry's search finds: the API's objects. InvalidArgument, Unavailable."""
        return await self._threads.run(lambda: self.registries.search(term, limit, filters, auth))

    async def distribution(self, name: str, auth: Credential | None) -> dict[str, Any]:
        """What a name means at its registry: the API's DistributionInspect. NotFound, Unauthorized, Unavailable."""
        reference = Reference.parse(name).with_default_tag()
        own = await self._own_credential(reference.domain, auth)
        return await self._threads.run(lambda: distribution.describe(self.registries, reference, own))

    async def _own_credential(self, domain: str, auth: Credential | None) -> Credential | None:
        """What a client has sent, or what this user's docker configuration has for a registry."""
        return auth if auth is not None else await self._threads.run(lambda: credentials.lookup(domain))

    async def load(
        self, source: str | AsyncIterator[bytes], progress: Emit | None = None, platforms: Sequence[str] = ()
    ) -> list[Image]:
        """Load every image of an archive: a path, or the archive itself in pieces.

        progress is given Docker's messages. Corrupt, naming what is wrong with the archive; NotFound where it has
        nothing for the platform; Unavailable where there is no room.
        """
        wanted = [Platform.parse(platform) for platform in platforms]
        if isinstance(source, str):
            taken = await self._intake.load(source, wanted, progress)
        else:
            taken = await self._intake.load_stream(source, wanted, progress)
        reached("image.load.answer")
        for image, found in taken:
            if found.beside:
                continue
            for reference in found.references:
                self._announce("load", image.id, {"name": reference.familiar})
                if progress:
                    await progress({"stream": f"Loaded image: {reference.familiar}\n"})
            if not found.references:
                self._announce("load", image.id, {"name": image.id})
                if progress:
                    await progress({"stream": f"Loaded image ID: {image.id}\n"})
        return [self.catalog.get(image.id) or image for image, found in taken if not found.beside]

    def save(self, names: Sequence[str], platforms: Sequence[str] = ()) -> AsyncGenerator[bytes, None]:
        """The archive of some images in pieces, as `docker save` writes it. NotFound, InvalidArgument; Corrupt."""
        chosen = export.choose(self.catalog, names, [Platform.parse(platform) for platform in platforms])
        for one in chosen:
            self._announce("save", one.images[0].id, {"name": one.images[0].id})
        return export.archive(self._store, self._pieces, chosen)

    async def make(self, base: Image | None, take: Take, describe: Describe, reference: Reference | None) -> Image:
        """Make an image of another's layers and a new one (making.py), and give it a name."""
        image = await self.making.make(base, take, describe, reference)
        if reference:
            self._announce("tag", image.id, {"name": reference.familiar})
        return image

    async def import_archive(
        self,
        source: AsyncIterator[bytes],
        reference: Reference | None,
        *,
        changes: Sequence[str] = (),
        message: str = "",
        platform: str | None = None,
    ) -> Image:
        """Make an image of the archive of a root file system, which comes in pieces. InvalidArgument."""
        wanted = Platform.parse(platform) if platform else Platform.host()
        config = run_config(instructions.apply({}, changes)) if changes else {}

        def describe(_: bool) -> dict[str, Any]:
            moment = now()
            entry = {"created": moment, **({"comment": message} if message else {})}
            found = {"created": moment, "architecture": wanted.architecture, "os": wanted.os}
            variant = {"variant": wanted.variant} if wanted.variant else {}
            return {**found, **variant, "config": config, "history": [entry]}

        async with self._intake.spooled(source) as path:

            async def take() -> NewLayer:
                reached("image.import.layer")
                return NewLayer(*await self.making.blocking(lambda: self._store.put_archive(path)))

            try:
                image = await self.making.make(None, take, describe, reference)
            except Corrupt as error:  # the client's bytes, not ours
                raise InvalidArgument(f"cannot import the archive: {str(error).partition(': ')[2] or error}") from error
        self._announce("import", image.id, {"name": reference.familiar if reference else image.id})
        reached("image.import.answer")
        return image

    async def tag(self, source: str, repository: str, tag: str = "") -> None:
        """Give an image another name. NotFound, InvalidArgument."""
        image = self.catalog.find(source)
        target = Reference.parse(repository)
        if target.digest is not None:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        if target.familiar_name == "sha256":
            raise InvalidArgument("refusing to create an ambiguous tag using digest algorithm as name")
        target = target.with_tag(tag) if tag else target.with_default_tag()
        await self._ledger.tag(image.id, target)
        self._announce("tag", image.id, {"name": target.familiar})
        reached("image.tag.answer")

    async def remove(
        self, reference_or_id: str, *, force: bool = False, platforms: Sequence[str] = ()
    ) -> list[dict[str, str]]:
        """Remove a name or an image, or what it has for some platforms: [{"Untagged": name} or {"Deleted": ID}, ...].

        NotFound; Conflict where it is in use; InvalidArgument for platforms without force.
        """
        if platforms:
            wanted = [Platform.parse(platform) for platform in platforms]
            return await self._removal.remove_platforms(reference_or_id, wanted, force=force)
        return await self._removal.remove(reference_or_id, force=force)

    async def prune(self, filters: Mapping[str, Sequence[str]]) -> tuple[list[dict[str, str]], int]:
        """Remove unused images (filters: dangling, label, label!, until): what went, and the bytes that became free."""
        return await self._removal.prune(filters)

    def list(self, filters: Mapping[str, Sequence[str]] | None = None) -> list[Image]:
        """Images, newest first, each with those of its names that pass the filters."""
        return image_filters.listed(self.catalog, filters or {})

    def users(self, image: Image) -> int:
        """How many containers were made from an image, or from another out of the same index."""
        return sum(len(self._in_use(one.id)) for one in self.catalog.family(image))

    def layer_size(self, chain_id: str) -> int:
        """Bytes that a layer holds unpacked."""
        known = self.catalog.layers.get(chain_id)
        return known.size if known else 0

    def shared_size(self, image: Image) -> int:
        """Bytes of the layers that another image has as well; what is left of its size is its own."""
        shared = {layer.chain_id for layer in image.layers if self.catalog.uses(Piece("snapshot", layer.chain_id)) > 1}
        return sum(self.layer_size(layer.chain_id) for layer in image.layers if layer.chain_id in shared)

    def manifest_size(self, image: Image) -> int:
        """Bytes of the image's manifest; 0 where its blob is missing."""
        return self._store.blob_size(image.manifest_digest) or 0

    async def _pull(
        self, reference: Reference, platform: Platform | None, auth: Credential | None, pull: Pull
    ) -> Image:
        """One pull, from the registry's first answer to the record."""
        ways = endpoints(reference.domain, self._config.registries)

        def credential_for(way: Endpoint) -> Credential | None:
            if auth is not None:
                return None if way.mirror else auth
            return credentials.lookup(way.domain)

        fetched = await self._threads.run(lambda: fetch(reference, platform, ways, credential_for))
        new = fetched.candidate
        pull.opening.append({"status": f"Pulling from {reference.path}", "id": reference.tag or fetched.digest})
        before = self.catalog.get(new.id)
        origin = (reference.repository, fetched.digest)
        tag = None if reference.digest or self._keeps_name(reference, new) else reference
        if (
            before
            and before.complete
            and before.blobs == tuple(new.documents)
            and origin in self.catalog.digests_of(new.id)
            and (tag is None or self.catalog.target(tag) == new.id)
        ):
            pull.closing += _ending(fetched.digest, f"Status: Image is up to date for {reference.familiar}")
            return before
        unused = set(before.pieces) if before else set()
        try:
            async with self._pieces.lease(new.pieces):
                reached("image.pull.unpack")
                sizes = await self._threads.run(lambda: self._bring(fetched, pull.progress), pull.progress.cancel)
                image = await self._ledger.record(new, sizes, [tag] if tag else [], origin)
        except Exception:
            unused |= new.pieces
            raise
        finally:
            if unused:
                await self._pieces.remove_unused(unused)
        pull.closing += _ending(fetched.digest, _newer(reference))
        self._announce("pull", reference.familiar, {"name": reference.familiar_name})
        reached("image.pull.answer")
        return image

    def _bring(self, fetched: Fetched, progress: Progress) -> Sequence[int]:
        """Unpack what is missing of an image; its blobs come even where their content was here in another form."""
        layers = fetched.candidate.layers
        sizes = self._store.unpack(list(layers), progress, fetched.registry, fetched.repository)
        for layer in layers:
            if self._store.blob_size(layer.blob) is None:
                self._store.fetch(layer.blob, layer.blob_size, progress, fetched.registry, fetched.repository)
        return sizes

    def _keeps_name(self, reference: Reference, new: Candidate) -> bool:
        """Whether a tag stays where it is: at an image out of the same index that suits this machine better."""
        image = self.catalog.get(self.catalog.target(reference) or "")
        top = next(iter(new.documents), "")
        if image is None or image.id == new.id or image.index is None or image.index != top:
            return False
        suiting = Platform.host().candidates(strict=False)
        if image.platform not in suiting:
            return False
        platform = new.config.platform
        return platform not in suiting or suiting.index(platform) > suiting.index(image.platform)

    async def _pull_embedded(
        self, reference: Reference, platform: Platform | None, progress: Emit | None
    ) -> Image | None:
        """What a pull of the embedded image comes to: None where the name is somebody else's by now."""
        before = self.catalog.get(self.catalog.target(reference) or "")
        if before and before.manifest_digest != await asyncio.to_thread(embedded.manifest_digest, embedded.ARCHIVE):
            return None
        image = await self._embedded(str(reference), platform)
        if image is not None and progress:
            status = f"Status: Image is up to date for {reference.familiar}" if before else _newer(reference)
            for message in _ending(image.manifest_digest, status):
                await progress(message)
        return image

    async def _embedded(self, text: str, platform: Platform | None) -> Image | None:
        """Load the image inside this package, where its name is asked for and nothing else has that name."""
        with contextlib.suppress(InvalidArgument):
            if Reference.parse(text).with_default_tag() != embedded.REFERENCE:
                return None
            async with self._embedding:
                if self.catalog.target(embedded.REFERENCE) is None and self._has_embedded:
                    await self.load(embedded.ARCHIVE, None, [str(platform)] if platform else ())
            with contextlib.suppress(NotFound):
                return self.catalog.find(text, platform)
        return None

    async def _repair(self, image: Image, text: str) -> Image:
        """Make missing snapshots anew from blobs that are still there. NotFound where they are not: pull again."""
        async with self._pieces.lease(image.pieces):
            progress = Progress()
            try:
                await self._threads.run(lambda: self._store.unpack(list(image.layers), progress), progress.cancel)
            except KnarrError as error:
                log.warning("image %s cannot be made from what is on the disk: %s", image.id, error)
                raise NotFound(
                    f"No such image: {text}: its files are missing from the disk; pull or load it again"
                ) from error
            current = self.catalog.get(image.id)
            if current is None:
                raise NotFound(f"No such image: {text}")
            mended = replace(current, complete=True)
            self.catalog.put(mended)
            return mended

    def _announce(self, action: str, actor: str, attributes: dict[str, str]) -> None:
        self._events.emit("image", action, actor, attributes)


def _newer(reference: Reference) -> str:
    return f"Status: Downloaded newer image for {reference.familiar}"


def _ending(digest: str, status: str) -> list[Message]:
    return [{"status": f"Digest: {digest}"}, {"status": status}]
