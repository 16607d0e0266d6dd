"""Further processes in running containers.

Kept in memory: an exec is of no use after its container's end, and clients ask for its exit code right after its
streams have closed. Finished ones are dropped KEPT seconds later, or with their container.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from knarr.engine.containers import detach, launch, merge, spec
from knarr.engine.containers.capabilities import capabilities
from knarr.engine.supervisor import NotExecutable
from knarr.errors import Conflict, InvalidArgument, KnarrError, NotFound
from knarr.failpoints import reached
from knarr.store.containers import HOST_DEFAULTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from knarr.engine.containers.container import Container, Context

__all__ = ["Exec", "Execs", "Streams"]

log = logging.getLogger("knarr.containers")

KEPT = 300.0  # seconds


@dataclass(slots=True)
class Streams:
    """A client's connection, and what it wants of a process's streams."""

    fd: int  # stays the caller's to close
    stdin: bool
    stdout: bool
    stderr: bool
    multiplexed: bool
    detach_keys: list[int]
    initial: str  # base64 of the bytes that were read from the connection already
    history: dict[str, Any] | None = None  # a log to send first, as engine.containers.logs.readable gives it
    live: bool = True  # whether anything is to follow it

    def fields(self) -> dict[str, Any]:
        """As the supervisor takes them."""
        return {
            "stdin": self.stdin,
            "stdout": self.stdout,
            "stderr": self.stderr,
            "multiplexed": self.multiplexed,
            "detach_keys": self.detach_keys,
            "initial": self.initial,
            "history": self.history,
            "live": self.live,
        }


@dataclass(slots=True)
class Exec:
    """One exec; fields in the words of the API's ExecConfig."""

    id: str
    container_id: str
    command: list[str]
    env: list[str] | None
    user: str
    working_dir: str
    tty: bool
    stdin: bool
    stdout: bool
    stderr: bool
    privileged: bool
    detach_keys: str
    console_size: list[int]
    started: bool = False
    running: bool = False
    exit_code: int | None = None
    pid: int = 0
    finished: float = 0.0  # by the monotonic clock
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Execs:
    """Every exec of the engine, by ID."""

    def __init__(self, context: Context, find: Callable[[str], Container]) -> None:
        self._context = context
        self._find = find
        self._execs: dict[str, Exec] = {}

    def get(self, exec_id: str) -> Exec:
        """An exec by its ID. Raises NotFound in Docker's words."""
        found = self._execs.get(exec_id)
        if found is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return found

    def create(self, container: Container, **wanted: Any) -> Exec:
        """Note an exec; nothing runs yet."""
        container.must_run()
        if not wanted["command"]:
            raise InvalidArgument("No exec command specified")
        if wanted["detach_keys"]:
            try:
                detach.parse(wanted["detach_keys"])
            except InvalidArgument as error:
                raise InvalidArgument(f"Invalid escape keys ({wanted['detach_keys']}) provided") from error
        self._drop_old()
        made = Exec(secrets.token_hex(32), container.record.id, **wanted)
        self._execs[made.id] = made
        container.execs.add(made.id)
        self._announce(container, made, f"exec_create: {_words(made)}")
        return made

    async def start(self, made: Exec, streams: Streams | None, size: list[int] | None) -> None:
        """Run it, with a client's connection or detached. Conflict where it has run already."""
        container = self._find(made.container_id)
        container.must_run()
        if made.running:
            raise Conflict(f"Error: Exec command {made.id} is already running")
        if made.started:
            raise Conflict(f"Error: Exec command {made.id} has already run")
        made.started = made.running = True
        size = size or made.console_size
        fields: dict[str, Any] = {
            "container": container.record.id,
            "exec": made.id,
            "process": await self._process(container, made),
            "user": made.user or container.record.config["User"] or None,
            "terminal": made.tty,
            "size": size if made.tty and size and all(size) else None,
            "stdin": made.stdin and streams is not None,
        }
        if streams is not None:
            fields["attach"] = streams.fields()
        self._announce(container, made, f"exec_start: {_words(made)}")
        try:
            reached("container.exec.ask")
            answer = await self._context.supervisor.call("exec", fds=(streams.fd,) if streams else (), **fields)
        except BaseException as error:
            self._ended(made, error.exit_code if isinstance(error, NotExecutable) else 126)
            raise
        if made.running:
            made.pid = answer["pid"]
        reached("container.exec.answer")

    async def _process(self, container: Container, made: Exec) -> dict[str, Any]:
        record = container.record
        groups: list[int] = []
        if record.host["GroupAdd"]:
            groups = await asyncio.to_thread(launch.groups, self._context, record)
        process = spec.process(record, groups)
        process["args"] = made.command
        process["terminal"] = made.tty
        process["env"] = merge.environment(record.config, (["TERM=xterm"] if made.tty else []) + (made.env or []))
        if made.working_dir:
            process["cwd"] = made.working_dir
        if made.privileged:
            every = list(capabilities({**HOST_DEFAULTS, "Privileged": True}))  # type: ignore[typeddict-item]
            process["capabilities"] = {"bounding": every, "effective": every, "permitted": every}
        return process

    async def resize(self, exec_id: str, rows: int, columns: int) -> None:
        """Set the size of its terminal."""
        made = self.get(exec_id)
        if not made.running:
            raise Conflict(f"exec {exec_id} is not running")
        await self._context.supervisor.call(
            "resize", container=made.container_id, exec=made.id, rows=rows, cols=columns
        )

    def is_ending(self, made: Exec) -> bool:
        """Whether its end is on its way: a client may ask as soon as its connection has closed."""
        return made.running and made.pid > 0 and _gone(made.pid)

    async def settled(self, made: Exec) -> None:
        """Let an end that is on its way arrive."""
        try:
            await asyncio.wait_for(made.done.wait(), 2)
        except asyncio.TimeoutError:
            log.warning("exec %s is gone but its exit was not announced", made.id)

    def exited(self, event: dict[str, Any]) -> None:
        """An exit was announced."""
        reached("container.exec.forget")
        self._context.supervisor.tell("forget", container=event["container"], exec=event["exec"])
        made = self._execs.get(event["exec"])
        if made is None or not made.running:
            return
        self._ended(made, event["code"])
        try:
            container = self._find(made.container_id)
        except KnarrError:
            return  # removed in the meantime; nobody is left to tell
        self._announce(container, made, "exec_die", exitCode=str(event["code"]))

    def detached(self, event: dict[str, Any]) -> None:
        """A client used its detach keys."""
        made = self._execs.get(event.get("exec") or "")
        if made is not None:
            self._announce(self._find(made.container_id), made, "exec_detach")

    def _ended(self, made: Exec, code: int) -> None:
        made.running, made.exit_code, made.pid, made.finished = False, code, 0, time.monotonic()
        made.done.set()

    def of(self, container: Container) -> list[str]:
        """The execs of a container that run or wait to, as inspect lists them."""
        return [exec_id for exec_id in container.execs if self._execs[exec_id].running]

    def container_gone(self, container: Container) -> None:
        """Drop the execs of a container that is removed."""
        for exec_id in container.execs:
            self._execs.pop(exec_id, None)
        container.execs.clear()

    def container_ended(self, container: Container) -> None:
        """Its processes are gone with it: those whose exits were never announced as well."""
        for exec_id in container.execs:
            made = self._execs[exec_id]
            if made.running:
                self._ended(made, 137)

    def drop(self, made: Exec) -> None:
        """Forget one that nobody will ask for."""
        self._execs.pop(made.id, None)
        try:
            self._find(made.container_id).execs.discard(made.id)
        except KnarrError:
            return  # its container has gone and taken the set along

    def _drop_old(self) -> None:
        oldest = time.monotonic() - KEPT
        for made in list(self._execs.values()):
            if made.running or not made.finished or made.finished > oldest:
                break  # in the order of their making: later ones are younger
            self.drop(made)

    def _announce(self, container: Container, made: Exec, action: str, **attributes: str) -> None:
        self._context.announce(container, action, execID=made.id, **attributes)


def _words(made: Exec) -> str:
    """Its command as Docker's events have it: with the space behind the program, whatever follows."""
    return f"{made.command[0]} {' '.join(made.command[1:])}"


def _gone(pid: int) -> bool:
    """Whether a process has ended or is about to (proc_pid_stat(5): state, and PF_EXITING among the flags)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return True
    return fields[0] in (b"Z", b"X") or bool(int(fields[6]) & 4)
