"""GET /containers/json: which containers are listed, and in which order."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from knarr.api import reply
from knarr.api.wire.containers import SUMMARY, labels_match, summary
from knarr.errors import InvalidArgument, KnarrError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from knarr.engine.containers.container import Container
    from knarr.engine.engine import Engine
    from knarr.store.containers import ContainerRecord

__all__ = ["containers", "line"]

FILTERS = {
    "ancestor", "annotation", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name",
    "network", "publish", "since", "status", "volume",
}  # fmt: skip
HEALTH = ("none", "starting", "healthy", "unhealthy")
STATES = {"created", "restarting", "running", "removing", "paused", "exited", "dead"}


async def containers(engine: Engine, query: Mapping[str, str], version: int) -> list[dict[str, Any]]:
    """The containers that a query asks for, newest first, as a version of the API shows them."""
    filters = reply.filters(query, FILTERS)
    limit = reply.integer(query, "limit") or 0
    every = reply.flag(query, "all") or limit > 0
    sizes = reply.flag(query, "size")
    if "status" in filters or "exited" in filters:
        every = True
    found = reversed(engine.containers.all())
    tests = await _tests(engine, filters)
    answer: list[dict[str, Any]] = []
    for container in found:
        state = container.record.state
        if not every and not (state.running or state.status == "restarting"):
            continue
        if not all(test(container.record) for test in tests):
            continue
        shown = line(engine, container)
        if sizes:
            shown["SizeRw"], shown["SizeRootFs"] = await engine.containers.sizes(container)
        answer.append(SUMMARY.of(shown, version))
        if limit and len(answer) == limit:
            break
    return answer


def line(engine: Engine, container: Container) -> dict[str, Any]:
    """One container in a list, with the fields of every version."""
    return summary(engine, container, _image_name(engine, container))


def _image_name(engine: Engine, container: Container) -> str:
    """The name it was made from, unless that means another image by now."""
    record = container.record
    name = record.config["Image"]
    if not record.image_id:
        return name
    try:
        now = engine.images.catalog.find(name)
    except KnarrError:
        return record.image_id
    return name if now.id == record.image_id else record.image_id


async def _tests(engine: Engine, filters: dict[str, list[str]]) -> list[Callable[[ContainerRecord], bool]]:
    tests: list[Callable[[ContainerRecord], bool]] = []
    for name, values in filters.items():
        if not values:
            continue
        test = _simple(name, values)
        if test is None:
            test = await _looking_up(engine, name, values)
        tests.append(test)
    return tests


def _simple(name: str, values: list[str]) -> Callable[[ContainerRecord], bool] | None:
    if name == "id":
        return lambda record: any(record.id.startswith(value) for value in values)
    if name == "name":
        try:
            patterns = [re.compile(value) for value in values]
        except re.error as error:
            raise InvalidArgument(f"invalid filter 'name': {error}") from None
        return lambda record: any(
            pattern.search(record.name) or pattern.search("/" + record.name) for pattern in patterns
        )
    if name == "label":
        return lambda record: labels_match(values, record.config["Labels"] or {})
    if name == "annotation":
        return lambda record: labels_match(values, record.host["Annotations"] or {})
    if name == "status":
        for value in values:
            if value not in STATES:
                raise InvalidArgument(f"invalid filter 'status={value}'")
        return lambda record: record.state.status in values
    if name == "exited":
        codes = {_number(name, value) for value in values}
        return lambda record: record.state.status == "exited" and record.state.exit_code in codes
    if name == "volume":
        return lambda record: any(point["name"] in values or point["destination"] in values for point in record.mounts)
    if name == "expose":
        return lambda record: any(
            _is_port(value, port) for value in values for port in record.config["ExposedPorts"] or ()
        )
    if name == "publish":
        return lambda record: any(
            _is_port(value, f"{port}/{protocol}") for value in values for protocol, _, port, _ in record.state.ports
        )
    if name == "health":
        for value in values:
            if value not in HEALTH:
                raise InvalidArgument(f"invalid value for health ({value}): must be one of {', '.join(HEALTH)}")
        return lambda record: (record.state.health["status"] if record.state.health else "none") in values
    if name == "is-task":
        return lambda _: "false" in values or "0" in values
    if name == "isolation":
        return lambda _: "default" in values
    return None


async def _looking_up(engine: Engine, name: str, values: list[str]) -> Callable[[ContainerRecord], bool]:
    if name == "network":
        networks = set(values)
        return lambda record: any(
            key in networks or any(endpoint["network_id"].startswith(value) for value in networks)
            for key, endpoint in record.state.networks.items()
        )
    if name == "ancestor":
        images = set()
        for value in values:
            try:
                images.add((await engine.images.resolve(value)).id)
            except KnarrError:
                continue  # an ancestor that is not here has no descendants
        return lambda record: record.image_id in images
    other = engine.containers.get(values[0]).record
    if name == "before":
        return lambda record: record.created_ns < other.created_ns
    return lambda record: record.created_ns > other.created_ns


def _number(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise InvalidArgument(f"invalid filter '{name}={value}'") from None


def _is_port(wanted: str, port: str) -> bool:
    """Whether `80`, `80-90/tcp` or `53/udp` holds a port such as `80/tcp`."""
    span, _, protocol = wanted.partition("/")
    first, _, last = span.partition("-")
    number, _, kind = port.partition("/")
    return (protocol or "tcp") == (kind or "tcp") and _number("port", first) <= int(number) <= _number(
        "port", last or first
    )
