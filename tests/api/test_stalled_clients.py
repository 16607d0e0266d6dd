"""Clients that ask for much and read nothing: each stalls itself alone, and what waits for it is bounded."""

import threading
from pathlib import Path

import pytest

from tests.api.http_client import Api, read_head
from tests.conftest import busybox_archive, new_engine, oci_archive, push, tar_of, wait_until

LINES = "i=0; while [ $i -lt 3000 ]; do echo $i $LONG; i=$((i+1)); done"  # three megabytes


@pytest.fixture(scope="module")
def engine():
    own = new_engine()
    own.start()
    own.run("load", "-q", "-i", busybox_archive())
    yield own
    own.stop()


@pytest.fixture
def api(engine):
    return Api(engine)


def resident(engine):
    pids = [engine.process.pid, *engine.supervisor_pids()]
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in pids)


def stall(api, method, path, count=8):
    """Clients that have sent a request, and read no more than that it is answered."""
    found = []
    for _ in range(count):
        found.append(api.raw(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()))
        found[-1].settimeout(30)
        assert found[-1].recv(12).startswith(b"HTTP/1.1 200"), path
    return found


def talker(api, name):
    return api.create("sh", "-c", LINES, name=name, Env=["LONG=" + "x" * 1000])


@pytest.mark.parametrize("what", ["logs", "attach", "stats", "events"])
def test_streams_of_containers(api, engine, what):
    """The container goes to its end, another client of the same thing gets everything, and memory does not follow."""
    container = talker(api, f"stalled-{what}")
    before = resident(engine)
    path = {
        "logs": f"/containers/{container}/logs?follow=1&stdout=1",
        "attach": f"/containers/{container}/attach?stream=1&stdout=1",
        "stats": f"/containers/{container}/stats",
        "events": "/events",
    }[what]
    if what in ("logs", "stats"):
        api.ok("POST", f"/containers/{container}/start")
    silent = stall(api, "POST", path) if what == "attach" else stall_when_answered(api, path)
    if what not in ("logs", "stats"):
        api.ok("POST", f"/containers/{container}/start")
    assert api.ok("POST", f"/containers/{container}/wait")["StatusCode"] == 0
    if what == "events":
        for number in range(600):
            api.call("POST", f"/containers/{container}/rename?name=stalled-events-{number}")
    api.connection.request("GET", f"/containers/{container}/logs?stdout=1")
    assert api.connection.getresponse().read().count(b"\n") == 3000
    api.connection.close()
    assert resident(engine) - before < 100 << 20
    for one in silent:
        one.close()
    api.ok("DELETE", f"/containers/{container}?force=1")


def stall_when_answered(api, path):
    """The same where the answer begins with the first thing there is to say."""
    return [api.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()) for _ in range(8)]


def test_archives_of_an_image(api, engine):
    before = resident(engine)
    silent = stall(api, "GET", "/images/get?names=busybox", 8)
    api.connection.request("GET", "/images/get?names=busybox")
    assert len(api.connection.getresponse().read()) > 500_000
    assert resident(engine) - before < 100 << 20
    for one in silent:
        one.close()


def test_the_progress_of_a_pull(api, engine, registry, tmp_path):
    """Who pulls the same image beside one that does not read its progress gets it."""
    layers = [tar_of([(f"file{number}", b"x" * 1000)]) for number in range(20)]
    archive = tmp_path / "many.tar"
    archive.write_bytes(oci_archive(layers))
    reference = push(archive, registry, "stalled:1")
    silent = [
        api.raw(f"POST /images/create?fromImage={reference} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        for _ in range(20)
    ]
    assert engine.run("pull", "-q", reference).returncode == 0
    for one in silent:
        assert "200" in read_head(one)[0]
        one.close()
    engine.run("rmi", reference)


def test_uploads_that_stop(api, engine):
    """A load that never goes on holds up no other."""
    data = busybox_archive().read_bytes()
    silent = []
    for _ in range(8):
        sock = api.raw(f"POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode())
        sock.sendall(data[:200_000])
        silent.append(sock)
    done = []
    thread = threading.Thread(target=lambda: done.append(engine.run("load", "-q", "-i", busybox_archive())))
    thread.start()
    thread.join(60)
    assert done
    assert done[0].returncode == 0
    for sock in silent:
        sock.close()
    wait_until(lambda: not list((engine.data_root / "ingest").iterdir()), what="the end of what was half sent")
