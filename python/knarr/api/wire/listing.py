"""GET /containers/json: which containers are listed, and in which order."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knarr.api import reply
from knarr.api.wire.containers import SUMMARY, labels_match, status_text, summary
from knarr.errors import InvalidArgument, KnarrError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from knarr.engine.containers.container import Container
    from knarr.engine.engine import Engine
    from knarr.store.containers import ContainerRecord, HostConfig

__all__ = ["Listing", "line"]

FILTERS = {
    "ancestor", "annotation", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name",
    "network", "publish", "since", "status", "volume",
}  # fmt: skip
TURN = 200  # lines between which others get their turn
HEALTH = ("none", "starting", "healthy", "unhealthy")
STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
_TRUE, _FALSE = {"1", "true"}, {"0", "false"}


class Listing:
    """The list of one engine's containers; keeps each line as it was last encoded, until what it says has changed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lines: dict[str, _Line] = {}  # by ID; those of containers that are gone are dropped in time

    async def containers(self, query: Mapping[str, str], version: int) -> bytes:
        """JSON: the containers that a query asks for, newest first, as a version of the API shows them."""
        engine = self._engine
        filters = reply.filters(query, FILTERS)
        limit = reply.integer(query, "limit") or 0
        every = reply.flag(query, "all") or limit > 0 or bool(filters.get("status"))
        sizes = reply.flag(query, "size")
        tests = await _tests(engine, filters)
        names = _Names(engine)
        there = engine.containers.all()
        self._tidy(there)
        found: list[bytes] = []
        for container in reversed(there):
            record = container.record
            if not every and not (record.state.running or record.state.status == "restarting"):
                continue
            if tests and not all(test(record) for test in tests):
                continue
            if sizes:
                shown = SUMMARY.of(summary(engine, container, names.of(record)), version)
                shown["SizeRw"], shown["SizeRootFs"] = await engine.containers.sizes(container)
                found.append(_encode(shown))
            else:
                found.append(self._line(container, names, version))
            if limit > 0 and len(found) == limit:
                break
            if len(found) % TURN == 0:
                await asyncio.sleep(0)  # others are not to wait for a long list
        return b"[" + b",".join(found) + b"]\n"

    def _line(self, container: Container, names: _Names, version: int) -> bytes:
        """A line as it is now. What it is made of and may change is compared; what is replaced whole, by identity."""
        record = container.record
        state = record.state
        image = names.of(record)
        health = state.health
        says = (
            record.name,
            image,
            names.present(record.image_id),
            state.status,
            status_text(state),
            (health["status"], health["failing_streak"]) if health else None,
            *[endpoint["endpoint_id"] for endpoint in state.networks.values()],
        )
        kept = self._lines.get(record.id)
        if kept is None or kept.says != says or kept.ports is not state.ports or kept.host is not record.host:
            kept = self._lines[record.id] = _Line(says, state.ports, record.host, {})
        encoded = kept.encoded.get(version)
        if encoded is None:
            encoded = kept.encoded[version] = _encode(SUMMARY.of(summary(self._engine, container, image), version))
        return encoded

    def _tidy(self, there: list[Container]) -> None:
        if len(self._lines) > 2 * len(there):
            known = {container.record.id for container in there}
            self._lines = {key: kept for key, kept in self._lines.items() if key in known}


@dataclass(slots=True)
class _Line:
    says: tuple[Any, ...]
    ports: list[list[Any]]
    host: HostConfig
    encoded: dict[int, bytes]  # by version


def _encode(shown: dict[str, Any]) -> bytes:
    return json.dumps(shown, separators=(",", ":")).encode()


def line(engine: Engine, container: Container) -> dict[str, Any]:
    """One container in a list, with the fields of every version."""
    return summary(engine, container, _Names(engine).of(container.record))


class _Names:
    """The images of containers by the names that they were made from, looked up once an answer."""

    def __init__(self, engine: Engine) -> None:
        self._catalog = engine.images.catalog
        self._found: dict[str, str] = {}
        self._present: dict[str, bool] = {}

    def of(self, record: ContainerRecord) -> str:
        """The name it was made from, unless that means another image by now."""
        name = record.config["Image"]
        if not record.image_id:
            return name
        now = self._found.get(name)
        if now is None:
            try:
                now = self._catalog.find(name).id
            except KnarrError:
                now = ""
            self._found[name] = now
        return name if now == record.image_id else record.image_id

    def present(self, image_id: str) -> bool:
        """Whether the image is there still."""
        found = self._present.get(image_id)
        if found is None:
            found = self._present[image_id] = self._catalog.get(image_id) is not None
        return found


async def _tests(engine: Engine, filters: dict[str, list[str]]) -> list[Callable[[ContainerRecord], bool]]:
    tests: list[Callable[[ContainerRecord], bool]] = []
    for name, values in filters.items():
        if values and name not in ("expose", "publish"):
            tests.append(_simple(name, values) or await _looking_up(engine, name, values))
    exposed, published = (
        {port for value in filters.get(name, ()) for port in _ports(name, value)} for name in ("expose", "publish")
    )
    if exposed or published:  # either is enough, as with Docker
        tests.append(lambda record: _has_port(record, exposed, published))
    return tests


def _simple(name: str, values: list[str]) -> Callable[[ContainerRecord], bool] | None:
    if name == "id":
        return lambda record: any(record.id.startswith(value) for value in values)
    if name == "name":
        return _named(values)
    if name == "label":
        return lambda record: labels_match(values, record.config["Labels"] or {})
    if name == "annotation":
        return lambda record: labels_match(values, record.host["Annotations"] or {})
    if name == "status":
        for value in values:
            if value not in STATES:
                raise InvalidArgument(
                    f"invalid filter 'status={value}': invalid value for state ({value}): "
                    f"must be one of {', '.join(STATES)}"
                )
        return lambda record: record.state.status in values
    if name == "exited":
        codes = {_number(name, value) for value in values}
        return lambda record: (
            not record.state.running and record.state.started_ns > 0 and record.state.exit_code in codes
        )
    if name == "volume":
        return lambda record: any(
            point["destination"] in values or (point["name"] or point["source"]) in values for point in record.mounts
        )
    if name == "health":
        for value in values:
            if value not in HEALTH:
                raise InvalidArgument(
                    f"invalid filter 'health={value}': invalid value for health ({value}): "
                    f"must be one of {', '.join(HEALTH)}"
                )
        return lambda record: (record.state.health["status"] if record.state.health else "none") in values
    if name == "is-task":
        wanted = {value.lower() in _TRUE for value in values if value.lower() in _TRUE | _FALSE}
        if len(wanted) != 1 or any(value.lower() not in _TRUE | _FALSE for value in values):
            raise InvalidArgument(f"invalid filter 'is-task=[{' '.join(values)}]'")
        return lambda _: False in wanted  # there is no swarm whose tasks they could be
    if name == "isolation":
        return lambda _: True  # which only Windows has: Docker lists all
    return None


def _named(values: list[str]) -> Callable[[ContainerRecord], bool]:
    """Names that are, or hold, one of the values; a value that is no regular expression is only a name."""
    patterns = []
    for value in values:
        try:
            patterns.append(re.compile(value))
        except re.error:
            continue
    return lambda record: (
        record.name in values
        or f"/{record.name}" in values
        or any(pattern.search(record.name) or pattern.search(f"/{record.name}") for pattern in patterns)
    )


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
    other = [engine.containers.get(value).record for value in values][-1]
    if name == "before":
        return lambda record: record.created_ns < other.created_ns
    return lambda record: record.created_ns > other.created_ns


def _number(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise InvalidArgument(f"invalid filter '{name}={value}'") from None


def _ports(name: str, text: str) -> set[str]:
    """Every port of `80`, `80-90/tcp` or `53/udp`, with its protocol."""
    if ":" in text:
        raise InvalidArgument(f"filter for '{name}' should not contain ':': {text}")
    span, _, protocol = text.partition("/")
    first, _, last = span.partition("-")
    low, high = _number(name, first), _number(name, last or first)
    if not 0 <= low <= high <= 65535:
        raise InvalidArgument(f"error while looking up for {name} {text}: invalid port range")
    return {f"{port}/{protocol.lower() or 'tcp'}" for port in range(low, high + 1)}


def _has_port(record: ContainerRecord, exposed: set[str], published: set[str]) -> bool:
    for protocol, _, host_port, port in record.state.ports:
        if f"{host_port}/{protocol}" in published or f"{port}/{protocol}" in exposed:
            return True
    return any((port if "/" in port else f"{port}/tcp") in exposed for port in record.config["ExposedPorts"] or ())
