"""Images (Engine API: Image)."""

from knarr.client.codec import dumps
from knarr.client.engine import Client, encode_filters
from knarr.client.http import query, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from knarr.client.engine import Filters, Objects

    Texts = list[str]


MANY_PLATFORMS = "1.52"  # the version from which several may be given


def path(image: str, action: str = "") -> str:
    """The path of an image, or of something to be done to it. Slashes stay: they are part of names."""
    return f"/images/{quote(image, b'/:@')}{'/' if action else ''}{action}"


def encode_platform(text: "str | None") -> "str | None":
    """The API's form of a platform, os[/architecture[/variant]]: a JSON object."""
    if not text:
        return None
    names = ("os", "architecture", "variant")
    return dumps(dict(zip(names, text.split("/"), strict=False))).decode()


def _encoded(platforms: "Texts | None") -> "list[str]":
    return [encoded for text in platforms or [] if (encoded := encode_platform(text))]


def repeated(parameters: "dict[str, list[str]]") -> str:
    """A query in which names may stand several times."""
    pairs = [f"{name}={quote(value)}" for name, values in parameters.items() for value in values]
    return "?" + "&".join(pairs) if pairs else ""


def _changes(changes: "Sequence[str]") -> str:
    return "".join([f"&changes={quote(change)}" for change in changes])


class Images:
    """`Client.images`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def pull(
        self, image: str, *, tag: "str | None" = None, platform: "str | None" = None, auth: "str | None" = None
    ) -> "Iterator[dict[str, Any]]":
        """ImageCreate: the progress as it comes; an entry with "error" is the last of a pull that failed.

        image: a name, "name:tag" or "name@digest"; auth: the value of X-Registry-Auth.
        """
        headers = {"X-Registry-Auth": auth} if auth else None
        parameters = {"fromImage": image, "tag": tag, "platform": platform}
        yield from self._client.request("POST", "/images/create", parameters, None, headers).values()

    def push(
        self, image: str, *, tag: str = "", platform: "str | None" = None, auth: "str | None" = None
    ) -> "Iterator[dict[str, Any]]":
        """ImagePush: the progress as it comes; an entry with "error" is the last of a push that failed.

        image: a repository; tag: empty for all of them; auth: the value of X-Registry-Auth.
        """
        headers = {"X-Registry-Auth": auth or "e30="}  # an empty object: docker sends none without one
        parameters = {"tag": tag, "platform": encode_platform(platform)}
        yield from self._client.request("POST", path(image, "push"), parameters, None, headers).values()

    def search(
        self, term: str, *, limit: "int | None" = None, filters: "Filters | None" = None, auth: "str | None" = None
    ) -> "Objects":
        """ImageSearch: what a registry finds."""
        parameters = {"term": term, "limit": limit, "filters": encode_filters(filters)}
        headers = {"X-Registry-Auth": auth} if auth else None
        return self._client.request("GET", "/images/search", parameters, None, headers).json()  # type: ignore[no-any-return]

    def load(
        self, archive: "Iterable[bytes]", *, quiet: bool = False, platforms: "Texts | None" = None
    ) -> "Iterator[dict[str, Any]]":
        """ImageLoad: send an archive in pieces, and the progress as it comes."""
        headers = {"Content-Type": "application/x-tar"}
        where = "/images/load" + repeated({"quiet": ["1"] if quiet else ["0"], "platform": _encoded(platforms)})
        version = MANY_PLATFORMS if platforms else None
        yield from self._client.request("POST", where, None, archive, headers, version=version).values()

    def save(self, names: "Texts", *, platforms: "Texts | None" = None) -> "Iterator[bytes]":
        """ImageGetAll: the archive of some images in pieces."""
        where = "/images/get" + repeated({"names": names, "platform": _encoded(platforms)})
        response = self._client.request("GET", where, version=MANY_PLATFORMS if platforms else None)
        while piece := response.piece():
            yield piece

    def commit(
        self,
        container: str,
        repository: str = "",
        tag: str = "",
        *,
        comment: str = "",
        author: str = "",
        changes: "Sequence[str]" = (),
        pause: bool = True,
    ) -> "dict[str, Any]":
        """ImageCommit: {"Id"}. changes: Dockerfile instructions."""
        parameters = {"container": container, "repo": repository, "tag": tag, "comment": comment, "author": author}
        target = "/commit" + query({**parameters, "pause": None if pause else "false"}) + _changes(changes)
        return self._client.call("POST", target)  # type: ignore[no-any-return]

    def import_archive(
        self,
        source: str,
        archive: "Iterable[bytes] | None" = None,
        *,
        repository: str = "",
        tag: str = "",
        message: str = "",
        changes: "Sequence[str]" = (),
        platform: str = "",
    ) -> "Iterator[dict[str, Any]]":
        """ImageCreate from a root file system: a URL, or "-" and the archive in pieces; the progress as it comes."""
        parameters = {"fromSrc": source, "repo": repository, "tag": tag, "message": message, "platform": platform}
        target = "/images/create" + query(parameters) + _changes(changes)
        yield from self._client.request("POST", target, None, archive).values()

    def list(
        self,
        *,
        all: bool = False,
        filters: "Filters | None" = None,
        digests: bool = False,
        manifests: bool = False,
    ) -> "Objects":
        """ImageList, newest first."""
        parameters = {"all": all, "filters": encode_filters(filters), "digests": digests, "manifests": manifests}
        return self._client.call("GET", "/images/json", parameters)  # type: ignore[no-any-return]

    def inspect(self, image: str, *, platform: "str | None" = None) -> "dict[str, Any]":
        """ImageInspect."""
        return self._client.call("GET", path(image, "json"), {"platform": encode_platform(platform)})  # type: ignore[no-any-return]

    def history(self, image: str, *, platform: "str | None" = None) -> "Objects":
        """ImageHistory, newest first."""
        return self._client.call("GET", path(image, "history"), {"platform": encode_platform(platform)})  # type: ignore[no-any-return]

    def tag(self, image: str, repository: str, tag: str) -> None:
        """ImageTag: give an image another name."""
        self._client.call("POST", path(image, "tag"), {"repo": repository, "tag": tag})

    def remove(
        self, image: str, *, force: bool = False, prune: bool = True, platforms: "Texts | None" = None
    ) -> "Objects":
        """ImageDelete: [{"Untagged": name} or {"Deleted": ID}, ...]."""
        where = path(image) + repeated({"platforms": _encoded(platforms)})
        parameters = {"force": force, "noprune": not prune}
        if platforms:
            where += "&force=1" if force else ""
            return self._client.call("DELETE", where)  # type: ignore[no-any-return]
        return self._client.call("DELETE", where, parameters)  # type: ignore[no-any-return]

    def prune(self, filters: "Filters | None" = None) -> "dict[str, Any]":
        """ImagePrune: {"ImagesDeleted", "SpaceReclaimed"}."""
        return self._client.call("POST", "/images/prune", {"filters": encode_filters(filters)})  # type: ignore[no-any-return]
