"""What registries are asked beside pulls and pushes: logins, searches, tags. Blocking: for threads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from knarr._core import Registry
from knarr.engine.images.endpoints import SEARCH_HUB, endpoints
from knarr.errors import InvalidArgument, KnarrError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from knarr.config import RegistrySettings
    from knarr.credentials import Credential
    from knarr.engine.images.endpoints import Endpoint
    from knarr.types import Reference

__all__ = ["Registries", "client"]

SEARCH_LIMIT = 25
SEARCH_MOST = 100
SEARCH_FILTERS = {"is-automated", "is-official", "stars"}


def client(way: Endpoint, credential: Credential | None) -> Registry:
    """A client of one endpoint."""
    return Registry(
        way.host,
        scheme=way.scheme,
        username=credential.username if credential else "",
        password=credential.password if credential else "",
        insecure=way.insecure,
    )


class Registries:
    """The registries of one engine's settings."""

    def __init__(self, settings: Mapping[str, RegistrySettings]) -> None:
        self._settings = settings

    def ways(self, domain: str) -> list[Endpoint]:
        """The endpoints of a registry itself, mirrors left out."""
        return [way for way in endpoints(domain, self._settings) if not way.mirror]

    def open(self, domain: str, credential: Credential | None) -> Registry:
        """A client of the first endpoint where somebody answers. Unavailable."""
        ways = self.ways(domain)
        for number, way in enumerate(ways, 1):
            registry = client(way, credential)
            if number == len(ways):
                return registry
            try:
                registry.ping()
            except Unavailable:
                continue
            return registry
        raise Unavailable(f"no registry is known for {domain}")

    def login(self, domain: str, credential: Credential) -> str:
        """Whether a registry takes a credential: the identity token that it gives for it, or "".

        Unauthorized with the registry's reason, Unavailable.
        """
        failure: KnarrError | None = None
        for way in self.ways(domain):
            try:
                return client(way, credential).login()
            except Unavailable as error:
                failure = error
        raise failure or Unavailable(f"no registry is known for {domain}")

    def tags(self, reference: Reference, credential: Credential | None) -> list[str]:
        """Every tag of a repository. NotFound, Unauthorized, Unavailable."""
        return self.open(reference.domain, credential).tags(reference.path)

    def manifest(self, reference: Reference, credential: Credential | None) -> tuple[Registry, bytes, str, str]:
        """What a name means at its registry: (its client, bytes, media type, digest)."""
        registry = self.open(reference.domain, credential)
        return registry, *registry.manifest(reference.path, reference.digest or reference.tag)

    def search(
        self, term: str, limit: int, filters: Mapping[str, Sequence[str]], credential: Credential | None
    ) -> list[dict[str, Any]]:
        """The results of a registry's search that pass the filters: the API's objects. InvalidArgument, Unavailable."""
        official, stars = _checked(filters)
        if "://" in term:
            raise InvalidArgument(f"invalid repository name: repository name ({term[:200]}) should not have a scheme")
        if not 1 <= (limit := limit or SEARCH_LIMIT) <= SEARCH_MOST:
            raise InvalidArgument(f"limit {limit} is outside the range of [1, {SEARCH_MOST}]")
        if filters.get("is-automated") and _truth(filters, "is-automated"):
            return []  # nothing has been that for years
        head, slash, rest = term.partition("/")
        at_hub = not slash or not ("." in head or ":" in head or head == "localhost")
        domain, what = ("docker.io", term.removeprefix("library/")) if at_hub else (head, rest)
        found = _results(self._ask(domain, what, limit, credential), domain)
        return [
            item
            for item in found
            if (official is None or item["is_official"] == official) and item["star_count"] >= stars
        ]

    def _ask(self, domain: str, what: str, limit: int, credential: Credential | None) -> bytes:
        failure: KnarrError | None = None
        ways = self.ways(domain)
        if domain == "docker.io":
            ways = [ways[0]._replace(host=SEARCH_HUB)]
        for way in ways:
            try:
                return client(way, credential).search(what, limit)
            except Unavailable as error:
                failure = error
        raise failure or Unavailable(f"no registry is known for {domain}")


def _checked(filters: Mapping[str, Sequence[str]]) -> tuple[bool | None, int]:
    for name in filters:
        if name not in SEARCH_FILTERS:
            raise InvalidArgument(f"invalid filter '{name[:100]}'")
    stars = 0
    for text in filters.get("stars", ()):
        if not text.removeprefix("-").isdecimal() or len(text) > 9:
            raise InvalidArgument(f"invalid filter 'stars={text[:100]}'")
        stars = max(stars, int(text))
    return (_truth(filters, "is-official") if filters.get("is-official") else None), stars


def _truth(filters: Mapping[str, Sequence[str]], name: str) -> bool:
    values = set(filters[name])
    if values <= {"1", "true"}:
        return True
    if values <= {"0", "false"}:
        return False
    raise InvalidArgument(f"invalid filter '{name}={min(values)[:100]}'")


def _results(data: bytes, domain: str) -> list[dict[str, Any]]:
    try:
        results = json.loads(data)["results"] or []
        return [
            {
                "star_count": int(item.get("star_count") or 0),
                "is_official": bool(item.get("is_official")),
                "name": str(item["name"])[:1000],
                "is_automated": False,
                "description": str(item.get("description") or "")[:10_000],
            }
            for item in results[:SEARCH_MOST]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Unavailable(f"error decoding registry search results: {domain} answered something else") from None
