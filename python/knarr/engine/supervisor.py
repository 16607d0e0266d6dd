"""The client of knarr-supervisor (ARCHITECTURE.md, The supervisor's protocol).

One connection for everything. A request is answered in its own time; events are handed to
`on_event` in the order in which they came, from the event loop, before any later answer.

A lost connection fails what was under way with `SupervisorLost` and is made again at once: the
keeper holds the listening socket and starts another supervisor, and where nothing listens we start
one. Whoever must know what survived is called back (`on_connect`) with the answer to `hello`,
before new requests are let through.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections import deque
from typing import TYPE_CHECKING, Any

from knarr import errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["NotExecutable", "Supervisor", "SupervisorLost", "program"]

log = logging.getLogger("knarr.supervisor")

PACKET = 128 * 1024  # bytes of the largest packet
PATIENCE = 10.0  # seconds for a supervisor to come up
NAME = "knarr-supervisor"


class SupervisorLost(errors.Unavailable):
    """The connection broke before the answer came: what was asked may have been done or not."""


def program() -> str:
    """The path of the supervisor's program. Raises Unavailable where it is not installed."""
    named = os.environ.get("KNARR_SUPERVISOR")
    if named:
        return named
    for directory in (os.path.dirname(sys.executable), sysconfig.get_path("scripts")):
        candidate = os.path.join(directory, NAME)
        if os.access(candidate, os.X_OK):
            return candidate
    found = shutil.which(NAME)
    if found is None:
        raise errors.Unavailable(
            f"{NAME} is neither beside {sys.executable} nor on PATH: install knarr from its wheel, "
            "or name the program in KNARR_SUPERVISOR"
        )
    return found


class NotExecutable(errors.InvalidArgument):
    """The program that a container or an exec was to run cannot be run; exit_code is 126 or 127, as of a shell."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Supervisor:
    """A connection to the engine's supervisor, kept up."""

    def __init__(
        self,
        run_root: str,
        data_root: str,
        on_event: Callable[[dict[str, Any]], None],
        on_connect: Callable[[dict[str, Any]], Awaitable[None]],
        open_files: int,
    ) -> None:
        self._run_root = run_root
        self._data_root = data_root
        self._on_event = on_event
        self._on_connect = on_connect
        self._open_files = open_files
        self._path = f"{run_root}/supervisor.sock"
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop
        self._next = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._outgoing: deque[tuple[bytes, list[int]]] = deque()
        self._ready = asyncio.Event()
        self._reconnecting: asyncio.Task[None] | None = None
        self._closed = False
        self.generation = 0
        self.version = ""
        self.pid = 0

    async def open(self) -> None:
        """Connect, starting a supervisor where there is none. Raises Unavailable."""
        self._loop = asyncio.get_running_loop()
        await self._connect()

    async def close(self) -> None:
        """Drop the connection; supervisor and containers run on."""
        self._closed = True
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reconnecting
        self._drop()

    async def call(self, op: str, *, fds: Sequence[int] = (), **fields: Any) -> dict[str, Any]:
        """Ask for an operation; its answer.

        Descriptors are duplicated: they stay the caller's to close. Raises what the supervisor
        answered, in the vocabulary of knarr.errors; SupervisorLost; Unavailable where none comes up.
        """
        if not self._ready.is_set():
            await self.ready()
        return await self._ask(op, fds, fields)

    async def ready(self) -> None:
        """Wait for a connection that requests may use. Raises Unavailable."""
        try:
            await asyncio.wait_for(self._ready.wait(), PATIENCE)
        except asyncio.TimeoutError:
            raise errors.Unavailable(
                f"the supervisor at {self._path} does not answer; see {self._run_root}/supervisor.log"
            ) from None

    async def listed(self) -> list[dict[str, Any]]:
        """Every container that the supervisor knows, as `hello` lists them. Also while connecting."""
        found: list[dict[str, Any]] = []
        while True:
            after = {"after": found[-1]["container"]} if found else {}
            page = (await self._ask("hello", (), after))["containers"]
            if not page:
                return found
            found += page

    async def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """As `call`, but at once: for whoever brings the records in line while the connection is being made."""
        return await self._ask(op, (), fields)

    def tell(self, op: str, **fields: Any) -> None:
        """Ask for an operation whose answer tells nothing new; a failure is logged.

        Where the connection is down it is not sent: the exchange after the next connection repeats
        what matters (exits are announced until they are forgotten).
        """
        if self._socket is None:
            return
        self._send(op, (), fields).add_done_callback(_log_failure)

    async def _ask(self, op: str, fds: Sequence[int], fields: dict[str, Any]) -> dict[str, Any]:
        future = self._send(op, fds, fields)
        return await future

    def _send(self, op: str, fds: Sequence[int], fields: dict[str, Any]) -> asyncio.Future[dict[str, Any]]:
        if self._socket is None:
            raise SupervisorLost(f"the supervisor at {self._path} is gone; it is being started again")
        self._next += 1
        number = self._next
        packet = json.dumps({"id": number, "op": op, **fields}, separators=(",", ":")).encode()
        if len(packet) > PACKET:
            raise errors.InvalidArgument(f"{op}: {len(packet)} bytes are more than the supervisor takes ({PACKET})")
        future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._waiting[number] = future
        duplicates = [os.dup(fd) for fd in fds]
        if self._outgoing or not self._try_send(packet, duplicates):
            self._outgoing.append((packet, duplicates))
            self._loop.add_writer(self._socket, self._flush)
        return future

    def _try_send(self, packet: bytes, fds: list[int]) -> bool:
        """Send one packet unless the socket is full. A broken connection counts as sent: the reader sees it."""
        assert self._socket is not None
        try:
            if fds:
                socket.send_fds(self._socket, [packet], fds)
            else:
                self._socket.send(packet)
        except BlockingIOError:
            return False
        except OSError as error:
            log.debug("sending to the supervisor: %s", error)
        for fd in fds:
            os.close(fd)
        return True

    def _flush(self) -> None:
        while self._outgoing:
            if not self._try_send(*self._outgoing[0]):
                return
            self._outgoing.popleft()
        assert self._socket is not None
        self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        for _ in range(8):  # then let others have the loop: each wakes somebody who has something to do
            if self._socket is None:
                return
            try:
                packet = self._socket.recv(PACKET)
            except BlockingIOError:
                return
            except OSError as error:
                self._lost(f"the connection to the supervisor broke: {error}")
                return
            if not packet:
                self._lost("the supervisor closed the connection")
                return
            try:
                message = json.loads(packet)
            except ValueError:
                log.error("the supervisor sent a packet that is not JSON: %r", packet[:200])  # noqa: TRY400
                continue
            if "event" in message:
                try:
                    self._on_event(message)
                except Exception:
                    log.exception("event %s was not handled", message)
                continue
            future = self._waiting.pop(message.get("id", 0), None)
            if future is None or future.done():
                continue
            if "error" in message:
                future.set_exception(_error(message["error"]))
            else:
                future.set_result(message.get("ok") or {})

    def _drop(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            self._socket = None
        self._ready.clear()
        for _, fds in self._outgoing:
            for fd in fds:
                os.close(fd)
        self._outgoing.clear()
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(SupervisorLost("the supervisor died before it answered"))

    def _lost(self, why: str) -> None:
        self._drop()
        if self._closed or (self._reconnecting is not None and not self._reconnecting.done()):
            return
        log.warning("%s; containers run on, connecting again", why)
        self._reconnecting = self._loop.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        delay = 0.02
        while True:
            try:
                await self._connect()
            except (errors.KnarrError, OSError) as error:
                log.warning("no supervisor: %s; trying again in %.1f s", error, delay)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)
            else:
                log.warning(
                    "connected to supervisor %d, version %s, generation %d", self.pid, self.version, self.generation
                )
                return

    async def _connect(self) -> None:
        self._socket = await self._reach()
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._readable)
        try:
            hello = await asyncio.wait_for(self._ask("hello", (), {}), PATIENCE)
            self.generation, self.version, self.pid = hello["generation"], hello["version"], hello["pid"]
            await self._on_connect(hello)
            await asyncio.wait_for(self._ask("subscribe", (), {}), PATIENCE)
        except asyncio.TimeoutError:
            self._drop()
            raise errors.Unavailable(f"the supervisor at {self._path} accepts but does not answer") from None
        except BaseException:
            self._drop()
            raise
        self._ready.set()

    async def _reach(self) -> socket.socket:
        """A connected socket; starts the program where nothing listens."""
        found = self._dial()
        if found is not None:
            return found
        path = program()
        log.info("starting %s", path)
        await asyncio.to_thread(self._spawn, path)
        end = self._loop.time() + PATIENCE
        while self._loop.time() < end:
            found = self._dial()
            if found is not None:
                return found
            await asyncio.sleep(0.01)
        raise errors.Unavailable(f"{path} was started but does not listen on {self._path}: see {self._log_path}")

    @property
    def _log_path(self) -> str:
        return f"{self._run_root}/supervisor.log"

    def _dial(self) -> socket.socket | None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(self._path)
        except OSError as error:
            sock.close()
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
                return None
            raise errors.Unavailable(f"cannot reach the supervisor at {self._path}: {error.strerror}") from error
        return sock

    def _spawn(self, path: str) -> None:
        """Run the program, which puts itself into the background and is then the keeper.

        Through a shell that sets its limit of open files, which becomes the containers': ours has been raised.
        """
        shell = ["/bin/sh", "-c", 'ulimit -Sn "$0" && exec "$@"', str(self._open_files)]
        with open(self._log_path, "ab") as output:
            try:
                result = subprocess.run(
                    [*shell, path, "--run-root", self._run_root, "--data-root", self._data_root],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    cwd="/",
                    timeout=PATIENCE,
                    check=False,
                )
            except OSError as error:
                raise errors.Unavailable(f"cannot run {path}: {error.strerror}") from error
            except subprocess.TimeoutExpired as error:
                raise errors.Unavailable(f"{path} did not put itself into the background") from error
        if result.returncode:
            raise errors.Unavailable(f"{path} ended with status {result.returncode}: see {self._log_path}")


def _error(answer: dict[str, Any]) -> errors.KnarrError:
    kind = getattr(errors, str(answer.get("kind", "")), errors.Internal)
    if not (isinstance(kind, type) and issubclass(kind, errors.KnarrError)):
        kind = errors.Internal
    message, exit_code = str(answer.get("message", "the supervisor gave no reason")), answer.get("exit_code")
    if exit_code in (126, 127):
        return NotExecutable(message, exit_code)
    found: errors.KnarrError = kind(message)
    return found


def _log_failure(future: asyncio.Future[dict[str, Any]]) -> None:
    if not future.cancelled() and future.exception() is not None:
        error = future.exception()
        if not isinstance(error, SupervisorLost):
            log.warning("the supervisor refused: %s", error)
