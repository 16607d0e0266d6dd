"""What each version of the API says of the same document."""

import copy

import pytest

from knarr.api.wire.containers import INSPECT, SUMMARY
from knarr.api.wire.shape import NEWEST, OLDEST, Shape

SHAPE = Shape(
    since={"New": 50, "Deep.New": 44, "Many.*.New": 44, "List.New": 44},
    until={"Old": 42, "Deep.Gone": 45, "Whole": 50},
    sparse={"Empty": 48, "Deep.Never": 0},
    optional={"Null": 48},
    former={"Many.*.Kept": (44, "Former"), "List.Kept": (0, "Former"), "Kept": (43, "Former")},
    was={"Changed": (47, lambda value: value or ["<none>"]), "Whole": (45, lambda value: value + 1)},
)
DOCUMENT = {
    "New": 1,
    "Old": 2,
    "Deep": {"New": 3, "Gone": 4, "Kept": 5, "Never": ""},
    "Many": {"a": {"New": 6, "Kept": 7, "Former": 5}, "b": {"New": 8}},
    "List": [{"New": 9, "Former": 8}, {"Kept": 10}],
    "Kept": None,
    "Former": [1],
    "Empty": [],
    "Null": False,
    "Changed": [],
    "Whole": 1,
}


def test_a_field_lives_from_its_first_version_to_before_its_last():
    for version in range(OLDEST, NEWEST + 1):
        found = SHAPE.of(DOCUMENT, version)
        assert ("New" in found) == (version >= 50)
        assert ("Old" in found) == (version < 42)
        assert ("New" in found["Deep"]) == (version >= 44)
        assert ("Gone" in found["Deep"]) == (version < 45)
        assert found["Deep"]["Kept"] == 5
        assert "Never" not in found["Deep"]
        assert [("New" in one) for one in found["Many"].values()] == [version >= 44] * 2
        assert found["List"] == ([{"New": 9}, {"Kept": 10}] if version >= 44 else [{}, {"Kept": 10}])


def test_empty_and_changed_values():
    assert "Empty" in SHAPE.of(DOCUMENT, 47)
    assert "Empty" not in SHAPE.of(DOCUMENT, 48)
    assert SHAPE.of(DOCUMENT, 48)["Null"] is False  # empty, but not null
    assert "Null" not in SHAPE.of({"Null": None}, 48)
    assert SHAPE.of(DOCUMENT, 46)["Changed"] == ["<none>"]
    assert SHAPE.of(DOCUMENT, 47)["Changed"] == []
    assert [SHAPE.of(DOCUMENT, version).get("Whole") for version in (44, 45, 50)] == [2, 1, None]


def test_a_field_that_held_something_else_before():
    assert SHAPE.of(DOCUMENT, 42)["Kept"] == [1]
    assert SHAPE.of(DOCUMENT, 43)["Kept"] is None
    assert [SHAPE.of(DOCUMENT, version)["Many"]["a"]["Kept"] for version in (43, 44)] == [5, 7]
    for version in range(OLDEST, NEWEST + 1):
        assert "Former" not in str(SHAPE.of(DOCUMENT, version))


def test_what_was_given_stays_as_it_is():
    before = copy.deepcopy(DOCUMENT)
    SHAPE.of(DOCUMENT, OLDEST)
    assert before == DOCUMENT


def test_what_a_request_asks_for_in_vain_is_named():
    assert SHAPE.ignored({"New": 1, "Old": 1}, 41) == ["New"]
    assert SHAPE.ignored({"New": 0, "Old": 1, "List": [{}, {"New": 1}]}, 43) == ["List.New", "Old"]
    assert SHAPE.ignored({"Many": {"x": {"New": 1}}, "Deep": 7, "List": None}, 43) == ["Many.*.New"]
    assert SHAPE.ignored(DOCUMENT, 49) == ["New", "Old", "Deep.Gone"]


def test_rules_below_a_field_that_is_gone_do_no_harm():
    shape = Shape(until={"A": 50, "A.B": 50}, since={"A.C": 52})
    assert shape.of({"A": {"B": 1, "C": 2}, "D": 3}, 51) == {"D": 3}
    with pytest.raises(TypeError):
        Shape(sparse={"A": 0}, since={"A.C": 52}).of({}, 50)


def lookup(document, path):
    for name in path.split("."):
        if name not in document:
            return False
        document = document[name]
    return True


def _full():
    """Every field of an inspect that some version has, filled."""
    endpoint = {"GwPriority": 1, "DNSNames": ["a"], "Aliases": ["b"], "FormerAliases": ["b", "c"]}
    return {
        "Storage": {"RootFS": {}}, "GraphDriver": {"Name": "overlay2"}, "ImageManifestDescriptor": {"size": 1},
        "Config": {"MacAddress": "02:42:ac:11:00:02", "OnBuild": None, "StopTimeout": 0, "Shell": None, "ArgsEscaped": False},
        "HostConfig": {"Umask": 0, "Annotations": {"a": "b"}, "CgroupnsMode": "host", "KernelMemory": 0, "KernelMemoryTCP": 0, "Init": False,
                       "Knarr": None},
        "NetworkSettings": {"Bridge": "", "IPAddress": "10.0.0.2", "SandboxID": "x", "Ports": {}, "Networks": {"net": endpoint}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "versions"),
    [
        ("HostConfig.Umask", range(56, 57)),
        ("Storage", range(52, 57)),
        ("GraphDriver", range(24, 52)),
        ("NetworkSettings.Bridge", range(24, 52)),
        ("NetworkSettings.IPAddress", range(24, 52)),
        ("NetworkSettings.SandboxID", range(24, 57)),
        ("Config.MacAddress", range(24, 52)),
        ("Config.OnBuild", range(24, 52)),
        ("Config.StopTimeout", range(24, 57)),
        ("Config.Shell", ()),
        ("Config.ArgsEscaped", ()),
        ("HostConfig.Init", range(24, 57)),
        ("HostConfig.Knarr", ()),
        ("ImageManifestDescriptor", range(48, 57)),
        ("NetworkSettings.Networks.net.GwPriority", range(48, 57)),
        ("NetworkSettings.Networks.net.DNSNames", range(44, 57)),
        ("NetworkSettings.Networks.net.Aliases", range(24, 57)),
        ("NetworkSettings.Networks.net.FormerAliases", ()),
        ("HostConfig.Annotations", range(43, 57)),
        ("HostConfig.KernelMemory", range(24, 42)),
        ("HostConfig.KernelMemoryTCP", range(24, 42)),
        ("HostConfig.CgroupnsMode", range(41, 57)),
    ],
)
def test_inspect_of_a_container_by_version(path, versions):
    assert [v for v in range(OLDEST, NEWEST + 1) if lookup(INSPECT.of(_full(), v), path)] == list(versions)


@pytest.mark.parametrize(
    ("path", "versions"),
    [
        ("Health", range(52, 57)),
        ("HostConfig.Annotations", range(46, 57)),
        ("HostConfig.NetworkMode", range(24, 57)),
        ("ImageManifestDescriptor", range(48, 57)),
        ("NetworkSettings.Networks.net.GwPriority", range(48, 57)),
    ],
)
def test_a_line_of_the_list_by_version(path, versions):
    line = {
        "Health": {"Status": "none"},
        "HostConfig": {"NetworkMode": "net", "Annotations": {"a": "b"}},
        "ImageManifestDescriptor": {"size": 1},
        "NetworkSettings": {"Networks": {"net": {"GwPriority": 0}}},
    }
    assert [v for v in range(OLDEST, NEWEST + 1) if lookup(SUMMARY.of(line, v), path)] == list(versions)
