"""Swarm mode and plugins, which there are none of: /swarm, /nodes, /services, /tasks, /secrets, /configs, /plugins.

A Docker that is in no swarm answers most of it with 503 and one sentence, which clients know; a request that is wrong
in itself is told so first. What would make it a member of a swarm, or get it a plugin, is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from knarr.api import reply
from knarr.errors import InvalidArgument, NotFound, Unavailable, Unsupported

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from knarr.engine.engine import Engine

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

__all__ = ["routes"]

NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)
NO_MEMBER = "This node is not part of a swarm"
KINDS = {  # and the filters that its list knows
    "nodes": {"id", "label", "membership", "name", "node.label", "role"},
    "services": {"id", "label", "mode", "name", "runtime"},
    "tasks": {"_up-to-date", "desired-state", "id", "label", "name", "node", "runtime", "service"},
    "secrets": {"id", "label", "name", "names"},
    "configs": {"id", "label", "name", "names"},
}
PLUGIN_FILTERS = {"capability", "enabled"}


def routes(_: Engine) -> list[web.RouteDef]:
    """The routes of swarm mode and of plugins."""
    found = [
        web.get("/swarm", _no_manager),
        web.get("/swarm/unlockkey", _no_manager),
        web.post("/swarm/init", _refusal("swarm mode: knarr is an engine of one node")),
        web.post("/swarm/join", _refusal("swarm mode: knarr is an engine of one node")),
        web.post("/swarm/leave", _no_member),
        web.post("/swarm/unlock", _changed("")),
        web.post("/swarm/update", _changed("swarm")),
        web.get("/services/{id}/logs", _logs),
        web.get("/tasks/{id}/logs", _logs),
    ]
    for kind, filters in KINDS.items():
        found += [web.get(f"/{kind}", _listed(filters)), web.get(f"/{kind}/{{id}}", _no_manager)]
        if kind == "tasks":
            continue
        found += [
            web.delete(f"/{kind}/{{id}}", _no_manager),
            web.post(f"/{kind}/{{id}}/update", _changed(kind.removesuffix("s"))),
        ]
        if kind != "nodes":
            found.append(web.post(f"/{kind}/create", _changed("")))
    name = "/plugins/{name:.+}"
    return [
        *found,
        web.get("/plugins", _plugins),
        web.get("/plugins/privileges", _refusal("plugins")),
        web.post("/plugins/pull", _refusal("plugins")),
        web.post("/plugins/create", _refusal("plugins")),
        web.get(f"{name}/json", _no_plugin),
        web.delete(name, _no_plugin),
        *(web.post(f"{name}/{verb}", _no_plugin) for verb in ("enable", "disable", "push", "set", "upgrade")),
    ]


def _refusal(what: str) -> Handler:
    async def refuse(_: web.Request) -> web.StreamResponse:
        raise Unsupported(f"knarr does not support {what}")

    return refuse


async def _no_manager(_: web.Request) -> web.StreamResponse:
    raise Unavailable(NO_MANAGER)


async def _no_member(_: web.Request) -> web.StreamResponse:
    raise Unavailable(NO_MEMBER)


def _listed(known: set[str]) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        reply.filters(request.query, known)
        raise Unavailable(NO_MANAGER)

    return answer


def _changed(versioned: str) -> Handler:
    """A body, and the version of the thing where it has one, are read before the swarm is looked for."""

    async def answer(request: web.Request) -> web.StreamResponse:
        await reply.body(request, optional=True)
        version = request.query.get("version", "")
        if versioned and not (version.isascii() and version.isdigit() and int(version) < 1 << 64):
            raise InvalidArgument(
                f"invalid {versioned} version '{version}': strconv.ParseUint: parsing \"{version}\": invalid syntax"
            )
        raise Unavailable(NO_MANAGER)

    return answer


async def _logs(request: web.Request) -> web.StreamResponse:
    if not reply.flag(request.query, "stdout") and not reply.flag(request.query, "stderr"):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    raise Unavailable(NO_MANAGER)


async def _plugins(request: web.Request) -> web.StreamResponse:
    reply.filters(request.query, PLUGIN_FILTERS)
    return reply.reply([])


async def _no_plugin(request: web.Request) -> web.StreamResponse:
    raise NotFound(f'plugin "{request.match_info["name"]}" not found')
