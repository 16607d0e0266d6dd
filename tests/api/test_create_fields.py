"""Every field of a request for a container is honoured, or refused or discarded by name: never silently dropped.

data/create_fields.txt lists the fields, made from the OpenAPI by walking the body of ContainerCreate; create_fields.py
says what each does. Nested fields that the list does not have are refused by the decoder (test_engine_request.py).
"""

import contextlib
import hashlib
import os
import re
from pathlib import Path

import pytest

from tests.api import control_groups
from tests.api.create_fields import CASES, UNIFIED, Case
from tests.api.http_client import Api, frames

LISTED = (Path(__file__).parent / "data" / "create_fields.txt").read_text().splitlines()
SCHEMA = {line.split()[1] for line in LISTED if line and not line.startswith("#")}


@pytest.fixture(scope="module")
def api(shared_engine):
    made = Api(shared_engine)
    donor = made.create("sh", "-c", "mkdir -p /donated/deep/er/inner; echo from the donor > /donated/note", name="fields-donor",
                        HostConfig={"NetworkMode": "none", "Binds": ["fields-donated:/donated"]})  # fmt: skip
    linked = made.create("sleep", "100", name="fields-linked", HostConfig={"NetworkMode": "bridge"})
    for container in (donor, linked):
        assert made.call("POST", f"/containers/{container}/start")[0] == 204
    made.ok("POST", f"/containers/{donor}/wait")
    dual = {"Config": [{"Subnet": "fd00:97::/64"}]}
    made.ok("POST", "/networks/create", {"Name": "fields-dual", "EnableIPv6": True, "IPAM": dual})
    yield made
    for item in made.ok("GET", "/containers/json?all=1"):
        made.call("DELETE", f"/containers/{item['Id']}?force=1&v=1")
    made.call("DELETE", "/networks/fields-dual")
    for name in ("fields-donated", "fields-local", "fields-labelled"):
        made.call("DELETE", f"/volumes/{name}")
    with contextlib.suppress(FileNotFoundError):
        os.rmdir("/var/tmp/knarr-fields-made")
    for place in control_groups.named("knarr-fields-test.slice"):
        control_groups.remove(place / "inner")
        control_groups.remove(place)


def test_the_table_has_every_field():
    covered = {path for case in CASES for path in case.paths}
    assert covered - SCHEMA == set()
    assert SCHEMA - covered == set()


def holds(value, path: list[str]) -> bool:
    if isinstance(value, list):
        return any(holds(item, path) for item in value)
    if not path:
        return value not in (None, "", 0, False, [], {})
    if path[0] == "*":
        return any(holds(item, path[1:]) for item in value.values())
    return path[0] in value and (holds(value[path[0]], path[1:]) or value[path[0]] in ("", 0))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fields.split()[0])
def test_a_case_has_the_fields_that_it_names(case):
    body = {"Image": "busybox", "Cmd": ["sh"], **case.body}
    for path in case.paths:
        assert holds(body, path.split(".")), path


def at(document, path: str):
    for name in path.split("."):
        document = document[int(name)] if isinstance(document, list) else document[name]
    return document


def log_of(api, container: str, *, terminal: bool) -> str:
    api.connection.request("GET", f"/containers/{container}/logs?stdout=1&stderr=1")
    data = api.connection.getresponse().read()
    text = data if terminal else b"".join(piece for _, piece in frames(data))
    return text.decode().replace("\r", "").strip("\n")


def body_of(case: Case) -> dict:
    body = {"Image": "busybox", **case.body}
    body["HostConfig"] = {"NetworkMode": "none", **body.get("HostConfig", {})}
    if case.command:
        body["Cmd"] = ["sh", "-c", case.command]
    elif case.group:
        body["Cmd"] = ["sleep", "100"]
    elif "Cmd" not in body:
        body["Cmd"] = ["true"]
    return body


def group_file(engine, container: str, case: Case) -> str:
    controller, first, second, _ = case.group
    number = hashlib.sha256(os.fsencode(str(engine.run_root))).hexdigest()[:8]
    top = Path("/sys/fs/cgroup") if UNIFIED else Path("/sys/fs/cgroup", controller)
    return (top / f"knarr-{number}" / container / (second if UNIFIED else first)).read_text()


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.fields.split()[0]}{'-refused' if case.refused else ''}"
)
def test_a_field_does_what_it_says(api, shared_engine, case):
    prefix = f"/v{case.version}"
    status, answer = api.call("POST", f"{prefix}/containers/create", body_of(case))
    if case.refused:
        assert (status, case.refused[1] in answer["message"]) == (case.refused[0], True), answer
        return
    assert status == 201, answer
    container = answer["Id"]
    try:
        assert case.warned in " ".join(answer["Warnings"])
        assert case.warned or not answer["Warnings"]
        runs = case.command or case.output or case.group
        if runs:
            assert api.call("POST", f"{prefix}/containers/{container}/start") == (204, None)
        if case.group:
            assert case.group[3] in group_file(shared_engine, container, case)
        elif case.output:
            api.ok("POST", f"{prefix}/containers/{container}/wait")
            text = log_of(api, container, terminal=bool(case.body.get("Tty")))
            assert re.fullmatch(case.output, text), text
        details = api.ok("GET", f"{prefix}/containers/{container}/json")
        for path, value in case.shown.items():
            assert at(details, path) == value
    finally:
        api.call("DELETE", f"/containers/{container}?force=1&v=1")
