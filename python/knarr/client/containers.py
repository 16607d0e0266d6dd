"""Containers (Engine API: Container). A container is named by ID, by a prefix of it that is unique, or by name."""

from knarr.client.codec import loads
from knarr.client.engine import Client, encode_filters
from knarr.client.http import quote
from knarr.errors import NotModified

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from knarr.client.engine import Filters, Objects
    from knarr.client.http import Connection, Response


def path(container: str, action: str = "") -> str:
    """The path of a container, or of something to be done to it."""
    return f"/containers/{quote(container)}{'/' if action else ''}{action}"


def _stat(response: "Response") -> "dict[str, Any]":
    from binascii import a2b_base64

    found: dict[str, Any] = loads(a2b_base64(response.headers["x-docker-container-path-stat"]))
    return found


class Containers:
    """`Client.containers`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(
        self, body: "dict[str, Any]", name: "str | None" = None, platform: "str | None" = None
    ) -> "dict[str, Any]":
        """ContainerCreate: {"Id", "Warnings"}. NotFound without the image, Conflict where the name is taken."""
        return self._client.receive(self.send_create(body, name, platform)).json()  # type: ignore[no-any-return]

    def send_create(
        self, body: "dict[str, Any]", name: "str | None" = None, platform: "str | None" = None
    ) -> "Connection":
        """Ask for ContainerCreate; `Client.receive` of the connection then has the answer."""
        return self._client.send("POST", "/containers/create", {"name": name, "platform": platform}, body)

    def start(self, container: str, detach_keys: "str | None" = None) -> bool:
        """ContainerStart: False where it ran already."""
        try:
            self._client.call("POST", path(container, "start"), {"detachKeys": detach_keys})
        except NotModified:
            return False
        return True

    def stop(self, container: str, timeout: "int | None" = None, signal: "str | None" = None) -> bool:
        """ContainerStop: the stop signal, after `timeout` seconds SIGKILL (-1: never). False where it did not run."""
        return self._end(container, "stop", timeout, signal)

    def restart(self, container: str, timeout: "int | None" = None, signal: "str | None" = None) -> None:
        """ContainerRestart."""
        self._end(container, "restart", timeout, signal)

    def _end(self, container: str, action: str, timeout: "int | None", signal: "str | None") -> bool:
        try:
            self._client.call("POST", path(container, action), {"t": timeout, "signal": signal})
        except NotModified:
            return False
        return True

    def kill(self, container: str, signal: "str | int | None" = None) -> None:
        """ContainerKill: SIGKILL, or another signal by name or number. Conflict where it does not run."""
        self._client.call("POST", path(container, "kill"), {"signal": signal})

    def pause(self, container: str) -> None:
        """ContainerPause."""
        self._client.call("POST", path(container, "pause"))

    def unpause(self, container: str) -> None:
        """ContainerUnpause."""
        self._client.call("POST", path(container, "unpause"))

    def rename(self, container: str, name: str) -> None:
        """ContainerRename."""
        self._client.call("POST", path(container, "rename"), {"name": name})

    def remove(self, container: str, *, force: bool = False, volumes: bool = False, link: bool = False) -> None:
        """ContainerDelete; with force a running one too, with volumes its anonymous volumes; with link "name/alias"."""
        place = "/".join(map(quote, container.split("/"))) if link else quote(container)
        self._client.call("DELETE", f"/containers/{place}", {"force": force, "v": volumes, "link": link or None})

    def list(
        self,
        *,
        all: bool = False,
        limit: "int | None" = None,
        size: bool = False,
        filters: "Filters | None" = None,
    ) -> "Objects":
        """ContainerList: the running ones, or all, newest first."""
        parameters = {"all": all, "limit": limit, "size": size, "filters": encode_filters(filters)}
        return self._client.call("GET", "/containers/json", parameters)  # type: ignore[no-any-return]

    def inspect(self, container: str, *, size: bool = False) -> "dict[str, Any]":
        """ContainerInspect."""
        return self._client.call("GET", path(container, "json"), {"size": size})  # type: ignore[no-any-return]

    def top(self, container: str, ps_args: "str | None" = None) -> "dict[str, Any]":
        """ContainerTop: {"Titles", "Processes"}."""
        return self._client.call("GET", path(container, "top"), {"ps_args": ps_args})  # type: ignore[no-any-return]

    def update(self, container: str, body: "dict[str, Any]") -> "dict[str, Any]":
        """ContainerUpdate: {"Warnings"}. body: Resources, and RestartPolicy."""
        return self._client.call("POST", path(container, "update"), body=body)  # type: ignore[no-any-return]

    def send_stats(self, container: str, *, stream: bool) -> "Connection":
        """Ask for ContainerStats, once (of two samples) or as a stream; `Client.receive` then has the answer."""
        return self._client.send("GET", path(container, "stats"), {"stream": "true" if stream else "false"})

    def resize(self, container: str, rows: int, columns: int) -> None:
        """ContainerResize."""
        self._client.call("POST", path(container, "resize"), {"h": rows, "w": columns})

    def prune(self, filters: "Filters | None" = None) -> "dict[str, Any]":
        """ContainerPrune: {"ContainersDeleted", "SpaceReclaimed"}."""
        return self._client.call("POST", "/containers/prune", {"filters": encode_filters(filters)})  # type: ignore[no-any-return]

    def wait(self, container: str, condition: "str | None" = None) -> "dict[str, Any]":
        """ContainerWait: {"StatusCode", "Error"}. condition: "not-running" (the default), "next-exit", "removed"."""
        return self._client.receive(self.send_wait(container, condition)).json()  # type: ignore[no-any-return]

    def send_wait(self, container: str, condition: "str | None" = None) -> "Connection":
        """Ask to wait; `Client.receive` of the connection then waits."""
        return self._client.send("POST", path(container, "wait"), {"condition": condition})

    def logs(
        self,
        container: str,
        *,
        stdout: bool = True,
        stderr: bool = True,
        follow: bool = False,
        since: "str | None" = None,
        until: "str | None" = None,
        timestamps: bool = False,
        details: bool = False,
        tail: "str | None" = None,
    ) -> "Response":
        """ContainerLogs, as a stream: `knarr.client.frames` takes it apart unless the container has a terminal.

        A frame has as many entries as come at once.
        """
        parameters = {
            "stdout": stdout,
            "stderr": stderr,
            "follow": follow,
            "since": since,
            "until": until,
            "timestamps": timestamps,
            "details": details,
            "tail": tail,
            "merge": True,  # knarr's own: Docker frames each entry, which costs a reader more than the entry
        }
        return self._client.request("GET", path(container, "logs"), parameters)

    def changes(self, container: str) -> "Objects":
        """ContainerChanges: [{"Path", "Kind"}, ...], kind 0 modified, 1 added, 2 deleted."""
        return self._client.call("GET", path(container, "changes")) or []

    def export(self, container: str) -> "Response":
        """ContainerExport: a tar archive of its root file system, as a stream."""
        return self._client.request("GET", path(container, "export"))

    def stat_path(self, container: str, place: str) -> "dict[str, Any]":
        """ContainerArchiveInfo: name, size, mode (of Go's io/fs), mtime, linkTarget. NotFound."""
        response = self._client.request("HEAD", path(container, "archive"), {"path": place})
        response.read()
        return _stat(response)

    def get_archive(self, container: str, place: str) -> "tuple[Response, dict[str, Any]]":
        """ContainerArchive: a tar archive of what is at a path as a stream, and what that is."""
        response = self._client.request("GET", path(container, "archive"), {"path": place})
        return response, _stat(response)

    def put_archive(
        self,
        container: str,
        place: str,
        archive: "Iterable[bytes] | Callable[[int], None]",
        *,
        copy_uid_gid: bool = False,
    ) -> None:
        """PutContainerArchive: extract a tar archive to a directory. A function writes it to a socket, in chunks."""
        parameters: dict[str, str | int | bool | None] = {"path": place, "noOverwriteDirNonDir": "true"}
        parameters["copyUIDGID"] = copy_uid_gid
        headers = {"Content-Type": "application/x-tar"}
        self._client.request("PUT", path(container, "archive"), parameters, archive, headers).read()

    def send_attach(
        self,
        container: str,
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        logs: bool = False,
        detach_keys: "str | None" = None,
    ) -> "Connection":
        """Ask for ContainerAttach; `Client.receive_upgrade` of the connection then hands it over."""
        parameters = {"stream": True, "stdin": stdin, "stdout": stdout, "stderr": stderr, "logs": logs}
        return self._client.send_upgrade(path(container, "attach"), {**parameters, "detachKeys": detach_keys})
