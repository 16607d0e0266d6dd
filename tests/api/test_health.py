"""Health checks with real probes at fast intervals, through the API and the command lines."""

import json
import time
from datetime import datetime

import pytest

from tests.api.http_client import Api
from tests.conftest import oci_archive, tar_of, wait_until

MS = 1_000_000


@pytest.fixture
def api(shared_engine):
    return Api(shared_engine)


def check(*test, **fields):
    return {"Test": list(test), "Interval": 40 * MS, "Timeout": 2000 * MS, **fields}


def begin(api, healthcheck, *command, **fields):
    identity = api.create(*(command or ("sleep", "600")), Healthcheck=healthcheck, **fields)
    api.ok("POST", f"/containers/{identity}/start")
    return identity


def health(api, identity):
    return api.ok("GET", f"/containers/{identity}/json")["State"].get("Health")


def reaches(api, identity, status):
    wait_until(lambda: health(api, identity)["Status"] == status, what=f"health {status}")
    return health(api, identity)


def listed(api, identity, filters=None):
    query = f"?all=1&filters={json.dumps(filters or {'id': [identity]})}".replace('"', "%22").replace(" ", "%20")
    return [item for item in api.ok("GET", f"/containers/json{query}") if item["Id"] == identity]


def actions(api, identity, since):
    """The actions of the container's events, as far as they tell of probes and of health."""
    query = f"?since={since}&until={time.time():.6f}&filters=%7B%22container%22%3A%5B%22{identity}%22%5D%7D"
    api.connection.request("GET", f"/events{query}")
    lines = api.connection.getresponse().read().decode().splitlines()
    return [json.loads(line) for line in lines]


def test_a_container_becomes_healthy_and_unhealthy_and_says_so(api):
    since = time.time()
    identity = begin(api, check("CMD-SHELL", 'echo "$X is $(id -u)" >&2; test ! -e /tmp/ill', Retries=2), Env=["X=it"])
    first = health(api, identity)
    assert first["Status"] in ("starting", "healthy")
    found = reaches(api, identity, "healthy")
    assert found["FailingStreak"] == 0
    result = found["Log"][-1]
    assert (result["ExitCode"], result["Output"]) == (0, "it is 0\n")
    start, end = (datetime.fromisoformat(result[name][:26] + "+00:00") for name in ("Start", "End"))
    assert start <= end
    line = listed(api, identity)[0]
    assert line["Status"].startswith("Up ")
    assert line["Status"].endswith(" (healthy)")
    assert line["Health"] == {"Status": "healthy", "FailingStreak": 0}
    assert listed(api, identity, {"health": ["healthy"]})
    assert not listed(api, identity, {"health": ["unhealthy", "none", "starting"]})
    made = api.ok("POST", f"/containers/{identity}/exec", {"Cmd": ["touch", "/tmp/ill"]})
    api.ok("POST", f"/exec/{made['Id']}/start", {"Detach": True})
    found = reaches(api, identity, "unhealthy")
    assert found["FailingStreak"] >= 2
    wait_until(lambda: len(health(api, identity)["Log"]) == 5, what="five results")
    assert {result["ExitCode"] for result in health(api, identity)["Log"][-2:]} == {1}
    assert listed(api, identity)[0]["Status"].endswith(" (unhealthy)")
    told = [event["Action"] for event in actions(api, identity, since)]
    words = '/bin/sh -c echo "$X is $(id -u)" >&2; test ! -e /tmp/ill'
    place = told.index("health_status: healthy")
    assert told[place - 3 : place] == [f"exec_create: {words}", f"exec_start: {words}", "exec_die"]
    assert told.count("health_status: healthy") == told.count("health_status: unhealthy") == 1
    dies = [event["Actor"]["Attributes"] for event in actions(api, identity, since) if event["Action"] == "exec_die"]
    assert {event["exitCode"] for event in dies} >= {"0", "1"}
    api.ok("DELETE", f"/containers/{identity}?force=1")


def test_failures_within_the_start_period_do_not_count(api):
    start = check("CMD", "test", "-e", "/tmp/up", StartPeriod=60_000 * MS, StartInterval=30 * MS, Retries=1)
    start["Interval"] = 600_000 * MS  # so that every probe is one of the start period's
    identity = begin(api, start)
    wait_until(lambda: len(health(api, identity)["Log"]) >= 3, what="failures")
    found = health(api, identity)
    assert (found["Status"], found["FailingStreak"]) == ("starting", 0)
    assert listed(api, identity)[0]["Status"].endswith(" (health: starting)")
    made = api.ok("POST", f"/containers/{identity}/exec", {"Cmd": ["touch", "/tmp/up"]})
    api.ok("POST", f"/exec/{made['Id']}/start", {"Detach": True})
    reaches(api, identity, "healthy")
    api.ok("DELETE", f"/containers/{identity}?force=1")
    # Without a start period the first failure does.
    identity = begin(api, check("CMD", "false", Retries=1))
    assert reaches(api, identity, "unhealthy")["FailingStreak"] >= 1
    api.ok("DELETE", f"/containers/{identity}?force=1")


def test_a_probe_that_takes_too_long_is_killed_with_what_it_started(api):
    identity = begin(api, check("CMD-SHELL", "echo begun; sleep 4321; true", Timeout=150 * MS, Retries=1))
    found = reaches(api, identity, "unhealthy")
    assert found["Log"][0]["ExitCode"] == -1
    assert found["Log"][0]["Output"] == "Health check exceeded timeout (150ms): begun\n"

    def sleepers():
        rows = api.ok("GET", f"/containers/{identity}/top")["Processes"]
        return [row for row in rows if row[-1] == "sleep 4321"]

    wait_until(lambda: len(health(api, identity)["Log"]) >= 3, what="three probes")
    assert len(sleepers()) <= 1
    api.ok("DELETE", f"/containers/{identity}?force=1")


def test_output_is_bounded_whatever_a_probe_says(api):
    identity = begin(api, check("CMD-SHELL", "yes ä | head -c 100001"))
    found = reaches(api, identity, "healthy")
    output = found["Log"][-1]["Output"]
    assert output.endswith("...")
    assert len(output.encode()) <= 4096 + 6
    assert output.startswith("ä\nä\n")
    api.ok("DELETE", f"/containers/{identity}?force=1")
    identity = begin(api, check("CMD", "yes", Timeout=200 * MS, Retries=1))
    assert len(reaches(api, identity, "unhealthy")["Log"][-1]["Output"]) < 4200
    api.ok("DELETE", f"/containers/{identity}?force=1")


def test_a_probe_that_is_no_program_is_a_failure(api):
    identity = begin(api, check("CMD", "/no/such/program", Retries=1))
    found = reaches(api, identity, "unhealthy")
    assert found["Log"][-1]["ExitCode"] == -1
    assert "/no/such/program" in found["Log"][-1]["Output"]
    assert api.ok("GET", f"/containers/{identity}/json")["ExecIDs"] is None
    api.ok("DELETE", f"/containers/{identity}?force=1")


def test_a_paused_container_is_not_probed_and_a_stopped_one_is_unhealthy(api):
    identity = begin(api, check("CMD-SHELL", "sleep 0.05"))
    reaches(api, identity, "healthy")
    api.ok("POST", f"/containers/{identity}/pause")
    assert listed(api, identity)[0]["Status"].endswith(" (Paused)")
    assert health(api, identity)["Status"] == "unhealthy"
    frozen = health(api, identity)["Log"]
    time.sleep(0.3)
    assert health(api, identity)["Log"] == frozen
    assert api.ok("GET", f"/containers/{identity}/json")["State"]["Paused"] is True
    api.ok("POST", f"/containers/{identity}/unpause")
    reaches(api, identity, "healthy")
    api.ok("POST", f"/containers/{identity}/kill")
    stopped = health(api, identity)
    assert stopped["Status"] == "unhealthy"
    assert stopped["Log"]
    assert "health" not in listed(api, identity)[0]["Status"]
    api.ok("POST", f"/containers/{identity}/start")
    assert health(api, identity)["FailingStreak"] == 0
    reaches(api, identity, "healthy")
    api.ok("DELETE", f"/containers/{identity}?force=1")


def test_a_container_may_have_none(api):
    for given in (None, {"Test": ["NONE"]}, {}, {"Test": ["sometimes"]}, check("CMD")):
        identity = begin(api, given)
        assert health(api, identity) is None
        assert listed(api, identity, {"health": ["none"]})[0]["Health"] == {"Status": "none", "FailingStreak": 0}
        assert "(" not in listed(api, identity)[0]["Status"]
        api.ok("DELETE", f"/containers/{identity}?force=1")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"Interval": 10}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"Timeout": -5}, "Timeout in Healthcheck cannot be less than 1ms"),
        ({"StartPeriod": 999_999}, "StartPeriod in Healthcheck cannot be less than 1ms"),
        ({"StartInterval": 1}, "StartInterval in Healthcheck cannot be less than 1ms"),
        ({"Retries": -1}, "Retries in Healthcheck cannot be negative"),
        ({"Test": "true"}, "Healthcheck.Test: Input should be a valid list"),
        ({"Test": ["CMD", 5]}, "Healthcheck.Test.1: Input should be a valid string"),
        ({"Test": ["CMD", "a\0b"]}, "NUL"),
        ({"Interval": 1.5}, "Healthcheck.Interval: Input should be a valid integer"),
        ({"Frequency": 5}, "Healthcheck.Frequency is not a field"),
    ],
)
def test_a_check_that_makes_no_sense_is_refused(api, given, message):
    status, answer = api.call("POST", "/containers/create", {"Image": "busybox", "Healthcheck": given})
    assert (status, message in answer["message"]) == (400, True), answer
    filters = "%7B%22health%22%3A%5B%22fine%22%5D%7D"
    assert api.call("GET", f"/containers/json?filters={filters}")[1] == {
        "message": "invalid filter 'health=fine': invalid value for health (fine): must be one of none, starting, healthy, unhealthy"
    }


def test_an_image_has_a_check_of_its_own(shared_engine, api, tmp_path):
    image = tmp_path / "image.tar"
    own = {"Test": ["CMD-SHELL", "true"], "Interval": 40 * MS, "Retries": 7}
    image.write_bytes(oci_archive([tar_of([("x", b"")])], {"Healthcheck": own, "Cmd": ["x"]}, "checked:latest"))
    shared_engine.run("load", "-q", "-i", image)

    def healthcheck(given):
        body = {"Image": "checked", "HostConfig": {"NetworkMode": "none"}, "Healthcheck": given}
        identity = api.ok("POST", "/containers/create", body)["Id"]
        found = api.ok("GET", f"/containers/{identity}/json")["Config"]["Healthcheck"]
        api.ok("DELETE", f"/containers/{identity}")
        return found

    assert healthcheck(None) == own
    assert healthcheck({"Test": ["NONE"]})["Test"] == ["NONE"]
    assert healthcheck({"Timeout": 5 * MS, "Retries": 0}) == {**own, "Timeout": 5 * MS}
    shared_engine.run("rmi", "checked")


def test_the_command_lines(shared_engine, api):
    flags = "--health-cmd true --health-interval 50ms --health-retries 2 --health-timeout 2s --health-start-period 1s"
    for program in (shared_engine.run, shared_engine.docker):
        expected = {
            "Test": ["CMD-SHELL", "true"], "Interval": 50 * MS, "Timeout": 2000 * MS, "StartPeriod": 1000 * MS,
            "Retries": 2,
        }  # fmt: skip
        given = flags.split()
        if "--health-start-interval" in program("run", "--help").stdout:  # docker's has it since 25
            given += ["--health-start-interval", "20ms"]
            expected["StartInterval"] = 20 * MS
        else:
            assert program == shared_engine.docker
        identity = program("run", "-d", *given, "--network", "none", "busybox", "sleep", "600").stdout.strip()
        reaches(api, identity, "healthy")
        shown = api.ok("GET", f"/containers/{identity}/json")["Config"]["Healthcheck"]
        assert shown == expected
        assert (
            program("ps", "--filter", "health=healthy", "--format", "{{.Status}}").stdout.strip().endswith("(healthy)")
        )
        program("rm", "-f", identity)
    refused = shared_engine.run("create", "--no-healthcheck", "--health-cmd", "true", "busybox", check=False)
    assert "--no-healthcheck conflicts with --health-* options" in refused.stderr


def test_checks_go_on_through_the_end_of_a_daemon(busybox):
    api = Api(busybox)
    well = begin(api, check("CMD", "test", "-e", "/proc/1/stat", Interval=60 * MS))
    stuck = begin(api, check("CMD-SHELL", "exec sleep 5432", Timeout=100_000 * MS, Retries=1))
    reaches(api, well, "healthy")

    def sleepers():
        rows = Api(busybox).ok("GET", f"/containers/{stuck}/top")["Processes"]
        return [row[1] for row in rows if row[-1] == "sleep 5432"]

    wait_until(sleepers, what="a probe that does not end")
    before, pid = health(api, well), sleepers()
    busybox.restart()
    api = Api(busybox)
    found = health(api, well)
    assert found["Status"] == "healthy"
    assert found["Log"][0]["Start"] >= before["Log"][0]["Start"]
    wait_until(lambda: health(api, well)["Log"][0]["Start"] > before["Log"][-1]["Start"], what="five new results")
    # What the dead daemon had begun is ended, and begun again.
    wait_until(lambda: sleepers() not in (pid, []), what="another probe")
    assert len(sleepers()) == 1


def test_a_container_ends_though_a_probe_is_about_to_begin(api):
    for _ in range(8):
        identity = begin(api, check("CMD", "true", Interval=1 * MS))
        reaches(api, identity, "healthy")
        api.ok("DELETE", f"/containers/{identity}?force=1")
