"""Logging drivers: options in Docker's words, what the supervisor is told, tags, and the parameters of a reader."""

import asyncio

import pytest

from knarr.api.logs import instant, wanted
from knarr.config import Config
from knarr.engine.containers import logs, tags
from knarr.errors import InvalidArgument, Unsupported
from tests.unit.engine_records import ID, record

CONFIG = Config()


def start(driver="json-file", **options):
    options = {name.replace("_", "-"): value for name, value in options.items()}
    made = record(LogConfig={"Type": driver, "Config": options})
    logs.check(made.host["LogConfig"])
    return asyncio.run(logs.start_fields(made, "/c", CONFIG.log))


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("pigeon", {}, "logger: no log driver named 'pigeon' is registered"),
        ("fluentd", {}, "logger: no log driver named 'fluentd' is registered"),
        ("json-file", {"x": "1"}, "unknown log opt 'x' for json-file log driver"),
        ("local", {"x": "1"}, "unknown log opt 'x' for log driver local"),
        ("json-file", {"mode": "x"}, "logger: logging mode not supported: x"),
        ("json-file", {"max-buffer-size": "1m"}, "max-buffer-size option is only supported with 'mode=non-blocking'"),
        (
            "json-file",
            {"mode": "non-blocking", "max-buffer-size": "x"},
            "error parsing option max-buffer-size: invalid",
        ),
        ("json-file", {"max-size": "0"}, "max-size must be a positive number"),
        ("json-file", {"max-size": "-1"}, "invalid size: '-1'"),
        ("json-file", {"max-size": "1x"}, "invalid suffix: 'x'"),
        ("json-file", {"max-size": "m"}, "invalid size: 'm'"),
        ("json-file", {"max-size": "1e400"}, "invalid size: '1e400'"),
        ("json-file", {"max-file": "0"}, "max-file cannot be less than 1"),
        ("json-file", {"max-file": "x"}, 'strconv.Atoi: parsing "x": invalid syntax'),
        ("json-file", {"max-file": "100000"}, "max-file cannot be more than"),
        ("json-file", {"compress": "x"}, 'strconv.ParseBool: parsing "x": invalid syntax'),
        ("json-file", {"compress": "true"}, "compress cannot be true when max-file is less than 2"),
        ("json-file", {"compress": "true", "max-size": "1m"}, "compress cannot be true when max-file is less than 2"),
        ("local", {"max-file": "1"}, "compression cannot be enabled when max file count is 1"),
        ("local", {"max-file": "-1", "compress": "false"}, "max-file must not be negative"),
        ("local", {"max-size": "x"}, "invalid value for max-size: x: invalid size: 'x'"),
        ("json-file", {"labels-regex": "("}, "error parsing regexp"),
        ("json-file", {"env-regex": "["}, "error parsing regexp"),
        ("json-file", {"tag": "{{.Nonsense}}"}, "can't evaluate field Nonsense"),
        ("json-file", {"tag": "{{.Name"}, "unclosed action"),
        ("json-file", {"tag": "{{}}"}, "missing value for command"),
        ("json-file", {"tag": "{{nonsense .Name}}"}, 'function "nonsense" not defined'),
    ],
)
def test_what_cannot_be_done_is_refused_in_dockers_words(driver, options, words):
    with pytest.raises(InvalidArgument) as caught:
        logs.check({"Type": driver, "Config": options})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("driver", "options", "expected"),
    [
        ("json-file", {}, (20 << 20, 5, False)),
        ("json-file", {"max_size": "10m"}, (10_000_000, 1, False)),
        ("json-file", {"max_size": "1.5 KB", "max_file": "3", "compress": "1"}, (4096, 3, True)),
        ("json-file", {"max_size": "2GiB", "max_file": "3", "compress": "false"}, (2_000_000_000, 3, False)),
        ("json-file", {"max_file": "7"}, (20 << 20, 7, False)),
        ("json-file", {"mode": "non-blocking", "max_buffer_size": "4m"}, (20 << 20, 5, False)),
        ("local", {}, (20 << 20, 5, True)),
        ("local", {"max_size": "5m", "max_file": "2", "compress": "f"}, (5_000_000, 2, False)),
    ],
)
def test_files_are_bounded(driver, options, expected):
    file = start(driver, **options)["file"]
    assert (file["max_size"], file["max_file"], file["compress"]) == expected
    assert file["format"] == driver
    assert file["path"] == ("/c/local-logs/container.log" if driver == "local" else f"/c/{ID}-json.log")


def test_without_a_log_nothing_is_kept_and_nothing_read():
    assert start("none", anything="goes") is None
    with pytest.raises(Unsupported, match="configured logging driver does not support reading"):
        logs.readable(record(LogConfig={"Type": "none"}), "/c", CONFIG.log)


def test_the_daemons_defaults_are_of_its_driver_alone():
    config = Config(log_driver="local", log_opts={"max-size": "1m", "max-file": "9"})
    for asked, expected in (
        ({}, {"Type": "local", "Config": {"max-size": "1m", "max-file": "9"}}),
        (
            {"Type": "", "Config": {"max-file": "2"}},
            {"Type": "local", "Config": {"max-size": "1m", "max-file": "2"}},
        ),
        ({"Type": "json-file", "Config": None}, {"Type": "json-file", "Config": {}}),
    ):
        logs.fill(asked, config)
        assert asked == expected
    assert logs.json_path(record(LogConfig={"Type": "json-file"}), "/c") == f"/c/{ID}-json.log"
    assert logs.json_path(record(LogConfig={"Type": "local"}), "/c") == ""


def test_attributes_are_what_the_options_name():
    made = record(
        {"Labels": {"app": "web", "tier": "x", "other": "y"}, "Env": ["A=1=2", "BEE=2", "C", "D="]},
        LogConfig={
            "Type": "json-file",
            "Config": {
                "labels": "app,missing",
                "labels-regex": "^ti",
                "env": "A,C",
                "env-regex": "E+$",
                "tag": "{{.Name}}-{{.ID}}",
            },
        },
    )
    assert asyncio.run(logs.start_fields(made, "/c", CONFIG.log))["attributes"] == {
        "app": "web",
        "tier": "x",
        "A": "1=2",
        "BEE": "2",
        "tag": f"one-{ID[:12]}",
    }


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("{{.ID}}", ID[:12]),
        ("{{ .FullID }}", ID),
        ("{{.ImageName}}/{{.Name}}", "busybox/one"),
        ("{{.ImageID}} {{.ImageFullID}}", "a" * 12 + " sha256:" + "a" * 64),
        ("{{.Command}}", "/bin/true x"),
        ("{{.DaemonName}}:{{.ContainerName}}", "docker:/one"),
        ('{{index .ContainerLabels "app"}}|{{index .ContainerLabels "none"}}', "web|"),
        ("{{.Name | upper}}", "ONE"),
        ("{{truncate .FullID 3}}", ID[:3]),
        ('{{join .ContainerArgs "-"}}', "x"),
        ("{{json .ContainerLabels}}", '{"app":"web"}'),
        ("{{.ContainerLabels}} {{.ContainerArgs}}", "map[app:web] [x]"),
        ("{{pad .Name 1 2}}", " one  "),
    ],
)
def test_tags_are_made_by_templates(template, text):
    assert tags.tag(record({"Labels": {"app": "web"}}), template) == text


def test_what_a_reader_wants():
    query = {"stdout": "1", "tail": "5", "since": "10.5", "until": "20", "follow": "true", "details": "1"}
    found = wanted(query, terminal=False, chunked=True)
    assert found.fields() == {
        "stdout": True,
        "stderr": False,
        "since": 10_500_000_000,
        "until": 20_000_000_000,
        "tail": 5,
        "follow": True,
        "timestamps": False,
        "details": True,
        "multiplexed": True,
        "chunked": True,
        "merge": False,
    }
    for tail in ("", "all", "-1", "1.5", "x" * 100, "9" * 100):
        assert wanted({"stderr": "1", "tail": tail}, terminal=True, chunked=False).tail is None
    assert wanted({"stderr": "1", "tail": "0"}, terminal=True, chunked=False).tail == 0
    assert wanted({"stderr": "1", "until": "0"}, terminal=True, chunked=False).until == 0
    assert wanted({"stderr": "1", "until": "-5"}, terminal=True, chunked=False).until == 1
    with pytest.raises(InvalidArgument, match="must specify at least one of 'stdout' or 'stderr'"):
        wanted({}, terminal=False, chunked=True)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("", 0),
        ("0", 0),
        ("-5", 0),
        ("1", 10**9),
        ("1.", 10**9),
        ("1.000000001", 10**9 + 1),
        ("1.1234567899", 1_123_456_789),
        ("9" * 18, 1 << 63),
    ],
)
def test_instants(text, time):
    assert instant("since", text) == time


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", 'invalid value for "since": invalid timestamp "x": invalid seconds "x": invalid syntax'),
        ("2026-01-01T00:00:00Z", "invalid seconds"),
        ("10m", "invalid seconds"),
        ("1.x", "invalid nanoseconds: invalid character 'x' at position 0"),
        ("1." + "1" * 21, "invalid nanoseconds: length 21 exceeds maximum 20"),
        ("\u0661", "invalid seconds"),
        ("9" * 40, "value out of range"),
    ],
)
def test_what_is_no_instant(text, words):
    with pytest.raises(InvalidArgument) as caught:
        instant("since", text)
    assert words in str(caught.value)
