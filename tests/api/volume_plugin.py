"""A volume plugin, as small as one can be: directories, and a list of who has each of them mounted."""

import http.server
import json
import os
import shutil
import socketserver
import threading
from pathlib import Path


class VolumePlugin(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Docker's plugin protocol on a Unix socket.

    odd: what a method answers instead, as bytes, or a number of seconds that it waits before it answers nothing.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, socket: Path, directory: Path) -> None:
        self.directory = directory
        self.volumes: dict[str, dict] = {}
        self.users: dict[str, list[str]] = {}
        self.calls: list[tuple[str, dict]] = []
        self.odd: dict[str, bytes | float] = {}
        self.refuse: dict[str, str] = {}
        self.implements = ["VolumeDriver"]
        self.ended = threading.Event()
        directory.mkdir(parents=True, exist_ok=True)
        socket.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(str(socket), _Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.ended.set()
        self.shutdown()
        self.server_close()
        os.unlink(self.server_address)

    def answer(self, method: str, body: dict) -> dict:
        name = body.get("Name", "")
        if method in self.refuse:
            return {"Err": self.refuse[method]}
        if method == "Plugin.Activate":
            return {"Implements": self.implements}
        if method == "VolumeDriver.Capabilities":
            return {"Capabilities": {"Scope": "global"}}
        if method == "VolumeDriver.List":
            return {"Volumes": list(self.volumes.values())}
        if method == "VolumeDriver.Create":
            place = self.directory / name
            place.mkdir()
            self.volumes[name] = {"Name": name, "Mountpoint": "", "Status": {"made": "by hand", **(body["Opts"] or {})}}
            self.users[name] = []
            return {}
        if name not in self.volumes:
            return {"Err": f"nothing known of {name}"}
        return self._of_one(method, name, body)

    def _of_one(self, method: str, name: str, body: dict) -> dict:
        place = str(self.directory / name)
        if method == "VolumeDriver.Get":
            return {"Volume": self.volumes[name]}
        if method == "VolumeDriver.Path":
            return {"Mountpoint": self.volumes[name]["Mountpoint"]}
        if method == "VolumeDriver.Mount":
            self.users[name].append(body["ID"])
            self.volumes[name]["Mountpoint"] = place
            return {"Mountpoint": place}
        if method == "VolumeDriver.Unmount":
            self.users[name].remove(body["ID"])
            if not self.users[name]:
                self.volumes[name]["Mountpoint"] = ""
            return {}
        assert method == "VolumeDriver.Remove", method
        if self.users[name]:
            return {"Err": f"{name} is mounted"}
        shutil.rmtree(place)
        del self.volumes[name], self.users[name]
        return {}


class _Handler(http.server.BaseHTTPRequestHandler):
    server: VolumePlugin

    def address_string(self) -> str:
        return "knarr"

    def log_message(self, *_) -> None:
        pass

    def do_POST(self) -> None:
        method = self.path.lstrip("/")
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        self.server.calls.append((method, body))
        odd = self.server.odd.get(method)
        if isinstance(odd, (int, float)):
            self.server.ended.wait(odd)
            self.close_connection = True
            return
        content = odd if odd is not None else json.dumps(self.server.answer(method, body)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.docker.plugins.v1.2+json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
