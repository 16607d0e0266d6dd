"""What restart policies do over time, and what waits, kills, tops and prunes answer in every state."""

import json
import time
from urllib.parse import quote

import pytest

from tests.api.http_client import Api, read_head
from tests.conftest import wait_until


@pytest.fixture
def api(shared_engine):
    return Api(shared_engine)


def policy(name, retries=0):
    return {"NetworkMode": "none", "RestartPolicy": {"Name": name, "MaximumRetryCount": retries}}


def state(api, identity):
    found = api.ok("GET", f"/containers/{identity}/json")
    return {**found["State"], "RestartCount": found["RestartCount"]}


def reaches(api, identity, **wanted):
    def there():
        found = state(api, identity)
        return found if all(found[name] == value for name, value in wanted.items()) else None

    return wait_until(there, what=f"a state of {wanted}")


def test_failures_are_counted_and_the_count_begins_anew(api):
    identity = api.create("sh", "-c", "exit 3", HostConfig=policy("on-failure", 2))
    since = time.time()
    api.ok("POST", f"/containers/{identity}/start")
    reaches(api, identity, Status="exited", RestartCount=2, ExitCode=3)
    filters = quote(json.dumps({"container": [identity], "event": ["die", "start"]}))
    api.connection.request("GET", f"/events?since={since}&until={time.time()}&filters={filters}")
    told = [json.loads(line)["Action"] for line in api.connection.getresponse().read().splitlines()]
    assert told == ["start", "die"] * 3
    api.ok("POST", f"/containers/{identity}/start")
    assert state(api, identity)["RestartCount"] < 2
    reaches(api, identity, Status="exited", RestartCount=2)
    api.ok("DELETE", f"/containers/{identity}")
    fine = api.create("true", HostConfig=policy("on-failure"))
    api.ok("POST", f"/containers/{fine}/start")
    assert reaches(api, fine, Status="exited")["RestartCount"] == 0
    api.ok("DELETE", f"/containers/{fine}")


def test_back_off_doubles(api):
    identity = api.create("false", HostConfig=policy("always"))
    api.ok("POST", f"/containers/{identity}/start")
    reaches(api, identity, Status="restarting", RestartCount=4)
    since = state(api, identity)["FinishedAt"]
    # The fourth restart comes 0.8 s after the end before it; a test asserts no time, but that it has not come is seen.
    for _ in range(3):
        assert state(api, identity)["FinishedAt"] == since
    api.ok("DELETE", f"/containers/{identity}?force=1")


@pytest.mark.parametrize("how", ["stop", "rm", "restart"])
def test_while_it_waits_for_its_restart(api, how):
    identity = api.create("false", HostConfig=policy("always"))
    api.ok("POST", f"/containers/{identity}/start")
    reaches(api, identity, Status="restarting", RestartCount=3)
    found = state(api, identity)
    assert (found["Running"], found["Restarting"], found["Pid"]) == (True, True, 0)
    assert api.call("GET", f"/containers/{identity}/top")[1]["message"].endswith(
        "is restarting, wait until the container is running"
    )
    assert api.call("POST", f"/containers/{identity}/pause")[0] == 409
    status, answer = api.call("DELETE", f"/containers/{identity}")
    assert (status, "stop the container before removing or force remove" in answer["message"]) == (409, True)
    if how == "stop":
        assert api.call("POST", f"/containers/{identity}/stop")[0] == 204
        stopped = state(api, identity)
        assert (stopped["Status"], stopped["Running"], stopped["ExitCode"]) == ("exited", False, 1)
        assert api.call("POST", f"/containers/{identity}/stop")[0] == 304
        time.sleep(1.0)  # longer than the back-off that was cut short
        assert state(api, identity)["FinishedAt"] == stopped["FinishedAt"]
    elif how == "restart":
        api.ok("POST", f"/containers/{identity}/restart")
        assert state(api, identity)["RestartCount"] < 3
    assert api.call("DELETE", f"/containers/{identity}?force=1")[0] == 204


def test_one_that_cannot_be_started_again_is_left_alone(api, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    host = {**policy("always"), "Mounts": [{"Type": "bind", "Source": str(source), "Target": "/bound"}]}
    identity = api.create("sh", "-c", "while [ ! -e /bound/go ]; do sleep 0.02; done", HostConfig=host)
    api.ok("POST", f"/containers/{identity}/start")
    gone = tmp_path / "moved"
    source.rename(gone)
    (gone / "go").write_text("")
    found = reaches(api, identity, Status="exited")
    assert str(source) in found["Error"]
    assert found["RestartCount"] == 1
    api.ok("DELETE", f"/containers/{identity}")


def test_another_policy_counts_from_the_next_end_on(api):
    identity = api.create("sh", "-c", "while [ ! -e /go ]; do sleep 0.02; done", HostConfig=policy("no"))
    api.ok("POST", f"/containers/{identity}/start")
    api.ok("POST", f"/containers/{identity}/update", {"RestartPolicy": {"Name": "always"}})
    made = api.ok("POST", f"/containers/{identity}/exec", {"Cmd": ["touch", "/go"]})
    api.ok("POST", f"/exec/{made['Id']}/start", {"Detach": True})
    wait_until(lambda: state(api, identity)["RestartCount"] >= 1, what="a restart")
    api.ok("POST", f"/containers/{identity}/update", {"RestartPolicy": {"Name": "no"}})
    reaches(api, identity, Status="exited")
    api.ok("DELETE", f"/containers/{identity}?force=1")


def test_removal_and_restart_exclude_each_other(api):
    body = {"Image": "busybox", "HostConfig": {"AutoRemove": True, "RestartPolicy": {"Name": "always"}}}
    assert api.call("POST", "/containers/create", body) == (
        400,
        {"message": "can't create 'AutoRemove' container with restart policy"},
    )


def test_a_daemon_that_is_killed_during_the_back_off_goes_on(busybox):
    api = Api(busybox)
    identity = api.create("sh", "-c", "echo once >> /count; exit 1", HostConfig=policy("always"))
    stopped = api.create("false", HostConfig=policy("unless-stopped"))
    for one in (identity, stopped):
        api.ok("POST", f"/containers/{one}/start")
        reaches(api, one, Status="restarting", RestartCount=4)
    api.ok("POST", f"/containers/{stopped}/stop")
    busybox.restart()
    api = Api(busybox)
    wait_until(lambda: state(api, identity)["RestartCount"] >= 2, what="restarts by the next daemon")
    assert state(api, stopped)["Status"] == "exited"


def waiting(api, identity, condition):
    """A connection on which a wait has been asked for, and its headers have come."""
    sock = api.raw(f"POST /containers/{identity}/wait?condition={condition} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())  # fmt: skip
    first, _, rest = read_head(sock)
    assert first.split()[1] == "200"
    return sock, rest


def answer_of(sock, rest):
    while piece := sock.recv(4096):
        rest += piece
    return json.loads(rest[rest.index(b"{") : rest.rindex(b"}") + 1])


def test_waits_in_every_state(api):
    identity = api.create("sh", "-c", "while :; do sleep 0.02; done")
    assert api.ok("POST", f"/containers/{identity}/wait") == {"StatusCode": 0}  # created: it does not run
    assert api.call("POST", f"/containers/{identity}/wait?condition=sometime") == (
        400,
        {"message": 'invalid condition: "sometime"'},
    )
    following = waiting(api, identity, "next-exit")
    removed = waiting(api, identity, "removed")
    api.ok("POST", f"/containers/{identity}/start")
    running = waiting(api, identity, "not-running")
    api.ok("POST", f"/containers/{identity}/pause")
    paused = waiting(api, identity, "")
    api.ok("POST", f"/containers/{identity}/kill")
    for sock, rest in (following, running, paused):
        assert answer_of(sock, rest) == {"StatusCode": 137}
    assert api.ok("POST", f"/containers/{identity}/wait?condition=not-running") == {"StatusCode": 137}
    api.ok("DELETE", f"/containers/{identity}")
    assert answer_of(*removed) == {"StatusCode": 137}
    assert api.call("POST", f"/containers/{identity}/wait")[0] == 404


def test_kills_answer_in_docker_s_words(api):
    identity = api.create("sleep", "60", name="to-kill")
    for name in (identity, "to-kill"):
        assert api.call("POST", f"/containers/{name}/kill") == (
            409,
            {"message": f"cannot kill container: {name}: container {identity} is not running"},
        )
    assert api.call("POST", "/containers/nobody/kill") == (
        404,
        {"message": "cannot kill container: nobody: No such container: nobody"},
    )
    api.ok("POST", f"/containers/{identity}/start")
    assert api.call("POST", "/containers/to-kill/kill?signal=FOO") == (
        400,
        {"message": "cannot kill container: to-kill: invalid signal: FOO"},
    )
    api.ok("POST", f"/containers/{identity}/pause")
    assert api.call("POST", f"/containers/{identity}/pause") == (
        409,
        {"message": f"container {identity} is already paused"},
    )
    api.ok("POST", f"/containers/{identity}/kill")
    assert state(api, identity)["Status"] == "exited"
    assert api.call("POST", f"/containers/{identity}/unpause") == (
        500,
        {"message": f"Container {identity} is not paused"},
    )
    api.ok("DELETE", f"/containers/{identity}")


def test_top_takes_the_options_of_ps(api):
    identity = api.create("sh", "-c", "sleep 1234 & sleep 1235; true")
    api.ok("POST", f"/containers/{identity}/start")

    def top(arguments):
        return api.call("GET", f"/containers/{identity}/top?ps_args={quote(arguments)}")

    wait_until(lambda: len(top("")[1]["Processes"]) == 3, what="three processes")
    status, found = top("-o pid,ppid,args")
    assert (status, found["Titles"]) == (200, ["PID", "PPID", "COMMAND"])
    assert sorted(row[2] for row in found["Processes"])[1:] == ["sleep 1234", "sleep 1235"]
    assert [row[1] for row in top("")[1]["Processes"]] == sorted((row[0] for row in found["Processes"]), key=int)
    assert top("aux")[1]["Titles"][:3] == ["USER", "PID", "%CPU"]
    assert len(top("aux")[1]["Processes"]) == 3
    assert top("-e -o pid,comm f")[1]["Titles"][0] == "PID"  # goes without -q
    for arguments, message in (
        ("-o comm", "Couldn't find PID field in ps output"),
        ("-e -o comm=PID", 'specifying "comm=PID" is not allowed'),
        ("--nonsense", "ps: "),
    ):
        status, answer = top(arguments)
        assert (status, answer["message"][: len(message)]) == (500, message)
    api.ok("DELETE", f"/containers/{identity}?force=1")


def test_prunes_by_time_and_label(api):
    def prune(**filters):
        return api.call("POST", "/containers/prune?filters=" + quote(json.dumps(filters)))

    only = {"label": ["prune-test"]}
    old = api.create("true", Labels={"prune-test": "", "age": "old"})
    middle = f"{time.time():.6f}"
    new = api.create("true", Labels={"prune-test": "", "age": "new"})
    running = api.create("sleep", "60", Labels={"prune-test": ""})
    api.ok("POST", f"/containers/{running}/start")
    assert prune(**only, until=["1h"]) == (200, {"ContainersDeleted": None, "SpaceReclaimed": 0})
    assert prune(**only, until=[middle])[1]["ContainersDeleted"] == [old]
    assert prune(label=["prune-test"], **{"label!": ["age=new"]})[1]["ContainersDeleted"] is None
    assert prune(**only)[1]["ContainersDeleted"] == [new]
    for filters, message in (
        ({"colour": ["x"]}, "invalid filter 'colour'"),
        ({"until": ["1h", "2h"]}, "more than one until filter specified"),
        ({"until": ["soon"]}, "invalid"),
    ):
        status, answer = prune(**filters)
        assert (status, answer["message"][: len(message)]) == (400, message)
    api.ok("DELETE", f"/containers/{running}?force=1")
