"""The endpoints of images, spoken to in plain HTTP: statuses, Docker's words, streams."""

import base64
import contextlib
import http.client
import json
import os
import socket
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import pytest

from tests.conftest import tar_of, wait_until
from tests.image_files import Layout, files, simple, upload


class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=30)
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self._path)


def call(engine, method, path, body=None, **headers):
    """The status and the body: parsed JSON, or the messages of a stream."""
    with contextlib.closing(Connection(engine.socket)) as connection:
        connection.request(method, f"/v1.51{path}", body, headers)
        answer = connection.getresponse()
        data = answer.read()
    if "chunked" in (answer.getheader("Transfer-Encoding") or "") and answer.status == 200:
        return answer.status, [json.loads(line) for line in data.splitlines()]
    return answer.status, json.loads(data) if data.strip() else None


def pull(engine, reference, **headers):
    return call(engine, "POST", f"/images/create?fromImage={quote(reference, safe='')}", **headers)


def load(engine, *layers, name=None, **keywords):
    name = name or f"api/{uuid.uuid4().hex[:8]}:1"
    status, messages = call(engine, "POST", "/images/load?quiet=1", simple(name, *layers, **keywords))
    assert (status, messages) == (200, [{"stream": f"Loaded image: {name}\n"}])
    return name


def test_inspect(shared_engine):
    config = {
        "Cmd": ["a"],
        "Env": ["A=b"],
        "Labels": {"x": "y"},
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/v": {}},
        "User": "1",
        "WorkingDir": "/w",
        "StopSignal": "SIGINT",
    }
    layers = [files(a="1"), files(b="22")]
    name = load(shared_engine, *layers, config=config, created="2024-05-06T07:08:09.5Z", author="somebody")
    status, found = call(shared_engine, "GET", f"/images/{name}/json")
    assert status == 200
    assert found["RepoTags"] == [name]
    assert found["RepoDigests"] == []
    assert {key: found["Config"][key] for key in config} == config
    assert found["Config"]["Entrypoint"] is None
    assert (found["Created"], found["Author"], found["Os"], found["Size"]) == (
        "2024-05-06T07:08:09.5Z",
        "somebody",
        "linux",
        3,
    )
    assert len(found["RootFS"]["Layers"]) == 2
    assert found["GraphDriver"]["Name"] == "overlay2"
    assert os.listdir(found["GraphDriver"]["Data"]["UpperDir"]) == ["b"]
    assert os.listdir(found["GraphDriver"]["Data"]["LowerDir"]) == ["a"]
    assert found["Metadata"]["LastTagTime"].endswith("Z")
    for other in (found["Id"], found["Id"][7:], found["Id"][7:19], quote(name, safe="")):
        assert call(shared_engine, "GET", f"/images/{other}/json")[1]["Id"] == found["Id"]
    platform = quote(json.dumps({"os": "linux", "architecture": "s390x"}))
    status, error = call(shared_engine, "GET", f"/images/{name}/json?platform={platform}")
    assert status == 404
    assert "does not match the specified platform" in error["message"]
    assert call(shared_engine, "GET", f"/images/{name}/json?platform=%7B")[0] == 400


def at(engine, version, path):
    with contextlib.closing(Connection(engine.socket)) as connection:
        connection.request("GET", f"/v1.{version}{path}")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def test_each_version_is_shown_what_it_knows(shared_engine):
    name = load(shared_engine, files(own=uuid.uuid4().hex), config={"Cmd": ["a"]})
    shown = {
        version: at(shared_engine, version, f"/images/{name}/json")[1] for version in (43, 44, 47, 48, 49, 51, 52, 56)
    }
    former = {
        "AttachStderr",
        "AttachStdin",
        "AttachStdout",
        "Domainname",
        "Hostname",
        "Image",
        "OpenStdin",
        "StdinOnce",
        "Tty",
    }
    fields = {"Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "User", "Volumes", "WorkingDir"}
    assert shown[43]["Created"] == "0001-01-01T00:00:00Z"
    assert shown[43]["VirtualSize"] == shown[43]["Size"]
    for version, document in shown.items():
        assert ("VirtualSize" in document, "Created" in document) == (version < 44, version < 44)
        assert ("Container" in document, "ContainerConfig" in document) == (version < 45, version < 45)
        assert ("Descriptor" in document) == (version >= 48)
        expected = {"Cmd"} if version >= 52 else fields if version >= 50 else fields | former
        assert set(document["Config"]) == expected, version
        for field in ("Parent", "Comment", "DockerVersion", "Author"):
            assert (field in document) == (version < 52)
        assert "Manifests" not in document
        assert "Variant" not in document
    query = f"/images/json?shared-size=1&manifests=1&filters={quote(json.dumps({'reference': [name]}))}"
    for version in (41, 42, 43, 44, 46, 47, 48, 50, 51, 56):
        (line,) = at(shared_engine, version, query)[1]
        assert (line["SharedSize"] >= 0) == (version >= 42)
        assert ("VirtualSize" in line) == (version < 44)
        assert ("Manifests" in line, "Descriptor" in line) == (version >= 47, version >= 48)
        assert line["Containers"] == (0 if version >= 51 else -1)
        assert (line["Labels"], line["RepoDigests"]) == ({}, [] if version >= 43 else ["<none>@<none>"])
    manifest = at(shared_engine, 56, f"/images/{name}/json?manifests=1")[1]["Manifests"]
    assert [(one["Kind"], one["Available"], one["ImageData"]["Containers"]) for one in manifest] == [
        ("image", True, [])
    ]
    s390x = quote(json.dumps({"os": "linux", "architecture": "s390x"}))
    for version, path, status in (
        (48, f"/images/{name}/json?platform={s390x}", 200),
        (49, f"/images/{name}/json?platform={s390x}", 404),
        (49, f"/images/{name}/json?platform={s390x}&manifests=1", 400),
        (47, f"/images/{name}/history?platform={s390x}", 200),
        (48, f"/images/{name}/history?platform={s390x}", 404),
        (51, f"/images/{name}/get?platform={s390x}&platform={s390x}", 400),
        (56, f"/images/{name}/get?platform={s390x}&platform={s390x}", 404),
        (56, "/images/json?identity=1", 400),
        (56, f"/images/{name}/attestations?platform={s390x}&platform={s390x}", 400),
        (56, f"/images/{name}/attestations", 200),
    ):
        assert at(shared_engine, version, path)[0] == status, (version, path)


def test_names_that_mean_something_else(shared_engine):
    for method, path, words in (
        ("POST", "/images/busybox/tag?repo=sha256&tag=1", "refusing to create an ambiguous tag"),
        ("POST", f"/images/busybox/tag?repo=a@sha256:{'0' * 64}", "refusing to create a tag with a digest reference"),
        ("POST", "/images/create?fromImage=scratch&tag=1", "'scratch' is a reserved name"),
    ):
        status, error = call(shared_engine, method, path)
        assert (status, words in error["message"]) == (400, True)


def test_history(shared_engine):
    entries = [
        {"created": "2024-01-01T00:00:00Z", "created_by": "one"},
        {"created_by": "ENV A=b", "empty_layer": True},
        {"created_by": "two", "comment": "c"},
    ]
    name = load(shared_engine, files(a="1"), files(b="22"), history=entries)
    _, found = call(shared_engine, "GET", f"/images/{name}/history")
    assert [(entry["CreatedBy"], entry["Size"]) for entry in found] == [("two", 2), ("ENV A=b", 0), ("one", 1)]
    assert found[0]["Tags"] == [name]
    assert [entry["Id"] for entry in found[1:]] == ["<missing>"] * 2
    assert found[2]["Created"] == 1704067200


def test_list_and_filters(shared_engine):
    label = uuid.uuid4().hex
    name = load(shared_engine, config={"Labels": {label: "1"}}, created="2030-01-01T00:00:00Z")
    for filters in ({"label": [label]}, {"label": {label: True}}, {"label": [f"{label}=1"]}, {"reference": [name]}):
        status, found = call(shared_engine, "GET", f"/images/json?filters={quote(json.dumps(filters))}")
        assert status == 200
        assert [image["RepoTags"] for image in found] == [[name]]
    (image,) = found
    assert image["Created"] == 1893456000
    assert image["Containers"] == 0
    assert image["Labels"] == {label: "1"}
    assert (image["ParentId"], image["SharedSize"]) == ("", -1)
    assert call(shared_engine, "GET", "/images/json?shared-size=1")[1][0]["SharedSize"] >= 0
    for bad in ("{", "[]", '{"label": "x"}', '{"label": [1]}', '{"nothing": ["1"]}', '{"dangling": ["x"]}', "[" * 2000):
        status, error = call(shared_engine, "GET", f"/images/json?filters={quote(bad)}")
        assert status == 400, bad
        assert "invalid filter" in error["message"]


def test_tag_and_delete(shared_engine):
    name = load(shared_engine, files(own=uuid.uuid4().hex))
    target = f"localhost:5000/api/{uuid.uuid4().hex[:8]}"
    assert call(shared_engine, "POST", f"/images/{name}/tag?repo={target}&tag=v2") == (201, None)
    assert call(shared_engine, "DELETE", f"/images/{name}") == (200, [{"Untagged": name}])
    status, removed = call(shared_engine, "DELETE", f"/images/{target}:v2")
    assert status == 200
    assert removed[0] == {"Untagged": f"{target}:v2"}
    assert [list(item) for item in removed[1:]] == [["Deleted"], ["Deleted"]]
    status, error = call(shared_engine, "DELETE", f"/images/{target}:v2")
    assert (status, error) == (404, {"message": f"No such image: {target}:v2"})
    status, error = call(shared_engine, "POST", "/images/busybox/tag?repo=UPPER&tag=1")
    assert (status, error["message"]) == (
        400,
        "invalid reference format: repository name (library/UPPER) must be lowercase",
    )
    assert call(shared_engine, "POST", "/images/busybox/tag?repo=a&tag=..")[0] == 400


def test_an_image_in_use(shared_engine):
    name = load(shared_engine, files(own=uuid.uuid4().hex))
    status, made = call(
        shared_engine,
        "POST",
        "/containers/create",
        json.dumps({"Image": name, "Cmd": ["x"]}),
        **{"Content-Type": "application/json"},
    )
    assert status == 201, made
    try:
        status, error = call(shared_engine, "DELETE", f"/images/{name}")
        assert status == 409
        assert "is using its referenced image" in error["message"]
    finally:
        assert call(shared_engine, "DELETE", f"/containers/{made['Id']}")[0] == 204
    assert call(shared_engine, "DELETE", f"/images/{name}")[0] == 200


def test_prune(engine):
    load(engine, files(a="1"), name="keep:1")
    load(engine, files(b="1"), name="moved:1")
    load(engine, files(c="1"), name="moved:1")
    status, found = call(engine, "POST", "/images/prune")
    assert status == 200
    assert len(found["ImagesDeleted"]) == 2
    assert found["SpaceReclaimed"] > 0
    assert call(engine, "POST", "/images/prune") == (200, {"ImagesDeleted": None, "SpaceReclaimed": 0})
    assert call(engine, "POST", f"/images/prune?filters={quote(json.dumps({'dangling': ['false']}))}")[1][
        "ImagesDeleted"
    ]
    assert call(engine, "GET", "/images/json") == (200, [])


def test_pull(shared_engine, registry):
    layout = Layout()
    reference = upload(layout, registry.host, f"api/{uuid.uuid4().hex[:8]}", "1", layout.image([files(a="1")]))
    name, _, tag = reference.rpartition(":")
    status, messages = call(shared_engine, "POST", f"/images/create?fromImage={name}&tag={tag}")
    assert status == 200
    assert messages[0]["status"].startswith("Pulling from api/")
    assert messages[-1] == {"status": f"Status: Downloaded newer image for {reference}"}
    digest = call(shared_engine, "GET", f"/images/{reference}/json")[1]["RepoDigests"][0].partition("@")[2]
    assert call(shared_engine, "POST", f"/images/create?fromImage={name}&tag={digest}")[0] == 200
    assert call(shared_engine, "POST", f"/images/create?fromImage={name}%40{digest}&tag=ignored")[0] == 200
    upload(layout, registry.host, name.partition("/")[2], "2", layout.image([files(a="2")]))
    status, messages = call(shared_engine, "POST", f"/images/create?fromImage={name}")
    assert status == 200
    assert {message["id"] for message in messages if message["status"].startswith("Pulling from")} == {"1", "2"}
    assert call(shared_engine, "GET", f"/images/{name}:2/json")[1]["RepoTags"] == [f"{name}:2"]


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("fromImage=Foo:1", 400, "invalid reference format: repository name (library/Foo) must be lowercase"),
        ("fromImage=a&tag=b/c", 400, "invalid tag format"),
        ("fromImage=a%00b:1", 400, "invalid reference format"),
        ("fromImage=..%2f..%2fetc:1", 400, "invalid reference format"),
        ("fromImage=127.0.0.1:1/a:1", 503, "127.0.0.1:1"),
        ("fromImage=127.0.0.1:1/a:1&platform=a b", 400, "invalid platform"),
        ("", 400, "fromImage is missing"),
        ("fromSrc=-", 400, "archive"),
    ],
)
def test_what_a_pull_refuses(shared_engine, query, status, words):
    found, error = call(shared_engine, "POST", f"/images/create?{query.replace(' ', '%20')}")
    assert found == status
    assert words in error["message"]


def test_a_missing_image_has_a_status_of_its_own(shared_engine, registry):
    status, error = pull(shared_engine, f"{registry.host}/api/none:1")
    assert (status, error["message"]) == (404, f"manifest for {registry.host}/api/none:1 not found: manifest unknown")
    status, error = pull(shared_engine, f"{registry.host}/api/none:1", **{"X-Registry-Auth": "!"})
    assert (status, error["message"]) == (400, "invalid X-Registry-Auth header: it is not base64url of a JSON object")


@contextlib.contextmanager
def stalling_registry(layout, entry, layer, seen):
    """Serves a layout; of the one layer it sends the beginning, then waits until the client goes."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rpartition("/")[2]
            data = layout.blobs.get(entry["digest"] if name == "1" else name, b"{}")
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            if "/manifests/" in self.path:
                self.send_header("Content-Type", json.loads(data)["mediaType"])
            self.end_headers()
            if name != layer:
                self.wfile.write(data)
                return
            self.wfile.write(data[:50])
            seen.append("begun")
            self.connection.settimeout(20)
            with contextlib.suppress(OSError):
                if not self.connection.recv(1):
                    seen.append("gone")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_client_that_goes_away_ends_its_pull(engine):
    layout, seen = Layout(), []
    entry = layout.image([files(a=os.urandom(3000).hex())])
    layer = json.loads(layout.blobs[entry["digest"]])["layers"][0]["digest"]
    with stalling_registry(layout, entry, layer, seen) as host:
        connection = Connection(engine.socket)
        connection.request("POST", f"/v1.51/images/create?fromImage={host}/a&tag=1")
        wait_until(lambda: "begun" in seen, what="the download")
        connection.close()
        wait_until(lambda: "gone" in seen, what="the end of the download")
    assert call(engine, "GET", "/images/json") == (200, [])
    assert os.listdir(engine.data_root / "snapshots") == []


def test_an_error_in_the_middle_is_the_last_message(engine):
    layout = Layout()
    entry = layout.image([files(a=os.urandom(3000).hex())])
    layer = json.loads(layout.blobs[entry["digest"]])["layers"][0]["digest"]
    layout.blobs[layer] = b"x" * len(layout.blobs[layer])
    with stalling_registry(layout, entry, "", []) as host:
        status, messages = call(engine, "POST", f"/images/create?fromImage={host}/a&tag=1")
    assert status == 200
    assert layer in messages[-1]["error"]
    assert messages[-1]["errorDetail"] == {"message": messages[-1]["error"]}
    assert os.listdir(engine.data_root / "snapshots") == []


@pytest.mark.parametrize(
    "body", [b"", b"noise" * 999, tar_of([("index.json", b"{")]), tar_of([("x", b"y")]), simple("a:1")[:3000]]
)
def test_a_bad_archive(engine, body):
    status, error = call(engine, "POST", "/images/load", body)
    assert status in {400, 500}
    assert "archive" in error["message"] or "index.json" in error["message"]
    assert str(engine.data_root) not in error["message"]
    assert os.listdir(engine.data_root / "tmp") == []
    assert os.listdir(engine.data_root / "blobs" / "sha256") == []


def test_a_client_that_goes_away_while_it_sends(engine):
    connection = Connection(engine.socket)
    connection.putrequest("POST", "/v1.51/images/load")
    connection.putheader("Content-Length", "10000000")
    connection.endheaders(b"x" * 600_000)
    spool = engine.data_root / "tmp"
    wait_until(lambda: os.listdir(spool), what="the spooled archive")
    connection.close()
    wait_until(lambda: not os.listdir(spool), what="the end of the spooled archive")


def test_an_image_named_like_an_endpoint(shared_engine):
    for name in ("json:1", "a/json:1", "get/history:1"):
        load(shared_engine, name=name)
        assert call(shared_engine, "GET", f"/images/{name}/json")[1]["RepoTags"] == [name]
        assert call(shared_engine, "DELETE", f"/images/{name}")[0] == 200


def test_the_docker_command_line_and_a_guarded_registry(shared_engine, tmp_path):
    from tests.conftest import running_registry

    passwords = tmp_path / "htpasswd"
    passwords.write_text(
        "me:$2b$04$w047bfBAdELXSi1D3/uKfetYeHXun6kgiSIXaJJEKpBI3gyuwRvMW\n"
    )  # secret, as bcrypt has it
    secret = base64.b64encode(b"me:secret").decode()
    before = len(shared_engine.log())
    with running_registry(f"auth: {{htpasswd: {{realm: test, path: {passwords}}}}}\n") as guarded:
        layout = Layout()
        reference = upload(
            layout, guarded.host, "a/b", "1", layout.image([files(a=uuid.uuid4().hex)]), f"Basic {secret}"
        )
        refused = shared_engine.docker("pull", reference, check=False)
        assert refused.returncode == 1
        assert "pull access denied" in refused.stderr
        (tmp_path / "config.json").write_text(json.dumps({"auths": {guarded.host: {"auth": secret}}}))
        shared_engine.docker("--config", tmp_path, "pull", reference)
        said = shared_engine.log()[before:]
        assert "secret" not in said
        assert secret not in said


def test_save(shared_engine, tmp_path):
    name = load(shared_engine, files(own=uuid.uuid4().hex))
    shared_engine.docker("save", "-o", tmp_path / "saved.tar", name)
    assert call(shared_engine, "DELETE", f"/images/{name}")[0] == 200
    assert f"Loaded image: {name}" in shared_engine.docker("load", "-i", tmp_path / "saved.tar").stdout
    status, error = call(shared_engine, "GET", "/images/get?names=none:1")
    assert (status, error) == (404, {"message": "No such image: none:1"})
    assert call(shared_engine, "GET", "/images/get")[0] == 400
