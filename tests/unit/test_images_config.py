"""Image configs: what is taken, and that what is refused is named."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knarr.engine.images.config import parse_time, read_config
from knarr.engine.images.layers import chain_ids
from knarr.errors import Corrupt, KnarrError, Unsupported

DIFF = "sha256:" + "cd" * 32


def config(**changes):
    document = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [DIFF]}} | changes
    return json.dumps({name: value for name, value in document.items() if value is not ...}).encode()


def run(**fields):
    return config(config=fields)


def test_a_config():
    data = config(
        created="2024-02-03T04:05:06.123456789Z", variant="v8", architecture="arm64", author="a",
        history=[{"created": "2024-01-01T00:00:00Z", "created_by": "x", "empty_layer": True}],
        config={
            "Env": ["A=b", "C"], "Cmd": "sh", "Entrypoint": None, "User": "1:2", "WorkingDir": "/w", "Labels": {"a": "b"},
            "ExposedPorts": {"80/tcp": {}, "1-5/udp": {}, "9": {}}, "Volumes": {"/v": {}}, "StopSignal": "SIGTERM",
            "Healthcheck": {"Test": ["NONE"], "Interval": 1000}, "Shell": ["/bin/sh", "-c"], "OnBuild": None,
        },
        unknown={"kept": 1},
    )  # fmt: skip
    read = read_config(data, 1, "it")
    assert str(read.platform) == "linux/arm64"
    assert read.diff_ids == (DIFF,)
    assert read.created_ns == 1706933106123456789
    assert read.document["config"]["Cmd"] == ["sh"]
    assert read.document["unknown"] == {"kept": 1}


def test_an_empty_config_runs_nothing():
    assert read_config(config(config=None), 1, "it").document["config"] == {}
    assert read_config(config(rootfs={"type": "layers", "diff_ids": None}), 0, "it").diff_ids == ()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not valid JSON"),
        (b" " * (8 << 20) + b"{}", "more than"),
        (config(os=...), "os or architecture"),
        (config(architecture=""), "os or architecture"),
        (config(architecture=7), "architecture is not a string"),
        (config(author={}), "author"),
        (config(created="yesterday"), "not an RFC 3339 time"),
        (config(created="2024-13-01T00:00:00Z"), "not an RFC 3339 time"),
        (config(created="2024-01-01T00:00:00Z\n"), "not an RFC 3339 time"),
        (config(rootfs=None), "rootfs"),
        (config(rootfs={"type": "other"}), "rootfs"),
        (config(rootfs={"type": "layers", "diff_ids": DIFF}), "diff_ids"),
        (config(rootfs={"type": "layers", "diff_ids": ["../x"]}), "diff_ids"),
        (config(rootfs={"type": "layers", "diff_ids": []}), "0 entries for 1 layers"),
        (config(rootfs={"type": "layers", "diff_ids": [DIFF, DIFF]}), "2 entries for 1 layers"),
        (config(history={}), "history is not a list"),
        (config(history=[7]), r"history\[0\]"),
        (config(history=[{"empty_layer": "no"}]), r"history\[0\]"),
        (config(history=[{"created": "x"}]), r"history\[0\].created"),
        (config(history=[{}] * 10_001), "history"),
        (config(config=[]), "config is not an object"),
        (run(Env="A=b"), "config.Env"),
        (run(Env=["A=b\0"]), "config.Env"),
        (run(Env=["=b"]), "has no name"),
        (run(Env=[""]), "has no name"),
        (run(Env=[1]), "config.Env"),
        (run(Env=["A=b"] * 10_001), "config.Env"),
        (run(Cmd={"a": 1}), "config.Cmd"),
        (run(Cmd=[["x"]]), "config.Cmd"),
        (run(Entrypoint=["a\0b"]), "config.Entrypoint"),
        (run(User=0), "User"),
        (run(User="a\0b"), "User"),
        (run(WorkingDir="/" * 5000), "WorkingDir"),
        (run(ExposedPorts=["80"]), "ExposedPorts"),
        (run(ExposedPorts={"70000/tcp": {}}), "ExposedPorts"),
        (run(ExposedPorts={"80/icmp": {}}), "ExposedPorts"),
        (run(Volumes=["/v"]), "Volumes"),
        (run(Volumes={"": {}}), "Volumes"),
        (run(Volumes={"/a\0": {}}), "Volumes"),
        (run(Labels={"a": 1}), "Labels"),
        (run(Labels=["a"]), "Labels"),
        (run(Healthcheck={"Test": "x"}), "Healthcheck.Test"),
        (run(Healthcheck={"Interval": "1s"}), "Healthcheck.Interval"),
        (run(Healthcheck=7), "Healthcheck"),
        (run(StopSignal=["x"]), "StopSignal"),
        (run(x=json.loads("[" * 70 + "]" * 70)), "levels deep"),
    ],
)  # fmt: skip
def test_what_is_refused_is_named(data, words):
    with pytest.raises(Corrupt, match=words) as caught:
        read_config(data, 1, "the image config")
    assert "the image config" in str(caught.value)


def test_another_system():
    with pytest.raises(Unsupported, match="windows"):
        read_config(config(os="windows"), 1, "it")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("0001-01-01T00:00:00Z", 0),
        ("2024-02-29T23:59:59.999999999-07:00", 1709276399_999999999),
    ],
)
def test_times(text, moment):
    assert parse_time(text, "it") == moment


def test_chain_ids():
    """The example of the specification, with real digests: each names everything below it."""
    one, two = chain_ids([DIFF, DIFF])
    assert one == DIFF
    assert two == "sha256:7cd03cc4ff06c140efe78c8068f03cc7b38a07dd30d90c236a08db327e18eae0"
    assert chain_ids([]) == []
    assert chain_ids([DIFF, DIFF, DIFF])[:2] == [one, two]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=10,
)
FIELDS = [
    "Env",
    "Cmd",
    "Entrypoint",
    "User",
    "WorkingDir",
    "ExposedPorts",
    "Volumes",
    "Labels",
    "Healthcheck",
    "StopSignal",
]


@given(st.dictionaries(st.sampled_from(FIELDS), values), values)
def test_any_run_config_is_taken_or_refused(fields, history):
    try:
        read = read_config(config(config=fields, history=history), 1, "it")
    except KnarrError:
        return
    taken = read.document["config"]
    for name in ("Env", "Cmd", "Entrypoint"):
        assert taken.get(name) is None or all(isinstance(item, str) and "\0" not in item for item in taken[name])
    json.dumps(read.document, ensure_ascii=False).encode()
