"""POST /commit and imports: over HTTP, with docker-py, docker and knarr."""

import contextlib
import functools
import http.server
import io
import json
import lzma
import subprocess
import tarfile
import threading
import urllib.parse
import uuid

import docker
import pytest

from tests.api.http_client import Api
from tests.conftest import busybox_layer, tar_of, wait_until


@pytest.fixture(scope="module")
def api(shared_engine):
    return Api(shared_engine)


@pytest.fixture
def name(shared_engine):
    value = "made/" + uuid.uuid4().hex[:8]
    yield value
    shared_engine.run("rmi", "-f", value, check=False)


@pytest.fixture
def box(shared_engine):
    made = "commit-" + uuid.uuid4().hex[:8]
    script = "echo kept >/kept; rm -r /home; mkdir /home; echo new >/home/new; ln /kept /hard; exec sleep 1000"
    shared_engine.run("run", "-d", "--name", made, "--network", "none", "busybox", "sh", "-c", script)
    wait_until(lambda: shared_engine.run("exec", made, "test", "-e", "/hard", check=False).returncode == 0)
    yield made
    shared_engine.run("rm", "-f", made)


def commit(api, container, body=None, **query):
    query = urllib.parse.urlencode({"container": container, **query}, doseq=True)
    return api.call("POST", f"/commit?{query}", body)


def test_a_commit_is_the_container_as_an_image(api, box, name, shared_engine):
    status, made = commit(
        api, box, repo=name, author="somebody", comment="why not", changes=["ENV A=1 B='2 3'", 'CMD ["cat", "/kept"]']
    )
    assert status == 201
    image = api.ok("GET", f"/images/{name}:latest/json")
    base = api.ok("GET", "/images/busybox/json")
    assert image["Id"] == made["Id"]
    assert image["RootFS"]["Layers"][:-1] == base["RootFS"]["Layers"]
    assert (image["Author"], image["Comment"]) == ("somebody", "why not")
    assert image["Config"]["Cmd"] == ["cat", "/kept"]
    assert image["Config"]["Env"][-2:] == ["A=1", "B=2 3"]
    history = api.ok("GET", f"/images/{name}/history")
    assert history[0]["Comment"] == "why not"
    assert history[0]["CreatedBy"].startswith("sh -c echo kept")
    assert len(history) == 2
    run = functools.partial(shared_engine.run, "run", "--rm", "--network", "none", name)
    assert run().stdout == "kept\n"
    assert run("sh", "-c", "ls /home; stat -c %h /kept; echo $B; test -e /etc/hosts").stdout == "new\n2\n2 3\n"
    assert api.ok("GET", f"/containers/{box}/json")["State"]["Status"] == "running"


def test_a_commit_pauses_unless_told_otherwise(api, box, name, shared_engine):
    client = docker.APIClient(base_url=shared_engine.host)
    since = client.info()["SystemTime"]
    assert commit(api, box, repo=name)[0] == 201
    assert commit(api, box, repo=name, pause="0")[0] == 201
    until = client.info()["SystemTime"]
    filters = {"container": box, "event": ["pause", "unpause", "commit"]}
    events = list(client.events(since=since, until=until, filters=filters, decode=True))
    client.close()
    assert [event["Action"] for event in events] == ["pause", "unpause", "commit", "commit"]
    assert events[2]["Actor"]["Attributes"]["imageRef"] == f"{name}:latest"
    shared_engine.run("pause", box)
    assert commit(api, box, repo=name)[0] == 201
    assert api.ok("GET", f"/containers/{box}/json")["State"]["Status"] == "paused"


def test_a_container_that_has_changed_nothing_makes_no_layer(api, name):
    container = api.create("true")
    assert commit(api, container, repo=name, changes="LABEL a=b")[0] == 201
    image = api.ok("GET", f"/images/{name}/json")
    assert image["RootFS"]["Layers"] == api.ok("GET", "/images/busybox/json")["RootFS"]["Layers"]
    assert image["Config"]["Labels"] == {"a": "b"}
    api.ok("DELETE", f"/containers/{container}")


def test_a_config_in_the_body_stands_before_the_containers(api, name):
    container = api.create("true", Env=["X=1", "Y=2"], User="app")
    assert commit(api, container, {"Env": ["X=9"], "Cmd": ["ls"]}, repo=name)[0] == 201
    config = api.ok("GET", f"/images/{name}/json")["Config"]
    assert (config["Cmd"], config["User"]) == (["ls"], "app")
    assert config["Env"][:2] == ["X=9", "Y=2"]
    api.ok("DELETE", f"/containers/{container}")


CHANGES = [
    ("ENTRYPOINT run it", {"Entrypoint": ["/bin/sh", "-c", "run it"], "Cmd": None}),
    ('CMD a $X\nENTRYPOINT ["b"]', {"Entrypoint": ["b"], "Cmd": ["/bin/sh", "-c", "a $X"]}),
    ("ENV OLD style value", {"Env": ["PATH", "OLD=style value"]}),
    ("ENV A=x\nENV B=$A-${A:+y}-${C:-z} C=\\$A", {"Env": ["PATH", "A=x", "B=x-y-z", "C=$A"]}),
    (
        "expose 80 90/udp 100-102",
        {"ExposedPorts": {port: {} for port in ("100/tcp", "101/tcp", "102/tcp", "80/tcp", "90/udp")}},
    ),
    ('# comment\nLABEL a="b c" \\\n  d=e', {"Labels": {"a": "b c", "d": "e"}}),
    ("USER 5:6\nWORKDIR /a\nWORKDIR b/../c", {"User": "5:6", "WorkingDir": "/a/c"}),
    ('VOLUME /v /w\nVOLUME ["/x y"]', {"Volumes": {"/v": {}, "/w": {}, "/x y": {}}}),
    ("STOPSIGNAL SIGQUIT\nONBUILD RUN x", {"StopSignal": "SIGQUIT", "OnBuild": ["RUN x"]}),
    (
        "HEALTHCHECK --interval=1m30s --retries=3 CMD check it",
        {"Healthcheck": {"Interval": 90 * 10**9, "Retries": 3, "Test": ["CMD-SHELL", "check it"]}},
    ),
    ("HEALTHCHECK NONE", {"Healthcheck": {"Test": ["NONE"]}}),
]


def test_every_instruction_that_docker_takes(api, name):
    container = api.create("sleep", "1")
    for changes, expected in CHANGES:
        status, made = commit(api, container, changes=changes)
        assert status == 201, (changes, made)
        config = api.ok("GET", f"/images/{made['Id']}/json")["Config"]
        for field, value in expected.items():
            found = config.get(field)
            if field == "Env":
                found = [entry if not entry.startswith("PATH=") else "PATH" for entry in found]
            assert found == value, changes
        api.ok("DELETE", f"/images/{made['Id']}")
    api.ok("DELETE", f"/containers/{container}")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ("RUN rm -rf /", "RUN is not a valid change command"),
        ("from x", "from is not a valid change command"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("LABEL a=b c", "Syntax error - can't find = in"),
        ("EXPOSE 99999", "invalid containerPort: 99999"),
        ("EXPOSE x", "invalid containerPort: x"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK --interval=x CMD y", 'invalid duration "x"'),
        ("USER", "USER requires exactly one argument"),
        ("STOPSIGNAL foo", "invalid signal: foo"),
        ("VOLUME []", "VOLUME requires at least one argument"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ('ENV A="b', "matching double-quote"),
    ],
)
def test_other_instructions_are_refused(api, changes, words):
    container = api.create("true")
    status, answer = commit(api, container, changes=changes)
    assert status == 400
    assert words in answer["message"]
    api.ok("DELETE", f"/containers/{container}")


def test_what_cannot_be_committed(api):
    assert commit(api, "none") == (404, {"message": "No such container: none"})
    container = api.create("true")
    assert commit(api, container, repo="UPPER")[0] == 400
    status, answer = commit(api, container, repo="a@sha256:" + "0" * 64)
    assert (status, answer["message"]) == (400, "cannot import digest reference")
    status, answer = commit(api, container, {"ExposedPorts": {"x": {}}})
    assert (status, answer["message"]) == (400, "the new image's config: config.ExposedPorts: 'x' is not a port")
    api.ok("DELETE", f"/containers/{container}")


def test_a_commit_of_a_commit_and_its_removal(api, box, name, shared_engine):
    before = set(blobs(shared_engine))
    assert commit(api, box, repo=name)[0] == 201
    child = api.ok("POST", "/containers/create", {"Image": name, "Cmd": ["sh", "-c", "rm /kept; echo 2 >/second"]})[
        "Id"
    ]
    api.ok("POST", f"/containers/{child}/start")
    api.ok("POST", f"/containers/{child}/wait")
    assert commit(api, child, repo=name, tag="second")[0] == 201
    ran = shared_engine.run("run", "--rm", "--network", "none", f"{name}:second", "ls", "/second", "/kept", check=False)
    assert (ran.returncode, ran.stdout) == (1, "/second\n")
    api.ok("DELETE", f"/containers/{child}")
    api.ok("DELETE", f"/images/{name}:second")
    api.ok("DELETE", f"/images/{name}")
    wait_until(lambda: set(blobs(shared_engine)) == before, what="all blobs of both to be gone")


def blobs(engine):
    return [path.name for path in (engine.data_root / "blobs/sha256").iterdir()]


def test_docker_and_docker_py_commit(box, name, shared_engine):
    made = shared_engine.docker("commit", "-m", "by docker", "-c", "LABEL x=y", box, f"{name}:cli").stdout.strip()
    client = docker.DockerClient(base_url=shared_engine.host)
    image = client.containers.get(box).commit(name, "py", message="by py", changes="USER app")
    assert image.attrs["Config"]["User"] == "app"
    assert client.images.get(f"{name}:cli").id == made
    client.close()
    ours = shared_engine.run("commit", "-m", "ours", box, f"{name}:ours").stdout.strip()
    assert shared_engine.run("inspect", "-f", "{{.Id}}", f"{name}:ours").stdout.strip() == ours
    for tag in ("cli", "py", "ours"):
        shared_engine.run("rmi", f"{name}:{tag}")


def test_an_archive_is_imported(api, name, shared_engine, tmp_path):
    layer = busybox_layer()
    (tmp_path / "root.tar.xz").write_bytes(lzma.compress(layer, preset=0))
    out = shared_engine.run(
        "import", "-c", 'CMD ["echo", "imported"]', "-m", "words", tmp_path / "root.tar.xz", name
    ).stdout
    image = api.ok("GET", f"/images/{name}/json")
    assert out.strip() == image["Id"]
    assert image["Comment"] == "words"
    assert shared_engine.run("run", "--rm", "--network", "none", name).stdout == "imported\n"
    # Whatever packed it, the archive in it is the same.
    client = docker.APIClient(base_url=shared_engine.host)
    answer = client.import_image_from_data(layer, repository=name, tag="py")
    client.close()
    assert json.loads(answer.splitlines()[-1])["status"].startswith("sha256:")
    assert api.ok("GET", f"/images/{name}:py/json")["RootFS"] == image["RootFS"]
    piped = subprocess.run(
        ["docker", "import", "-", f"{name}:cli"], input=layer, env=shared_engine.env, capture_output=True, check=True
    )
    assert piped.stdout.startswith(b"sha256:")
    for tag in ("latest", "py", "cli"):
        api.ok("DELETE", f"/images/{name}:{tag}")


@contextlib.contextmanager
def served(directory):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(directory)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_an_archive_is_imported_from_a_url(api, name, shared_engine, tmp_path):
    (tmp_path / "root.tar").write_bytes(busybox_layer())
    with served(tmp_path) as url:
        out = shared_engine.docker("import", f"{url}/root.tar", name).stdout
        assert f"Downloading from {url}/root.tar" in out
        refused = shared_engine.run("import", f"{url}/none.tar", name, check=False)
    assert refused.returncode == 1
    assert "with status 404" in refused.stderr
    assert shared_engine.run("run", "--rm", "--network", "none", name, "echo", "hi").stdout == "hi\n"
    image = api.ok("GET", f"/images/{name}/json")
    assert image["Comment"] == f"Imported from {url}/root.tar"


@pytest.mark.parametrize("data", [b"", b"no archive" * 100, tar_of([("../out", b"x")]), b"\x1f\x8b" + bytes(50)])
def test_a_bad_archive_leaves_nothing(api, data, shared_engine):
    before = sorted(blobs(shared_engine))
    connection = api.connection
    connection.request("POST", "/images/create?fromSrc=-&repo=bad/import", data)
    response = connection.getresponse()
    body = response.read()
    assert response.status == 400
    assert json.loads(body)["message"].startswith("cannot import the archive: ") or not data
    assert str(shared_engine.data_root).encode() not in body
    wait_until(lambda: sorted(blobs(shared_engine)) == before, what="the blobs to be as before")
    assert api.call("GET", "/images/bad/import/json")[0] == 404
    assert list((shared_engine.data_root / "tmp").iterdir()) == []


def test_an_import_comes_out_as_it_went_in(api, name, shared_engine):
    info = tarfile.TarInfo("file")
    info.mode, info.uid, info.gid, info.mtime, info.size = 0o2750, 7, 8, 1_234_567_890.5, 3
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(b"abc"))
    connection = api.connection
    connection.request("POST", f"/images/create?fromSrc=-&repo={name}&changes=CMD+x", stream.getvalue())
    assert connection.getresponse().read()
    container = api.ok("POST", "/containers/create", {"Image": name})["Id"]
    connection.request("GET", f"/containers/{container}/export")
    with tarfile.TarFile(fileobj=io.BytesIO(connection.getresponse().read())) as archive:
        member = archive.getmember("file")
        assert (member.mode, member.uid, member.gid, member.mtime) == (0o2750, 7, 8, 1_234_567_890)
        assert archive.extractfile(member).read() == b"abc"
    api.ok("DELETE", f"/containers/{container}")
