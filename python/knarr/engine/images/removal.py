"""Taking names and images away: rmi and prune, with Docker's rules and words.

The last name goes in one transaction with the image itself, so that no kill leaves an image without a name.

An image that a container was made from keeps its files, whatever is forced: then it loses its names and
stays without one until its last container has gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from knarr.engine.images.filters import prunable
from knarr.errors import Conflict, InvalidArgument
from knarr.failpoints import reached
from knarr.types import Platform, Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from knarr.engine.images.catalog import Catalog, Image
    from knarr.engine.images.ledger import Ledger
    from knarr.engine.images.pieces import Pieces

    _Names = tuple[list[Reference], list[tuple[str, str]]]
    Removed = list[dict[str, str]]  # the API's ImageDeleteResponseItem: {"Untagged": name} or {"Deleted": ID}


class Removal:
    """Removes images of one catalog.

    in_use(image ID): the IDs of the containers made from it; running(container ID): whether that one runs.
    held(image ID): whether something is being made from it at this moment.
    """

    def __init__(
        self,
        catalog: Catalog,
        ledger: Ledger,
        pieces: Pieces,
        in_use: Callable[[str], Sequence[str]],
        running: Callable[[str], bool],
        held: Callable[[str], bool],
        announce: Callable[[str, str, dict[str, str]], None],
    ) -> None:
        self._catalog = catalog
        self._ledger = ledger
        self._pieces = pieces
        self._in_use = in_use
        self._running = running
        self._held = held
        self._announce = announce
        self._pruning = False

    async def remove(self, text: str, *, force: bool) -> Removed:
        """Remove the image or the name that `text` is. NotFound; Conflict where it is in use."""
        image = self._catalog.find(text)
        reference = self._catalog.name_in(text)
        removed: Removed = []
        if reference is None:
            if not force and not self._has_one_name(image):
                raise _refusal(image, "must be forced", "image is referenced in multiple repositories")
            self._check(image, force=force)
            going = self._names_of(image)
        else:
            users = self._in_use(image.id)
            if users and not force and reference.digest is None and self._has_one_name(image):
                raise Conflict(
                    f'conflict: unable to remove repository reference "{text}" (must force) - container '
                    f"{users[0][:12]} is using its referenced image {image.id[7:19]}"
                )
            going = self._names_with(image, reference)
        family = self._catalog.family(image)[1:]
        stays = any(going) and (self._in_use(image.id) or self._held(image.id) or self._has_other_names(image, going))
        if stays:
            await self._ledger.remove_names(image.id, *going)
            self._untagged(image, going, removed)
        else:
            self._check(image, force=force, last=True)
        for one in family:  # whose digests are those of the index, too
            await self._ledger.remove_names(one.id, [], going[1])
        rest: Removed = []
        if not any(self._catalog.references_of(one.id) for one in (family if not stays else [image, *family])):
            await self._remove_rest(family, rest)
        if not stays:
            await self._delete(image, going, removed, force=force)
        return removed + rest

    async def remove_platforms(self, text: str, platforms: Sequence[Platform], *, force: bool) -> Removed:
        """Remove what an image has for some platforms. What is left of it keeps the names."""
        if not force:
            raise InvalidArgument(
                "Content will be removed from all images referencing this variant. Use --force to force delete."
            )
        removed: Removed = []
        for platform in platforms:
            image = self._catalog.find(text, platform)
            self._check(image, force=True, last=True)
            names = self._catalog.references_of(image.id)
            rest = [one for one in self._catalog.family(image) if one.id != image.id]
            suiting = Platform.host().candidates(strict=False)
            rest.sort(key=lambda one: suiting.index(one.platform) if one.platform in suiting else len(suiting))
            for name in names:
                if rest:
                    await self._ledger.tag(rest[0].id, name)
            await self._delete(image, None if rest else self._names_of(image), removed, force=True)
        return removed

    async def _remove_rest(self, family: Sequence[Image], removed: Removed) -> None:
        """Remove what came from the same index as an image whose last name goes, unless a container needs it.

        Before that image, whose name stood for them as well: after a kill in between it can be removed again.
        """
        for one in family:
            current = self._catalog.get(one.id)
            if current is None or current.references or self._in_use(one.id) or self._held(one.id):
                continue
            try:
                await self._delete(current, None, removed, force=False)
            except Conflict:  # a container was made from it a moment ago
                continue

    async def prune(self, filters: Mapping[str, Sequence[str]]) -> tuple[Removed, int]:
        """Remove what no container was made from and the filters are for: what went, and how many bytes.

        Conflict while another prune runs.
        """
        wanted = prunable(filters, self._catalog.is_named)
        if self._pruning:
            raise Conflict("a prune operation is already running")
        self._pruning = True
        removed: Removed = []
        freed = 0
        try:
            for image in self._catalog:
                family = self._catalog.family(image)
                if not wanted(image) or any(self._in_use(one.id) or self._held(one.id) for one in family):
                    continue
                try:
                    freed += await self._delete(image, self._names_of(image), removed, force=False)
                except Conflict:  # a container was made from it a moment ago
                    continue
            freed += (await self._pieces.sweep()).bytes
        finally:
            self._pruning = False
        self._announce("prune", "", {"reclaimed": str(freed)})
        return removed, freed

    def _names_of(self, image: Image) -> _Names:
        return self._catalog.references_of(image.id), self._catalog.digests_of(image.id)

    def _names_with(self, image: Image, reference: Reference) -> _Names:
        """One name, and with the last tag of a repository the digests of that repository."""
        if reference.digest is not None:
            return [], [(reference.repository, reference.digest)]
        rest = [other for other in self._catalog.references_of(image.id) if other != reference]
        digests = self._catalog.digests_of(image.id)
        if any(other.repository == reference.repository for other in rest):
            digests = []
        return [reference], [pair for pair in digests if pair[0] == reference.repository]

    def _has_other_names(self, image: Image, going: _Names) -> bool:
        references, digests = self._names_of(image)
        return not (set(references) <= set(going[0]) and set(digests) <= set(going[1]))

    def _untagged(self, image: Image, going: _Names, removed: Removed) -> None:
        references, digests = going
        tags = [reference.familiar for reference in references]
        others = [f"{Reference.parse(repository).familiar_name}@{digest}" for repository, digest in digests]
        removed.extend({"Untagged": name} for name in (*tags, *others))
        for name in tags or others:  # digests that go with the last tag of their repository are no news of their own
            self._announce("untag", image.id, {"name": name})

    async def _delete(self, image: Image, going: _Names | None, removed: Removed, *, force: bool) -> int:
        """Remove the image, then what only it was made of; the bytes that became free.

        `going` are its names, of which it must not have got more; None where it does not matter what they are.
        """

        def check(current: Image) -> None:
            if going is not None and self._has_other_names(current, going):
                raise _refusal(current, "must be forced", "image was given a name in the meantime")
            self._check(current, force=force, last=True)

        pieces = await self._ledger.forget(image.id, check)
        if going is not None:
            self._untagged(image, going, removed)
        removed.append({"Deleted": image.id})
        self._announce("delete", image.id, {"name": image.id})
        gone = await self._pieces.remove_unused(pieces)
        reached("image.delete.answer")
        removed.extend({"Deleted": chain_id} for chain_id in gone.snapshots)
        return gone.bytes

    def _check(self, image: Image, *, force: bool, last: bool = False) -> None:
        """Conflict where containers need the image; `last`: its files are about to go, which nothing forces."""
        users = self._in_use(image.id)
        running = [user for user in users if self._running(user)]
        if running:
            raise _refusal(image, "cannot be forced", f"image is being used by running container {running[0][:12]}")
        if users and (last or not force):
            way = "cannot be forced" if force else "must be forced"
            raise _refusal(image, way, f"image is being used by stopped container {users[0][:12]}")
        if last and self._held(image.id):
            raise _refusal(image, "cannot be forced", "a container is being made from the image")

    def _has_one_name(self, image: Image) -> bool:
        """At most one tag, and nothing in another repository."""
        references = self._catalog.references_of(image.id)
        repositories = {reference.repository for reference in references}
        repositories |= {repository for repository, _ in self._catalog.digests_of(image.id)}
        return len(references) <= 1 and len(repositories) <= 1


def _refusal(image: Image, way: str, reason: str) -> Conflict:
    return Conflict(f"conflict: unable to delete {image.id[7:19]} ({way}) - {reason}")
