"""A registry, token server, content network or proxy that says and does what a test wants, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import ssl
import subprocess
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from typing_extensions import Self

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": {}, "layers": []}).encode()


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Asked:
    """One request."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.split("?")[0]

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")

    @property
    def start(self) -> int:
        """Where its range begins."""
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", "bytes=0-"))
        return int(found[1])


@dataclass
class Answer:
    """A status with headers and a body; a body's length is announced unless the headers do it."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Talk:
    """The connection itself, for answers that HTTP does not foresee."""

    def __init__(self, connection: socket.socket, stopped: threading.Event) -> None:
        self.connection, self.stopped = connection, stopped

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # the client may rightly have had enough
            self.connection.sendall(data)

    def stall(self) -> None:
        """Say nothing until the test ends."""
        self.stopped.wait(60)


class Server:
    """`answer(asked)` gives an Answer, or a function of Talk that does what it likes and closes the connection."""

    def __init__(
        self, answer: Callable[[Asked], Answer | Callable[[Talk], None]], tls: ssl.SSLContext | None = None
    ) -> None:
        self.asked: list[Asked] = []
        self.stopped = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked = Asked(
                    self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body
                )
                outer.asked.append(asked)
                found = answer(asked)
                if not isinstance(found, Answer):
                    found(Talk(self.connection, outer.stopped))
                    self.close_connection = True
                    return
                self.send_response(found.status)
                headers = {name.lower(): value for name, value in found.headers.items()}
                if "transfer-encoding" not in headers:
                    headers.setdefault("content-length", str(len(found.body)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(found.body)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_CONNECT = handle_one  # noqa: N815 - the names that http.server looks for

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Clients that break off are what these tests are about."""

        self.server = Quiet(("127.0.0.1", 0), Handler)
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"{'https' if tls else 'http'}://{self.host}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]


def manifest_answer(body: bytes = MANIFEST, media_type: str = OCI_MANIFEST, **headers: str) -> Answer:
    return Answer(
        200, body, {"Content-Type": media_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
    )


def ranged(asked: Asked, data: bytes) -> Answer:
    """A blob's answer as it should be."""
    start = asked.start
    if not start:
        return Answer(200, data, {"Content-Type": "application/octet-stream"})
    if start >= len(data):
        return Answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
    return Answer(206, data[start:], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})


def head(length: int, status: str = "200 OK", extra: str = "") -> bytes:
    """The head of an answer whose body the test sends by hand."""
    return f"HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n{extra}\r\n".encode()


def certificate(directory) -> tuple[ssl.SSLContext, str]:
    """A server's TLS settings for 127.0.0.1, and the file of the authority that vouches for it."""
    key, file = directory / "key.pem", directory / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-keyout", key, "-out", file,
         "-subj", "/CN=registry under test", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    return context, str(file)
