"""The engines under measurement, spoken to the same way: Docker Engine API over a Unix socket.

Docker's is taken from `KNARR_BENCH_DOCKER` (its socket's path) where that is set; `KNARR_BENCH_DOCKER_CLI` names its
command line (default `docker`).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conftest import SCRIPTS, new_engine

__all__ = ["SCRIPTS", "Connection", "Docker", "Knarr", "docker", "exec_true", "lifecycle", "resident"]


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket, kept alive."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)

    def call(self, method: str, path: str, body: object = None) -> Any:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        self.request(method, "/v1.44" + path, None if body is None else json.dumps(body), headers)
        answer = self.getresponse()
        data = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {data[:300]!r}")
        return json.loads(data) if data[:1] in (b"{", b"[") else None


def lifecycle(connection: Connection, network: str) -> None:
    """create + start + wait + delete of `busybox true`."""
    host = {"NetworkMode": network}
    container = connection.call(
        "POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}
    )["Id"]
    connection.call("POST", f"/containers/{container}/start")
    connection.call("POST", f"/containers/{container}/wait")
    connection.call("DELETE", f"/containers/{container}")


def exec_true(connection: Connection, container: str) -> None:
    """exec create + start (detached streams read to the end) + inspect."""
    body = {"Cmd": ["true"], "AttachStdout": True, "AttachStderr": True}
    exec_id = connection.call("POST", f"/containers/{container}/exec", body)["Id"]
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as stream:
        stream.connect(connection._path)  # noqa: SLF001
        data = b'{"Detach":false,"Tty":false}'
        stream.sendall(
            b"POST /v1.44/exec/"
            + exec_id.encode()
            + b"/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            b"Content-Type: application/json\r\nContent-Length: " + str(len(data)).encode() + b"\r\n\r\n" + data
        )
        while stream.recv(65536):
            pass
    while (state := connection.call("GET", f"/exec/{exec_id}/json"))["Running"]:
        pass
    if state["ExitCode"] != 0:
        raise RuntimeError(f"exec true: exit {state['ExitCode']}")


class Knarr:
    """An engine of the bench's own, on roots of its own."""

    def __init__(self, data_root: Path | None = None) -> None:
        self.engine = new_engine()
        self.engine.elsewhere = data_root
        self.engine.start()
        self.run_root = self.engine.run_root
        self.socket = str(self.engine.socket)
        self.env = self.engine.env

    def knarr(self, *arguments: str) -> str:
        return str(self.engine.run(*arguments).stdout)

    def connect(self) -> Connection:
        return Connection(self.socket)

    @property
    def daemon(self) -> int:
        """The daemon's process ID."""
        assert self.engine.process is not None
        return int(self.engine.process.pid)

    def supervisors(self) -> list[int]:
        """The keeper's and the supervisor's process IDs."""
        return list(self.engine.supervisor_pids())

    def close(self) -> None:
        self.engine.stop()


class Docker:
    """Docker, already running."""

    def __init__(self, path: str) -> None:
        self.socket = path
        self.cli = os.environ.get("KNARR_BENCH_DOCKER_CLI", "docker")
        self.env = {**os.environ, "DOCKER_HOST": f"unix://{path}"}

    def docker(self, *arguments: str) -> str:
        command = [self.cli, *arguments]
        return subprocess.run(
            command, env=self.env, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        ).stdout

    def connect(self) -> Connection:
        return Connection(self.socket)


def docker() -> Docker | None:
    """The Docker to measure beside, where one was named."""
    path = os.environ.get("KNARR_BENCH_DOCKER")
    if not path:
        print("KNARR_BENCH_DOCKER is not set: no figures beside Docker", file=sys.stderr)
        return None
    return Docker(path)


def resident(pid: int) -> tuple[int, int]:
    """(resident now, resident at its peak) of a process, in bytes."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) * 1024, int(status["VmHWM"].split()[0]) * 1024
