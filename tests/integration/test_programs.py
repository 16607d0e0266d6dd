"""Real programs: apt-get, a Python web server, PostgreSQL and a Compose project, in a Debian root file system."""

import contextlib
import importlib.util
import json
import os
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import ARCHITECTURE, free_port, new_engine, oci_archive, wait_until

APT = Path("/etc/apt")
PORT = free_port()
# The package's own launcher loses exit codes: this is the program that it launches.
COMPOSE = os.path.join(importlib.util.find_spec("compose").submodule_search_locations[0], "docker-compose")


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


PROJECT = """\
name: shop
services:
  db:
    image: debian:full
    command: ["sh", "-ec", "pg_dropcluster 15 main || true; chown postgres /data; su postgres -c 'test -e /data/PG_VERSION || /usr/lib/postgresql/15/bin/initdb -A trust -D /data >/dev/null'; echo host all all all trust >>/data/pg_hba.conf; exec su postgres -c \\"exec /usr/lib/postgresql/15/bin/postgres -D /data -h '*'\\""]
    volumes: ["data:/data"]
    networks: [back]
    healthcheck: {test: ["CMD", "pg_isready", "-h", "127.0.0.1"], interval: 1s, start_interval: 200ms, start_period: 60s}
    stop_signal: SIGINT
  cache:
    image: debian:full
    command: ["python3", "-m", "http.server", "6000", "-d", "/etc"]
    networks: [back]
    stop_grace_period: 0s
  web:
    image: debian:full
    command: ["python3", "-c", "$PROGRAM"]
    networks: [front, back]
    secrets: [word]
    depends_on: {db: {condition: service_healthy}, cache: {condition: service_started}}
    ports: ["127.0.0.1:0:8000"]
    stop_grace_period: 0s
networks: {front: {}, back: {internal: true}}
volumes: {data: {}}
secrets: {word: {file: ./word}}
"""
# Each page is a row in the database; it names the replica, and shows what the cache and the secret say.
WEB = """\
import http.server, socket, subprocess, urllib.request
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        sql = 'create table if not exists seen (n int); insert into seen values (1); select count(*) from seen'
        rows = subprocess.run(['psql', '-h', 'db', '-U', 'postgres', '-qAtc', sql], capture_output=True, text=True)
        cached = urllib.request.urlopen('http://cache:6000/debian_version').status
        word = open('/run/secrets/word').read().strip()
        page = ' '.join([socket.gethostname(), rows.stdout.strip() or rows.stderr, str(cached), word]).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(page)
http.server.ThreadingHTTPServer(('', 8000), Handler).serve_forever()
"""


@pytest.mark.timeout(900)
def test_a_compose_project_of_web_database_and_cache(served, tmp_path):
    """Docker Compose, unmodified: health-checked dependencies, networks, a volume, a secret, scaled to four."""
    served.run("exec", "full", "sh", "-c", "pkill postgres || true")
    served.run("commit", "full", "debian:full", timeout=300)
    program = json.dumps(WEB)[1:-1].replace("$", "$$")
    (tmp_path / "compose.yaml").write_text(PROJECT.replace("$PROGRAM", program))
    (tmp_path / "word").write_text("secret\n")

    def compose(*arguments):
        command = [COMPOSE, *arguments]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=served.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, (
            f"{arguments}: {done.stdout}{done.stderr}{served.run('logs', 'shop-db-1', check=False)}"
        )
        return done.stdout

    def page(replica):
        address = compose("port", "web", "8000", "--index", str(replica)).strip()
        with urllib.request.urlopen(f"http://{address}/", timeout=30) as answer:
            return answer.read().decode().split()

    try:
        compose("up", "-d", "--wait")
        wait_until(
            lambda: page(1)[1:] == ["1", "200", "secret"] or page(1)[2:] == ["200", "secret"], 30, 0.2, "the page"
        )
        compose("up", "-d", "--wait", "--scale", "web=4")
        pages = [page(replica) for replica in range(1, 5)]
        assert len({found[0] for found in pages}) == 4
        counts = [int(found[1]) for found in pages]
        assert counts == sorted(set(counts))
        assert "psql" in compose("exec", "-T", "web", "which", "psql")
        assert "database system is ready" in compose("logs", "db")
        compose("down")
        compose("up", "-d", "--wait")
        assert int(page(1)[1]) > counts[-1]  # the volume was kept
    finally:
        compose("down", "-v")
    assert served.run("network", "ls", "-q", "--filter", "type=custom").stdout == ""
    assert "shop_data" not in served.run("volume", "ls", "-q").stdout
