"""testcontainers from PyPI drives knarr, its reaper included.

The reaper (Ryuk) is an image of its own project, which cannot be had here; `reaper_archive` makes one that does the same
work by the same protocol with the docker command line: it holds a connection, and when that ends removes what its
session left, over the engine's socket mounted into it.
"""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import busybox_layer, oci_archive, tar_of, wait_until

REAPER = """\
#!/bin/sh
# One connection: a filter a line, each answered with ACK. Its end is the session's.
echo "$(date) Started!"
nc -l -p 8080 -e /bin/session
for label in $(tr -d '\\r' </tmp/filters | tr '&' '\\n'); do
  docker ps -aq --no-trunc --filter "$label" | xargs -r docker rm -f -v
done
"""
SESSION = '#!/bin/sh\nwhile read -r line; do echo "$line" >>/tmp/filters; echo ACK; done\n'


def _program(path: Path):
    """(name in the archive, bytes) of a program and of the libraries that it is linked with."""
    yield "bin/docker", path.read_bytes()
    linked = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
    for word in linked.split():
        if word.startswith("/"):
            yield word.lstrip("/"), Path(word).read_bytes()


def reaper_archive() -> bytes:
    """An OCI archive of reaper:test."""
    docker = shutil.which("docker")
    assert docker, "the docker command line is needed"
    import tarfile

    entries = []
    for name, data in (*_program(Path(docker)), ("bin/reaper", REAPER.encode()), ("bin/session", SESSION.encode())):
        info = tarfile.TarInfo(name)
        info.mode = 0o755
        entries.append((info, data))
    config = {"Cmd": ["/bin/reaper"], "Env": ["PATH=/bin"], "ExposedPorts": {"8080/tcp": {}}}
    return oci_archive([busybox_layer(), tar_of(entries)], config, "docker.io/library/reaper:test")


@pytest.fixture(scope="module")
def reaped(shared_engine, tmp_path_factory):
    """The engine with the reaper's image, and the environment of a session that uses it."""
    archive = tmp_path_factory.mktemp("reaper") / "reaper.tar"
    archive.write_bytes(reaper_archive())
    shared_engine.run("load", "-q", "-i", archive)
    archive.unlink()
    environment = {
        **shared_engine.env,
        "RYUK_CONTAINER_IMAGE": "reaper:test",
        "TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE": str(shared_engine.socket),
        "TC_POOLING_INTERVAL": "0.05",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    yield shared_engine, environment
    shared_engine.run("rmi", "-f", "reaper:test")


def session(environment, script, **keywords):
    """A Python of its own, as testcontainers reads its settings when it is imported."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **keywords,
    )


def test_a_container_with_a_port_a_log_and_execs(reaped):
    engine, environment = reaped
    process = session(
        environment,
        """
        import urllib.request
        from testcontainers.core.container import DockerContainer
        from testcontainers.core.wait_strategies import HttpWaitStrategy, LogMessageWaitStrategy

        serve = "mkdir /www; echo served >/www/page; echo ready; exec httpd -f -p 8000 -h /www"
        with (
            DockerContainer("busybox")
            .with_command(["sh", "-c", serve])
            .with_env("A", "b")
            .with_exposed_ports(8000)
            .waiting_for(LogMessageWaitStrategy("ready"))
        ) as web:
            web.waiting_for(HttpWaitStrategy(8000, "/page").for_status_code(200))
            url = f"http://{web.get_container_host_ip()}:{web.get_exposed_port(8000)}/page"
            assert urllib.request.urlopen(url, timeout=5).read() == b"served\\n"
            assert web.exec(["sh", "-c", "echo $A; exit 3"]) == (3, b"b\\n")
            assert web.get_logs()[0] == b"ready\\n"
            assert web.status == "running"
            print(web.get_container_id())
        """,
    )
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert engine.run("inspect", out.strip(), check=False).returncode == 1


def test_what_a_killed_session_leaves_is_reaped(reaped):
    engine, environment = reaped
    process = session(
        environment,
        """
        from testcontainers.core.container import DockerContainer
        left = [DockerContainer("busybox").with_command("sleep 1000").start() for _ in range(3)]
        print(*(container.get_container_id() for container in left), flush=True)
        input()
        """,
    )
    try:
        left = process.stdout.readline().split()
        assert len(left) == 3, process.stderr.read()
        running = engine.run("ps", "-q", "--no-trunc").stdout.split()
        assert set(left) < set(running)
        reaper = engine.run("ps", "-q", "--filter", "name=testcontainers-ryuk").stdout.split()
        assert len(reaper) == 1
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()

    def gone():
        return not set(left) & set(engine.run("ps", "-aq", "--no-trunc").stdout.split())

    wait_until(gone, 20, 0.1, "the removal of what the session left")
    wait_until(lambda: engine.run("inspect", *reaper, check=False).returncode, 20, 0.1, "the reaper's own removal")


def test_without_a_reaper(shared_engine):
    environment = {**shared_engine.env, "TESTCONTAINERS_RYUK_DISABLED": "true", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = session(
        environment,
        """
        from testcontainers.core.container import DockerContainer
        with DockerContainer("busybox").with_command("sleep 100") as container:
            assert container.exec("echo hello").output == b"hello\\n"
        """,
    )
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
