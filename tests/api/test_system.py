"""_ping, version, info and system/df, and what is there for Docker's sake alone."""

import json
import os
import subprocess

import docker
import pytest

from knarr.api.wire import info
from tests.api.http_client import Api
from tests.conftest import oci_archive, tar_of


@pytest.fixture
def api(shared_engine):
    return Api(shared_engine)


def test_ping_has_docker_s_headers_with_a_body_and_without(api):
    for method, length in (("GET", "2"), ("HEAD", "0")):
        for path in ("/_ping", "/v1.24/_ping", "/v1.56/_ping"):
            api.connection.request(method, path)
            response = api.connection.getresponse()
            body = response.read()
            found = dict(response.headers)
            assert (response.status, body) == (200, b"OK" if method == "GET" else b"")
            assert found["Content-Length"] == length
            assert found["Content-Type"] == "text/plain; charset=utf-8"
            assert found["Api-Version"] == "1.56"
            assert found["Cache-Control"] == "no-cache, no-store, must-revalidate"
            assert found["Pragma"] == "no-cache"
            assert (found["Ostype"], found["Docker-Experimental"], found["Swarm"]) == ("linux", "false", "inactive")
            assert "Builder-Version" in found
            assert found["Server"].startswith("knarr/")


# Of the API's definition of SystemInfo, with the versions that brought fields or took them away.
FIELDS = {
    "ID", "Containers", "ContainersRunning", "ContainersPaused", "ContainersStopped", "Images", "Driver",
    "DriverStatus", "DockerRootDir", "Plugins", "MemoryLimit", "SwapLimit", "CpuCfsPeriod", "CpuCfsQuota", "CPUShares",
    "CPUSet", "PidsLimit", "OomKillDisable", "IPv4Forwarding", "Debug", "NFd", "NGoroutines", "SystemTime",
    "LoggingDriver", "CgroupDriver", "NEventsListener", "KernelVersion", "OperatingSystem", "OSType",
    "Architecture", "NCPU", "MemTotal", "IndexServerAddress", "RegistryConfig", "GenericResources", "HttpProxy",
    "HttpsProxy", "NoProxy", "Name", "Labels", "ExperimentalBuild", "ServerVersion", "Runtimes", "DefaultRuntime",
    "Swarm", "LiveRestoreEnabled", "Isolation", "InitBinary", "ContainerdCommit", "RuncCommit", "InitCommit",
    "SecurityOptions", "Warnings",
}  # fmt: skip


@pytest.mark.parametrize(
    ("version", "more"),
    [
        (40, {"BridgeNfIptables", "BridgeNfIp6tables"}),
        (43, {"BridgeNfIptables", "BridgeNfIp6tables", "CgroupVersion", "OSVersion"}),
        (49, {"BridgeNfIptables", "BridgeNfIp6tables", "CgroupVersion", "OSVersion", "CDISpecDirs", "FirewallBackend"}),
        (56, {"CgroupVersion", "OSVersion", "CDISpecDirs", "FirewallBackend"}),
    ],
)
def test_info_has_every_field_of_its_version(api, version, more):
    found = api.ok("GET", f"/v1.{version}/info")
    assert found.keys() == FIELDS | more
    assert found["Warnings"] == []
    assert ("Expected" in found["RuncCommit"]) == (version < 49)
    assert ("AllowNondistributableArtifactsCIDRs" in found["RegistryConfig"]) == (version < 47)
    assert found["NCPU"] == os.cpu_count()
    assert found["MemTotal"] == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert found["Swarm"]["LocalNodeState"] == "inactive"


def test_info_counts_containers(api):
    identity = api.create("sleep", "60")
    api.ok("POST", f"/containers/{identity}/start")
    api.ok("POST", f"/containers/{identity}/pause")
    found = api.ok("GET", "/info")
    states = [container["State"] for container in api.ok("GET", "/containers/json?all=1")]
    assert found["Containers"] == len(states)
    assert found["ContainersPaused"] == states.count("paused") >= 1
    assert found["ContainersRunning"] == states.count("running")
    assert found["ContainersStopped"] == states.count("exited") + states.count("created")
    api.ok("DELETE", f"/containers/{identity}?force=1")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("http://me:secret@proxy.example:3128", "http://xxxxx:xxxxx@proxy.example:3128"),
        ("me:secret@proxy.example:3128", "xxxxx:xxxxx@proxy.example:3128"),
        ("http://proxy.example/a@b", "http://proxy.example/a@b"),
        ("", ""),
    ],
)
def test_a_proxy_is_shown_without_its_password(monkeypatch, given, shown):
    monkeypatch.setenv("HTTPS_PROXY", given)
    monkeypatch.delenv("https_proxy", raising=False)
    assert info.proxy("https_proxy") == shown


def test_docker_info_and_version_print_no_warning(shared_engine):
    result = shared_engine.docker("info")
    # docker 20.10 warns itself of what Docker does not tell older clients any more.
    assert "WARNING" not in (result.stdout + result.stderr).replace("WARNING: bridge-nf-call-", "")
    assert "Server Version: " in result.stdout
    assert "Storage Driver: overlay2" in result.stdout
    version = shared_engine.docker("version", "--format", "{{json .Server}}")
    assert json.loads(version.stdout)["ApiVersion"] == "1.56"


@pytest.fixture
def room(shared_engine, api, tmp_path):
    """Two images with a layer in common, a container that has written a megabyte and runs, another, two volumes; what all
    layers took before."""
    api.ok("POST", '/volumes/prune?filters={"all":["1"]}')  # of tests before
    layers = api.ok("GET", "/v1.51/system/df")["LayersSize"]
    common = tar_of([("common", b"c" * 50_000)])
    for number in (1, 2):
        image = tmp_path / f"{number}.tar"
        own = tar_of([("own", bytes([number]) * 10_000 * number)])
        image.write_bytes(oci_archive([common, own], {"Cmd": ["x"]}, f"room{number}:latest"))
        shared_engine.run("load", "-q", "-i", image)
    writer = api.create(
        "sh", "-c", "head -c 1000000 /dev/zero > /file; head -c 300000 /dev/zero > /data/x; touch /ready; sleep 600",
        HostConfig={"NetworkMode": "none", "Binds": ["room-used:/data"]},
    )  # fmt: skip
    api.ok("POST", f"/containers/{writer}/start")
    idle = api.create("true")
    api.ok("POST", "/volumes/create", {"Name": "room-idle"})
    mountpoint = api.ok("GET", "/volumes/room-idle")["Mountpoint"]
    with open(f"{mountpoint}/file", "wb") as file:
        file.write(b"v" * 70_000)
    made = api.ok(
        "POST",
        f"/containers/{writer}/exec",
        {"Cmd": ["sh", "-c", "while [ ! -e /ready ]; do sleep 0.01; done"], "AttachStdout": True},
    )
    subprocess.run(
        ["curl", "-s", "--unix-socket", api.path, "-XPOST", f"http://x/exec/{made['Id']}/start", "-d", "{}",
         "-H", "Content-Type: application/json"],
        check=True, timeout=20,
    )  # fmt: skip
    yield writer, idle, layers
    for identity in (writer, idle):
        api.call("DELETE", f"/containers/{identity}?force=1")
    for volume in ("room-used", "room-idle"):
        api.call("DELETE", f"/volumes/{volume}")
    shared_engine.run("rmi", "room1", "room2")


def test_disk_usage_in_both_shapes(shared_engine, api, room):
    writer, idle, layers = room
    old = api.ok("GET", "/v1.51/system/df")
    assert set(old) == {"LayersSize", "Images", "Containers", "Volumes", "BuildCache"}
    assert old["BuildCache"] == []
    images = {image["RepoTags"][0]: image for image in old["Images"] if image["RepoTags"]}
    one, two = images["room1:latest"], images["room2:latest"]
    shared = one["SharedSize"]
    assert shared == two["SharedSize"] >= 50_000
    assert two["Size"] - shared >= 20_000 > one["Size"] - shared >= 10_000
    assert one["Containers"] == two["Containers"] == 0
    assert images["busybox:latest"]["Containers"] >= 2
    assert old["LayersSize"] - layers == one["Size"] + two["Size"] - shared
    assert ("VirtualSize" in one, "VirtualSize" in api.ok("GET", "/v1.43/system/df")["Images"][0]) == (False, True)
    containers = {container["Id"]: container for container in old["Containers"]}
    assert containers[writer]["SizeRw"] >= 1_000_000 > containers[idle]["SizeRw"]
    assert containers[writer]["SizeRootFs"] == containers[writer]["SizeRw"] + images["busybox:latest"]["Size"]
    volumes = {volume["Name"]: volume["UsageData"] for volume in old["Volumes"]}
    assert volumes["room-used"]["RefCount"] == 1
    assert volumes["room-used"]["Size"] >= 300_000
    assert volumes["room-idle"]["RefCount"] == 0
    assert volumes["room-idle"]["Size"] >= 70_000

    both = api.ok("GET", "/v1.52/system/df")
    assert {name: both[name] for name in old if name != "Containers"} == {
        name: value for name, value in old.items() if name != "Containers"
    }
    assert [container["SizeRw"] for container in both["Containers"]] == [
        container["SizeRw"] for container in old["Containers"]
    ]
    new = api.ok("GET", "/v1.52/system/df?verbose=1")
    assert set(new) == {"ImageUsage", "ContainerUsage", "VolumeUsage", "BuildCacheUsage"}
    assert new == {name: both[name] for name in new}
    assert new["BuildCacheUsage"] == {}
    found = new["ImageUsage"]
    assert found["Items"] == old["Images"]
    assert (found["TotalCount"], found["TotalSize"]) == (len(old["Images"]), old["LayersSize"])
    assert found["ActiveCount"] == sum(1 for image in old["Images"] if image["Containers"])
    assert found["Reclaimable"] == sum(i["Size"] - i["SharedSize"] for i in old["Images"] if not i["Containers"])
    found = new["ContainerUsage"]
    assert found["TotalSize"] == sum(container["SizeRw"] for container in old["Containers"])
    assert found["TotalSize"] - found.get("Reclaimable", 0) == containers[writer]["SizeRw"]
    assert found["ActiveCount"] == 1
    found = new["VolumeUsage"]
    assert (found["TotalCount"], found["ActiveCount"]) == (len(old["Volumes"]), 1)
    assert found["Reclaimable"] == sum(v["Size"] for v in volumes.values() if not v["RefCount"])

    assert set(api.ok("GET", "/v1.51/system/df?type=volume&type=container")) == {"Containers", "Volumes"}
    assert set(api.ok("GET", "/v1.52/system/df?type=image&verbose=1")) == {"ImageUsage"}
    assert set(api.ok("GET", "/v1.41/system/df?type=image")) == set(old)
    assert api.call("GET", "/system/df?type=sofa") == (400, {"message": "unknown object type: sofa"})


def test_docker_py_and_the_docker_command_line_show_it(shared_engine, api, room):
    client = docker.DockerClient(base_url=f"unix://{shared_engine.socket}")
    assert {volume["Name"] for volume in client.df()["Volumes"]} >= {"room-used", "room-idle"}
    client.close()
    rows = [
        json.loads(line) for line in shared_engine.docker("system", "df", "--format", "{{json .}}").stdout.splitlines()
    ]
    by_type = {row["Type"]: row for row in rows}
    assert by_type["Containers"]["Active"] == "1"
    assert by_type["Local Volumes"]["Reclaimable"].startswith("7")
    shown = shared_engine.docker("system", "df", "-v").stdout
    assert "room-used" in shown
    assert "room1" in shown


def test_checkpoints_answer_as_docker_without_experimental_features(api):
    words = "This experimental feature is disabled by default. Start the Docker daemon in experimental mode"
    for method, path in (("GET", "checkpoints"), ("POST", "checkpoints"), ("DELETE", "checkpoints/one")):
        status, answer = api.call(method, f"/containers/any/{path}")
        assert (status, answer["message"].startswith(words)) == (501, True)
