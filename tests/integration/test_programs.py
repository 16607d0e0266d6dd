"""Real programs: apt-get, a Python web server and PostgreSQL, in a Debian root file system with the network."""

import contextlib
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import ARCHITECTURE, free_port, new_engine, oci_archive, wait_until

APT = Path("/etc/apt")
PORT = free_port()


@pytest.fixture(scope="module")
def debian(tmp_path_factory):
    """An engine with debian:test, made with mmdebstrap, and debian:full with Python and PostgreSQL installed by apt-get in a container."""
    tar = tmp_path_factory.mktemp("debian") / "base.tar"
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates", "bookworm", tar],
        check=True,
        timeout=300,
    )
    archive = tar.with_name("debian.tar")
    config = {"Cmd": ["bash"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
    archive.write_bytes(oci_archive([tar.read_bytes()], config, "debian:test", ARCHITECTURE))
    tar.unlink()
    own = new_engine()
    own.start()
    try:
        own.run("load", "-q", "-i", archive, timeout=180)
        archive.unlink()
        yield own
    finally:
        own.stop()


@pytest.fixture(scope="module")
def served(debian):
    """A container in which apt-get has installed Python and PostgreSQL over the bridge, kept running."""
    # The host's settings for apt are used: they may say how its mirror is reached.
    debian.run(
        "run",
        "-d",
        "--name",
        "full",
        "--init",
        "-p",
        f"{PORT}:8000",
        "-v",
        f"{APT}:/host:ro",
        "-e",
        "DEBIAN_FRONTEND=noninteractive",
        "debian:test",
        "sleep",
        "3600",
    )
    install = debian.run(
        "exec",
        "full",
        "sh",
        "-ec",
        "cp /host/apt.conf.d/* /etc/apt/apt.conf.d/; apt-get update -qq; apt-get install -y -qq --no-install-recommends python3 postgresql >/tmp/log 2>&1 || { tail -30 /tmp/log; exit 1; }",
        check=False,
        timeout=400,
    )
    assert install.returncode == 0, install.stdout + install.stderr
    return debian


@pytest.mark.timeout(900)
def test_apt_get_installs_over_the_bridge(served):
    assert "install ok installed" in served.run("exec", "full", "dpkg", "-s", "postgresql").stdout


@pytest.mark.timeout(900)
def test_postgresql_answers_queries(served):
    served.run("exec", "full", "pg_ctlcluster", "15", "main", "start", timeout=90)
    ready = lambda: served.run("exec", "-u", "postgres", "full", "pg_isready", check=False).returncode == 0  # noqa: E731
    wait_until(ready, 30, 0.2, "PostgreSQL")
    query = "create table t as select generate_series(1, 100000) n; select sum(n) from t"
    assert "5000050000" in served.run("exec", "-u", "postgres", "-w", "/", "full", "psql", "-qAtc", query).stdout
    served.run("exec", "-u", "postgres", "full", "pg_ctlcluster", "15", "main", "stop", "-m", "fast", timeout=90)


@pytest.mark.timeout(900)
def test_a_python_web_server_is_published(served):
    served.run("exec", "full", "sh", "-c", "mkdir -p /srv && echo served by a container >/srv/page.html")
    served.run("exec", "-d", "-w", "/srv", "full", "python3", "-m", "http.server", "8000")

    def page(host):
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://{host}:{PORT}/page.html", timeout=5) as answer,
        ):
            return answer.read()
        return None

    assert (
        wait_until(lambda: page("127.0.0.1"), 10, 0.1, "the published port on loopback") == b"served by a container\n"
    )
