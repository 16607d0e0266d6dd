"""Other limits, and another restart policy, for a container that exists.

The record is changed first, with a note where a control group has to follow; then the group, all of it or nothing (the
supervisor sees to that). What was refused is taken back; what a kill interrupted, the next daemon finishes.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from knarr.engine.containers import request, resources
from knarr.engine.supervisor import SupervisorLost
from knarr.errors import Conflict, InvalidArgument, KnarrError
from knarr.failpoints import reached
from knarr.store.containers import HOST_DEFAULTS

if TYPE_CHECKING:
    from knarr.engine.containers.container import Container, Context
    from knarr.store.containers import ContainerRecord, HostConfig

__all__ = ["FIELDS", "finish", "update"]

log = logging.getLogger("knarr.containers")

# What Docker updates: an empty value leaves the limit as it is.
FIELDS = (
    "BlkioWeight", "BlkioWeightDevice", "BlkioDeviceReadBps", "BlkioDeviceWriteBps", "BlkioDeviceReadIOps",
    "BlkioDeviceWriteIOps", "CpuShares", "NanoCpus", "CpuPeriod", "CpuQuota", "CpusetCpus", "CpusetMems", "Memory",
    "MemorySwap", "MemoryReservation", "CpuRealtimePeriod", "CpuRealtimeRuntime", "PidsLimit",
)  # fmt: skip
# Pairs of which one cannot be given where the other has been set, in Docker's order and words.
_CONFLICTS = (
    ("CpuPeriod", "NanoCpus", "Nano CPUs cannot be updated as CPU Period has already been set"),
    ("CpuQuota", "NanoCpus", "Nano CPUs cannot be updated as CPU Quota has already been set"),
    ("NanoCpus", "CpuPeriod", "CPU Period cannot be updated as NanoCPUs has already been set"),
    ("NanoCpus", "CpuQuota", "CPU Quota cannot be updated as NanoCPUs has already been set"),
)


async def update(context: Context, container: Container, given: dict[str, Any]) -> list[str]:
    """Apply what was given of HostConfig; warnings for whoever asked.

    Raises InvalidArgument for values that make no sense, Conflict for those that do not go with the container's own
    and for limits below what it uses, Unsupported for what the host lacks.
    """
    if unknown := {name for name, value in given.items() if value} - {*FIELDS, "RestartPolicy"}:
        name = min(unknown)
        raise InvalidArgument(
            f"{name} cannot be updated: leave it out, or make another container (it was {given[name]!r})"
        )
    asked: HostConfig = {**HOST_DEFAULTS, **given}  # type: ignore[typeddict-item]
    warnings: list[str] = []
    request.check_resources(asked, warnings, update=True)
    request.check_restart(asked)
    given = {name: asked[name] for name in given}  # type: ignore[literal-required]  # without what was discarded
    async with container.lock:
        record = container.record
        try:
            if container.removing:
                raise Conflict('container is marked for removal and cannot be "update"')
            before, after = record.host, merge(record.host, given)
            running = record.state.running
            reached("container.update.record")
            _store(context, record, after, pending=running)
            if running:
                try:
                    reached("container.update.ask")
                    answer = await context.supervisor.call("update", container=record.id, resources=limits(after))
                except BaseException:
                    _store(context, record, before, pending=False)
                    raise
                warnings += answer["warnings"]
                record.state.limits_pending = False
                context.states.store(record, at="container.update.applied")
        except KnarrError as error:
            raise type(error)(f"Cannot update container {record.id}: {error}") from error
    context.announce(container, "update")
    reached("container.update.answer")
    return warnings


def _store(context: Context, record: ContainerRecord, host: HostConfig, *, pending: bool) -> None:
    before = record.host, record.state.limits_pending
    record.host, record.state.limits_pending = host, pending
    try:
        with context.records.transaction():
            context.records.update_record(record)
            context.records.update_state(record)
    except BaseException:
        record.host, record.state.limits_pending = before
        raise


async def finish(context: Context, record: ContainerRecord) -> None:
    """Give a running container the limits that a daemon before this one had recorded and not set. While connecting."""
    try:
        await context.supervisor.ask("update", container=record.id, resources=limits(record.host))
    except SupervisorLost:
        raise
    except KnarrError as error:
        log.warning("container %s keeps other limits than it was to get: %s", record.id[:12], error)
    record.state.limits_pending = False
    context.states.store(record, at="container.update.finish")


def merge(host: HostConfig, given: dict[str, Any]) -> HostConfig:
    """A container's HostConfig with what was given. Raises Conflict in Docker's words."""
    for have, new, message in _CONFLICTS:
        if given.get(new, 0) > 0 and host[have] > 0:  # type: ignore[literal-required]
            raise Conflict(f"Conflicting options: {message}")
    memory = given.get("Memory") or 0
    if memory and host["MemorySwap"] != -1 and memory > host["MemorySwap"] and not given.get("MemorySwap"):
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    changed = {name: given[name] for name in FIELDS if given.get(name)}
    if given.get("PidsLimit") is not None:
        changed["PidsLimit"] = max(given["PidsLimit"], 0)
    policy = given.get("RestartPolicy") or {}
    if policy.get("Name"):
        if host["AutoRemove"] and policy["Name"] != "no":
            raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
        changed["RestartPolicy"] = {
            "Name": policy["Name"],
            "MaximumRetryCount": policy.get("MaximumRetryCount") or 0,
        }
    return {**host, **changed}  # type: ignore[typeddict-item]


def limits(host: HostConfig) -> dict[str, Any]:
    """`linux.resources` without devices, which says of every limit that may have been another before."""
    found = resources.resources(host, [])
    if host["PidsLimit"] is not None and host["PidsLimit"] <= 0:
        found["pids"] = {"limit": -1}
    return found
