"""Docker Compose drives knarr: a project of one service on the default bridge, from up to down."""

import importlib.util
import json
import os
import subprocess
import urllib.request

import pytest

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
