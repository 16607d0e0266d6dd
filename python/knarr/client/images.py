"""Images (Engine API: Image)."""

from knarr.client.engine import Client, encode_filters
from knarr.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from knarr.client.engine import Filters, Objects


def path(image: str, action: str = "") -> str:
    """The path of an image, or of something to be done to it. Slashes stay: they are part of names."""
    return f"/images/{quote(image, b'/:@')}{'/' if action else ''}{action}"


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

    def load(self, archive: "Iterable[bytes]", *, quiet: bool = False) -> "Iterator[dict[str, Any]]":
        """ImageLoad: send an archive in pieces, and the progress as it comes."""
        headers = {"Content-Type": "application/x-tar"}
        yield from self._client.request("POST", "/images/load", {"quiet": quiet}, archive, headers).values()

    def list(
        self,
        *,
        all: bool = False,
        filters: "Filters | None" = None,
        digests: bool = False,
    ) -> "Objects":
        """ImageList, newest first."""
        parameters = {"all": all, "filters": encode_filters(filters), "digests": digests}
        return self._client.call("GET", "/images/json", parameters)  # type: ignore[no-any-return]

    def inspect(self, image: str, *, platform: "str | None" = None) -> "dict[str, Any]":
        """ImageInspect."""
        return self._client.call("GET", path(image, "json"), {"platform": platform})  # type: ignore[no-any-return]

    def history(self, image: str) -> "Objects":
        """ImageHistory, newest first."""
        return self._client.call("GET", path(image, "history"))  # type: ignore[no-any-return]

    def tag(self, image: str, repository: str, tag: str) -> None:
        """ImageTag: give an image another name."""
        self._client.call("POST", path(image, "tag"), {"repo": repository, "tag": tag})

    def remove(self, image: str, *, force: bool = False, prune: bool = True) -> "Objects":
        """ImageDelete: [{"Untagged": name} or {"Deleted": ID}, ...]."""
        return self._client.call("DELETE", path(image), {"force": force, "noprune": not prune})  # type: ignore[no-any-return]

    def prune(self, filters: "Filters | None" = None) -> "dict[str, Any]":
        """ImagePrune: {"ImagesDeleted", "SpaceReclaimed"}."""
        return self._client.call("POST", "/images/prune", {"filters": encode_filters(filters)})  # type: ignore[no-any-return]
