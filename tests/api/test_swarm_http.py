"""Swarm mode and plugins: what a Docker answers that has neither, and the docker command line with it."""

import pytest

from tests.api.http_client import Api

NO_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)


@pytest.fixture
def api(shared_engine):
    return Api(shared_engine)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/swarm"),
        ("GET", "/swarm/unlockkey"),
        ("POST", "/swarm/update?version=3"),
        ("POST", "/swarm/unlock"),
        ("GET", "/tasks"),
        ("GET", "/tasks/x"),
        ("GET", "/tasks/x/logs?stdout=1"),
        ("GET", "/services/x/logs?stderr=1"),
        ("DELETE", "/nodes/x"),
        ("POST", "/nodes/x/update?version=18446744073709551615"),
        *(
            (method, path.format(kind))
            for kind in ("services", "secrets", "configs")
            for method, path in (
                ("GET", "/{}"),
                ("GET", "/v1.44/{}?filters=%7B%22name%22%3A%7B%22x%22%3Atrue%7D%7D"),
                ("GET", "/{}/x"),
                ("POST", "/{}/create"),
                ("POST", "/{}/x/update?version=1"),
                ("DELETE", "/{}/x"),
            )
        ),
    ],
)
def test_there_is_no_swarm(api, method, path):
    body = {} if method == "POST" else None
    assert api.call(method, path, body) == (503, {"message": NO_MANAGER})


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "/swarm/leave", None, 503, "This node is not part of a swarm"),
        ("POST", "/swarm/init", {}, 501, "knarr does not support swarm mode"),
        ("POST", "/swarm/join", {}, 501, "knarr does not support swarm mode"),
        ("POST", "/services/x/update", {}, 400, "invalid service version ''"),
        ("POST", "/swarm/update?version=-1", {}, 400, "invalid swarm version '-1'"),
        ("POST", "/nodes/x/update?version=18446744073709551616", {}, 400, "invalid node version"),
        ("POST", "/secrets/create", [], 400, "invalid JSON"),
        ("GET", "/services/x/logs", None, 400, "you must choose at least one stream"),
        ("GET", "/nodes?filters=%7B%22x%22%3A%5B%5D%7D", None, 400, "invalid filter 'x'"),
        ("GET", "/nodes?filters=x", None, 400, "invalid filter"),
        ("POST", "/tasks/create", {}, 404, "page not found"),
        ("GET", "/plugins/vieux/sshfs:latest/json", None, 404, 'plugin "vieux/sshfs:latest" not found'),
        ("DELETE", "/plugins/x", None, 404, 'plugin "x" not found'),
        ("POST", "/plugins/x/enable", None, 404, 'plugin "x" not found'),
        ("POST", "/plugins/pull?remote=x", [], 501, "knarr does not support plugins"),
        ("GET", "/plugins?filters=%7B%22x%22%3A%5B%5D%7D", None, 400, "invalid filter 'x'"),
    ],
)
def test_what_else_is_said(api, method, path, body, status, words):
    found, answer = api.call(method, path, body)
    assert found == status
    assert words in answer["message"]


def test_there_are_no_plugins(api):
    assert api.call("GET", "/plugins") == (200, [])


def test_the_docker_command_line_says_so(shared_engine):
    for words in (["node", "ls"], ["service", "ls"], ["stack", "ls"], ["secret", "ls"]):
        result = shared_engine.docker(*words, check=False)
        assert result.returncode == 1
        assert NO_MANAGER in result.stderr
    assert shared_engine.docker("plugin", "ls", "-q").stdout == ""
    assert (
        "knarr does not support plugins"
        in shared_engine.docker("plugin", "install", "--grant-all-permissions", "x", check=False).stderr
    )
