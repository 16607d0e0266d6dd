"""Progress, endpoints, times and queries: small tables of what goes in and what comes out."""

import time

import pytest

from knarr.api.wire import images as wire
from knarr.config import RegistrySettings
from knarr.engine.images.endpoints import endpoints, is_loopback
from knarr.engine.images.filters import moment
from knarr.engine.images.progress import Reporter
from knarr.errors import InvalidArgument

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
SHA = "sha256:" + "0" * 64


def told(reporter, *snapshot):
    return [(message["id"][0], message["status"], message["progressDetail"]) for message in reporter.messages(snapshot)]


def test_a_layer_from_beginning_to_end():
    reporter = Reporter()
    assert told(reporter, (A, "waiting", 0, 10)) == [("a", "Pulling fs layer", {})]
    assert told(reporter, (A, "downloading", 5, 10)) == [("a", "Downloading", {"current": 5, "total": 10})]
    assert told(reporter, (A, "downloading", 5, 10)) == []
    assert told(reporter, (A, "downloaded", 10, 10)) == [
        ("a", "Verifying Checksum", {}),
        ("a", "Download complete", {}),
    ]
    assert told(reporter, (A, "extracting", 3, 10)) == [("a", "Extracting", {"current": 3, "total": 10})]
    assert told(reporter, (A, "done", 10, 10)) == [("a", "Pull complete", {})]
    assert told(reporter, (A, "done", 10, 10)) == []


def test_a_layer_that_was_not_looked_at_in_between():
    assert [status for _, status, _ in told(Reporter(), (A, "done", 10, 10), (B, "exists", 5, 5), (A, "done", 10, 10))] == [
        "Pulling fs layer", "Verifying Checksum", "Download complete", "Pull complete", "Already exists",
    ]  # fmt: skip


def test_a_layer_of_unknown_size_has_no_total():
    assert told(Reporter(), (A, "downloading", 5, 0))[1] == ("a", "Downloading", {"current": 5})


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True), ("localhost:5000", True), ("127.0.0.1", True), ("127.9.9.9:1", True), ("[::1]:5000", True),
        ("127.0.0.1.example.com", False), ("localhost.example.com", False), ("128.0.0.1", False), ("[::2]", False),
    ],
)  # fmt: skip
def test_what_is_loopback(host, expected):
    assert is_loopback(host) is expected


def test_endpoints():
    def ways(domain, **settings):
        return [(way.scheme, way.host, way.insecure, way.mirror) for way in endpoints(domain, settings)]

    assert ways("docker.io") == [("https", "registry-1.docker.io", False, False)]
    assert ways("quay.io:443") == [("https", "quay.io:443", False, False)]
    assert ways("localhost:5000") == [("https", "localhost:5000", True, False), ("http", "localhost:5000", True, False)]
    own = {"a.example": RegistrySettings(insecure=True)}
    assert [way[0] for way in ways("a.example", **own)] == ["https", "http"]
    assert [way[0] for way in ways("b.a.example", **own)] == ["https"]
    mirrored = {"docker.io": RegistrySettings(mirrors=["m.example", "http://n.example:1/"])}
    assert ways("docker.io", **mirrored) == [
        ("https", "m.example", False, True),
        ("http", "n.example:1", False, True),
        ("https", "registry-1.docker.io", False, False),
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0), ("1700000000", 1_700_000_000), ("1700000000.5", 1_700_000_000.5), ("1970-01-02", 86400), ("1970-01-01T01", 3600),
        ("1970-01-01T00:01", 60), ("1970-01-01T00:00:01Z", 1), ("1970-01-01T01:00:00+01:00", 0),
    ],
)  # fmt: skip
def test_moments(text, seconds):
    assert moment(text) == seconds * 10**9


def test_durations_count_back_from_now():
    assert abs(moment("1h30m") - (time.time_ns() - 5400 * 10**9)) < 10**9
    assert abs(moment("1.5s") - (time.time_ns() - 15 * 10**8)) < 10**9
    for text in ("", "h", "1x", "-1h", "1h 2m", "soon", "2024-99-99"):
        with pytest.raises(InvalidArgument):
            moment(text)


@pytest.mark.parametrize(
    ("query", "reference"),
    [
        ({"fromImage": "a", "tag": "1"}, "docker.io/library/a:1"),
        ({"fromImage": "a:2", "tag": "1"}, "docker.io/library/a:1"),
        ({"fromImage": "a:2"}, "a:2"),
        ({"fromImage": "a"}, "a"),
        ({"fromImage": f"a@{SHA}", "tag": "1"}, f"a@{SHA}"),
        ({"fromImage": "q.io/a", "tag": SHA}, f"q.io/a@{SHA}"),
    ],
)
def test_what_a_pull_asks_for(query, reference):
    assert wire.pull_reference(query) == reference


def test_truth_values():
    assert [wire.boolean({"a": text}, "a") for text in ("1", "true", "yes", "x")] == [True] * 4
    assert [wire.boolean({"a": text}, "a") for text in ("", "0", "no", "False", "none")] == [False] * 5
    assert wire.boolean({}, "a") is False


def test_platforms_in_queries():
    assert wire.platform(None) is None
    assert wire.platform("linux/arm64/v8") == "linux/arm64"
    assert wire.platform('{"os": "linux", "architecture": "arm", "variant": "v6"}') == "linux/arm/v6"
    for bad in ("{", "{}", '{"os": 1}', '{"os": ["linux"], "architecture": "x"}', "a b"):
        with pytest.raises(InvalidArgument):
            wire.platform(bad)


def test_times_on_the_wire():
    assert wire.rfc3339(0) == "1970-01-01T00:00:00Z"
    assert wire.rfc3339(1_700_000_000_120_000_000) == "2023-11-14T22:13:20.12Z"
