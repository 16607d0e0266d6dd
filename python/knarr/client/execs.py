"""Commands run in running containers (Engine API: Exec)."""

from knarr.client.containers import path
from knarr.client.engine import Client
from knarr.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client.http import Connection


class Execs:
    """`Client.execs`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, container: str, body: "dict[str, Any]") -> str:
        """ContainerExec: the exec's ID. body: Cmd, AttachStdout, Tty, Env, User, WorkingDir ..."""
        return self._client.call("POST", path(container, "exec"), None, body)["Id"]  # type: ignore[no-any-return]

    def start(self, exec_id: str, *, tty: bool = False) -> None:
        """ExecStart, detached."""
        self._client.call("POST", f"/exec/{quote(exec_id)}/start", None, {"Detach": True, "Tty": tty})

    def send_start(self, exec_id: str, *, tty: bool = False, size: "list[int] | None" = None) -> "Connection":
        """Ask for ExecStart attached; `Client.receive_upgrade` of the connection then hands it over."""
        body: dict[str, Any] = {"Detach": False, "Tty": tty}
        if size:
            body["ConsoleSize"] = size
        return self._client.send_upgrade(f"/exec/{quote(exec_id)}/start", None, body)

    def inspect(self, exec_id: str) -> "dict[str, Any]":
        """ExecInspect: Running, ExitCode, Pid ..."""
        return self._client.call("GET", f"/exec/{quote(exec_id)}/json")  # type: ignore[no-any-return]

    def resize(self, exec_id: str, rows: int, columns: int) -> None:
        """ExecResize."""
        self._client.call("POST", f"/exec/{quote(exec_id)}/resize", {"h": rows, "w": columns})
