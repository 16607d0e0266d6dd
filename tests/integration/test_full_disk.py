"""A data root on a small ext4 that is full: clear errors, nothing half made, and all is well when there is room again."""

import os
import subprocess
import tempfile
import threading

import pytest

from tests.api.http_client import Api
from tests.conftest import busybox_archive, new_engine, running_registry, tar_of, wait_until
from tests.image_files import Layout, files, upload
from tests.integration.faults import FaultyEngine

MEGABYTES = 48
FULL = ("No space left on device", "database or disk is full", "no room", "file system is full")
LAYOUT = Layout()
MANIFEST = LAYOUT.image([files(big=os.urandom(4 << 20).hex())])
ARCHIVE = LAYOUT.name(MANIFEST, "docker.io/library/loaded:1").archive()


class SmallDisk:
    """An engine on a disk of its own, which can be filled to its last block."""

    def __init__(self, engine, mountpoint):
        self.engine = engine
        self.mountpoint = mountpoint
        self.filler = mountpoint / "filler"

    def fill(self):
        with self.filler.open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    os.fsync(file.fileno())  # what was written late comes to its place: then there may be room for more
            with pytest.raises(OSError, match="No space left"):
                file.write(bytes(8192))

    def make_room(self):
        self.filler.unlink()
        subprocess.run(["sync", "-f", self.mountpoint], check=True)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    base = tmp_path_factory.mktemp("disk")
    image, mountpoint = base / "image", base / "mounted"
    mountpoint.mkdir()
    with image.open("wb") as file:
        file.truncate(MEGABYTES << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mountpoint], check=True)
    try:
        engine = FaultyEngine(new_engine().base, elsewhere=mountpoint / "data")
        engine.start()
        engine.run("load", "-q", "-i", busybox_archive())
        yield SmallDisk(engine, mountpoint)
        engine.stop()
    finally:
        subprocess.run(["umount", mountpoint], check=True)


@pytest.fixture
def disk(small):
    yield small
    if small.filler.exists():
        small.make_room()
    if small.engine.process.poll() is not None:
        small.engine.start()
    api = Api(small.engine)
    for one in api.ok("GET", "/containers/json?all=1"):
        api.ok("DELETE", f"/containers/{one['Id']}?force=1&v=1")
    for one in api.ok("GET", "/volumes")["Volumes"] or ():
        api.ok("DELETE", f"/volumes/{one['Name']}")
    for one in api.ok("GET", "/images/json"):
        if one["RepoTags"] != ["busybox:latest"]:
            api.ok("DELETE", f"/images/{one['Id']}?force=1")


def until_refused(engine, ask):
    """Ask until the disk is really full; how often it went well, and the refusal's words."""
    for number in range(400):
        status, message = ask(number)
        if status >= 400:
            assert status in (500, 503), (status, message)
            assert any(words in message for words in FULL), message
            assert "defect" not in message
            return number, message
    pytest.fail("a full disk took 400 of them")


def test_create(disk):
    engine = disk.engine
    disk.fill()
    body = {"Image": "busybox", "Cmd": ["true"], "Volumes": {"/home": {}}, "HostConfig": {"NetworkMode": "none"}}
    made, _ = until_refused(engine, lambda number: engine.ask("POST", f"/containers/create?name=made{number}", body))
    visible = engine.visible()
    assert len(visible["containers"]) == made
    engine.settled(visible, "what was acknowledged, and nothing else")
    engine.restart()
    engine.settled(visible, "the same for the next daemon, on a disk that is full still")
    disk.make_room()
    assert engine.ask("POST", f"/containers/create?name=made{made}", body) == (201, "")
    assert len(engine.visible()["containers"]) == made + 1


def test_volumes(disk):
    engine = disk.engine
    disk.fill()
    made, _ = until_refused(engine, lambda number: engine.ask("POST", "/volumes/create", {"Name": f"data{number}"}))
    visible = engine.visible()
    assert len(visible["volumes"]) == made
    engine.settled(visible, "the volumes that were acknowledged")
    disk.make_room()
    assert engine.ask("POST", "/volumes/create", {"Name": f"data{made}"}) == (201, "")


def test_load_and_pull(disk, registry):
    engine = disk.engine
    reference = upload(LAYOUT, registry.host, "faults/full", "1", MANIFEST)
    path = f"/images/create?fromImage={reference.rpartition(':')[0]}&tag=1"
    before = engine.visible()
    disk.fill()
    for ask in (
        lambda: engine.ask("POST", "/images/load?quiet=1", data=ARCHIVE),
        lambda: engine.ask("POST", path),
    ):
        status, message = ask()
        assert status >= 400
        assert any(words in message for words in FULL), message
        assert "defect" not in message
        engine.settled(before, "no image, and nothing of it")
    disk.make_room()
    assert engine.ask("POST", "/images/load?quiet=1", data=ARCHIVE) == (200, "")
    assert engine.ask("POST", path) == (200, "")


def test_a_container_runs_and_ends_on_a_full_disk(disk):
    """It goes on, its log has what there was room for, its end is told to those who wait, and stored when there is room."""
    engine, api = disk.engine, Api(disk.engine)
    script = "read line; i=0; while [ $i -lt 3000 ]; do echo $line $i; i=$((i+1)); done; exit 7"
    container = api.create("sh", "-c", script, name="made", OpenStdin=True)
    waiting = []
    thread = threading.Thread(target=lambda: waiting.append(Api(engine).ok("POST", "/containers/made/wait")))
    api.ok("POST", f"/containers/{container}/start")
    thread.start()
    disk.fill()
    attached = Api(engine).raw(b"POST /containers/made/attach?stdin=1&stream=1 HTTP/1.1\r\nHost: x\r\n\r\nx\n")
    thread.join(20)
    attached.close()
    assert waiting == [{"StatusCode": 7}]
    assert api.ok("GET", "/containers/made/json")["State"]["ExitCode"] == 7
    assert len(Api(engine).ok("GET", "/containers/json?all=1")) == 1
    disk.make_room()
    wait_until(engine.stored, what="the exit in the records")
    engine.restart()
    assert Api(engine).ok("GET", "/containers/made/json")["State"]["ExitCode"] == 7
    assert engine.ask("POST", "/containers/made/start") == (204, "")


def test_states_outlive_a_full_disk_and_a_kill(disk):
    """SQLite cannot write, the daemon is killed, the disk is full still: the supervisor remembers."""
    engine, api = disk.engine, Api(disk.engine)
    container = api.create("sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.05; done", name="made")
    other = api.create("sleep", "1000", name="runs")
    for one in (container, other):
        api.ok("POST", f"/containers/{one}/start")
    disk.fill()
    # The write-ahead log has room of its own until it is used up.
    until_refused(engine, lambda number: engine.ask("POST", f"/containers/made/rename?name=made{number % 2}{'x' * 200}")
                  if not number else engine.ask("POST", f"/containers/{container}/rename?name=n{number}{'x' * 200}"))  # fmt: skip
    assert engine.ask("POST", f"/containers/{container}/stop") == (204, "")
    assert engine.ask("POST", f"/containers/{other}/pause") == (204, "")
    engine.restart()
    states = {one["Id"]: (one["State"], one["Status"]) for one in Api(engine).ok("GET", "/containers/json?all=1")}
    assert states[container][0] == "exited"
    assert "(9)" in states[container][1]
    assert states[other][0] == "paused"
    disk.make_room()
    wait_until(engine.stored, what="the states in the records")
    assert engine.ask("POST", f"/containers/{other}/unpause") == (204, "")
    engine.settled(engine.visible(), "rest")


def test_files_into_a_container(disk, tmp_path):
    """What did not fit is told; the container has what was there before, and can be removed though the disk is full."""
    engine = disk.engine
    container = Api(engine).create("cat", "/kept", name="made")
    engine.run("cp", "-", "made:/", input=tar_of([("kept", b"kept\n")]), text=False)
    (tmp_path / "big").write_bytes(os.urandom(MEGABYTES << 20))
    refused = engine.run("cp", tmp_path / "big", "made:/tmp/big", check=False)
    assert refused.returncode == 1
    assert any(words in refused.stderr for words in FULL), refused.stderr
    assert str(engine.data_root) not in refused.stderr
    assert (engine.data_root / "containers" / container / "upper/kept").read_text() == "kept\n"
    assert engine.run("rm", "made").stdout == "made\n"
    engine.settled({**engine.visible(), "containers": {}}, "nothing of the container")
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
    assert engine.ask("POST", "/containers/create?name=made", body) == (201, "")


def test_what_takes_room_can_be_removed(disk):
    """A removal is recorded before it frees anything: there is room in reserve, more than once."""
    engine, api = disk.engine, Api(disk.engine)
    for turn in range(2):
        assert engine.ask("POST", "/images/load?quiet=1", data=ARCHIVE) == (200, "")
        for number in range(3):
            api.create("true", name=f"made{number}", HostConfig={"Binds": ["data:/data"]})
            api.ok("POST", "/volumes/create", {"Name": f"data{number}"})
        disk.fill()
        until_refused(engine, lambda number: engine.ask("POST", "/volumes/create", {"Name": f"more{number}"}))
        removals = ["/images/loaded:1", *[f"/containers/made{number}" for number in range(3)], "/volumes/data"]
        for path in [*removals, *[f"/volumes/data{number}" for number in range(3)]]:
            status, message = engine.ask("DELETE", path)
            assert status in (200, 204), (turn, path, message)
        engine.settled({**engine.visible(), "containers": {}}, "what was not removed")
        disk.make_room()
        for one in api.ok("GET", "/volumes")["Volumes"] or ():
            api.ok("DELETE", f"/volumes/{one['Name']}")
        assert (engine.data_root / "state.db-reserve").stat().st_blocks * 512 >= 1 << 20  # for the next time


def test_commit_and_import(disk):
    """What they make is an image or nothing."""
    engine, api = disk.engine, Api(disk.engine)
    api.create("true", name="made")
    random = tar_of([("big", os.urandom(9 << 20))])
    engine.run("cp", "-", "made:/", input=random, text=False)
    before = engine.visible()
    disk.fill()
    for number, (path, data) in enumerate(
        [("/commit?container=made&repo=new", None), ("/images/create?fromSrc=-&repo=new", random)]
    ):
        for room in (0, 4, 11, 16):  # refused at once, in the middle of the blob, and of what it is unpacked to
            with disk.filler.open("ab") as file:
                file.truncate(max(0, disk.filler.stat().st_size - (room << 20)))
            status, message = engine.ask("POST", path, data=data)
            assert status >= 400, (number, room)
            assert any(words in message for words in FULL), message
            assert "defect" not in message
            engine.settled(before, "no image, and nothing of it")
            disk.fill()
    disk.make_room()
    assert engine.ask("POST", "/commit?container=made&repo=new") == (201, "")
    assert engine.ask("POST", "/images/create?fromSrc=-&repo=new2", data=tar_of([("small", b"x")])) == (200, "")


def test_push(disk, monkeypatch):
    """It needs no room here; where the registry has none, that is said, and it can be done again."""
    engine = disk.engine
    monkeypatch.setattr(tempfile, "tempdir", str(disk.mountpoint))
    with running_registry() as registry:
        reference = f"{registry.host}/full/image:1"
        assert engine.ask("POST", "/images/load?quiet=1", data=ARCHIVE) == (200, "")
        engine.run("tag", "loaded:1", reference)
        before = engine.visible()
        disk.fill()
        refused = engine.run("push", reference, check=False)
        assert refused.returncode == 1
        assert registry.host in refused.stderr, refused.stderr
        engine.settled(before, "the image as it was")
        disk.make_room()
        assert "digest: sha256:" in engine.run("push", reference).stdout
    monkeypatch.undo()
    with running_registry() as registry:
        engine.run("tag", "loaded:1", f"{registry.host}/full/image:1")
        disk.fill()
        assert "digest: sha256:" in engine.run("push", f"{registry.host}/full/image:1").stdout
