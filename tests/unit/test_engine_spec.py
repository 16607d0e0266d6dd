"""Composing the OCI specification: what a request comes to, field by field."""

import pytest

from knarr.engine.containers import mounts as resolving
from knarr.engine.containers.capabilities import available, capabilities
from knarr.engine.containers.mounting import Sources
from knarr.engine.containers.policy import CAPABILITIES, DEFAULT_CAPABILITIES
from knarr.engine.containers.spec import Surroundings, compose
from knarr.engine.volumes.volumes import Source
from knarr.errors import InvalidArgument, PermissionDenied
from tests.unit.engine_records import ID, config, host, record

SOURCES = Sources(
    {
        "": Source("/new"),
        "data": Source("/data/volumes/data/_data"),
        "bound": Source("/elsewhere", False, ("ro", "nodev")),
    },
    {"sha256:1": ["/top", "/bottom"]},
)
AROUND = Surroundings("deadbeef", "/run/x", SOURCES, [], 0)


def spec(config_values=None, mounts=(), around=AROUND, **host_values):
    return compose(record(config_values, mounts, **host_values), around)


def mount(found, destination):
    matches = [item for item in found["mounts"] if item["destination"] == destination]
    assert len(matches) == 1, f"{destination}: {matches}"
    return matches[0]


def kinds(found):
    return {item["type"] for item in found["linux"]["namespaces"]}


def test_the_defaults_are_dockers():
    found = spec()
    expected = [name for name in CAPABILITIES if name in DEFAULT_CAPABILITIES and name in available()]
    for which in ("bounding", "effective", "permitted"):
        assert found["process"]["capabilities"][which] == expected
    assert not found["process"]["capabilities"].get("ambient")
    assert not found["process"]["capabilities"].get("inheritable")
    assert found["process"]["noNewPrivileges"] is False
    assert kinds(found) == {"mount", "network", "uts", "pid", "ipc", "cgroup"}
    assert "ro" in mount(found, "/sys")["options"]
    assert "ro" in mount(found, "/sys/fs/cgroup")["options"]
    assert "size=67108864" in mount(found, "/dev/shm")["options"]
    assert found["linux"]["cgroupsPath"] == f"/knarr-deadbeef/{ID}"
    assert "/proc/kcore" in found["linux"]["maskedPaths"]
    assert "/proc/sys" in found["linux"]["readonlyPaths"]
    assert found["linux"]["sysctl"] == {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": "0 2147483647",
    }
    assert found["linux"]["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert "seccomp" not in found["linux"]
    assert found["hostname"] == "here"
    assert found["process"]["args"] == ["/bin/true", "x"]
    for name in ("hosts", "hostname", "resolv.conf"):
        assert mount(found, f"/etc/{name}")["source"] == f"/run/x/{name}"


def test_privileged_opens_everything():
    found = spec(Privileged=True)
    assert set(found["process"]["capabilities"]["effective"]) == set(available())
    assert found["linux"]["maskedPaths"] == found["linux"]["readonlyPaths"] == []
    assert "ro" not in mount(found, "/sys")["options"]
    assert {"allow": True, "access": "rwm"} in found["linux"]["resources"]["devices"]
    assert any(node["path"] == "/dev/null" for node in found["linux"]["devices"])


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({"NetworkMode": "host"}, {"network"}),
        ({"PidMode": "host"}, {"pid"}),
        ({"IpcMode": "host"}, {"ipc"}),
        ({"UTSMode": "host"}, {"uts"}),
        ({"CgroupnsMode": "host"}, {"cgroup"}),
    ],
)
def test_a_host_namespace_is_left_out(values, missing):
    found = spec(**values)
    assert {"mount", "network", "uts", "pid", "ipc", "cgroup"} - kinds(found) == missing
    if missing == {"network"}:
        assert found["linux"]["sysctl"] == {}
    if missing == {"uts"}:
        assert "hostname" not in found
    if missing == {"ipc"}:
        assert mount(found, "/dev/shm")["source"] == "/dev/shm"


def test_a_pid_namespace_is_joined_by_path():
    around = Surroundings("deadbeef", "/run/x", SOURCES, [], 42)
    namespaces = spec(around=around, PidMode="container:other")["linux"]["namespaces"]
    assert {"type": "pid", "path": "/proc/42/ns/pid"} in namespaces


def test_limits():
    resources = spec(
        Memory=64 << 20, NanoCpus=500_000_000, PidsLimit=7, CpuShares=512, CpusetCpus="0", MemoryReservation=32 << 20
    )["linux"]["resources"]
    assert resources["memory"] == {"limit": 64 << 20, "swap": 128 << 20, "reservation": 32 << 20}
    assert resources["cpu"] == {"period": 100000, "quota": 50000, "shares": 512, "cpus": "0"}
    assert resources["pids"] == {"limit": 7}
    assert "pids" not in spec(PidsLimit=-1)["linux"]["resources"]
    rlimits = spec(Ulimits=[{"Name": "nofile", "Soft": 10, "Hard": 20}, {"Name": "core", "Soft": -1, "Hard": -1}])[
        "process"
    ]["rlimits"]
    assert rlimits == [
        {"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20},
        {"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1},
    ]


def test_rights_are_added_and_dropped():
    drop = capabilities(host(CapDrop=["ALL"], CapAdd=["NET_BIND_SERVICE", "cap_chown"]))
    assert drop == ("CAP_CHOWN", "CAP_NET_BIND_SERVICE")
    without = capabilities(host(CapDrop=["CHOWN"]))
    assert "CAP_CHOWN" not in without
    assert "CAP_KILL" in without
    every = capabilities(host(CapAdd=["ALL"], CapDrop=["NET_RAW"]))
    assert set(every) == set(available()) - {"CAP_NET_RAW"}
    with pytest.raises(InvalidArgument, match="unknown capability"):
        capabilities(host(CapAdd=["NONSENSE"]))
    absent = set(CAPABILITIES) - set(available())
    if absent:
        with pytest.raises(PermissionDenied):
            capabilities(host(CapAdd=[min(absent)]))


def test_environment_is_the_images_then_the_containers():
    env = spec({"Env": ["A=1", "PATH=/x", "GONE=1", "GONE"], "Tty": True})["process"]["env"]
    assert env == ["PATH=/x", "HOSTNAME=here", "TERM=xterm", "A=1"]


def test_mounts_come_in_an_order_that_works(tmp_path):
    asked = host(Binds=[f"{tmp_path}:/a/b/c:ro", f"{tmp_path}:/a", "data:/var/lib:rw"], Tmpfs={"/run": "size=1m,exec"})
    points = resolving.resolve(config(Volumes={"/anonymous": {}}), asked, [])
    found = spec(mounts=points)
    order = [item["destination"] for item in found["mounts"]]
    assert order.index("/a") < order.index("/a/b/c")
    assert mount(found, "/a/b/c")["options"] == ["rbind", "rprivate", "rro"]
    assert mount(found, "/var/lib")["source"] == "/data/volumes/data/_data"
    assert mount(found, "/run")["options"] == ["nosuid", "nodev", "size=1m", "exec"]
    assert [point["name"] for point in points if point["destination"] == "/anonymous"] == [""]


def test_volumes_and_images_come_from_where_they_are():
    image = {"Type": "image", "Source": "busybox", "Target": "/image", "ImageOptions": {"Subpath": "./etc"}}
    points = resolving.resolve(config(), host(Binds=["bound:/bound"], Mounts=[image]), [])
    points[1]["source"] = "sha256:1"
    found = spec(mounts=points)
    assert mount(found, "/bound")["source"] == "/elsewhere"
    assert mount(found, "/bound")["options"] == ["bind", "rprivate", "ro", "nodev"]
    assert mount(found, "/image")["knarrLayers"] == ["/top", "/bottom"]
    assert mount(found, "/image")["options"] == ["rbind", "rprivate", "knarr.beneath=etc", "ro"]


def test_a_bind_around_the_data_root_follows_what_is_unmounted():
    def propagation(source, mode=""):
        [point] = resolving.resolve(config(), host(Binds=[f"{source}:/x{mode}"]), [], data_root="/tmp/data")
        return point["propagation"]

    assert [propagation(path) for path in ("/", "/tmp", "/tmp/data/volumes", "/usr")] == ["rslave"] * 3 + ["rprivate"]
    assert propagation("/tmp", ":rshared") == "rshared"
    assert propagation("/usr", ":private") == "private"
    with pytest.raises(InvalidArgument, match='must use either propagation mode "rslave" or "rshared"'):
        propagation("/tmp", ":private")


def test_a_mount_takes_the_place_of_a_default_one(tmp_path):
    points = resolving.resolve(config(), host(Binds=[f"{tmp_path}:/dev/shm", f"{tmp_path}:/etc/hosts"]), [])
    found = spec(mounts=points)
    assert mount(found, "/dev/shm")["source"] == str(tmp_path)
    assert mount(found, "/etc/hosts")["source"] == str(tmp_path)


@pytest.mark.parametrize(("propagation", "expected"), [("rslave", "slave"), ("rshared", "shared"), ("rprivate", None)])
def test_propagation_reaches_the_root(tmp_path, propagation, expected):
    points = resolving.resolve(config(), host(Binds=[f"{tmp_path}:/x:{propagation}"]), [])
    found = spec(mounts=points)
    assert propagation in mount(found, "/x")["options"]
    assert found["linux"].get("rootfsPropagation") == expected


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"Binds": ["/a:b"]}, "must be absolute"),
        ({"Binds": ["/a:/"]}, "can't be '/'"),
        ({"Binds": ["/a:/b:nonsense"]}, "invalid mode"),
        ({"Binds": ["/a:/b:ro,rw"]}, "invalid mode"),
        ({"Binds": ["/a:/b:c:d"]}, "invalid volume specification"),
        ({"Binds": ["../up:/b"]}, "up"),
        ({"Binds": ["/tmp:/b", "/tmp:/b/"]}, "Duplicate mount point"),
        (
            {"Mounts": [{"Type": "bind", "Source": "/nonexistent-for-sure", "Target": "/x"}]},
            "does not exist: /nonexistent-for-sure",
        ),
        ({"Mounts": [{"Type": "bind", "Target": "/x"}]}, "Source must not be empty"),
        ({"Mounts": [{"Type": "what", "Target": "/x"}]}, "mount type unknown"),
        ({"Mounts": [{"Type": "tmpfs", "Source": "x", "Target": "/x"}]}, "Source must not be specified"),
        ({"Tmpfs": {"/x": "evil=1"}}, "invalid tmpfs option"),
    ],
)
def test_bad_mounts_are_refused_by_name(values, words):
    with pytest.raises(InvalidArgument, match=words.replace("'", ".")):
        resolving.resolve(config(), host(**values), [])
