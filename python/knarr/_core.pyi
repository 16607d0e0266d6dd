"""knarr._core: the Rust core. Functions release the GIL while they may block, and raise knarr.errors."""

from typing import final

__all__ = [
    "Body",
    "Progress",
    "Registry",
    "Store",
    "View",
    "__version__",
    "attach_disk",
    "changes",
    "clone_volume",
    "detach_disk",
    "exchange",
    "fill_volume",
    "forget_project",
    "limit_project",
    "make_disk",
    "mount_volume",
    "pack_local",
    "pack_volume",
    "project",
    "unmount_volume",
    "unpack_local",
]

__version__: str

@final
class Body:
    """The body of an HTTP message on its way in, on a socket that the caller has read the head from.

    length: bytes; -1 for chunks, -2 for all until the end of the stream. initial: what was read of it already.
    patience: seconds that may bring nothing before reading fails; 0 for any number. The socket is duplicated,
    and may be one that does not block.
    """

    def __new__(cls, descriptor: int, length: int, initial: bytes, patience: float = 0.0) -> Body: ...
    @property
    def ended(self) -> bool:
        """Whether it has been read to its end."""

    @property
    def count(self) -> int:
        """Bytes that were read of it."""

    def rest(self) -> bytes:
        """What was read beyond its end."""

    def drain(self, limit: int) -> None:
        """Read and forget what is left, at most so many bytes. InvalidArgument where it breaks off."""

@final
class View:
    """A container's root file system, open: it goes with this object. Methods block, and may be called side by side.

    Every path is resolved below the root, as for a process in the container. Archives hold what Docker's do.
    """

    @staticmethod
    def running(pid: int, container: str, mounts: list[str]) -> View:
        """Of a running container, by its first process, with what is mounted at these paths, outer ones first.

        Conflict where the process is not the container's (its ID is in the name of the control group).
        """

    @staticmethod
    def stopped(
        lower: list[str],
        upper: str,
        work: str,
        mounts: list[tuple[str, str, list[str], str, bool, bool, bool]],
        *,
        writable: bool,
        read_only: bool,
    ) -> View:
        """Of a container that does not run, from its layers (top-most first) and its writable directory.

        A mount is (destination, source, image layers in its place (top-most first), path beneath it or "", recursive,
        read-only, recursively so), outer ones first. To be written, nobody else may mount the writable directory
        meanwhile; read_only then protects the root.
        """

    def stat(self, path: str) -> tuple[str, int, int, int, str]:
        """(name, bytes, Go's io/fs.FileMode, mtime in ns, target of a link) of what is at a path. NotFound."""

    def pack(self, path: str, descriptor: int, length: int) -> None:
        """Write what is at a path to a socket, as an archive: in chunks (-1), without the last, or plain (-2).

        NotFound; Unavailable where the other end closes.
        """

    def export(self, descriptor: int, length: int) -> None:
        """Write the root file system in the same way."""

    def extract(self, path: str, body: Body, *, no_overwrite: bool, user: str | None = None) -> None:
        """Extract an archive (plain, gzip, bzip2, xz, zstd) into a directory, owned by a user of the container's.

        NotFound, InvalidArgument (no directory, read-only, no_overwrite), Corrupt, Unavailable (no room).
        """

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

    def put_layer(self, upper: str, lower: list[str], made: list[str]) -> tuple[str, int, str] | None:
        """Make a gzip layer of what a container's writable directory adds to the layers below it (top-most first):
        (blob digest, size, diff ID). None where that is nothing. made: paths that the engine makes for mounts.
        InvalidArgument for names that no layer can hold.
        """

    def put_archive(self, path: str) -> tuple[str, int, str, str]:
        """Take the archive of a root file system in as a layer's blob: (digest, size, diff ID, "gzip" or "zstd").

        The file goes, also where it is refused. Corrupt; what is in the archive is checked when it is unpacked.
        """

    def has_directory(self, lower: list[str], path: str) -> bool:
        """Whether image layers (top-most first) have a directory at a path, resolved as copy_up does."""

    def copy_up(self, lower: list[str], path: str, destination: str) -> bool:
        """Copy a directory's content from image layers (top-most first) to an empty directory,
        with owners, modes, times, xattrs and hard links. path is resolved inside the layers'
        merged view. False where the image has no such directory.
        """

    def remove_tree(self, path: str) -> None:
        """Move a directory below the data root to tmp/ and delete it there. One that is not there is no error;
        Conflict where something is mounted in it, InvalidArgument outside the data root.
        """

def changes(upper: str, lower: list[str], made: list[str]) -> list[tuple[bytes, int]]:
    """(path without its leading slash, kind) of what a container's writable directory changes of the layers below it.

    Kinds are the Engine API's: 0 modified, 1 added, 2 deleted. A directory comes before its content.
    """

def pack_local(parent: str, name: bytes, shown: bytes, descriptor: int, length: int) -> int:
    """Write what a directory of the user's own has under a name to a socket, as an archive whose paths begin with
    `shown`: the bytes written. In chunks (-1), without the last, or plain (-2).
    """

def unpack_local(target: str, body: Body, rename: tuple[bytes, bytes] | None = None) -> None:
    """Extract an archive to a directory of the user's own; paths that begin with rename[0] begin with rename[1]."""

def mount_volume(place: str, source: str, kind: str, flags: int, propagation: int, data: str) -> int:
    """Mount a file system at a directory, in the words of mount(2), unless something is mounted there: 0, or the errno
    of what was refused. May take as long as whoever serves the file system: for threads of their own.
    """

def unmount_volume(place: str) -> int:
    """Unmount what is mounted at a directory; nothing is fine: 0, or the errno of what was refused."""

def clone_volume(source: str, destination: str) -> None:
    """Copy a directory's content and its own attributes to an empty one, durably: blocks are shared where the file
    system can, holes stay holes. It may be written to meanwhile. After an error the destination holds a part.
    Unavailable (no room).
    """

def pack_volume(source: str, descriptor: int, length: int, packing: str) -> None:
    """Write a directory to a socket as an archive of "./...": plain (""), "gzip" or "zstd"; length as in View.pack."""

def fill_volume(destination: str, body: Body) -> None:
    """Extract an archive to an empty directory, durably; its entry "./" makes the directory what it says.

    After an error it holds a part. Corrupt (hostile or malformed), Unavailable (no room).
    """

def exchange(one: str, other: str) -> None:
    """Exchange two directories in one step, durably."""

def limit_project(paths: list[str], bytes: int) -> bool:
    """Limit all that will be below empty directories by a project quota; False where the file system keeps none."""

def project(path: str) -> int | None:
    """The project of ours that a directory belongs to."""

def forget_project(beside: str, id: int) -> None:
    """Take the limit of a project away whose files are gone. beside: any directory of the file system."""

def make_disk(path: str, bytes: int) -> None:
    """Make an ext4 file system for an empty directory, in a file `_disk` in it whose room is reserved.

    Unavailable where there is no room or no mkfs.ext4.
    """

def attach_disk(path: str) -> bool:
    """Mount the file system of a directory on it; False where it has none, or it is mounted (and so out of sight)."""

def detach_disk(path: str, *, lazily: bool = False) -> bool:
    """Unmount it; False where nothing is mounted. Conflict where it is in use; lazily, its users keep it."""
