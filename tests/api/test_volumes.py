"""Named volumes with options of the local driver, image mounts, and what else the docker command line knows of volumes."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.api.http_client import Api
from tests.api.slow_files import SlowFiles
from tests.api.test_compose import Compose
from tests.conftest import busybox_archive, new_engine, wait_until

LIMIT = 1.5


@pytest.fixture(scope="module")
def own():
    made = new_engine()
    settings = made.base / "config.json"
    settings.write_text(json.dumps({"volume_timeout": LIMIT}))
    made.extra_env["KNARR_CONFIG"] = str(settings)
    made.start()
    made.run("load", "-q", "-i", busybox_archive())
    yield made
    made.stop()


@pytest.fixture
def clean(own):
    """The engine; what a test makes in it goes."""
    yield own
    for noun in ("container", "volume"):
        names = own.run(noun, "ls", *(("-aq",) if noun == "container" else ("-q",))).stdout.split()
        if names:
            own.run(noun, "rm", "-f", *names)
    assert mounts(own) == []


def mounts(engine) -> list[str]:
    """What is mounted of the engine's volumes on the host."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return sorted(line.split()[4] for line in lines if str(engine.data_root) in line.split()[4])


def unmounted(engine) -> None:
    wait_until(lambda: not mounts(engine), what="the last unmount")


TMPFS = ("-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=2m,uid=1000,mode=0750")


def test_a_file_system_is_shared_while_anybody_uses_it(clean):
    docker = clean.docker
    assert docker("volume", "create", *TMPFS, "ram").stdout == "ram\n"
    shown = json.loads(docker("volume", "inspect", "ram").stdout)[0]
    assert shown["Options"] == {"type": "tmpfs", "device": "tmpfs", "o": "size=2m,uid=1000,mode=0750"}
    place = f"{clean.data_root}/volumes/ram/_data"
    assert (shown["Driver"], shown["Mountpoint"], shown["Scope"]) == ("local", place, "local")
    assert mounts(clean) == []
    docker(
        "run", "-d", "--name", "one", "-v", "ram:/ram", "busybox", "sh", "-c", "echo text > /ram/file; exec sleep 1000"
    )
    docker("run", "-d", "--name", "two", "-v", "ram:/ram", "busybox", "sleep", "1000")
    assert mounts(clean) == [place]
    wait_until(lambda: docker("exec", "two", "cat", "/ram/file", check=False).stdout == "text\n")
    assert docker("exec", "two", "stat", "-c", "%u %a", "/ram").stdout == "1000 750\n"
    assert docker("exec", "two", "df", "-k", "/ram").stdout.split()[-5] == "2048"
    assert Path(place, "file").read_text() == "text\n"  # for whoever looks on the host
    docker("rm", "-f", "one")
    assert docker("exec", "two", "cat", "/ram/file").stdout == "text\n"
    docker("stop", "-t0", "two")
    unmounted(clean)
    docker("start", "two")
    assert docker("exec", "two", "ls", "/ram").stdout == ""


def test_restarts_keep_what_runs_and_put_the_rest_in_order(clean):
    docker = clean.docker
    docker("volume", "create", *TMPFS, "ram")
    docker("volume", "create", *TMPFS, "other")
    docker(
        "run", "-d", "--name", "one", "-v", "ram:/ram", "busybox", "sh", "-c", "echo text > /ram/file; exec sleep 1000"
    )
    docker("run", "-d", "--name", "two", "-v", "other:/ram", "busybox", "sleep", "1000")
    assert len(mounts(clean)) == 2
    second = int(docker("inspect", "-f", "{{.State.Pid}}", "two").stdout)
    clean.kill()
    os.kill(second, 9)
    clean.start()
    wait_until(lambda: mounts(clean) == [f"{clean.data_root}/volumes/ram/_data"], what="one volume mounted")
    assert docker("run", "--rm", "-v", "ram:/ram", "busybox", "cat", "/ram/file").stdout == "text\n"
    docker("stop", "-t0", "one")
    unmounted(clean)


def test_a_bind_is_mounted_nowhere(clean, tmp_path):
    docker = clean.docker
    (tmp_path / "file").write_text("of the host")
    docker("volume", "create", "-o", "type=none", "-o", "o=bind,ro", "-o", f"device={tmp_path}", "bound")
    run = docker("run", "--rm", "-v", "bound:/b", "busybox", "sh", "-c", "cat /b/file; touch /b/x || echo refused")
    assert run.stdout == "of the hostrefused\n"
    assert mounts(clean) == []
    docker("create", "--name", "idle", "-v", "bound:/b", "busybox")
    docker("cp", "idle:/b/file", tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "of the host"
    assert "marked read-only" in docker("cp", tmp_path / "copy", "idle:/b/", check=False).stderr
    docker("rm", "idle")
    docker("volume", "rm", "bound")
    assert (tmp_path / "file").exists()


def test_what_the_image_has_is_copied_to_where_it_belongs(clean, tmp_path):
    docker = clean.docker
    for number, options in enumerate((("type=none", "o=bind"), ("type=none", "o=bind,rslave"))):
        target = tmp_path / str(number)
        target.mkdir()
        (target / ".knarr-copying").mkdir()  # of somebody who was killed over it
        docker(
            "volume", "create", *(word for one in (*options, f"device={target}") for word in ("-o", one)), f"v{number}"
        )
        docker("create", "-v", f"v{number}:/etc", "busybox")
        assert "passwd" in os.listdir(target)
        assert not [name for name in os.listdir(target) if name.startswith(".knarr")]
        (target / "passwd").write_text("mine")
        docker("create", "-v", f"v{number}:/etc", "busybox")
        assert (target / "passwd").read_text() == "mine"
        unmounted(clean)
    empty = tmp_path / "empty"
    empty.mkdir()
    docker("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", f"device={empty}", "plain")
    docker("create", "-v", "plain:/etc:nocopy", "busybox")
    docker("create", "-v", "plain:/nothing/there", "busybox")
    assert os.listdir(empty) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["foo=1"], 'create bad: invalid option: "foo"'),
        (["type=nfs"], 'create bad: missing required option: "device"'),
        (["device=/x"], 'create bad: missing required option: "type"'),
        (["o=bind"], 'create bad: missing required option: "device"'),
        (["type=cifs", "device=//host:445/x"], "port not allowed in CIFS device URL, include 'port' in 'o='"),
        (["size=1g", "type=tmpfs", "device=tmpfs"], 'create bad: option "size" is for volumes without "type"'),
    ],
)
def test_options_that_are_none(clean, options, message):
    for run in (clean.docker, clean.run):
        refused = run("volume", "create", *(word for one in options for word in ("-o", one)), "bad", check=False)
        assert message in refused.stderr
        assert refused.returncode == 1
    assert clean.docker("volume", "ls", "-q").stdout == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["type=none", "o=bind", "device=/no/such"],
         "failed to mount local volume: mount /no/such:{place}, flags: 0x1000: no such file or directory"),
        (["type=none", "o=bind", "device=/etc/hosts"],
         "failed to mount local volume: mount /etc/hosts:{place}, flags: 0x1000: not a directory"),
        (["type=nfs", "o=addr=127.0.0.1,ro", "device=:/export"],
         "failed to mount local volume: mount :/export:{place}, flags: 0x1, data: addr=127.0.0.1: "),
        (["type=cifs", "o=password=secret,addr=127.0.0.1", "device=//host/x"], "password=********,addr=127.0.0.1"),
        (["type=nfs", "o=addr=no-such-host.invalid", "device=:/export"],
         "error resolving passed in network volume address: lookup no-such-host.invalid: "),
        (["type=nonsense", "device=x"], "failed to mount local volume: mount x:{place}: no such device"),
    ],
)  # fmt: skip
def test_what_cannot_be_mounted_refuses_the_start(clean, options, message):
    docker, api = clean.docker, Api(clean)
    docker("volume", "create", *(word for one in options for word in ("-o", one)), "bad")
    place = f"{clean.data_root}/volumes/bad/_data"
    made = api.create("true", HostConfig={"Binds": ["bad:/mnt"]})
    status, answer = api.call("POST", f"/containers/{made}/start")
    assert (status, message.format(place=place) in answer["message"]) == (500, True), answer
    assert answer["message"].startswith(f"error while mounting volume '{place}': ")
    assert "secret" not in answer["message"]
    state = api.ok("GET", f"/containers/{made}/json")["State"]
    assert (state["Status"], state["ExitCode"]) == ("created", 128)
    # With something of the image's to copy, as with Docker, it is refused before.
    status, answer = api.call("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Binds": ["bad:/etc"]}})
    assert (status, answer["message"].startswith("failed to populate volume: error while mounting volume")) == (
        500,
        True,
    )
    assert len(api.ok("GET", "/containers/json?all=1")) == 1


def test_what_hangs_holds_up_nobody_else(clean, tmp_path):
    docker, api = clean.docker, Api(clean)
    slow = SlowFiles(tmp_path / "slow")
    try:
        place = tmp_path / "slow" / "here"
        docker("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", f"device={place}", "bound")
        docker("volume", "create", "-o", "type=none", "-o", "o=bind,rslave", "-o", f"device={place}", "mounted")
        made = {name: api.create("true", HostConfig={"Binds": [f"{name}:/mnt"]}) for name in ("bound", "mounted")}
        clients = [
            subprocess.Popen(["docker", "start", made[name]], env=clean.env, stderr=subprocess.PIPE, text=True)
            for name in ("bound", "mounted", "mounted")
        ]
        begun = time.monotonic()
        while time.monotonic() < begun + LIMIT / 2:
            before = time.monotonic()
            api.ok("GET", "/containers/json")
            assert time.monotonic() - before < LIMIT / 2
        docker("run", "--rm", "-v", "other:/x", "busybox", "true")
        for client in clients:
            _, error = client.communicate(timeout=20)
            assert f"nothing came of it within {LIMIT:g} s" in error
        docker("rm", made["bound"])
        assert "nothing came of it" in docker("volume", "rm", "bound", check=False).stderr
        assert len(mounts(clean)) == 0
        slow.go.set()  # what nobody waits for any more is undone
        wait_until(
            lambda: docker("start", made["mounted"], check=False).returncode == 0, what="a start that works again"
        )
        docker("wait", made["mounted"])
        unmounted(clean)
    finally:
        slow.close()


def test_a_disk_of_its_own(clean, tmp_path):
    docker = clean.docker
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(4 << 20)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True, env=clean.env)
    device = subprocess.run(
        ["losetup", "--find", "--show", disk], check=True, capture_output=True, text=True, env=clean.env
    ).stdout.strip()
    try:
        docker("volume", "create", "-o", "type=ext4", "-o", f"device={device}", "-o", "o=noatime", "disk")
        docker("run", "--rm", "-v", "disk:/d", "busybox", "sh", "-c", "mkdir /d/sub; echo kept > /d/sub/file")
        sub = docker("run", "--rm", "--mount", "type=volume,src=disk,dst=/s,volume-subpath=sub", "busybox", "ls", "/s")
        assert sub.stdout == "file\n"
        docker("create", "--name", "idle", "-v", "disk:/d", "busybox")
        unmounted(clean)
        docker("cp", "idle:/d/sub/file", tmp_path / "copied")
        assert (tmp_path / "copied").read_text() == "kept\n"
        docker("cp", tmp_path / "copied", "idle:/d/more")
        unmounted(clean)
        assert "disk" not in docker("system", "df", "-v").stdout  # which says what its removal would free
        docker("rm", "idle")
        assert docker("volume", "prune", "-af").stdout == "Total reclaimed space: 0B\n"
        docker("volume", "rm", "disk")
        docker("volume", "create", "-o", "type=ext4", "-o", f"device={device}", "again")
        assert docker("run", "--rm", "-v", "again:/d", "busybox", "cat", "/d/more").stdout == "kept\n"
        unmounted(clean)
    finally:
        subprocess.run(["losetup", "-d", device], check=True, env=clean.env)


def test_image_mounts(clean):
    docker, api = clean.docker, Api(clean)
    docker("tag", "busybox", "other:1")
    run = docker(
        "run", "--name", "one", "--mount", "type=image,source=other:1,target=/img", "--mount",
        "type=image,src=other:1,dst=/etc/sub,image-subpath=etc", "busybox", "sh", "-c",
        "head -1 /img/etc/passwd; head -1 /etc/sub/passwd; touch /img/x; touch /etc/sub/x; true",
    )  # fmt: skip
    assert [line.split(":")[0] for line in run.stdout.splitlines()] == ["root", "root"]
    assert run.stderr.count("Read-only file system") == 2
    assert mounts(clean) == []
    shown = {mount["Destination"]: mount for mount in api.ok("GET", "/containers/one/json")["Mounts"]}
    image = api.ok("GET", "/images/busybox/json")["Id"]
    expected = {"Type": "image", "Name": "other:1", "Source": image, "Destination": "/img", "Mode": "", "RW": False,
                "Propagation": "rprivate"}  # fmt: skip
    assert shown["/img"] == expected
    docker("cp", "one:/img/etc/passwd", clean.base / "copied")
    docker("cp", "one:/etc/sub/passwd", clean.base / "copied-too")
    assert (clean.base / "copied").read_bytes() == (clean.base / "copied-too").read_bytes() != b""
    for subpath, message in (
        ("no/such", "cannot access path no/such: no such file or directory"),
        ("../x", "subpath must be a relative path"),
    ):
        refused = docker("run", "--rm", "--mount", f"type=image,src=other:1,dst=/i,image-subpath={subpath}", "busybox",
                         check=False)  # fmt: skip
        assert message in refused.stderr
    docker("rmi", "other:1")


def test_a_mounted_image_stays(clean):
    docker = clean.docker
    docker("create", "--name", "maker", "busybox", "true")
    docker("cp", "/etc/hostname", "maker:/made")
    docker("commit", "maker", "made:1")
    docker("rm", "maker")
    docker("create", "--name", "user", "--mount", "type=image,src=made:1,dst=/img", "busybox", "ls", "/img/made")
    refused = docker("rmi", "made:1", check=False)
    assert "unable to remove repository reference" in refused.stderr
    docker("rmi", "-f", "made:1")
    assert docker("start", "-a", "user").stdout == "/img/made\n"
    docker("rm", "user")
    docker("image", "prune", "-f")


PROJECT = """\
name: volumes
services:
  one:
    image: busybox
    network_mode: none
    command: ["sleep", "1000"]
    stop_grace_period: 0s
    volumes: ["ram:/ram", "bound:/bound", {type: image, source: busybox, target: /img, image: {subpath: etc}}]
volumes:
  ram: {driver_opts: {type: tmpfs, device: tmpfs, o: size=1m}}
  bound: {driver_opts: {type: none, o: bind, device: PLACE}}
"""


def test_a_project_with_driver_options(clean, tmp_path):
    (tmp_path / "compose.yaml").write_text(PROJECT.replace("PLACE", str(tmp_path)))
    compose = Compose(clean, tmp_path)
    compose("up", "-d")
    out = compose(
        "exec", "-T", "one", "sh", "-c", "grep -c ' /ram tmpfs ' /proc/mounts; ls /bound; ls /img/passwd"
    ).stdout
    assert out.split() == ["1", "compose.yaml", "/img/passwd"]
    assert len(mounts(clean)) == 1
    compose("down", "-v")
    assert clean.docker("volume", "ls", "-q").stdout == ""
    assert (tmp_path / "compose.yaml").exists()


def test_filters_and_anonymous_volumes(clean):
    docker, api = clean.docker, Api(clean)
    for name in ("one", "two", "other"):
        docker("volume", "create", "--label", f"n={name}", name)
    anonymous = docker("volume", "create").stdout.strip()
    docker("create", "-v", "one:/x", "busybox")

    def listed(*filters):
        return docker("volume", "ls", "-q", *(word for one in filters for word in ("-f", one))).stdout.split()

    assert listed("name=^o") == ["one", "other"]
    assert listed("name=tw") == ["two"]
    assert listed("driver=none") == []
    assert listed("label=n=two", "driver=local") == ["two"]
    assert listed("dangling=false") == ["one"]
    assert listed("dangling=true") == sorted(["two", "other", anonymous])
    assert "invalid filter 'dangling=[maybe]'" in docker("volume", "ls", "-f", "dangling=maybe", check=False).stderr
    assert "invalid filter 'until'" in docker("volume", "prune", "-f", "--filter", "until=1h", check=False).stderr
    assert json.loads(docker("volume", "inspect", anonymous).stdout)[0]["Labels"] == {"com.docker.volume.anonymous": ""}
    assert api.ok("POST", "/volumes/prune")["VolumesDeleted"] == [anonymous]
    assert sorted(api.ok("POST", '/volumes/prune?filters={"all":["1"]}')["VolumesDeleted"]) == ["other", "two"]
    assert "volume is in use" in docker("volume", "rm", "one", check=False).stderr


def test_what_is_passed_on_needs_a_mount_that_passes_on(clean, tmp_path):
    docker, mounting = clean.docker, ["mount", "-t", "tmpfs", "tmpfs", tmp_path]
    subprocess.run(mounting, check=True, env=clean.env)
    try:
        subprocess.run(["mount", "--make-private", tmp_path], check=True, env=clean.env)
        for word, kind in (("rshared", "shared"), ("rslave", "shared or slave")):
            refused = docker("run", "--rm", "-v", f"{tmp_path}:/x:{word}", "busybox", check=False).stderr
            assert f"path {tmp_path} is mounted on {tmp_path} but it is not a {kind} mount" in refused
        subprocess.run(["mount", "--make-shared", tmp_path], check=True, env=clean.env)
        (tmp_path / "below").mkdir()
        for word in ("rshared", "rslave"):
            docker("run", "-d", "--name", word, "-v", f"{tmp_path}:/x:{word}", "busybox", "sleep", "1000")
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path / "below"], check=True, env=clean.env)
        for word in ("rshared", "rslave"):
            assert docker("exec", word, "grep", "-c", " /x/below ", "/proc/mounts").stdout == "1\n"
    finally:
        docker("rm", "-f", "rshared", "rslave", check=False)
        subprocess.run(["umount", "-R", tmp_path], check=True, env=clean.env)


def test_what_others_volumes_are(clean):
    docker, api = clean.docker, Api(clean)
    docker("volume", "create", "data")
    docker("create", "--name", "one", "-v", "data:/etc:nocopy", "-v", "/anon", "-v", "/etc:/host:ro", "busybox")
    docker("create", "--name", "two", "--volumes-from", "one:ro", "busybox")
    assert os.listdir(clean.data_root / "volumes/data/_data") == []  # of others' volumes nothing is filled
    first, second = ({mount["Destination"]: mount for mount in api.ok("GET", f"/containers/{name}/json")["Mounts"]}
                     for name in ("one", "two"))  # fmt: skip
    assert {place: (mount.get("Name"), mount["Source"]) for place, mount in first.items()} == {
        place: (mount.get("Name"), mount["Source"]) for place, mount in second.items()
    }
    assert [(mount["RW"], mount["Mode"]) for mount in second.values()] == [(False, "")] * 3
    docker("rm", "-v", "one")
    assert len(docker("volume", "ls", "-q").stdout.split()) == 2
    docker("rm", "-v", "two")
    assert "data" in docker("volume", "ls", "-q").stdout.split()


def test_events_of_volumes(clean):
    docker = clean.docker
    begun = time.time()
    docker("run", "--rm", "--name", "one", "-v", "data:/d:ro", "busybox", "true")
    docker("volume", "rm", "data")
    shown = docker("events", "--since", f"{begun:.6f}", "--until", f"{time.time() + 0.01:.6f}", "-f", "type=volume",
                   "--format", "{{json .}}").stdout  # fmt: skip
    found = [json.loads(line) for line in shown.splitlines()]
    assert [event["Action"] for event in found] == ["create", "mount", "unmount", "destroy"]
    assert {event["Actor"]["ID"] for event in found} == {"data"}
    attributes = found[1]["Actor"]["Attributes"]
    assert (attributes["destination"], attributes["read/write"], attributes["driver"]) == ("/d", "false", "local")
