"""GET /events: what is told, to whom, in which form, and what is kept."""

import json
import time
from urllib.parse import quote

import docker
import pytest

from tests.api.http_client import Api, read_head


@pytest.fixture
def api(shared_engine):
    return Api(shared_engine)


def past(api, since, until=None, filters=None, version=""):
    """What was told between two times."""
    path = f"{version}/events?since={since:.9f}&until={until or time.time():.9f}"
    if filters:
        path += "&filters=" + quote(json.dumps(filters))
    api.connection.request("GET", path)
    response = api.connection.getresponse()
    assert response.status == 200, response.read()
    api.headers = response.headers
    return [json.loads(line) for line in response.read().splitlines()]


def told(events):
    return [f"{event['Type']} {event['Action']}" for event in events]


def life(api, *command, **fields):
    """Events of one container from its creation to its removal."""
    since = time.time()
    host = {"NetworkMode": "bridge"}
    identity = api.create(*command, HostConfig=host, Labels={"shade": "blue", "name": "other"}, **fields)
    api.ok("POST", f"/containers/{identity}/start")
    api.ok("POST", f"/containers/{identity}/pause")
    api.ok("POST", f"/containers/{identity}/unpause")
    api.ok("POST", f"/containers/{identity}/update", {"PidsLimit": 50})
    api.ok("GET", f"/containers/{identity}/top")
    api.ok("POST", f"/containers/{identity}/rename?name=renamed-{identity[:8]}")
    api.ok("POST", f"/containers/{identity}/kill?signal=USR1")
    api.ok("POST", f"/containers/{identity}/restart?t=1")
    api.ok("POST", f"/containers/{identity}/stop?t=0")
    api.ok("DELETE", f"/containers/{identity}")
    return identity, since


def test_the_life_of_a_container_is_told_as_docker_tells_it(api):
    identity, since = life(api, "sh", "-c", "trap 'exit 7' TERM; trap : USR1; while :; do sleep 0.05; done")
    found = [event for event in past(api, since) if identity in json.dumps(event)]
    assert told(found) == [
        "container create", "network connect", "container start", "container pause", "container unpause",
        "container update", "container top", "container rename", "container kill",
        "container kill", "network disconnect", "container die", "container stop",
        "network connect", "container start", "container restart",
        "container kill", *found_again(found), "network disconnect", "container die", "container stop",
        "container destroy",
    ]  # fmt: skip
    by_action = {event["Action"]: event for event in found}
    create = found[0]
    assert set(create) == {"Type", "Action", "Actor", "scope", "time", "timeNano"}
    assert create["timeNano"] // 10**9 == create["time"]
    # A label does not stand in for the container's own name.
    assert create["Actor"]["ID"] == identity
    assert create["Actor"]["Attributes"]["shade"] == "blue"
    assert create["Actor"]["Attributes"]["image"] == "busybox"
    assert create["Actor"]["Attributes"]["name"] != "other"
    assert by_action["rename"]["Actor"]["Attributes"]["oldName"].startswith("/")
    assert by_action["rename"]["Actor"]["Attributes"]["name"] == f"renamed-{identity[:8]}"
    kills = [event["Actor"]["Attributes"]["signal"] for event in found if event["Action"] == "kill"]
    assert kills[:3] == ["10", "15", "15"]
    dies = [event["Actor"]["Attributes"] for event in found if event["Action"] == "die"]
    assert dies[0]["exitCode"] == "7"
    assert dies[0]["execDuration"].isdigit()
    connect = by_action["connect"]["Actor"]["Attributes"]
    assert connect == {"container": identity, "name": "bridge", "type": "bridge"}


def found_again(found):
    """SIGKILL after a timeout of nothing, where the signal before it did not do."""
    kills = [event for event in found if event["Action"] == "kill"]
    return ["container kill"] * (len(kills) - 3)


def test_execs_are_told_with_their_ids_and_codes(api):
    since = time.time()
    identity = api.create("sleep", "60")
    api.ok("POST", f"/containers/{identity}/start")
    made = api.ok("POST", f"/containers/{identity}/exec", {"Cmd": ["sh", "-c", "exit 3"]})["Id"]
    api.ok("POST", f"/exec/{made}/start", {"Detach": True})
    end = time.monotonic() + 10
    while time.monotonic() < end and "container exec_die" not in told(past(api, since)):
        time.sleep(0.02)
    found = [event for event in past(api, since) if event["Action"].startswith("exec")]
    assert told(found) == [
        "container exec_create: sh -c exit 3",
        "container exec_start: sh -c exit 3",
        "container exec_die",
    ]
    assert {event["Actor"]["Attributes"]["execID"] for event in found} == {made}
    assert found[-1]["Actor"]["Attributes"]["exitCode"] == "3"
    assert told(past(api, since, filters={"event": ["exec_create"]})) == ["container exec_create: sh -c exit 3"]
    api.ok("DELETE", f"/containers/{identity}?force=1")


@pytest.mark.parametrize(
    ("filters", "actions"),
    [
        ({"event": ["create"]}, {"create"}),
        ({"event": ["create", "destroy"]}, {"create", "destroy"}),
        ({"event": ["creat"]}, set()),
        ({"type": ["container"]}, {"create", "start", "kill", "die", "destroy"}),
        ({"type": ["network"]}, {"connect", "disconnect"}),
        ({"type": ["volume"]}, set()),
        ({"label": ["shade"]}, {"create", "start", "kill", "die", "destroy"}),
        ({"label": ["shade=blue", "tone"]}, set()),
        ({"label": ["shade=red"]}, set()),
        ({"image": ["busybox"], "event": ["die"]}, {"die"}),
        ({"image": ["busy"]}, set()),
        ({"scope": ["local"], "event": ["die"]}, {"die"}),
        ({"scope": ["swarm"]}, set()),
        ({"container": ["filtered"], "event": ["start"]}, {"start"}),
        ({"container": ["filt"], "event": ["start"]}, {"start"}),  # as Docker: the beginning of a name is enough
        ({"container": ["/filtered"], "event": ["start"]}, {"start"}),
        ({"container": ["nobody"]}, set()),
        ({"network": ["bridge"]}, {"connect", "disconnect"}),
        ({"daemon": ["x"]}, set()),
    ],
)  # fmt: skip
def test_filters(api, filters, actions):
    if not _filtered:
        since = time.time()
        identity = api.create(
            "sleep", "60", name="filtered", Labels={"shade": "blue"}, HostConfig={"NetworkMode": "bridge"}
        )
        api.ok("POST", f"/containers/{identity}/start")
        api.ok("DELETE", f"/containers/{identity}?force=1")
        _filtered.extend([since, time.time()])
    assert {event["Action"] for event in past(api, *_filtered, filters=filters)} == actions


_filtered = []


def test_versions_differ_in_former_fields_and_in_the_form(api):
    since = time.time()
    identity = api.create("true")
    api.ok("DELETE", f"/containers/{identity}")
    old = past(api, since, version="/v1.51")
    assert api.headers["Content-Type"].startswith("application/json")
    assert "jsonl" not in api.headers["Content-Type"]
    assert {(event["id"], event["from"], event["status"]) for event in old} == {
        (identity, "busybox", "create"),
        (identity, "busybox", "destroy"),
    }
    new = past(api, since, version="/v1.52")
    assert api.headers["Content-Type"] == "application/jsonl"
    assert all(set(event) == {"Type", "Action", "Actor", "scope", "time", "timeNano"} for event in new)
    sock = api.raw(
        f"GET /v1.52/events?since={since}&until={time.time()} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        "Accept: text/html, application/json-seq;q=1\r\n\r\n".encode()
    )
    _, head, rest = read_head(sock)
    while piece := sock.recv(65536):
        rest += piece
    assert "content-type: application/json-seq" in head
    assert rest.count(b"\x1e{") == len(new)


def test_docker_s_count_is_kept(api):
    since = time.time()
    for _ in range(150):
        identity = api.create("true")
        api.ok("DELETE", f"/containers/{identity}")
    found = past(api, since)
    assert len(found) == 256
    assert found[-1]["Actor"]["ID"] == identity


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("since=5&until=4", "`since` time (5) cannot be after `until` time (4)"),
        ("since=abc", "invalid value for 'since': "),
        ("until=abc", "invalid value for 'until': "),
        ("filters=%7B%22colour%22%3A%5B%22x%22%5D%7D", "invalid filter 'colour'"),
        ("filters=nonsense", "invalid filter"),
    ],
)
def test_what_makes_no_sense_is_refused(api, query, message):
    status, answer = api.call("GET", f"/events?{query}")
    assert (status, answer["message"][: len(message)]) == (400, message)


def test_a_listener_hears_until_its_time_and_docker_py_until_it_closes(shared_engine, api):
    until = time.time() + 0.6
    sock = api.raw(f"GET /events?until={until} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    _, _, rest = read_head(sock)
    identity = api.create("true")
    while piece := sock.recv(65536):
        rest += piece
    assert time.time() >= until
    assert f'"ID":"{identity}"'.encode() in rest
    client = docker.DockerClient(base_url=f"unix://{shared_engine.socket}")
    stream = client.events(decode=True, filters={"container": identity, "event": "destroy"})
    api.ok("DELETE", f"/containers/{identity}")
    event = next(stream)
    assert (event["Action"], event["Actor"]["ID"]) == ("destroy", identity)
    stream.close()
    client.close()


def test_the_docker_command_line_prints_them(shared_engine, api):
    since = time.time()
    identity = api.create("true", name="printed")
    api.ok("DELETE", f"/containers/{identity}")
    shown = shared_engine.docker("events", "--since", f"{since:.6f}", "--until", f"{time.time():.6f}").stdout
    assert f"container create {identity} (image=busybox, name=printed)" in shown
