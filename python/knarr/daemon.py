"""The daemon's process: one event loop, one engine, one socket.

`main` is what `knarr daemon` calls; `run` returns when SIGTERM or SIGINT came and everything is put away;
containers run on, under the supervisor, and the next daemon finds them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import resource
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from knarr import garbage
from knarr.api import listen
from knarr.api.app import create_app
from knarr.api.connections import Connections
from knarr.api.hijack import Front
from knarr.api.tls import Relay
from knarr.config import load
from knarr.engine.engine import Engine
from knarr.errors import KnarrError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from knarr.config import Config

__all__ = ["main", "run"]

log = logging.getLogger("knarr.daemon")

RESERVED_FILES = 1024  # open files for work that is no connection, or a quarter where there are few
ACCEPTED_AT_ONCE = 32
LINE_LIMIT = 64 * 1024  # bytes of a request's first line, and of each header
SHUTDOWN_SECONDS = 1.0  # that requests have to end before they are cut off


def main(ready_fd: int | None, flags: dict[str, Any]) -> int:
    """`knarr daemon` with its flags, in the names of knarr.config; None for what was not given."""
    try:
        config = load(**flags)
    except KnarrError as error:
        print(f"knarr daemon: {error}", file=sys.stderr)
        return 1
    return run(config, ready_fd)


def run(config: Config, ready_fd: int | None = None) -> int:
    """Serve until told to end; the exit status. A byte is written to ready_fd once requests are answered."""
    logging.basicConfig(
        level=os.environ.get("KNARR_LOG", "INFO").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    os.umask(0o022)
    # Threads that only wait for a system call get the interpreter back soon, instead of after the default 5 ms.
    sys.setswitchinterval(0.0005)
    garbage.settle()
    try:
        asyncio.run(_serve(config, ready_fd))
    except KnarrError as error:
        print(f"knarr daemon: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(config: Config, ready_fd: int | None) -> None:
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    found, most = _raise_open_files()
    engine = Engine(config, open_files=found)
    listeners: list[listen.Listener] = []
    try:
        listeners += listen.listeners(config)
        await engine.open()
        if config.realtime:
            _come_first()
        async with _serving(engine, listeners, Connections(most - min(RESERVED_FILES, most // 4))):
            hosts = ", ".join(listener.host for listener in listeners)
            log.info("serving %s with the roots %s and %s", hosts, config.data_root, config.run_root)
            if ready_fd is not None:
                os.write(ready_fd, b"\n")
                os.close(ready_fd)
            _tell_systemd("READY=1")
            await ending.wait()
            _tell_systemd("STOPPING=1")
            log.info("ending; containers run on")
    finally:
        for listener in listeners:
            listener.close()
        await engine.close()


@contextlib.asynccontextmanager
async def _serving(engine: Engine, listeners: list[listen.Listener], connections: Connections) -> AsyncIterator[None]:
    """The API on its sockets, which are closed afterwards."""
    loop = asyncio.get_running_loop()
    http = logging.getLogger("knarr.http")
    http.addFilter(_briefly)
    app, prompt = create_app(engine, connections)
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=http,
        max_line_size=LINE_LIMIT,
        max_field_size=LINE_LIMIT,
        shutdown_timeout=SHUTDOWN_SECONDS,
    )
    await runner.setup()
    inner = runner.server
    assert inner is not None
    tasks: set[asyncio.Task[None]] = {loop.create_task(connections.watch()), loop.create_task(garbage.watch())}

    def front() -> Front:
        return Front(engine, inner(), tasks, connections, prompt)

    servers = []
    for listener in listeners:
        factory: Callable[[], asyncio.Protocol] = front
        if listener.context is not None:
            factory = functools.partial(Relay, listener.context, front, connections)
        # To asyncio its backlog is also how many it accepts at once, before it has counted and refused any.
        servers.append(await loop.create_server(factory, sock=listener.socket, backlog=ACCEPTED_AT_ONCE))
        listener.socket.listen(listen.BACKLOG)
    try:
        yield
    finally:
        for listener, server in zip(listeners, servers, strict=True):
            listener.remove()
            server.close()
        for task in tasks:
            task.cancel()
        await runner.cleanup()


def _briefly(record: logging.LogRecord) -> bool:
    """What aiohttp says of requests that are no HTTP, without the way through its parser."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.levelno, record.levelname, record.exc_info = logging.INFO, "INFO", None
        record.msg, record.args = (
            "not HTTP: %s",
            (error.message.splitlines()[0][:200] if error.message else error.code,),
        )
    return True


def _raise_open_files() -> tuple[int, int]:
    """Raise our limit of open files as far as it goes: what it was, and what it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft, hard


def _come_first() -> None:
    """Have the event loop run as soon as it is woken, whatever else the processors are busy with.

    Under a crowd of starts its wait for a processor is most of what anybody waits for, and nice values do not say
    anything between sessions (sched(7), autogroups). It is this thread alone: other threads and all processes that it
    starts, the supervisor among them, are scheduled as ever. The kernel leaves the rest of the host its part should
    the loop never end (kernel.sched_rt_runtime_us). A policy that somebody has chosen for the daemon stays.
    """
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:  # rootless, or kept from it: slower in a crowd, and right all the same
        log.info("the event loop is scheduled as any other thread: real-time scheduling is not allowed here")


def _tell_systemd(state: str) -> None:
    """Tell systemd what has become of us (sd_notify(3)), where it wants to know."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect(address)
            sock.sendall(state.encode())
        except OSError as error:
            log.warning("cannot tell systemd %s at %s: %s", state, address, error)
