"""What stats, events and system df make of answers."""

import pytest

from knarr.cli import disk, events, stats
from knarr.cli.documents import Fields, compiled
from knarr.cli.template import Template


def processors(used, whole, **more):
    return {"cpu_usage": {"total_usage": used, **more.pop("usage", {})}, "system_cpu_usage": whole, **more}


@pytest.mark.parametrize(
    ("now", "before", "share"),
    [
        (processors(200, 1000, online_cpus=4), processors(100, 500), 80.0),
        (processors(200, 1000, usage={"percpu_usage": [1, 2]}), processors(100, 500), 40.0),
        (processors(100, 1000, online_cpus=4), processors(100, 500), 0.0),
        (processors(200, 500, online_cpus=4), processors(100, 500), 0.0),
        (processors(0, 0), processors(100, 500), 0.0),
    ],
)
def test_processor_shares(now, before, share):
    assert stats.processor_share({"cpu_stats": now, "precpu_stats": before}) == share


@pytest.mark.parametrize(
    ("memory", "used"),
    [
        ({"usage": 100, "stats": {"total_inactive_file": 30, "inactive_file": 10}}, 70),
        ({"usage": 100, "stats": {"inactive_file": 10}}, 90),
        ({"usage": 100, "stats": {"total_inactive_file": 200, "inactive_file": 10}}, 90),
        ({"usage": 100, "stats": {"inactive_file": 200}}, 100),
        ({"usage": 100, "stats": {"total_inactive_file": 0}}, 100),
        ({"usage": 100}, 100),
        ({}, 0),
    ],
)
def test_memory_without_idle_cache(memory, used):
    assert stats.used_memory(memory) == used


def test_block_devices_of_either_version():
    entries = [{"op": op, "value": value} for op, value in (("read", 1), ("Write", 20), ("Total", 300), ("", 5))]
    assert stats.block_bytes(entries) == (1, 20)


def test_a_container_that_says_nothing_has_dashes():
    assert stats.row("web", None, full=False) == {
        "Container": "web", "ID": "--", "Name": "--", "CPUPerc": "--", "MemUsage": "-- / --", "MemPerc": "--",
        "NetIO": "--", "BlockIO": "--", "PIDs": "--",
    }  # fmt: skip


def test_an_event_is_a_line(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    event = {"Type": "container", "Action": "die", "timeNano": 1_700_000_000_000_000_005}
    event["Actor"] = {"ID": "abc", "Attributes": {"b": "2", "a": "1"}}
    assert events.spoken(event).endswith(".000000005Z container die abc (a=1, b=2)")
    event["Actor"] = {"ID": "abc"}
    assert events.spoken(event).endswith(" container die abc")


def test_fields_are_found_in_any_letter_case():
    document = Fields({"Server": {"ApiVersion": "1.5"}, "timeNano": 3, "ID": "x"})
    assert Template("{{.Server.APIVersion}} {{.TimeNano}} {{.ID}}").render(document) == "1.5 3 x"
    assert compiled("json") is None
    assert Template("{{json .}}").render(document) == '{"Server":{"ApiVersion":"1.5"},"timeNano":3,"ID":"x"}'


def test_disk_usage_adds_up():
    usage = {
        "LayersSize": 1000,
        "Images": [
            {"Containers": 1, "Size": 600, "SharedSize": 100},
            {"Containers": 0, "Size": 500, "SharedSize": 100},
        ],
        "Containers": [{"State": "running", "SizeRw": 10}, {"State": "exited", "SizeRw": 30}, {"State": "paused"}],
        "Volumes": [{"UsageData": {"RefCount": 0, "Size": 7}}, {"UsageData": {"RefCount": 2, "Size": -1}}],
    }
    rows = [list(row.values()) for row in disk.summary(usage)]
    assert rows == [
        ["Images", "2", "1", "1kB", "500B (50%)"],
        ["Containers", "3", "2", "40B", "30B (75%)"],
        ["Local Volumes", "2", "1", "7B", "7B (100%)"],
        ["Build Cache", "0", "0", "0B", "0B"],
    ]
