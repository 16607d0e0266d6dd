"""docker-py from PyPI drives knarr."""

import io
import uuid

import docker
import pytest

from tests.conftest import busybox_archive, push, tar_of, wait_until


@pytest.fixture(scope="module")
def client(shared_engine):
    connected = docker.DockerClient(base_url=shared_engine.host)
    yield connected
    connected.close()


def test_run_returns_output(client):
    assert client.containers.run("busybox", "echo hello", remove=True) == b"hello\n"


def test_run_raises_with_the_exit_code_and_standard_error(client):
    with pytest.raises(docker.errors.ContainerError) as caught:
        client.containers.run("busybox", ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    assert caught.value.exit_status == 3
    assert caught.value.stderr == b"bad\n"


def test_a_missing_image_and_container_are_not_found(client):
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("no-such-image")
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("no-such-container")


def test_a_container_through_its_life(client):
    container = client.containers.run(
        "busybox",
        ["sh", "-c", "echo up; exec sleep 100"],
        detach=True,
        labels={"of": "docker-py"},
        name="py-" + uuid.uuid4().hex[:6],
    )
    try:
        assert container in client.containers.list(filters={"label": "of=docker-py"})
        wait_until(lambda: container.logs() == b"up\n", what="the log")
        code, output = container.exec_run(["sh", "-c", "echo in; exit 4"])
        assert (code, output) == (4, b"in\n")
        stdout, stderr = container.exec_run(["sh", "-c", "echo 1; echo 2 >&2"], demux=True).output
        assert (stdout, stderr) == (b"1\n", b"2\n")
        container.pause()
        container.reload()
        assert container.status == "paused"
        container.unpause()
        container.kill("SIGTERM")
        container.stop(timeout=0)
        assert container.wait()["StatusCode"] in {137, 143}
        assert container.attrs["Config"]["Labels"] == {"of": "docker-py"}
    finally:
        container.remove(force=True, v=True)


def test_attach_carries_standard_input(client):
    container = client.containers.create("busybox", "cat", stdin_open=True)
    try:
        stream = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
        container.start()
        stream._sock.sendall(b"through\n")
        stream._sock.shutdown(1)
        assert container.wait(timeout=10)["StatusCode"] == 0
        assert container.logs() == b"through\n"
        stream.close()
    finally:
        container.remove(force=True)


def test_pull_tag_and_remove(client, registry):
    reference = push(busybox_archive(), registry, "py/busybox:1")
    image = client.images.pull(reference)
    assert reference in image.tags
    assert image.tag("py/tagged", "2")
    client.images.remove("py/tagged:2")
    client.images.remove(reference)


def test_load(client):
    (image,) = client.images.load(busybox_archive().read_bytes())
    assert "busybox:latest" in image.tags


def test_events_tell_the_story(client):
    events = client.events(decode=True, filters={"type": "container"})
    client.containers.run("busybox", "true", remove=True)
    seen = []
    for event in events:
        seen.append(event["Action"])
        if event["Action"] == "destroy":
            break
    events.close()
    assert seen[:2] == ["create", "attach"] or seen[0] == "create"
    assert [action for action in seen if action in {"create", "start", "die", "destroy"}] == [
        "create",
        "start",
        "die",
        "destroy",
    ]


def test_a_corrupt_archive_is_refused(client):
    with pytest.raises(docker.errors.APIError):
        client.images.load(io.BytesIO(tar_of([("index.json", b"{")])).getvalue())
