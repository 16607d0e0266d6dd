"""GET /containers/json: which containers, in which order, and that a line is never older than what it tells of."""

import json
from urllib.parse import quote

import pytest

from tests.api.http_client import Api
from tests.conftest import wait_until


@pytest.fixture(scope="module")
def api(shared_engine):
    """Containers of every kind; their names are what the cases ask for."""
    made = Api(shared_engine)
    for item in made.ok("GET", "/containers/json?all=1"):
        made.call("DELETE", f"/containers/{item['Id']}?force=1&v=1")
    made.create(
        "true",
        name="first",
        Labels={"tier": "a", "x": ""},
        HostConfig={"NetworkMode": "none", "Annotations": {"note": "1"}},
    )
    made.create("sh", "-c", "exit 3", name="third")
    made.create("sleep", "100", name="second", Labels={"tier": "b"}, ExposedPorts={"90/udp": {}},
                HostConfig={"NetworkMode": "bridge", "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]}, "Binds": ["list-data:/data", "/var/tmp:/host"]})  # fmt: skip
    made.create("sleep", "100", name="paused", Healthcheck={"Test": ["CMD", "true"], "Interval": 3600 * 10**9})
    for name in ("third", "second", "paused"):
        assert made.call("POST", f"/containers/{name}/start")[0] == 204
    made.ok("POST", "/containers/third/wait")
    made.call("POST", "/containers/paused/pause")
    yield made
    for item in made.ok("GET", "/containers/json?all=1"):
        made.call("DELETE", f"/containers/{item['Id']}?force=1&v=1")
    made.call("DELETE", "/volumes/list-data")


def names(api, query="all=1", **filters):
    text = f"&filters={quote(json.dumps(filters))}" if filters else ""
    return [item["Names"][0][1:] for item in api.ok("GET", f"/containers/json?{query}{text}")]


EVERY = ["paused", "second", "third", "first"]  # newest first


@pytest.mark.parametrize(
    ("query", "filters", "expected"),
    [
        ("", {}, ["paused", "second"]),
        ("all=1", {}, EVERY),
        ("all=true", {}, EVERY),
        ("all=0", {}, ["paused", "second"]),
        ("limit=1", {}, ["paused"]),
        ("limit=3", {}, EVERY[:3]),
        ("limit=-1", {}, ["paused", "second"]),
        ("limit=1", {"status": ["exited"]}, ["third"]),
        ("", {"status": ["created"]}, ["first"]),
        ("", {"status": ["running", "paused"]}, ["paused", "second"]),
        ("", {"status": {"exited": True}}, ["third"]),
        ("", {"exited": ["3"]}, []),
        ("all=1", {"exited": ["3", "9"]}, ["third"]),
        ("all=1", {"exited": ["0"]}, []),
        ("all=1", {"name": ["ir"]}, ["third", "first"]),
        ("all=1", {"name": ["^/second$"]}, ["second"]),
        ("all=1", {"name": ["fir", "sec"]}, ["second", "first"]),
        ("all=1", {"name": ["*"]}, []),
        ("all=1", {"label": ["tier"]}, ["second", "first"]),
        ("all=1", {"label": ["tier=a"]}, ["first"]),
        ("all=1", {"label": ["tier", "x="]}, ["first"]),
        ("all=1", {"label": ["tier=a", "tier=b"]}, []),
        ("all=1", {"annotation": ["note"]}, ["first"]),
        ("all=1", {"annotation": ["note=2"]}, []),
        ("all=1", {"before": ["second"]}, ["third", "first"]),
        ("all=1", {"since": ["third"]}, ["paused", "second"]),
        ("all=1", {"since": ["first"], "before": ["paused"]}, ["second", "third"]),
        ("all=1", {"ancestor": ["busybox"]}, EVERY),
        ("all=1", {"ancestor": ["nothing-here"]}, []),
        ("all=1", {"volume": ["list-data"]}, ["second"]),
        ("all=1", {"volume": ["/data"]}, ["second"]),
        ("all=1", {"volume": ["/var/tmp"]}, ["second"]),
        ("all=1", {"volume": ["other"]}, []),
        ("all=1", {"network": ["bridge"]}, ["second"]),
        ("all=1", {"network": ["none"]}, ["paused", "third", "first"]),
        ("all=1", {"expose": ["80"]}, ["second"]),
        ("all=1", {"expose": ["88-92/udp"]}, ["second"]),
        ("all=1", {"expose": ["90/tcp"]}, []),
        ("all=1", {"publish": ["80"]}, []),
        ("all=1", {"publish": ["1-65535"]}, ["second"]),
        ("all=1", {"publish": ["1"], "expose": ["80"]}, ["second"]),
        ("all=1", {"health": ["none"]}, ["second", "third", "first"]),
        ("all=1", {"health": ["starting", "unhealthy"]}, ["paused"]),
        ("all=1", {"is-task": ["false"]}, EVERY),
        ("all=1", {"is-task": ["true"]}, []),
        ("all=1", {"isolation": ["hyperv"]}, EVERY),
    ],
    ids=lambda value: str(value) if isinstance(value, (str, dict)) else "",
)  # fmt: skip
def test_a_list_has_what_was_asked_for(api, query, filters, expected):
    assert names(api, query, **filters) == expected


def test_an_id_or_the_beginning_of_one(api):
    container = api.ok("GET", "/containers/third/json")["Id"]
    for text in (container, container[:12]):
        assert names(api, id=[text]) == ["third"]
    assert names(api, network=[api.ok("GET", "/networks/bridge")["Id"][:12]]) == ["second"]


@pytest.mark.parametrize(
    ("filters", "status", "words"),
    [
        ({"nonsense": ["x"]}, 400, "invalid filter 'nonsense'"),
        ({"status": ["nonsense"]}, 400, "invalid filter 'status=nonsense'"),
        ({"exited": ["x"]}, 400, "invalid filter 'exited=x'"),
        ({"health": ["x"]}, 400, "invalid filter 'health=x'"),
        ({"is-task": ["maybe"]}, 400, "is-task"),
        ({"before": ["nobody"]}, 404, "No such container: nobody"),
        ({"since": ["nobody"]}, 404, "No such container: nobody"),
        ({"publish": ["1:2"]}, 400, "should not contain ':'"),
        ({"publish": ["9-1"]}, 400, "invalid port range"),
        ({"expose": ["x"]}, 400, "invalid filter 'expose=x'"),
    ],
)
def test_filters_that_make_no_sense(api, filters, status, words):
    found, answer = api.call("GET", f"/containers/json?filters={quote(json.dumps(filters))}")
    assert (found, words in answer["message"]) == (status, True), answer


def test_a_line_says_what_docker_s_says(api):
    line = {item["Names"][0]: item for item in api.ok("GET", "/containers/json?all=1&size=1")}["/second"]
    details = api.ok("GET", "/containers/second/json?size=1")
    assert line["Command"] == "sleep 100"
    assert line["ImageID"] == details["Image"]
    assert (line["SizeRw"], line["SizeRootFs"]) == (details["SizeRw"], details["SizeRootFs"])
    assert line["ImageManifestDescriptor"] == details["ImageManifestDescriptor"]
    assert {port["PrivatePort"]: port.get("IP") for port in line["Ports"]} == {80: "127.0.0.1", 90: None}
    assert sorted(mount["Destination"] for mount in line["Mounts"]) == ["/data", "/host"]
    third = api.ok("GET", f"/containers/json?filters={quote(json.dumps({'name': ['third'], 'status': ['exited']}))}")[0]
    assert third["Command"] == "sh -c 'exit 3'"
    assert "SizeRw" not in third


def test_a_line_is_never_older_than_what_it_tells_of(api, shared_engine):
    """Lines are kept encoded: every change that one tells of shows in the next list."""

    def line():
        for item in api.ok("GET", "/containers/json?all=1"):
            if item["Id"] == container:
                return item
        return None

    shared_engine.run("tag", "busybox", "list-name:1")
    container = api.ok("POST", "/containers/create?name=changing", {"Image": "list-name:1", "Cmd": ["sleep", "100"],
                       "HostConfig": {"NetworkMode": "bridge", "PortBindings": {"70/tcp": [{"HostIp": "127.0.0.1"}]}}})["Id"]  # fmt: skip
    seen = [line()]
    assert (seen[0]["State"], seen[0]["Image"], seen[0]["Ports"]) == ("created", "list-name:1", [])

    def changed(method, path, body=None):
        api.ok(method, path, body)
        seen.append(line())
        assert seen[-1] != seen[-2], path
        return seen[-1]

    assert changed("POST", f"/containers/{container}/rename?name=changed")["Names"] == ["/changed"]
    started = changed("POST", f"/containers/{container}/start")
    assert started["State"] == "running"
    assert started["Ports"][0]["PrivatePort"] == 70
    assert started["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert changed("POST", f"/containers/{container}/pause")["Status"].endswith("(Paused)")
    assert changed("POST", f"/containers/{container}/unpause")["State"] == "running"
    before = changed("POST", f"/containers/{container}/restart?t=0")
    assert before["NetworkSettings"] != started["NetworkSettings"]
    assert changed("POST", f"/containers/{container}/kill")["Status"].startswith("Exited (137)")
    assert seen[-1]["Ports"] == []
    assert changed("DELETE", "/images/list-name:1")["Image"] == seen[-1]["ImageID"]
    wait_until(lambda: line()["Status"] != seen[-1]["Status"], what="another second")
    api.ok("DELETE", f"/containers/{container}")
    assert line() is None


def test_versions_do_not_share_their_lines(api):
    new, old = (api.ok("GET", f"{prefix}/containers/json") for prefix in ("/v1.56", "/v1.45"))
    assert "Health" in new[0]
    assert "Health" not in old[0]
    assert "ImageManifestDescriptor" in new[0]
    assert "ImageManifestDescriptor" not in old[0]
