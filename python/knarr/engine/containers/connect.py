"""Joining networks and leaving them, whether the container runs or not.

What is meant is stored before the supervisor is asked for it (`pending`), and asked for again by whoever finds it so:
a daemon that ends between the two leaves nothing in between.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from knarr.engine.containers import endpoints, launch, published
from knarr.engine.supervisor import SupervisorLost
from knarr.errors import Conflict, InvalidArgument, KnarrError, NotFound, PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from knarr.engine.containers.container import Container, Context
    from knarr.engine.containers.links import Links
    from knarr.store.containers import ContainerRecord, Endpoint
    from knarr.store.networks import NetworkRecord

    Ask = Callable[..., Awaitable[dict[str, Any]]]

__all__ = ["announce", "connect", "disconnect", "finish", "rename"]

log = logging.getLogger("knarr.containers")


async def connect(
    context: Context, links: Links, container: Container, network: NetworkRecord, settings: dict[str, Any]
) -> None:
    """Put a container on a network. InvalidArgument, PermissionDenied, Conflict; NotFound where the network goes."""
    record = container.record
    async with container.lock:
        _may_change(container, network, "connect container to")
        if network.name in record.state.networks:
            raise PermissionDenied(f"endpoint with name {record.name} already exists in network {network.name}")
        if not context.networks.has_addresses(network):
            raise InvalidArgument(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode"
            )
        endpoints.check_limit(record, network)
        endpoint = endpoints.make(context.networks, network, settings)
        if not record.state.running:
            record.state.networks[network.name] = endpoint
            context.states.store(record, at="container.connect.record")
            return
        context.networks.join(endpoint)
        endpoints.add_interface(record, endpoint)
        endpoint["pending"] = "connect"
        record.state.networks[network.name] = endpoint
        try:
            context.states.store(record, at="container.connect.record")
            await _connect(context, _insistent(context), record, endpoint)
        except BaseException:
            _drop(context, record, network.name)
            raise
        _done(context, record, endpoint)
        launch.write_hosts(context, record, links)
        announce(context, record, network, "connect")


async def disconnect(context: Context, links: Links, container: Container, network: NetworkRecord) -> None:
    """Take a container off a network. Raises as `connect`; NotFound where it is not on it."""
    record = container.record
    async with container.lock:
        _may_change(container, network, "disconnect container from")
        endpoint = record.state.networks.get(network.name)
        if endpoint is None:
            raise NotFound(f"container {record.id} is not connected to network {network.name}")
        if not (record.state.running and endpoints.has_joined(endpoint)):
            _drop(context, record, network.name)
            return
        endpoint["pending"] = "disconnect"
        context.states.store(record, at="container.disconnect.record")
        try:
            await _disconnect(_insistent(context), record, endpoint)
        except KnarrError:
            endpoint.pop("pending", None)
            context.states.store(record, at="container.disconnect.record")
            raise
        announce(context, record, network, "disconnect")
        _drop(context, record, network.name)
        launch.write_hosts(context, record, links)


async def finish(context: Context, links: Links, record: ContainerRecord) -> None:
    """Bring about what a daemon before this one had begun: while the connection to the supervisor is being made."""
    for name, endpoint in list(record.state.networks.items()):
        pending = endpoint.get("pending")
        if pending is None:
            continue
        log.info("container %s: %s of network %s is finished", record.id[:12], pending, name)
        try:
            if pending == "connect":
                await _connect(context, context.supervisor.ask, record, endpoint)
            else:
                await _disconnect(context.supervisor.ask, record, endpoint)
        except KnarrError as error:
            log.warning("container %s: %s of network %s failed: %s", record.id[:12], pending, name, error)
            pending = "disconnect"
        if pending == "disconnect":
            _drop(context, record, name)
        else:
            _done(context, record, endpoint)
        launch.write_hosts(context, record, links)


async def rename(context: Context, record: ContainerRecord) -> None:
    """Have a running container's new name be found on its networks."""
    named = {
        endpoint["network_id"]: endpoints.dns_names(record, endpoint)
        for name, endpoint in endpoints.in_order(record)
        if endpoints.is_user_defined(name)
    }
    if named and record.state.running:
        try:
            await context.supervisor.call("names", container=record.id, names=named)
        except KnarrError as error:  # it has its new name, which is what was asked for
            log.warning("container %s is not found by the name %s yet: %s", record.id[:12], record.name, error)


def _may_change(container: Container, network: NetworkRecord, doing: str) -> None:
    record = container.record
    mode = record.host["NetworkMode"]
    if container.removing:
        raise Conflict("container is marked for removal and cannot be connected or disconnected to the network")
    if mode.startswith("container:"):
        raise InvalidArgument(
            "container sharing network namespace with another container or host "
            "cannot be connected to any other network"
        )
    if mode == "host" or network.driver == "host":
        raise InvalidArgument(f"cannot {doing} host network - container must be created in host network mode")
    if "none" in record.state.networks and network.name != "none":
        raise InvalidArgument(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode: "
            "disconnect it from none first"
        )


def _insistent(context: Context) -> Ask:
    """Asks once more where the supervisor dies over it: what is done already is found done."""

    async def ask(op: str, **fields: Any) -> dict[str, Any]:
        try:
            return await context.supervisor.call(op, **fields)
        except SupervisorLost:
            await context.supervisor.ready()
            return await context.supervisor.call(op, **fields)

    return ask


async def _connect(context: Context, ask: Ask, record: ContainerRecord, endpoint: Endpoint) -> None:
    name = context.networks.by_id(endpoint["network_id"]).name
    answer = await ask(
        "connect",
        container=record.id,
        interface=launch.interface(context, record, name, endpoint),
        **endpoints.ways_out(record),
        dns=launch.dns(context, record),
        ports=published.ports(context, record, endpoints.gateways(record)),
    )
    record.state.ports = published.chosen(answer["ports"])


async def _disconnect(ask: Ask, record: ContainerRecord, endpoint: Endpoint) -> None:
    await ask(
        "disconnect",
        container=record.id,
        network=endpoint["network_id"],
        **endpoints.ways_out(record, endpoint),
    )


def _drop(context: Context, record: ContainerRecord, name: str) -> None:
    endpoint = record.state.networks.pop(name)
    context.networks.leave(endpoint)
    context.states.store(record, at="container.disconnect.done")


def _done(context: Context, record: ContainerRecord, endpoint: Endpoint) -> None:
    endpoint.pop("pending", None)
    context.states.store(record, at="container.connect.done")


def announce(context: Context, record: ContainerRecord, network: NetworkRecord, action: str) -> None:
    """Tell that a container is on a network, or is no more."""
    attributes = {"container": record.id, "name": network.name, "type": network.driver}
    context.events.emit("network", action, network.id, attributes)
