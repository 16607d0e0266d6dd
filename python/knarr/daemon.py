"""The daemon's process: one event loop, one engine, one socket.

`main` is what `knarr daemon` calls; `run` returns when SIGTERM or SIGINT came and everything is put away;
containers run on, under the supervisor, and the next daemon finds them.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import signal
import socket
import stat
import sys
from typing import TYPE_CHECKING

from aiohttp import web

from knarr.api.app import API_VERSION, create_app, refusal
from knarr.api.hijack import Front, Versions
from knarr.config import load
from knarr.engine.engine import Engine
from knarr.errors import Conflict, KnarrError, Unavailable

if TYPE_CHECKING:
    from knarr.config import Config

__all__ = ["main", "run"]

log = logging.getLogger("knarr.daemon")

BACKLOG = 1024
SHUTDOWN_SECONDS = 1.0  # that requests have to end before they are cut off


def main(data_root: str | None, run_root: str | None, host: str | None, ready_fd: int | None) -> int:
    """`knarr daemon` with its flags; None for what was not given."""
    try:
        config = load(data_root=data_root, run_root=run_root, host=host)
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
    engine = Engine(config)
    try:
        await engine.open()
        async with _listening(engine):
            log.info("serving %s with the roots %s and %s", config.socket_path, config.data_root, config.run_root)
            if ready_fd is not None:
                os.write(ready_fd, b"\n")
                os.close(ready_fd)
            await ending.wait()
            log.info("ending; containers run on")
    finally:
        await engine.close()


@contextlib.asynccontextmanager
async def _listening(engine: Engine):  # type: ignore[no-untyped-def]  # noqa: ANN202
    """The API on its socket."""
    busy: set[asyncio.BaseProtocol] = set()
    runner = web.AppRunner(create_app(engine, busy), access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    inner = runner.server
    assert inner is not None
    tasks: set[asyncio.Task[None]] = set()
    versions = Versions(API_VERSION, refusal)
    path = engine.config.socket_path
    listener = _bind(path)
    server = await asyncio.get_running_loop().create_unix_server(
        lambda: Front(engine, inner(), tasks, versions, busy), sock=listener, backlog=BACKLOG
    )
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        server.close()
        for task in list(tasks):
            task.cancel()
        await runner.cleanup()


def _bind(path: str) -> socket.socket:
    """A socket at a path, readable by the group docker where there is one. Replaces one that nobody listens on."""
    os.makedirs(os.path.dirname(path), 0o711, exist_ok=True)
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            _refuse_a_live_one(path)
            os.unlink(path)
    except FileNotFoundError:
        log.debug("%s is new", path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        previous = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(previous)
        try:
            os.chown(path, 0, grp.getgrnam("docker").gr_gid)
        except KeyError:
            log.debug("there is no group docker: the socket is root's alone")
        os.chmod(path, 0o660)
    except OSError as error:
        listener.close()
        raise Unavailable(f"cannot listen on {path}: {error.strerror}") from error
    return listener


def _refuse_a_live_one(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return
    raise Conflict(f"somebody listens on {path} already: give this daemon a socket of its own with --host")
