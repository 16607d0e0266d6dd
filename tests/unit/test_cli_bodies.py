"""`run` and `create` send what Docker's client sends for the same command line.

data/cli_bodies.json holds what Docker's client (28.2) sent for each case, recorded by `python -m tests.unit.test_cli_bodies`
against a server that only writes down; the client on this machine is asked as well for what every version knows.
"""

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from tests.unit.cli_body_cases import CASES, ENVIRONMENT, FILES, essence, verb

RECORDED = Path(__file__).parent / "data" / "cli_bodies.json"
KNARR = [sys.executable, "-c", "from knarr.cli import main; main()"]


class Recorder:
    """An engine that answers ping and create on a Unix socket, and remembers what create was asked."""

    def __init__(self, path: Path) -> None:
        self.created: list[tuple[str, dict]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rwb") as stream:
            while line := stream.readline():
                method, target, _ = line.decode().split(" ", 2)
                headers = {}
                while header := stream.readline().strip():
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = stream.read(int(headers.get("content-length", 0)))
                answer, status = b"OK", "200 OK"
                if "/containers/create" in target:
                    self.created.append((target, json.loads(body)))
                    answer, status = b'{"Id": "abc", "Warnings": []}', "201 Created"
                elif not target.endswith("/_ping"):
                    answer, status = b"", "204 No Content"
                stream.write(
                    f"HTTP/1.1 {status}\r\nApi-Version: 1.50\r\nOstype: linux\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(answer)}\r\n\r\n".encode()
                    + (b"" if method == "HEAD" else answer)
                )
                stream.flush()

    def close(self) -> None:
        self._listener.close()


@contextlib.contextmanager
def recording():
    with tempfile.TemporaryDirectory(prefix="knarr-bodies-") as directory:
        where = Path(directory)
        for name, content in FILES.items():
            (where / name).write_text(content)
        (where / "config").mkdir()
        recorder = Recorder(where / "socket")
        environment = {
            **os.environ,
            **ENVIRONMENT,
            "DOCKER_HOST": f"unix://{where}/socket",
            "KNARR_HOST": f"unix://{where}/socket",
            "DOCKER_CONFIG": str(where / "config"),
        }

        def send(program: list[str], case: str) -> dict:
            before = len(recorder.created)
            result = subprocess.run(
                [*program, verb(case), *shlex.split(case)],
                cwd=where,
                env=environment,
                capture_output=True,
                text=True,
                timeout=30,
            )
            assert result.returncode == 0, f"{program[0]} {case}: {result.stderr}"
            assert len(recorder.created) == before + 1, f"{program[0]} {case}: no request"
            target, body = recorder.created[-1]
            text = json.dumps(body).replace(directory, "/CWD")
            _, _, query = target.partition("?")
            return {"query": sorted(query.split("&")) if query else [], "body": json.loads(text)}

        yield send
        recorder.close()


@pytest.fixture(scope="module")
def send():
    with recording() as sender:
        yield sender


def compared(request: dict) -> dict:
    return {"query": [part.replace("%2F", "/") for part in request["query"]], "body": essence(request["body"])}


@pytest.mark.parametrize("case", CASES)
def test_the_body_is_what_docker_sends(send, case):
    assert compared(send(KNARR, case)) == compared(json.loads(RECORDED.read_text())[case])


@pytest.mark.parametrize("case", [case for case in CASES if CASES.index(case) % 6 == 1 and "annotation" not in case])
def test_the_client_here_agrees(send, case):
    assert compared(send(KNARR, case)) == compared(send(["docker"], case))


def test_a_difference_is_seen():
    assert essence({"HostConfig": {"Memory": 1}}) != essence({"HostConfig": {"Memory": 2}})
    assert essence({"StopTimeout": 0}) != essence({})


if __name__ == "__main__":
    program = sys.argv[1:] or ["docker"]
    with recording() as sender:
        lines = {case: sender(program, case) for case in CASES}
    small = {case: {"query": request["query"], "body": essence(request["body"])} for case, request in lines.items()}
    RECORDED.parent.mkdir(exist_ok=True)
    RECORDED.write_text(json.dumps(small, indent=1, sort_keys=True) + "\n")
