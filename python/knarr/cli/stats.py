"""`knarr stats`: what containers use, live on a terminal.

Every container has a stream of its own, read in one thread as they come: `select` says which has something. A row that
has heard nothing for PATIENCE seconds shows zeros, one whose container has gone goes with it.
"""

import time

from knarr.cli import human, terminal
from knarr.cli.command import FLAG, TEXT, Command, Option
from knarr.errors import KnarrError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from knarr.client import Client
    from knarr.client.http import Response

HEADERS = {
    "Container": "CONTAINER",
    "ID": "CONTAINER ID",
    "Name": "NAME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
}
_COLUMNS = ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"]
INTERVAL = 0.5  # seconds between pictures
PATIENCE = 2.0


def row(container: str, found: "dict[str, Any] | None", *, full: bool) -> "dict[str, str]":
    """What a template may say of one ContainerStatsResponse; dashes where there is none. container: as asked for."""
    if found is None:
        dashes = dict.fromkeys(("ID", "Name", "CPUPerc", "MemPerc", "NetIO", "BlockIO", "PIDs"), "--")
        return {"Container": container, **dashes, "MemUsage": "-- / --"}
    memory = found.get("memory_stats") or {}
    limit, used = memory.get("limit", 0), used_memory(memory)
    networks = (found.get("networks") or {}).values()
    received, sent = (sum(network[f"{way}_bytes"] for network in networks) for way in ("rx", "tx"))
    read, written = block_bytes((found.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ())
    return {
        "Container": container,
        "ID": found["id"] if full else human.short_id(found["id"]),
        "Name": found["name"].lstrip("/"),
        "CPUPerc": f"{processor_share(found):.2f}%",
        "MemUsage": f"{human.binary(used)} / {human.binary(limit)}",
        "MemPerc": f"{used / limit * 100 if limit else 0:.2f}%",
        "NetIO": f"{human.size(received, 3)} / {human.size(sent, 3)}",
        "BlockIO": f"{human.size(read, 3)} / {human.size(written, 3)}",
        "PIDs": str((found.get("pids_stats") or {}).get("current", 0)),
    }


def used_memory(memory: "dict[str, Any]") -> int:
    """Bytes without the page cache that could go at once (control groups of version 1, then of version 2)."""
    usage, counted = memory.get("usage", 0), memory.get("stats") or {}
    idle = counted.get("total_inactive_file", usage)
    if idle >= usage:
        idle = counted.get("inactive_file", 0)
    return int(usage - idle if idle < usage else usage)


def processor_share(found: "dict[str, Any]") -> float:
    """Percent of one processor, between the two times that an answer tells of."""
    now, before = found.get("cpu_stats") or {}, found.get("precpu_stats") or {}
    used = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    whole = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    if used <= 0 or whole <= 0:
        return 0.0
    processors = now.get("online_cpus") or len(now["cpu_usage"].get("percpu_usage") or ())
    return float(used / whole * processors * 100)


def block_bytes(entries: "Iterable[dict[str, Any]]") -> "tuple[int, int]":
    """(read, written): operations are told by their first letter."""
    read = written = 0
    for entry in entries:
        letter = entry["op"][:1].lower()
        read += entry["value"] if letter == "r" else 0
        written += entry["value"] if letter == "w" else 0
    return read, written


class Streams:
    """The streams of several containers, and of the events that bring others."""

    def __init__(self, client: "Client", *, every: bool) -> None:
        import select

        self._client = client
        self._every = every  # stopped ones as well
        self._poll = select.poll()
        self._in = select.POLLIN | select.POLLHUP
        self._responses: dict[int, tuple[str, Response]] = {}  # by descriptor; the events' have no name
        self._rests: dict[int, bytes] = {}
        self.found: dict[str, dict[str, Any] | None] = {}  # by container as it was asked for, in that order
        self._heard: dict[str, float] = {}

    def follow(self, container: str) -> None:
        """Show one more."""
        if container in self.found:
            return
        response = self._client.receive(self._client.containers.send_stats(container, stream=True))
        self.found[container] = None
        self._heard[container] = time.monotonic()
        self._add(container, response)

    def follow_all(self) -> None:
        """Show those that run, or all, and those that come."""
        self._add("", self._client.system.events(filters={"type": ["container"]}))
        for container in self._client.containers.list(all=self._every):
            self._try(container["Id"])

    def _try(self, container: str) -> None:
        try:
            self.follow(container)
        except KnarrError:
            return  # it has gone before it could be asked for

    def _add(self, name: str, response: "Response") -> None:
        descriptor = response.connection.socket.fileno()
        self._responses[descriptor] = name, response
        self._rests[descriptor] = b""
        self._poll.register(descriptor, self._in)
        if response.connection.buffered:
            self._read(descriptor)

    def wait(self, seconds: float) -> None:
        """Take what comes in so many seconds."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for descriptor, _ in self._poll.poll(left * 1000):
                self._read(descriptor)
        for name, heard in self._heard.items():
            if heard < end - PATIENCE:
                self.found[name] = None

    def settle(self) -> None:
        """Wait until each has been heard of, or for PATIENCE seconds."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and None in self.found.values():
            self.wait(0.05)

    def _read(self, descriptor: int) -> None:
        from knarr.client.codec import loads

        name, response = self._responses[descriptor]
        while True:
            piece = response.piece()
            if not piece:
                self._end(descriptor, name)
                return
            *whole, self._rests[descriptor] = (self._rests[descriptor] + piece).split(b"\n")
            for line in whole:
                if line.strip():
                    self._take(name, loads(line))
            if not response.connection.buffered:
                return

    def _take(self, name: str, value: "dict[str, Any]") -> None:
        if name:
            self._heard[name] = time.monotonic()
            if name in self.found:
                self.found[name] = value
            return
        identity, action = value["Actor"]["ID"], value["Action"]
        if action == "start" or (action == "create" and self._every):
            self._try(identity)
        elif action == "destroy" or (action == "die" and not self._every):
            self._drop(identity)

    def _drop(self, name: str) -> None:
        self.found.pop(name, None)
        self._heard.pop(name, None)
        for descriptor, (known, response) in list(self._responses.items()):
            if known == name:
                self._end(descriptor, name)
                response.close()

    def _end(self, descriptor: int, name: str) -> None:
        self._poll.unregister(descriptor)
        del self._responses[descriptor], self._rests[descriptor]
        self.found.pop(name, None)
        self._heard.pop(name, None)


def _stats(client: "Client", options: "dict[str, Any]", names: "list[str]") -> int:
    from knarr.cli.listing import lines

    def picture(found: "dict[str, dict[str, Any] | None]") -> "list[str]":
        full = options["no_trunc"]
        rows = [row(name if names else human.short_id(name), value, full=full) for name, value in found.items()]
        return lines(rows, HEADERS, _COLUMNS, options["format"])

    if options["no_stream"]:
        for line in picture(_once(client, names, every=options["all"])):
            terminal.show(line)
        return 0
    streams = Streams(client, every=options["all"])
    for name in names:
        streams.follow(name)
    if not names:
        streams.follow_all()
    streams.settle()
    while streams.found or not names:
        _draw(picture(streams.found))
        streams.wait(INTERVAL)
    _draw([])
    return 0


def _once(client: "Client", names: "list[str]", *, every: bool) -> "dict[str, dict[str, Any] | None]":
    """All of them at the same time: each takes two samples."""
    given = names or [container["Id"] for container in client.containers.list(all=every)]
    asked = [(name, client.containers.send_stats(name, stream=False)) for name in dict.fromkeys(given)]
    found: dict[str, dict[str, Any] | None] = {}
    for name, connection in asked:
        try:
            found[name] = client.receive(connection).json()
        except KnarrError:
            if names:
                raise
    return found


def _draw(picture: "list[str]") -> None:
    """One picture over the last; what is no terminal gets one after the other."""
    if terminal.is_terminal(terminal.STDOUT):
        text = "\033[H" + "".join(f"{line}\033[K\n" for line in picture) + "\033[J"
    else:
        text = "".join(f"{line}\n" for line in picture)
    terminal.write(terminal.STDOUT, text.encode(errors="replace"))


STATS = Command(
    "stats",
    _stats,
    text="Show a live stream of what containers use",
    usage="[CONTAINER...]",
    example="knarr stats --no-stream --format '{{.Name}}: {{.CPUPerc}}'",
    complete="alive",
    options=(
        Option("-a --all", FLAG, "Show all containers (default: those that run)"),
        Option("--format", TEXT, "Format: table, json, or a Go template"),
        Option("--no-stream", FLAG, "Only show the first result"),
        Option("--no-trunc", FLAG, "Don't cut long values"),
    ),
)
