"""/exec, and the making of execs. The start takes the connection over (api/hijack.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from knarr.api import reply
from knarr.api.prompt import Answer, Asked, route
from knarr.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from knarr.engine.containers.execs import Exec
    from knarr.engine.engine import Engine

__all__ = ["routes"]


class _ExecConfig(TypedDict, total=False):
    AttachStdin: bool
    AttachStdout: bool
    AttachStderr: bool
    ConsoleSize: list[int] | None
    Detach: bool
    DetachKeys: str
    Tty: bool
    Env: list[str] | None
    Cmd: list[str]
    Privileged: bool
    User: str
    WorkingDir: str
    Container: str


_CONFIG: TypeAdapter[_ExecConfig] = TypeAdapter(_ExecConfig)


def routes(engine: Engine) -> list[web.RouteDef]:
    """The routes of execs."""
    containers = engine.containers

    def create(asked: Asked) -> Answer:
        container = containers.get(asked.name)
        body = {key: value for key, value in asked.json().items() if value is not None}
        for key in body.keys() - _ExecConfig.__annotations__.keys():
            if body[key] not in ("", 0, False, [], {}):
                raise InvalidArgument(f"{key} is not a field of an exec that knarr knows: leave it out")
        wanted = _CONFIG.validate_python(body, strict=True)
        for entry in wanted.get("Env") or ():
            if not entry or entry.startswith("=") or "\0" in entry:
                raise InvalidArgument(f"invalid environment variable: {entry!r}")
        if wanted.get("WorkingDir") and not wanted["WorkingDir"].startswith("/"):
            raise InvalidArgument(
                f"the working directory '{wanted['WorkingDir']}' is invalid, it needs to be an absolute path"
            )
        if any("\0" in word for word in wanted.get("Cmd") or ()):
            raise InvalidArgument("invalid command: it contains a NUL byte")
        made = containers.execs.create(
            container,
            command=list(wanted.get("Cmd") or ()),
            env=wanted.get("Env"),
            user=wanted.get("User", ""),
            working_dir=wanted.get("WorkingDir", ""),
            tty=wanted.get("Tty", False),
            stdin=wanted.get("AttachStdin", False),
            stdout=wanted.get("AttachStdout", False),
            stderr=wanted.get("AttachStderr", False),
            privileged=wanted.get("Privileged", False),
            detach_keys=wanted.get("DetachKeys", ""),
            console_size=wanted.get("ConsoleSize") or [],
        )
        return Answer(reply.encode({"Id": made.id}), 201)

    def inspect(asked: Asked) -> Answer | Awaitable[Answer]:
        made = containers.execs.get(asked.name)
        return settled(made) if containers.execs.is_ending(made) else Answer(reply.encode(_inspect(made)))

    async def settled(made: Exec) -> Answer:
        await containers.execs.settled(made)
        return Answer(reply.encode(_inspect(made)))

    async def resize(request: web.Request) -> web.StreamResponse:
        rows, columns = reply.integer(request.query, "h"), reply.integer(request.query, "w")
        if rows is None or columns is None or not (0 <= rows <= 65535 and 0 <= columns <= 65535):
            raise InvalidArgument("resize needs h and w, from 0 to 65535")
        await containers.execs.resize(request.match_info["id"], rows, columns)
        return reply.empty(200)

    return [
        route("POST", "/containers/{name}/exec", create),
        route("GET", "/exec/{name}/json", inspect),
        web.post("/exec/{id}/resize", resize),
    ]


def _inspect(made: Exec) -> dict[str, Any]:
    return {
        "ID": made.id,
        "Running": made.running,
        "ExitCode": made.exit_code,
        "ProcessConfig": {
            "tty": made.tty,
            "entrypoint": made.command[0],
            "arguments": made.command[1:],
            "privileged": made.privileged,
            "user": made.user,
        },
        "OpenStdin": made.stdin,
        "OpenStdout": made.stdout,
        "OpenStderr": made.stderr,
        "CanRemove": not made.running and made.started,
        "ContainerID": made.container_id,
        "DetachKeys": made.detach_keys,
        "Pid": made.pid,
    }
