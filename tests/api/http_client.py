"""A plain HTTP client for the API, which adds and hides nothing."""

import http.client
import json
import socket
import struct


class Connection(http.client.HTTPConnection):
    """HTTP over the engine's socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=30)
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self._path)


class Api:
    """Requests to one engine: (status, parsed body)."""

    def __init__(self, engine):
        self.path = engine.socket
        self.connection = Connection(self.path)

    def call(self, method, path, body=None):
        data = json.dumps(body) if body is not None else None
        self.connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
        response = self.connection.getresponse()
        content = response.read()
        self.headers = response.headers
        return response.status, json.loads(content) if content.strip() else None

    def ok(self, method, path, body=None):
        status, answer = self.call(method, path, body)
        assert status < 400, (method, path, status, answer)
        return answer

    def create(self, *command, name="", **fields):
        body = {"Image": "busybox", "Cmd": list(command), **fields}
        body.setdefault("HostConfig", {}).setdefault("NetworkMode", "none")
        return self.ok("POST", f"/containers/create?name={name}", body)["Id"]

    def raw(self, data):
        """A connection on which some bytes have been sent."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(30)
        sock.connect(str(self.path))
        if data:  # even nothing cannot be sent to who has closed
            sock.sendall(data)
        return sock


def read_head(sock):
    """(status line, headers, what came after them)."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(4096)
        assert piece, f"closed after {data!r}"
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0].decode(), head.decode().lower(), rest


def read_all(sock, data=b""):
    while piece := sock.recv(65536):
        data += piece
    return data


def frames(data):
    """[(stream number, bytes), ...] of a multiplexed stream."""
    found = []
    while data:
        number, size = struct.unpack(">BxxxL", data[:8])
        found.append((number, data[8 : 8 + size]))
        data = data[8 + size :]
    return found


def tidy(api):
    """Remove all containers and networks of an engine."""
    for item in api.ok("GET", "/containers/json?all=1"):
        api.call("DELETE", f"/containers/{item['Id']}?force=1&v=1")
    api.ok("POST", "/networks/prune")
