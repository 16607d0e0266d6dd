"""Volume plugins over Docker's protocol: one that works, and what becomes of those that do not."""

import contextlib
import json
import os
import select
import socket
import socketserver
import ssl
import threading
import time

import docker as docker_py
import pytest

from tests.api.http_client import Api
from tests.api.volume_plugin import VolumePlugin
from tests.certificates import everything
from tests.conftest import busybox_archive, new_engine, wait_until

LIMIT = 1.0


@pytest.fixture(scope="module")
def own():
    made = new_engine()
    settings = made.base / "config.json"
    settings.write_text(
        json.dumps(
            {
                "volume_timeout": LIMIT,
                "plugin_sockets": str(made.base / "plugins"),
                "plugin_specs": [str(made.base / "specs"), str(made.base / "more-specs")],
            }
        )
    )
    made.extra_env["KNARR_CONFIG"] = str(settings)
    made.start()
    made.run("load", "-q", "-i", busybox_archive())
    yield made
    made.stop()


@pytest.fixture
def plugin(own):
    """A plugin called `files`, which nothing is mounted of or left in at the end."""
    made = VolumePlugin(own.base / "plugins" / "files.sock", own.base / "of-the-plugin")
    yield made
    made.odd.clear()
    made.refuse.clear()
    names = own.run("container", "ls", "-aq").stdout.split()
    if names:
        own.run("rm", "-f", "-v", *names)
    wait_until(lambda: not any(made.users.values()), what="the last unmount")
    for name in own.run("volume", "ls", "-q").stdout.split():
        own.run("volume", "rm", "-f", name)
    assert made.volumes == {}
    made.close()


def test_the_life_of_a_volume(own, plugin):
    docker = own.docker
    assert docker("volume", "create", "-d", "files", "-o", "a=b", "--label", "l=1", "data").stdout == "data\n"
    shown = json.loads(docker("volume", "inspect", "data").stdout)[0]
    assert shown["Status"] == {"made": "by hand", "a": "b"}
    assert (shown["Driver"], shown["Scope"], shown["Options"], shown["Labels"], shown["Mountpoint"]) == (
        "files", "global", {"a": "b"}, {"l": "1"}, "",
    )  # fmt: skip
    assert docker("volume", "ls", "--format", "{{.Driver}} {{.Name}}").stdout == "files data\n"
    assert docker("volume", "ls", "-q", "-f", "driver=files").stdout == "data\n"
    assert docker("volume", "ls", "-q", "-f", "driver=local").stdout == ""
    assert "files local" in docker("info", "-f", '{{join .Plugins.Volume " "}}').stdout
    identity = docker(
        "run", "-d", "-v", "data:/d", "busybox", "sh", "-c", "echo text > /d/file; exec sleep 1000"
    ).stdout.strip()
    assert plugin.users["data"] == [identity]
    wait_until((plugin.directory / "data" / "file").exists)
    mount = json.loads(docker("inspect", identity).stdout)[0]["Mounts"][0]
    assert (mount["Driver"], mount["Name"], mount["Source"]) == ("files", "data", str(plugin.directory / "data"))
    assert docker("run", "--rm", "-v", "data:/d:ro", "busybox", "cat", "/d/file").stdout == "text\n"
    wait_until(lambda: plugin.users["data"] == [identity], what="the unmount")
    assert "volume is in use" in docker("volume", "rm", "data", check=False).stderr
    docker("stop", "-t0", identity)
    wait_until(lambda: plugin.users["data"] == [], what="the unmount")
    docker("cp", f"{identity}:/d/file", own.base / "copied")
    assert (own.base / "copied").read_text() == "text\n"
    docker("rm", identity)
    assert docker("volume", "prune", "-af").stdout == "Total reclaimed space: 0B\n"
    assert "data" not in docker("system", "df", "-v").stdout
    docker("volume", "rm", "data")
    assert plugin.volumes == {}
    events = [method.partition(".")[2] for method, _ in plugin.calls]
    assert [name for name in events if name in ("Activate", "Create", "Remove")] == ["Activate", "Create", "Remove"]


def test_every_way_to_name_a_driver(own, plugin):
    docker = own.docker
    docker("create", "--volume-driver", "files", "-v", "one:/a", "-v", "/b", "busybox")
    docker("create", "--mount", "type=volume,src=two,dst=/a,volume-driver=files,volume-opt=x=y", "busybox")
    anonymous = next(name for name in plugin.volumes if len(name) == 64)
    assert sorted(plugin.volumes) == sorted([anonymous, "one", "two"])
    assert plugin.volumes["two"]["Status"]["x"] == "y"
    client = docker_py.DockerClient(base_url=own.host)
    with contextlib.closing(client):
        volume = client.volumes.create("three", driver="files", driver_opts={"o": "p"})
        assert (volume.attrs["Driver"], plugin.volumes["three"]["Status"]["o"]) == ("files", "p")
        out = client.containers.run(
            "busybox", "ls /etc/passwd", volumes={"three": {"bind": "/etc", "mode": "rw"}}, remove=True
        )
        assert out == b"/etc/passwd\n"
        assert (plugin.directory / "three" / "passwd").exists()  # copied from the image
        volume.remove()
    # A volume that the plugin has made by itself is found by its name alone.
    plugin.answer("VolumeDriver.Create", {"Name": "foreign", "Opts": None})
    assert "foreign" in docker("volume", "ls", "-q").stdout.split()
    docker("run", "--rm", "-v", "foreign:/d", "busybox", "touch", "/d/here")
    assert (plugin.directory / "foreign" / "here").exists()
    refused = docker("volume", "create", "-d", "local", "foreign", check=False)
    assert "create foreign: driver 'files' already has volume 'foreign': volume name must be unique" in refused.stderr


def test_restarts_of_the_daemon(own, plugin):
    docker = own.docker
    docker("volume", "create", "-d", "files", "data")
    one, two = (docker("run", "-d", "-v", "data:/d", "busybox", "sleep", "1000").stdout.strip() for _ in range(2))
    pid = int(docker("inspect", "-f", "{{.State.Pid}}", two).stdout)
    own.kill()
    os.kill(pid, 9)
    assert plugin.users["data"] == [one, two]
    own.start()
    wait_until(lambda: plugin.users["data"] == [one], what="the unmount of what has ended")
    docker("rm", "-f", one)
    wait_until(lambda: plugin.users["data"] == [], what="the unmount")


def test_refusals_of_a_plugin(own, plugin):
    api = Api(own)
    plugin.refuse["VolumeDriver.Create"] = "no room"
    status, answer = api.call("POST", "/volumes/create", {"Name": "data", "Driver": "files"})
    assert (status, answer["message"]) == (500, "create data: no room")
    assert api.ok("GET", "/volumes")["Volumes"] == []
    del plugin.refuse["VolumeDriver.Create"]
    api.ok("POST", "/volumes/create", {"Name": "data", "Driver": "files"})
    plugin.refuse["VolumeDriver.Mount"] = "not today"
    made = api.create("true", HostConfig={"Binds": ["data:/d"]})
    status, answer = api.call("POST", f"/containers/{made}/start")
    assert (status, answer["message"]) == (500, "error while mounting volume 'data': not today")
    plugin.refuse["VolumeDriver.Remove"] = "still needed"
    api.ok("DELETE", f"/containers/{made}")
    status, answer = api.call("DELETE", "/volumes/data")
    assert (status, answer["message"]) == (500, "remove data: still needed")
    assert api.ok("GET", "/volumes/data")["Name"] == "data"
    plugin.refuse.clear()
    assert api.call("DELETE", "/volumes/data")[0] == 204
    assert api.call("GET", "/volumes/data") == (404, {"message": "get data: no such volume"})


@pytest.mark.parametrize("odd", [b"nonsense", b"[1]", b"", 60.0], ids=["text", "list", "nothing", "silence"])
@pytest.mark.parametrize("method", ["VolumeDriver.Create", "VolumeDriver.Mount"])
def test_a_plugin_that_makes_no_sense(own, plugin, method, odd):
    api, other = Api(own), Api(own)
    if method == "VolumeDriver.Mount":
        api.ok("POST", "/volumes/create", {"Name": "data", "Driver": "files"})
        made = api.create("true", HostConfig={"Binds": ["data:/d"]})
    plugin.odd[method] = odd
    answers = []
    begun = time.monotonic()
    ask = ("POST", "/volumes/create", {"Name": "data", "Driver": "files"})
    if method == "VolumeDriver.Mount":
        ask = ("POST", f"/containers/{made}/start", None)
    client = threading.Thread(target=lambda: answers.append(api.call(*ask)))
    client.start()
    while client.is_alive() and odd == 60.0:  # nobody else waits
        before = time.monotonic()
        other.ok("GET", "/containers/json")
        other.ok("POST", "/volumes/create", {"Name": "beside", "Driver": "local"})
        other.call("DELETE", "/volumes/beside")
        assert time.monotonic() - before < LIMIT / 2
        client.join(0.1)
    client.join()
    assert time.monotonic() - begun < LIMIT + 1
    status, answer = answers[0]
    if (method, odd) == ("VolumeDriver.Create", b""):
        assert status == 201  # nothing is Docker's, too, for a success without anything to tell
        return
    assert (status, method in answer["message"], "files" in answer["message"]) == (500, True, True), answer
    plugin.odd.clear()
    if method == "VolumeDriver.Mount":
        wait_until(lambda: api.call("POST", f"/containers/{made}/start")[0] == 204, what="a start that works")
        api.ok("POST", f"/containers/{made}/wait")
    else:
        wait_until(lambda: api.call("GET", "/volumes/data")[0] == 404, what="no trace of the volume")


def test_a_volume_stays_for_a_container_that_is_being_made(own, plugin):
    api, other = Api(own), Api(own)
    for name, driver in (("data", "files"), ("first", "local")):
        api.ok("POST", "/volumes/create", {"Name": name, "Driver": driver})
    plugin.odd["VolumeDriver.Mount"] = 60.0  # whose content is to be copied, second
    body = {"Image": "busybox", "HostConfig": {"Binds": ["first:/a", "data:/etc"]}}
    answers = []
    client = threading.Thread(target=lambda: answers.append(api.call("POST", "/containers/create", body)))
    client.start()
    wait_until(lambda: plugin.calls[-1][0] == "VolumeDriver.Mount", what="the copying")
    status, answer = other.call("DELETE", "/volumes/first")
    assert (status, "volume is in use" in answer["message"]) == (409, True)
    client.join()
    assert answers[0][0] == 500
    assert answers[0][1]["message"].startswith("failed to populate volume: error while mounting volume 'data': ")
    plugin.odd.clear()
    wait_until(lambda: other.call("DELETE", "/volumes/first")[0] == 204, what="a removal")


def test_plugins_that_are_none(own):
    api = Api(own)
    sockets, specs = own.base / "plugins", own.base / "specs"
    specs.mkdir()
    sockets.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(sockets / "deaf.sock"))
        deaf.listen()
        (specs / "empty.spec").write_text("")
        (specs / "broken.json").write_text("{")
        (specs / "closed.spec").write_text("tcp://127.0.0.1:1")
        other = VolumePlugin(sockets / "net.sock", own.base / "net")
        other.implements = ["NetworkDriver"]
        try:
            for name, status, message in (
                ("missing", 404, 'plugin "missing" not found'),
                ("../deaf", 404, 'plugin "../deaf" not found'),
                ("empty", 500, "is no address"),
                ("broken", 500, "legacy plugin"),
                ("closed", 500, "127.0.0.1"),
                ("net", 500, "Plugin does not implement the requested driver"),
                ("deaf", 500, f"did not answer within {LIMIT:g} s"),
            ):
                found, answer = api.call("POST", "/volumes/create", {"Name": "new", "Driver": name})
                assert (found, message in answer["message"]) == (status, True), answer
                assert answer["message"].startswith(f"create new: error looking up volume plugin {name}: ")
            # They are left alone by those who did not ask for them.
            before = time.monotonic()
            assert api.ok("GET", "/volumes")["Volumes"] == []
            assert api.call("POST", "/volumes/create", {"Name": "new"})[0] == 201
            assert time.monotonic() - before < LIMIT
            assert api.call("DELETE", "/volumes/new")[0] == 204
        finally:
            other.close()
            os.unlink(sockets / "deaf.sock")
            for path in specs.iterdir():
                path.unlink()


def test_a_spec_file_leads_to_a_plugin(own):
    specs = own.base / "more-specs"
    specs.mkdir()
    made = VolumePlugin(own.base / "elsewhere.sock", own.base / "by-file")
    try:
        (specs / "first.spec").write_text(f"unix://{made.server_address}\n")
        (specs / "second").mkdir()
        (specs / "second" / "second.json").write_text(
            json.dumps({"Name": "second", "Addr": f"unix://{made.server_address}"})
        )
        for name in ("first", "second"):
            own.docker("volume", "create", "-d", name, f"{name}-data")
            own.docker("volume", "rm", f"{name}-data")
        own.docker("volume", "create", "-d", "first", "stays")
    finally:
        made.close()
    for path in (specs / "first.spec", specs / "second" / "second.json"):
        path.unlink()
    own.restart()
    # The plugin has gone for good: its volume is known still, and can be forgotten.
    assert own.docker("volume", "ls", "-q").stdout == "stays\n"
    assert 'exists in driver "first"' in own.docker("volume", "inspect", "stays", check=False).stderr
    assert own.docker("volume", "rm", "stays", check=False).returncode == 1
    own.docker("volume", "rm", "-f", "stays")
    assert own.docker("volume", "ls", "-q").stdout == ""


def test_what_a_plugin_has_is_not_the_engines_to_copy_or_rename(own, plugin):
    api = Api(own)
    api.ok("POST", "/volumes/create", {"Name": "data", "Driver": "files", "DriverOpts": {"size": "1g"}})
    for ask in ("clone?to=copy", "snapshots?name=first", "rename?name=other"):
        status, answer = api.call("POST", f"/volumes/data/{ask}")
        assert (status, "plugin files" in answer["message"]) == (501, True), answer
    api.ok("DELETE", "/volumes/data")


@contextlib.contextmanager
def terminator(directory, target):
    """A port of 127.0.0.1 that asks for a client's certificate, speaks TLS, and passes what is said on to a socket."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem", directory / "server-key.pem")
    context.load_verify_locations(directory / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            with (
                contextlib.suppress(OSError),
                context.wrap_socket(self.request, server_side=True) as client,
                socket.socket(socket.AF_UNIX) as plugin,
            ):
                plugin.connect(target)
                ways = {client: plugin, plugin: client}
                while True:
                    for said in [client] if client.pending() else select.select([*ways], [], [])[0]:
                        data = said.recv(65536)
                        if not data:
                            return
                        ways[said].sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_a_plugin_over_tls(own, plugin, tmp_path):
    everything(tmp_path)
    specs = own.base / "more-specs"
    specs.mkdir(exist_ok=True)
    with terminator(tmp_path, plugin.server_address) as port:

        def described(name, **tls):
            files = {key: str(tmp_path / file) for key, file in tls.items()}
            told = {"Name": name, "Addr": f"https://localhost:{port}", "TLSConfig": files}
            (specs / f"{name}.json").write_text(json.dumps(told))

        described("secure", CAFile="ca.pem", CertFile="client.pem", KeyFile="client-key.pem")
        own.docker("volume", "create", "-d", "secure", "data")
        own.docker("run", "--rm", "-v", "data:/d", "busybox", "touch", "/d/file")
        assert (plugin.directory / "data" / "file").exists()
        wait_until(lambda: plugin.users["data"] == [], what="the unmount")
        own.docker("volume", "rm", "data")
        # Neither a server that others have signed for, nor a client that is nobody, gets anywhere.
        described("strange", CAFile="stranger-ca.pem", CertFile="client.pem", KeyFile="client-key.pem")
        described("nobody", CAFile="ca.pem")
        calls = len(plugin.calls)
        for name in ("strange", "nobody"):
            failed = own.docker("volume", "create", "-d", name, "other", check=False)
            assert failed.returncode == 1
            assert name in failed.stderr
        assert len(plugin.calls) == calls
    for name in ("secure", "strange", "nobody"):
        (specs / f"{name}.json").unlink()
