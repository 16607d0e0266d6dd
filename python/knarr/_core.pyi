"""knarr._core: the Rust core. Functions release the GIL while they may block, and raise knarr.errors."""

from typing import final

__all__ = ["Progress", "Registry", "Store", "__version__"]

__version__: str

@final
class Progress:
    """Counters shared with a running operation: read by one thread while another works.

    A phase is one of "waiting", "downloading", "downloaded", "extracting", "done", "exists",
    "uploading", "mounted".
    """

    def __new__(cls) -> Progress: ...
    def snapshot(self) -> list[tuple[str, str, int, int]]:
        """(blob digest, phase, bytes done, bytes in all or 0) of each layer, in order."""

    def cancel(self) -> None:
        """Make the operation end soon, raising Unavailable("cancelled"). What is partial stays resumable."""

@final
class Registry:
    """A client of one registry (OCI distribution specification 1.1). Thread-safe, blocking.

    host: "127.0.0.1:5001"; scheme: "https" or "http"; username and password for basic or token
    authentication ("" for anonymous; username "<token>" makes the password an identity token).
    Credentials are never sent to another host, also not after a redirect.
    """

    def __new__(
        cls,
        host: str,
        *,
        scheme: str = "https",
        username: str = "",
        password: str = "",
        insecure: bool = False,
        timeout: float = 30.0,
    ) -> Registry: ...
    def manifest(self, repository: str, reference: str) -> tuple[bytes, str, str]:
        """(bytes, media type, digest). reference: tag or digest; at most 4 MiB; a digest is verified."""

    def blob(self, repository: str, digest: str, limit: int) -> bytes:
        """A small blob (an image's config), verified; Corrupt beyond limit bytes."""

    def push(self, repository: str, blobs: list[tuple[str, int, str, str]], progress: Progress) -> None:
        """Bring blobs to a repository, several at once, each only where it is not there already.

        Each is (digest, size, path of its file, another repository of this registry that may have it, or ""). Large
        ones go out as the registry wants them; broken connections are mended. Progress shows the phases "waiting",
        "uploading", "done", "exists", "mounted". Raises Unauthorized, PermissionDenied, Unavailable.
        """

    def put_manifest(self, repository: str, reference: str, media_type: str, data: bytes, progress: Progress) -> None:
        """Put a manifest or index, as it is, under a tag or its digest."""

    def tags(self, repository: str) -> list[str]:
        """Every tag of a repository, at most 10,000. NotFound for a repository that is not there."""

    def ping(self) -> None:
        """Return where somebody answers /v2/, whatever credentials he wants. Unavailable."""

    def login(self) -> str:
        """Whether the registry takes the credentials: its identity token for them, or "". Unauthorized."""

    def search(self, term: str, limit: int) -> bytes:
        """What the registry's search (/v1/search) answers: JSON, of at most 4 MiB, not looked at."""

@final
class Store:
    """Blobs and snapshots under one data root (see ARCHITECTURE.md, On disk)."""

    def __new__(cls, root: str) -> Store: ...
    def sweep(self) -> int:
        """Delete what an earlier process left unfinished in tmp/, and partial blobs that are too old or
        too many: how many objects went. Once at start; other operations may run meanwhile.
        """

    def put_blob(self, data: bytes) -> str:
        """Store bytes durably; their digest "sha256:<hex>"."""

    def put_file(self, path: str) -> tuple[str, int]:
        """Copy a file in as a blob: (digest, size)."""

    def blob(self, digest: str, limit: int = ...) -> bytes:
        """A blob's bytes. NotFound; Corrupt where its digest does not hold; InvalidArgument beyond limit (8 MiB)."""

    def blob_size(self, digest: str) -> int | None: ...
    def blob_path(self, digest: str) -> str: ...
    def blobs(self) -> list[tuple[str, int]]: ...
    def remove_blob(self, digest: str) -> None: ...
    def snapshot_path(self, chain_id: str) -> str:
        """Where the snapshot is or would be."""

    def has_snapshot(self, chain_id: str) -> bool: ...
    def snapshots(self) -> list[str]: ...
    def remove_snapshot(self, chain_id: str) -> None:
        """Renamed away, then deleted: never seen half gone."""

    def usage(self, path: str) -> tuple[int, int]:
        """(bytes allocated, inodes) of a directory and all below it, hard links counted once, mounts left out."""

    def sync(self) -> None:
        """Make all that was written below the data root durable (syncfs)."""

    def unpack(
        self,
        layers: list[tuple[str, int, str, str, str, str]],
        progress: Progress,
        registry: Registry | None = None,
        repository: str = "",
    ) -> list[int]:
        """Make the snapshots of an image's layers, lowest first; the bytes each holds unpacked.

        Each layer is (blob digest, blob size, media type, diff ID, chain ID, parent's chain ID or "").
        A snapshot that exists is kept; a blob that exists is read; anything else is fetched from
        the registry, hashed, inflated, hashed and written in one pipeline, layers in parallel,
        resumed from ingest/ after an interruption, and ends with one sync. Two calls that share a layer
        wait for one another; nobody may remove the layers' blobs and snapshots meanwhile.
        Raises Corrupt (digest or size does not hold, malformed or hostile layer), Unavailable
        (network), NotFound, InvalidArgument.
        """

    def fetch(self, digest: str, size: int, progress: Progress, registry: Registry, repository: str) -> None:
        """Fetch a blob for itself, without unpacking it; one that is there is kept. Resumed, and durable at the end.

        Nobody may remove the blob meanwhile. Raises as unpack does.
        """

    def read_archive(self, path: str) -> list[tuple[str, str, int]]:
        """Take every regular file of a tar archive (plain, gzip, zstd) in as a blob: (name, digest, size).

        For OCI archives and `docker save` archives. Link entries are resolved to the blob of
        their target. The caller decides what the names mean, and removes what it does not keep. An archive
        that is refused leaves nothing.
        """

    def copy_up(self, lower: list[str], path: str, destination: str) -> bool:
        """Copy a directory's content from image layers (top-most first) to an empty directory,
        with owners, modes, times, xattrs and hard links. path is resolved inside the layers'
        merged view. False where the image has no such directory.
        """

    def remove_tree(self, path: str) -> None:
        """Move a directory below the data root to tmp/ and delete it there. One that is not there is no error;
        Conflict where something is mounted in it, InvalidArgument outside the data root.
        """
