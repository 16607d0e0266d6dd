"""Pulls from a real registry on loopback: what arrives, what is shared, what is told, what stays after trouble."""

import asyncio
import base64
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from knarr.credentials import ANONYMOUS, Credential
from knarr.errors import Corrupt, InvalidArgument, NotFound, Unauthorized, Unavailable
from tests.conftest import running_registry, wait_until
from tests.image_files import MANIFEST, Layout, digest, files, upload
from tests.integration.images_place import Place


def pull(place, reference, *arguments):
    """The image and the messages of a pull."""
    messages = []

    async def emit(message):
        messages.append(message)

    async def work():
        return await place.images.pull(reference, *arguments, progress=emit)

    return place.run(work()), messages


@contextlib.contextmanager
def scripted(answer):
    """A registry that says what a test wants: answer(path) gives (status, headers, body) or a function of the socket."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = answer(self.path)
            if callable(found):
                found(self.connection)
                self.close_connection = True
                return
            status, headers, body = found
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

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


def serve(layout, entry, changes=()):
    """The answers of a registry that has a layout under the tag 1; changes: path → another answer."""

    def answer(path):
        if path in dict(changes):
            return dict(changes)[path]
        if path == "/v2/":
            return 200, {}, b"{}"
        name = path.rpartition("/")[2]
        data = layout.blobs.get(entry["digest"] if name == "1" else name)
        if data is None:
            return 404, {}, b""
        kind = (
            json.loads(data).get("mediaType", "application/octet-stream")
            if "/manifests/" in path
            else "application/octet-stream"
        )
        return 200, {"Content-Type": kind}, data

    return answer


def test_what_arrives_and_what_is_told(place, registry):
    layout = Layout()
    entry = layout.image([files(a="1"), files(b="2")])
    reference = upload(layout, registry.host, "pull/plain", "1", entry)
    image, messages = pull(place, reference)
    assert image.references == (reference,)
    assert image.repo_digests == (f"{registry.host}/pull/plain@{entry['digest']}",)
    assert [os.listdir(directory) for directory in image.lower] == [["b"], ["a"]]
    assert messages[0] == {"status": "Pulling from pull/plain", "id": "1"}
    assert messages[-2:] == [
        {"status": f"Digest: {entry['digest']}"},
        {"status": f"Status: Downloaded newer image for {reference}"},
    ]
    for layer in image.layers:
        told = [message["status"] for message in messages if message.get("id") == layer.blob[7:19]]
        assert told[0] == "Pulling fs layer"
        assert told[-3:] == ["Verifying Checksum", "Download complete", "Pull complete"] or told[-2:] == [
            "Extracting",
            "Pull complete",
        ]
    assert place.left_over() == set()
    assert place.events.past(0, 1 << 63, lambda event: event["Action"] == "pull")[0]["Actor"]["ID"] == reference


def test_pulling_again(place, registry):
    layout = Layout()
    reference = upload(layout, registry.host, "pull/again", "1", layout.image([files(a="1")]))
    pull(place, reference)
    _, messages = pull(place, reference)
    assert [message["status"] for message in messages[1:]] == [
        messages[1]["status"],
        f"Status: Image is up to date for {reference}",
    ]


def test_a_moved_tag_leaves_the_old_image_without_a_name(place, registry):
    layout = Layout()
    base = files(base="1")
    reference = upload(layout, registry.host, "pull/moved", "1", layout.image([base, files(old="1")]))
    old, _ = pull(place, reference)
    upload(layout, registry.host, "pull/moved", "1", layout.image([base, files(new="1")]))
    new, messages = pull(place, reference)
    assert old.id != new.id
    assert [message["status"] for message in messages if message.get("id") == new.layers[0].blob[7:19]] == [
        "Already exists"
    ]
    assert place.run(place.images.resolve(old.id)).references == ()
    assert place.run(place.images.resolve(reference)).id == new.id
    place.run(place.images.prune({}))
    with pytest.raises(NotFound):
        place.run(place.images.resolve(old.id))
    assert place.left_over() == set()
    assert os.listdir(new.lower[1]) == ["base"]


def test_an_index(place, registry):
    layout = Layout()
    own, arm = layout.image([files(own="1")]), layout.image([files(arm="1")], architecture="arm64")
    about = {
        **layout.image([]),
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
    }
    entry = layout.index(about, arm, layout.index(own, platform=own["platform"]))
    reference = upload(layout, registry.host, "pull/index", "1", entry)
    image, _ = pull(place, reference)
    assert os.listdir(image.lower[0]) == ["own"]
    assert image.repo_digests[0].endswith(entry["digest"])
    other, _ = pull(place, reference, "linux/arm64")
    assert os.listdir(other.lower[0]) == ["arm"]
    name = f"{registry.host}/pull/index@{entry['digest']}"
    assert place.run(place.images.resolve(name)).id == image.id
    assert place.run(place.images.resolve(name, "linux/arm64")).id == other.id
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x in the manifest list entries"):
        pull(place, reference, "linux/s390x")
    assert place.run(place.images.resolve(reference)).id == image.id, "the name stays with what suits this machine"
    assert place.run(place.images.resolve(reference, "linux/arm64")).id == other.id
    assert [found.id for found in place.images.list()] == [image.id], "one name, one entry"
    assert place.run(place.images.prune({})) == ([], 0)
    with pytest.raises(NotFound, match=r"its platform \(linux/amd64\) does not match"):
        place.run(place.images.resolve(reference, "linux/s390x"))
    place.run(place.images.remove(reference))
    assert place.is_empty()


def test_by_digest(place, registry):
    layout = Layout()
    entry = layout.image([files(a="1")])
    upload(layout, registry.host, "pull/digest", "1", entry)
    name = f"{registry.host}/pull/digest@{entry['digest']}"
    image, _ = pull(place, name)
    assert image.references == ()
    assert image.repo_digests == (name,)
    assert place.run(place.images.resolve(name)).id == image.id


def test_equal_layers_in_another_compression(place, registry):
    """The snapshot is shared; the blobs are not, so that each image can be pushed and saved as it came."""
    layout, layer = Layout(), files(a="1")
    one = upload(layout, registry.host, "pull/gzip", "1", layout.image([layer], author="one"))
    two = upload(layout, registry.host, "pull/zstd", "1", layout.image([layer], compress="zstd", author="two"))
    first, _ = pull(place, one)
    second, _ = pull(place, two)
    assert first.lower == second.lower
    assert first.layers[0].blob != second.layers[0].blob
    place.run(place.images.remove(one))
    assert place.left_over() == set()
    assert place.store.blob_size(second.layers[0].blob) is not None
    place.reopen()
    assert place.run(place.images.resolve(two)).complete


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pull/none:1", "manifest for .*pull/none:1 not found: manifest unknown"),
        ("pull/none", "pull/none:latest not found"),
    ],
)
def test_what_is_not_there(place, registry, name, words):
    with pytest.raises(NotFound, match=words):
        pull(place, f"{registry.host}/{name}")
    assert place.is_empty()


def test_nobody_answers(place):
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        pull(place, "127.0.0.1:1/x")
    with pytest.raises(InvalidArgument, match="must be lowercase"):
        pull(place, "127.0.0.1:1/X")


def test_a_platform_that_a_plain_manifest_is_not_for(place, registry):
    layout = Layout()
    reference = upload(layout, registry.host, "pull/arm", "1", layout.image([files(a="1")], architecture="arm64"))
    with pytest.raises(
        NotFound, match=r"its platform \(linux/arm64\) does not match the specified platform \(linux/amd64\)"
    ):
        pull(place, reference, "linux/amd64")
    assert str(pull(place, reference)[0].platform) == "linux/arm64"


@pytest.fixture
def guarded(tmp_path_factory):
    """A registry that asks for the user me with the password secret."""
    passwords = tmp_path_factory.mktemp("guarded") / "htpasswd"
    passwords.write_text(
        "me:$2b$04$w047bfBAdELXSi1D3/uKfetYeHXun6kgiSIXaJJEKpBI3gyuwRvMW\n"
    )  # secret, as bcrypt has it
    with running_registry(f"auth: {{htpasswd: {{realm: test, path: {passwords}}}}}\n") as running:
        yield running


def test_credentials(place, guarded, tmp_path):
    secret = base64.b64encode(b"me:secret").decode()
    layout = Layout()
    reference = upload(layout, guarded.host, "a/b", "1", layout.image([files(a="1")]), f"Basic {secret}")
    with pytest.raises(NotFound, match="pull access denied"):
        pull(place, reference)
    with pytest.raises(Unauthorized, match="refused the credentials") as caught:
        pull(place, reference, None, Credential("me", "wrong-one"))
    assert "wrong-one" not in str(caught.value)
    pull(place, reference, None, Credential("me", "secret"))
    place.run(place.images.remove(reference))
    configuration = tmp_path / "no-configuration"
    configuration.mkdir()
    (configuration / "config.json").write_text(json.dumps({"auths": {guarded.host: {"auth": secret}}}))
    pull(place, reference)


def test_credentials_do_not_go_to_a_mirror(tmp_path, registry):
    layout, seen = Layout(), []
    entry = layout.image([files(a="1")])
    answers = serve(layout, entry)

    class Recorder:
        def __call__(self, path):
            seen.append(path)
            return answers(path)

    with (
        scripted(Recorder()) as mirror,
        Place(tmp_path, registries={"registry.invalid": {"mirrors": [mirror]}}) as place,
    ):
        image, _ = pull(place, "registry.invalid/a/b:1", None, Credential("me", "secret"))
        assert image.references == ("registry.invalid/a/b:1",)
        assert seen


def test_clients_of_one_image_share_one_pull(place):
    layout, asked = Layout(), []
    entry = layout.image([files(a="x" * 10)])
    answers = serve(layout, entry)

    def slow(path):
        asked.append(path)
        time.sleep(0.15)
        return answers(path)

    with scripted(slow) as host:

        async def one(number):
            messages = []

            async def emit(message):
                messages.append(message["status"])

            await asyncio.sleep(number * 0.05)
            image = await place.images.pull(f"{host}/a:1", progress=emit)
            return image.id, messages[0], messages[-1]

        async def all_of_them():
            return await asyncio.gather(*[one(number) for number in range(5)])

        results = place.run(all_of_them())
    assert len(set(results)) == 1
    assert len([path for path in asked if "/blobs/" in path]) == 2, "one config and one layer"


def stalling(event, data):
    """Sends the beginning of a blob, and then nothing more."""

    def wait(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data[:100])
        event.wait(30)

    return wait


def test_a_pull_ends_when_the_last_client_has_gone(place):
    layout, release = Layout(), threading.Event()
    entry = layout.image([files(a=os.urandom(2000).hex())])
    layer = json.loads(layout.blobs[entry["digest"]])["layers"][0]["digest"]
    with scripted(serve(layout, entry, [(f"/v2/a/blobs/{layer}", stalling(release, layout.blobs[layer]))])) as host:

        async def work():
            first = asyncio.ensure_future(place.images.pull(f"{host}/a:1"))
            second = asyncio.ensure_future(place.images.pull(f"{host}/a:1"))
            await asyncio.sleep(0.5)
            first.cancel()
            await asyncio.wait({first})
            await asyncio.sleep(0.2)
            assert not second.done(), "somebody still waits"
            second.cancel()
            await asyncio.wait({second})
            for _ in range(100):
                if not place.images._pulls._running:
                    return
                await asyncio.sleep(0.05)
            pytest.fail("the pull went on without anybody waiting")

        place.run(work())
        release.set()
    assert place.left_over() == set()
    assert place.images.list() == []


def test_a_new_client_of_a_cancelled_pull_gets_a_pull_of_its_own(place):
    layout, release = Layout(), threading.Event()
    entry = layout.image([files(a=os.urandom(2000).hex())])
    layer = json.loads(layout.blobs[entry["digest"]])["layers"][0]["digest"]
    answers, changes = serve(layout, entry), {f"/v2/a/blobs/{layer}": stalling(release, layout.blobs[layer])}
    with scripted(lambda path: changes.get(path) or answers(path)) as host:

        async def work():
            first = asyncio.ensure_future(place.images.pull(f"{host}/a:1"))
            await asyncio.sleep(0.5)
            first.cancel()
            await asyncio.wait({first})
            changes.clear()
            return await place.images.pull(f"{host}/a:1")

        assert place.run(work()).complete
        release.set()


def broken(layout, name, data):
    layout.blobs[name] = data


HOSTILE = {
    "HTML for a manifest": (
        lambda layout, parts: [("/v2/a/manifests/1", (200, {"Content-Type": "text/html"}, b"<html>hi</html>"))],
        Unavailable,
    ),
    "an empty manifest": (
        lambda layout, parts: [("/v2/a/manifests/1", (200, {"Content-Type": MANIFEST}, b""))],
        Corrupt,
    ),
    "a server error": (lambda layout, parts: [("/v2/a/manifests/1", (500, {}, b"oops"))], Unavailable),
    "a manifest of another digest": (lambda layout, parts: broken(layout, parts["manifest"], b"{}") or [], Corrupt),
    "a config of another digest": (lambda layout, parts: broken(layout, parts["config"], b"{}") or [], Corrupt),
    "a layer of another digest": (
        lambda layout, parts: broken(layout, parts["layer"], b"x" * len(layout.blobs[parts["layer"]])) or [],
        Corrupt,
    ),
    "a layer that is too long": (
        lambda layout, parts: broken(layout, parts["layer"], layout.blobs[parts["layer"]] + b"x") or [],
        Corrupt,
    ),
    "a layer that is missing": (lambda layout, parts: layout.blobs.pop(parts["layer"]) and [], NotFound),
    "a config that is missing": (lambda layout, parts: layout.blobs.pop(parts["config"]) and [], NotFound),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_registry_that_lies_leaves_nothing(place, name):
    layout = Layout()
    entry = layout.image([files(good="1"), files(a="x" * 100)])
    document = json.loads(layout.blobs[entry["digest"]])
    top = layout.index(entry)
    parts = {
        "manifest": entry["digest"],
        "config": document["config"]["digest"],
        "layer": document["layers"][1]["digest"],
    }
    change, kind = HOSTILE[name]
    with scripted(serve(layout, top, change(layout, parts))) as host, pytest.raises(kind):
        pull(place, f"{host}/a:1")
    assert place.left_over() == set()
    assert place.images.list() == []


def test_indexes_that_never_end(place):
    layout = Layout()
    entry = layout.image([])
    for _ in range(4):
        entry = layout.index(entry)
    with scripted(serve(layout, entry)) as host, pytest.raises(Corrupt, match="deep"):
        pull(place, f"{host}/a:1")


def test_an_index_that_lies_about_a_size(place):
    layout = Layout()
    entry = layout.image([])
    top = layout.index({**entry, "size": entry["size"] + 1})
    with scripted(serve(layout, top)) as host, pytest.raises(Corrupt, match="its index says"):
        pull(place, f"{host}/a:1")


def test_what_is_not_an_image(place):
    layout = Layout()
    helm = layout.add(b"{}", "application/vnd.cncf.helm.config.v1+json")
    entry = layout.document({"schemaVersion": 2, "mediaType": MANIFEST, "config": helm, "layers": []}, MANIFEST)
    with scripted(serve(layout, entry)) as host, pytest.raises(Exception, match="not of a container image"):
        pull(place, f"{host}/a:1")
    assert digest(b"{}") not in dict(place.store.blobs())


RESUMED = """
import sys
from pathlib import Path
from tests.integration.images_place import Place
place = Place(Path(sys.argv[1]))
place.open()
place.run(place.images.pull(sys.argv[2]))
"""


def test_a_pull_goes_on_where_a_killed_one_stopped(place):
    """What was on the disk is not asked for again: the second attempt sends Range."""
    layout, ranges, go_on = Layout(), [], threading.Event()
    entry = layout.image([files(a=os.urandom(3 << 20).hex())], compress="")
    layer = json.loads(layout.blobs[entry["digest"]])["layers"][0]["digest"]
    data = layout.blobs[layer]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rpartition("/")[2]
            found = layout.blobs[entry["digest"] if name == "1" else name]
            start = 0
            if name == layer:
                asked = self.headers.get("Range")
                ranges.append(asked)
                start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Type", MANIFEST if "/manifests/" in self.path else "application/octet-stream")
            self.send_header("Content-Length", str(len(found) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(found) - 1}/{len(found)}")
            self.end_headers()
            if name == layer and not go_on.is_set():
                self.wfile.write(found[: 4 << 20])
                self.wfile.flush()
                go_on.wait(20)
                self.close_connection = True
            else:
                self.wfile.write(found[start:])

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        reference = f"127.0.0.1:{server.server_port}/a:1"
        place.close()
        with subprocess.Popen([sys.executable, "-c", RESUMED, place.root, reference]) as process:

            def on_the_disk():
                entries = os.scandir(f"{place.root}/ingest") if os.path.isdir(f"{place.root}/ingest") else []
                return sum(entry.stat().st_size for entry in entries) >= 3 << 20

            wait_until(on_the_disk, what="half of the layer on the disk")
            process.kill()
        place.open()
        go_on.set()
        image = place.run(place.images.pull(reference))
    finally:
        go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()
    assert ranges[0] is None
    assert ranges[1].startswith("bytes=")
    assert int(ranges[1].removeprefix("bytes=").partition("-")[0]) >= 3 << 20
    assert os.stat(f"{image.lower[0]}/a").st_size == 6 << 20
    assert len(data) > 6 << 20
    assert os.listdir(f"{place.root}/ingest") == []


def test_whoever_says_that_he_has_no_credentials_gets_none(place, guarded, tmp_path):
    """The docker command line always sends a header; the daemon's own credentials are not for its clients."""
    secret = base64.b64encode(b"me:secret").decode()
    layout = Layout()
    reference = upload(layout, guarded.host, "a/b", "1", layout.image([files(a="1")]), f"Basic {secret}")
    (tmp_path / "no-configuration").mkdir()
    (tmp_path / "no-configuration" / "config.json").write_text(json.dumps({"auths": {guarded.host: {"auth": secret}}}))
    with pytest.raises(NotFound, match="pull access denied"):
        pull(place, reference, None, ANONYMOUS)
    pull(place, reference)
