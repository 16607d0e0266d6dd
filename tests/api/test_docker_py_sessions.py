"""docker-py from PyPI, in longer sessions: streams, events, statistics, wait, sockets, images."""

import io
import socket
import tarfile
import threading
import uuid

import docker
import pytest

from tests.conftest import busybox_archive, push, wait_until


@pytest.fixture(scope="module")
def client(shared_engine):
    connected = docker.DockerClient(base_url=shared_engine.host)
    yield connected
    connected.close()


@pytest.fixture
def sleeper(client):
    container = client.containers.run("busybox", "sleep 1000", detach=True, name="py-" + uuid.uuid4().hex[:8])
    yield container
    container.remove(force=True)


def test_logs_stream_while_it_runs(client):
    container = client.containers.run(
        "busybox", ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done; echo end >&2"], detach=True
    )
    try:
        assert b"".join(container.logs(stream=True, follow=True)) == b"1\n2\n3\nend\n"
        assert container.logs(stdout=False) == b"end\n"
        assert container.logs(tail=2, stderr=False) == b"3\n"  # the last two of all lines, of which one is stdout's
        assert len(container.logs(timestamps=True).splitlines()[0].split(b" ")) == 2
        assert container.logs(since=2**31 - 1) == b""
    finally:
        container.remove(force=True)


def test_statistics_once_and_streamed(client, sleeper):
    once = sleeper.stats(stream=False)
    assert once["memory_stats"]["usage"] > 0
    assert once["pids_stats"]["current"] == 1
    assert "eth0" in once["networks"]
    stream = sleeper.stats(decode=True, stream=True)
    samples = [next(stream) for _ in range(2)]
    stream.close()
    assert samples[1]["read"] > samples[0]["read"]


def test_exec_over_a_socket_and_detached(client, sleeper):
    _, stream = sleeper.exec_run(["sh", "-c", "read x; echo got $x"], stdin=True, socket=True)
    stream._sock.sendall(b"this\n")
    seen = b""
    while chunk := stream._sock.recv(4096):
        seen += chunk
    stream.close()
    assert seen[8:] == b"got this\n"
    made = client.api.exec_create(sleeper.id, "sleep 1000", user="app", environment={"A": "b"}, workdir="/tmp")
    client.api.exec_start(made["Id"], detach=True)
    details = client.api.exec_inspect(made["Id"])
    assert (details["Running"], details["ProcessConfig"]["user"]) == (True, "app")
    assert made["Id"] in client.api.inspect_container(sleeper.id)["ExecIDs"]
    chunks = list(sleeper.exec_run(["sh", "-c", "echo 1; echo 2"], stream=True).output)
    assert b"".join(chunks) == b"1\n2\n"


def test_attach_to_a_terminal_and_resize_it(client):
    container = client.containers.create("busybox", "sh", tty=True, stdin_open=True)
    try:
        stream = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
        container.start()
        container.resize(height=33, width=77)
        stream._sock.sendall(b"stty size; exit 6\n")
        seen = b""
        stream._sock.settimeout(10)
        while chunk := stream._sock.recv(4096):
            seen += chunk
        assert b"33 77" in seen
        assert container.wait(timeout=10)["StatusCode"] == 6
        stream.close()
    finally:
        container.remove(force=True)


@pytest.mark.parametrize(("condition", "remove"), [("not-running", False), ("next-exit", False), ("removed", True)])
def test_wait_by_condition(client, condition, remove):
    container = client.containers.create("busybox", "sh -c 'sleep 0.3; exit 9'", auto_remove=remove)
    try:
        results = []
        if condition == "not-running":
            container.start()
        waiter = threading.Thread(target=lambda: results.append(container.wait(timeout=20, condition=condition)))
        waiter.start()
        if condition != "not-running":
            wait_until(waiter.is_alive)
            container.start()
        waiter.join(20)
        assert results == [{"StatusCode": 9}]
    finally:
        if not remove:
            container.remove(force=True)


def test_events_of_one_container_by_filters(client, sleeper):
    events = client.events(decode=True, filters={"container": sleeper.id, "event": ["pause", "unpause", "kill", "die"]})
    sleeper.pause()
    sleeper.unpause()
    sleeper.kill()
    seen = [event for _, event in zip(range(4), events, strict=False)]
    events.close()
    assert [event["Action"] for event in seen] == ["pause", "unpause", "kill", "die"]
    assert seen[3]["Actor"]["Attributes"]["exitCode"] == "137"
    assert all(event["Actor"]["ID"] == sleeper.id for event in seen)


def test_update_rename_top_and_port(client, sleeper):
    sleeper.update(mem_limit="64m", memswap_limit="64m", cpu_shares=512)
    sleeper.rename(sleeper.name + "x")
    sleeper.reload()
    assert sleeper.name.endswith("x")
    assert sleeper.attrs["HostConfig"]["Memory"] == 64 << 20
    assert [row[-1] for row in sleeper.top()["Processes"]] == ["sleep 1000"]
    assert client.api.port(sleeper.id, 80) is None


def test_files_go_in_and_out(client, sleeper):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("given")
        info.size = 5
        archive.addfile(info, io.BytesIO(b"hello"))
    assert sleeper.put_archive("/tmp", stream.getvalue())
    assert sleeper.exec_run("cat /tmp/given").output == b"hello"
    chunks, stat = sleeper.get_archive("/tmp/given")
    assert (stat["name"], stat["size"]) == ("given", 5)
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        assert archive.extractfile("given").read() == b"hello"
    assert {"Path": "/tmp/given", "Kind": 1} in sleeper.diff()
    exported = b"".join(sleeper.export())
    with tarfile.open(fileobj=io.BytesIO(exported)) as archive:
        assert archive.extractfile("tmp/given").read() == b"hello"


def test_what_an_engine_says_of_itself(client, registry):
    assert client.ping()
    assert client.version()["ApiVersion"] == "1.56"
    assert client.info()["OSType"] == "linux"
    assert {"Images", "Containers", "Volumes"} <= client.df().keys()
    push(busybox_archive(), registry, "py/pruned:1")
    client.images.pull(f"{registry.host}/py/pruned:1")
    container = client.containers.create("busybox", "true", labels={"fate": "pruned"})
    assert client.containers.prune({"label": "fate=pruned"})["ContainersDeleted"] == [container.id]
    client.images.remove(f"{registry.host}/py/pruned:1")


def test_a_published_port_is_reached(client):
    container = client.containers.run(
        "busybox", ["sh", "-c", "echo served | nc -l -p 7000"], detach=True, ports={"7000/tcp": ("127.0.0.1", None)}
    )
    try:
        container.reload()
        (binding,) = container.ports["7000/tcp"]

        def answer():
            with socket.create_connection((binding["HostIp"], int(binding["HostPort"])), 5) as connection:
                return connection.recv(100)

        assert wait_until(answer, what="the published port") == b"served\n"
    finally:
        container.remove(force=True)
