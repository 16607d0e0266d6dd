"""Docker Compose drives knarr: projects from up to down."""

import importlib.util
import json
import os
import socket
import subprocess
import urllib.request

import pytest

from tests.conftest import wait_until

PROJECT = """\
name: tour
services:
  web:
    image: busybox
    network_mode: bridge
    command: ["sh", "-c", "echo $$WORD >/data/page; echo ready; exec httpd -f -p 8000 -h /data"]
    environment: {WORD: served}
    labels: {of: compose}
    ports: ["127.0.0.1:0:8000"]
    volumes: ["data:/data", "./given:/given:ro"]
    stop_grace_period: 0s
volumes:
  data: {}
"""

# The package's own launcher loses exit codes: this is the program that it launches.
PROGRAM = os.path.join(importlib.util.find_spec("compose").submodule_search_locations[0], "docker-compose")


class Compose:
    def __init__(self, engine, directory):
        self.engine = engine
        self.directory = directory

    def __call__(self, *arguments, check=True):
        result = subprocess.run(
            [PROGRAM, *arguments],
            cwd=self.directory,
            env=self.engine.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or result.returncode == 0, f"docker-compose {arguments}: {result.stdout}{result.stderr}"
        return result


@pytest.fixture
def compose(shared_engine, tmp_path):
    (tmp_path / "compose.yaml").write_text(PROJECT)
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "file").write_text("from the host\n")
    running = Compose(shared_engine, tmp_path)
    yield running
    running("down", "-v", check=False)


def test_a_project_from_up_to_down(compose):
    compose("up", "-d", "--wait")
    (service,) = [json.loads(line) for line in compose("ps", "--format", "json").stdout.splitlines()]
    assert (service["Name"], service["Service"], service["State"]) == ("tour-web-1", "web", "running")
    assert "com.docker.compose.project=tour" in service["Labels"]
    address = compose("port", "web", "8000").stdout.strip()
    with urllib.request.urlopen(f"http://{address}/page", timeout=5) as answer:
        assert answer.read() == b"served\n"
    assert compose("logs", "--no-color").stdout.split() == ["web-1", "|", "ready"]
    assert compose("exec", "-T", "web", "cat", "/given/file").stdout == "from the host\n"
    assert compose("exec", "-T", "web", "sh", "-c", "exit 7", check=False).returncode == 7
    assert "httpd -f -p 8000" in compose("top").stdout
    assert compose("run", "--rm", "-T", "web", "echo", "one-off").stdout == "one-off\n"

    # Nothing has changed: the container stays. Then the service has: it is replaced, and its volume is kept.
    before = compose("ps", "-q").stdout
    assert "Running" in compose("up", "-d").stderr
    assert compose("ps", "-q").stdout == before
    changed = PROJECT.replace("WORD: served", "WORD: served anew")
    (compose.directory / "compose.yaml").write_text(changed)
    compose("up", "-d", "--wait")
    assert compose("ps", "-q").stdout != before
    assert compose("exec", "-T", "web", "cat", "/data/page").stdout == "served anew\n"

    for verb, state in (
        ("pause", "paused"),
        ("unpause", "running"),
        ("restart", "running"),
        ("stop", "exited"),
        ("start", "running"),
        ("kill", "exited"),
    ):
        compose(verb)
        (found,) = [json.loads(line) for line in compose("ps", "-a", "--format", "json").stdout.splitlines()]
        assert (verb, found["State"]) == (verb, state)
    compose("down", "-v")
    assert compose("ps", "-aq").stdout == ""
    assert "tour_data" not in compose.engine.run("volume", "ls", "-q").stdout


def test_up_in_the_foreground_gives_output_and_exit_code(compose):
    (compose.directory / "compose.yaml").write_text(
        "name: tour\nservices:\n  job: {image: busybox, network_mode: none, command: [sh, -c, 'echo done; exit 4']}\n"
    )
    result = compose("up", "--no-color", "--exit-code-from", "job", check=False)
    assert result.returncode == 4
    assert "job-1  | done" in result.stdout


NETWORKED = """\
name: net
services:
  web:
    image: busybox
    command: ["sh", "-c", "exec nc -ll -p 8000 -e sh -c 'echo $$(hostname); nc db 5000 </dev/null; cat /run/secrets/word'"]
    networks: [front, back]
    secrets: [word]
    depends_on: {db: {condition: service_healthy}}
    expose: [8000]
    stop_grace_period: 0s
  entry:
    image: busybox
    command: ["nc", "-ll", "-p", "80", "-e", "nc", "web", "8000"]
    networks: [front]
    ports: ["127.0.0.1:0:80"]
    depends_on: [web]
    stop_grace_period: 0s
  db:
    image: busybox
    command: ["sh", "-c", "echo kept >>/data/file; touch /tmp/ready; exec nc -ll -p 5000 -e wc -l /data/file"]
    networks: {back: {aliases: [database], ipv4_address: 10.97.0.50}}
    volumes: ["data:/data"]
    healthcheck: {test: ["CMD", "test", "-e", "/tmp/ready"], interval: 1s, start_interval: 100ms, start_period: 10s}
    stop_grace_period: 0s
networks:
  front: {}
  back:
    internal: true
    ipam: {config: [{subnet: 10.97.0.0/24}]}
volumes:
  data: {}
secrets:
  word: {file: ./word}
"""


def answer_of(address):
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.settimeout(10)
        return b"".join(iter(lambda: connection.recv(1000), b"")).decode().split("\n")


def test_a_project_of_several_networks(compose):
    (compose.directory / "compose.yaml").write_text(NETWORKED)
    (compose.directory / "word").write_text("secret\n")
    compose("up", "-d", "--wait")
    networks = compose.engine.run("network", "ls", "--format", "{{.Name}}", "--filter", "type=custom").stdout.split()
    assert sorted(networks) == ["net_back", "net_front"]
    address = compose("port", "entry", "80").stdout.strip()
    wait_until(lambda: answer_of(address)[1:3] == ["1 /data/file", "secret"], what="the way through all services")
    # The database has no way out, and nothing on the front network finds it.
    assert "default" not in compose("exec", "-T", "db", "ip", "route").stdout
    assert compose("exec", "-T", "entry", "nslookup", "-type=a", "database", "127.0.0.11", check=False).returncode != 0
    found = compose("exec", "-T", "web", "nslookup", "-type=a", "database", "127.0.0.11").stdout
    assert "Address: 10.97.0.50" in found

    compose("up", "-d", "--wait", "--scale", "web=4")
    web = compose("ps", "-q", "web").stdout.split()
    assert len(web) == 4
    seen = {answer_of(address)[0] for _ in range(40)}
    assert seen == {container[:12] for container in web}
    compose("up", "-d", "--wait", "--scale", "web=1")
    assert {answer_of(address)[0] for _ in range(10)} <= {container[:12] for container in web}
    compose("restart", "db")
    wait_until(lambda: answer_of(address)[1:2] == ["2 /data/file"], what="the database, with its data")
    compose("down", "-v")
    assert compose.engine.run("network", "ls", "-q", "--filter", "type=custom").stdout == ""
    assert compose.engine.run("ps", "-aq").stdout == ""
