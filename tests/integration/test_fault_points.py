"""The daemon killed, or refused by the disk, at every step that changes what outlives it.

The steps are those of knarr/failpoints.py, read from the source: one that no operation here goes through fails a test.
An operation that was interrupted has happened or has not, nothing of it is left over, and it can be done (again).
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.api.http_client import Api
from tests.conftest import busybox_archive, new_engine, wait_until
from tests.image_files import Layout, files, upload
from tests.integration.faults import FaultyEngine, points_in_the_source
from tests.integration.test_fault_volumes import POINTS as OF_VOLUMES

if TYPE_CHECKING:
    from collections.abc import Callable

State = dict[str, dict]


def unchanged(before: State, after: State) -> State:
    """The operation has not happened."""
    return before


def done(before: State, after: State) -> State:
    """It has."""
    return after


@dataclass(frozen=True)
class Operation:
    """Something that a client asks for.

    prepare: makes the state before it, of an engine that has nothing but the image busybox.
    act: asks for it; (status, message).
    points: what the operation has come to when the daemon is killed there.
    late: points where the step may fail without failing the operation, since it is done later.
    """

    prepare: Callable[[FaultyEngine], None]
    act: Callable[[FaultyEngine], tuple[int, str]]
    points: dict[str, Callable[[State, State], State]]
    late: set[str] = field(default_factory=set)
    status: int = 0  # of its success; 0: any below 400
    failed: dict[str, dict] = field(default_factory=dict)  # what an error there makes of the container
    killed_only: set[str] = field(default_factory=set)  # points where no error is tried
    streams: bool = False  # it has answered 200 before it fails


def container(name="made", *command, start=False, **fields):
    def prepare(engine):
        api = Api(engine)
        made = api.create(*(command or ("sleep", "1000")), name=name, **json.loads(json.dumps(fields)))
        if start:
            api.ok("POST", f"/containers/{made}/start")
        api.connection.close()

    return prepare


def request(method, path, body=None):
    return lambda engine: engine.ask(method, path, body)


def nothing(engine):
    pass


def volume(engine):
    api = Api(engine)
    directory = api.ok("POST", "/volumes/create", {"Name": "data"})["Mountpoint"]
    with open(f"{directory}/file", "w") as file:
        file.write("content")


def kept(engine):
    """A volume with a snapshot of what it was."""
    volume(engine)
    assert engine.ask("POST", "/volumes/data/snapshots?name=first")[0] == 201
    directory = engine.data_root / "volumes/data/_data"
    (directory / "file").rename(directory / "renamed")


ENTRY = {"Name": "web", "Labels": {"role": "web"}, "Ports": ["127.0.0.1::80"]}


def network(engine):
    assert engine.ask("POST", "/networks/create", {"Name": "net"})[0] == 201


def balanced(engine):
    network(engine)
    assert engine.ask("POST", "/networks/net/lb", ENTRY)[0] == 201


def on_interface(engine):
    """Ask for a network on an interface of the host's."""
    body = {"Name": "net", "Driver": "macvlan", "Options": {"parent": PARENT}, "IPAM": LAN}
    return engine.ask("POST", "/networks/create", body)


PARENT = f"kf{os.getpid()}"
LAN = {"Config": [{"Subnet": "10.93.7.0/24"}]}
BRIDGED = {"NetworkMode": "bridge", "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1"}]}}
POLICY = {"NetworkMode": "none", "RestartPolicy": {"Name": "unless-stopped"}}
ALWAYS = {"NetworkMode": "none", "RestartPolicy": {"Name": "always"}}
LAYOUT = Layout()
MANIFEST = LAYOUT.image([files(a="1", big=os.urandom(1 << 20).hex()), files(b="2")], config={"Labels": {"goes": "yes"}})
IMAGE_ID = json.loads(LAYOUT.blobs[MANIFEST["digest"]])["config"]["digest"]
ROOT = files(root="1", big=os.urandom(1 << 20).hex())
PLATFORMS = ("amd64", "arm64")
ONE_NAME = LAYOUT.name(MANIFEST, "docker.io/library/loaded:1").archive()
TWO_NAMES = LAYOUT.name(MANIFEST, "docker.io/library/second:2").archive()


def load(engine, archive=ONE_NAME):
    return engine.ask("POST", "/images/load?quiet=1", data=archive)


def loaded(engine):
    assert load(engine)[0] == 200


def loaded_twice_named(engine):
    assert load(engine, TWO_NAMES)[0] == 200


def put(engine):
    return engine.ask("PUT", "/containers/made/archive?path=/", data=files(put="content"))


def changed(**fields):
    """A container with a file that its image does not have."""

    def prepare(engine):
        container(**fields)(engine)
        assert put(engine)[0] == 200

    return prepare


def run_exec(engine):
    api = Api(engine)
    made = api.ok("POST", "/containers/made/exec", {"Cmd": ["sleep", "0.1"], "Tty": False})["Id"]
    api.connection.close()
    return engine.ask("POST", f"/exec/{made}/start", {"Detach": True})


def failing_again_and_again(engine):
    container("made", "false", start=True, HostConfig=POLICY)(engine)
    wait_for_restarts(engine, 2)


def wait_for_restarts(engine, count):
    """Until the container has just begun to wait for its next start, which each time is twice as far away."""
    api = Api(engine)
    wait_until(lambda: api.ok("GET", "/containers/made/json")["RestartCount"] >= count, what="another restart")
    api.connection.close()


def stop_after_another_restart(engine):
    wait_for_restarts(engine, 4)
    return engine.ask("POST", "/containers/made/stop")


def ended(before: State, after: State) -> State:
    """The container has been killed, and the rest has not happened."""
    return made(before, status="exited", exit=137, ports=0, limits=[0])


def made(before: State, **fields) -> State:
    """The state before, but for these facts of the container."""
    return before | {"containers": {"/made": before["containers"]["/made"] | fields}}


OPERATIONS = {
    "create": Operation(
        nothing,
        request(
            "POST",
            "/containers/create?name=made",
            {"Image": "busybox", "Cmd": ["true"], "Volumes": {"/home": {}}, "HostConfig": {"NetworkMode": "none"}},
        ),
        {
            "container.create.directory": unchanged,
            "volume.create.directory": unchanged,
            "volume.create.record": unchanged,
            "volume.create.answer": unchanged,
            "volume.populate.copy": unchanged,
            "volume.populate.rename": unchanged,
            "volume.populate.move": unchanged,
            "volume.populate.done": unchanged,
            "container.create.record": unchanged,
            "container.create.answer": done,
        },
    ),
    "start": Operation(
        container(HostConfig=BRIDGED),
        request("POST", "/containers/made/start"),
        {
            "container.start.bundle": unchanged,
            "container.start.ask": unchanged,
            "container.start.record": done,
            "container.start.answer": done,
        },
        {"container.start.record"},
        failed={"container.start.bundle": {"exit": 128}, "container.start.ask": {"exit": 128}},
    ),
    "failing start": Operation(
        container("made", "/no/such/program"),
        request("POST", "/containers/made/start"),
        {"container.fail.record": unchanged},
        {"container.fail.record"},
        status=400,
    ),
    "failing start, --rm": Operation(
        container("made", "/no/such/program", HostConfig={"AutoRemove": True}),
        request("POST", "/containers/made/start"),
        {"container.remove.record": done, "container.remove.move": done},
        {"container.remove.record", "container.remove.move"},
        status=400,
    ),
    "stop": Operation(
        container(start=True, HostConfig=POLICY),
        request("POST", "/containers/made/stop?t=0"),
        {
            "container.stop.record": unchanged,
            "container.stop.signal": unchanged,
            "container.kill.signal": unchanged,
            "container.exit.record": done,
            "container.exit.forget": done,
            "container.stop.answer": done,
        },
        {"container.stop.record", "container.exit.record"},
    ),
    "stop of one that is restarting": Operation(
        failing_again_and_again,
        stop_after_another_restart,
        {"container.stop.policy": unchanged},
        {"container.stop.policy"},
    ),
    "kill of one that starts again": Operation(
        container("made", "sh", "-c", "trap 'exit 3' USR1; while :; do sleep 0.1; done", start=True, HostConfig=ALWAYS),
        request("POST", "/containers/made/kill?signal=USR1"),
        {"container.exit.restart": done},
        {"container.exit.restart"},
    ),
    "kill, --rm": Operation(
        container(start=True, Volumes={"/home": {}}, HostConfig={"AutoRemove": True}),
        request("POST", "/containers/made/kill"),
        {
            "container.kill.signal": unchanged,
            "container.exit.record": done,
            "container.exit.forget": done,
            "container.remove.record": done,
            "container.remove.move": done,
            "volume.remove.move": done,
            "volume.remove.record": done,
        },
        {
            "container.exit.record",
            "container.remove.record",
            "container.remove.move",
            "volume.remove.move",
            "volume.remove.record",
        },
    ),
    "restart": Operation(
        container(start=True, HostConfig=BRIDGED),
        request("POST", "/containers/made/restart?t=0"),
        {
            "container.stop.signal": unchanged,
            "container.start.bundle": ended,
            "container.start.record": done,
        },
        {"container.start.record"},
        failed={"container.start.bundle": {"status": "exited", "exit": 128, "ports": 0, "limits": [0]}},
    ),
    "pause": Operation(
        container(start=True),
        request("POST", "/containers/made/pause"),
        {"container.pause.ask": unchanged, "container.pause.record": done, "container.pause.answer": done},
        {"container.pause.record"},
    ),
    "unpause": Operation(
        lambda engine: (container(start=True)(engine), engine.ask("POST", "/containers/made/pause")),
        request("POST", "/containers/made/unpause"),
        {"container.unpause.ask": unchanged, "container.unpause.record": done, "container.unpause.answer": done},
        {"container.unpause.record"},
    ),
    "update": Operation(
        container(start=True, HostConfig={"PidsLimit": 100}),
        request("POST", "/containers/made/update", {"PidsLimit": 200}),
        {
            "container.update.record": unchanged,
            "container.update.ask": done,
            "container.update.applied": done,
            "container.update.answer": done,
        },
        {"container.update.applied"},
    ),
    "rename": Operation(
        container(),
        request("POST", "/containers/made/rename?name=other"),
        {"container.rename.record": unchanged, "container.rename.answer": done},
    ),
    "network create": Operation(
        nothing, request("POST", "/networks/create", {"Name": "net"}), {"network.create.record": unchanged}
    ),
    "network rm": Operation(network, request("DELETE", "/networks/net"), {"network.remove.record": unchanged}),
    "network lb": Operation(
        network,
        request("POST", "/networks/net/lb", ENTRY),
        {"network.entry.address": unchanged, "network.entry.record": done},
    ),
    "network lb --rm": Operation(
        balanced, request("DELETE", "/networks/net/lb/web"), {"network.entry.remove": unchanged}
    ),
    "network create, on an interface": Operation(
        nothing, on_interface, {"network.create.record": unchanged, "network.create.parent": done}
    ),
    "network rm, on an interface": Operation(
        on_interface, request("DELETE", "/networks/net"), {"network.remove.record": unchanged}
    ),
    "network connect": Operation(
        lambda engine: (network(engine), container(start=True, HostConfig={"NetworkMode": "bridge"})(engine)),
        request("POST", "/networks/net/connect", {"Container": "made"}),
        {"container.connect.record": unchanged, "container.connect.done": done},
        {"container.connect.record", "container.connect.done"},
    ),
    "network disconnect": Operation(
        lambda engine: (network(engine), container(start=True, HostConfig={"NetworkMode": "net"})(engine)),
        request("POST", "/networks/net/disconnect", {"Container": "made"}),
        {"container.disconnect.record": unchanged, "container.disconnect.done": done},
        {"container.disconnect.record", "container.disconnect.done"},
    ),
    "exec": Operation(
        container(start=True),
        run_exec,
        {"container.exec.ask": unchanged, "container.exec.answer": done, "container.exec.forget": done},
    ),
    "rm -v": Operation(
        container(Volumes={"/home": {}}),
        request("DELETE", "/containers/made?v=1"),
        {
            "container.remove.record": unchanged,
            "container.remove.move": done,
            "container.remove.bundle": done,
            "container.remove.files": done,
            "volume.remove.move": done,
            "volume.remove.record": done,
            "volume.remove.files": done,
            "volume.remove.answer": done,
            "container.remove.answer": done,
        },
        {
            "container.remove.move",
            "container.remove.bundle",
            "container.remove.files",
            "volume.remove.move",
            "volume.remove.record",
            "volume.remove.files",
        },
    ),
    "rm -f": Operation(
        container(start=True, HostConfig=BRIDGED),
        request("DELETE", "/containers/made?force=1"),
        {
            "container.kill.signal": unchanged,
            "container.exit.record": ended,
            "container.remove.record": ended,
            "container.remove.move": done,
        },
        {"container.exit.record", "container.remove.move"},
        failed={"container.remove.record": {"status": "exited", "exit": 137, "ports": 0, "limits": [0]}},
    ),
    "container prune": Operation(
        container(),
        request("POST", "/containers/prune"),
        {"container.remove.record": unchanged, "container.remove.move": done},
        {"container.remove.move"},
    ),
    "volume create": Operation(
        nothing,
        request("POST", "/volumes/create", {"Name": "data"}),
        {"volume.create.directory": unchanged, "volume.create.record": unchanged, "volume.create.answer": done},
    ),
    "volume rm": Operation(
        volume,
        request("DELETE", "/volumes/data"),
        {
            "volume.remove.move": unchanged,
            "volume.remove.record": done,
            "volume.remove.files": done,
            "volume.remove.answer": done,
        },
        {"volume.remove.files"},
    ),
    "volume prune": Operation(
        volume,
        request("POST", '/volumes/prune?filters={"all":["1"]}'),
        {"volume.remove.move": unchanged, "volume.remove.record": done},
    ),
    "volume create of a size": Operation(
        nothing,
        request("POST", "/volumes/create", {"Name": "data", "DriverOpts": {"size": "8m"}}),
        {"volume.create.sized": unchanged, "volume.adopt.record": unchanged, "volume.adopt.move": done},
    ),
    "volume clone": Operation(
        volume,
        request("POST", "/volumes/data/clone?to=copy"),
        {
            "volume.clone.copy": unchanged,
            "volume.adopt.record": unchanged,
            "volume.adopt.move": done,
            "volume.clone.answer": done,
        },
    ),
    "volume snapshot": Operation(
        volume,
        request("POST", "/volumes/data/snapshots?name=first"),
        {"volume.snapshot.copy": unchanged, "volume.snapshot.rename": unchanged, "volume.snapshot.answer": done},
    ),
    "volume rm of a snapshot": Operation(
        kept, request("DELETE", "/volumes/data/snapshots/first"), {"volume.snapshot.remove": unchanged}
    ),
    "volume restore": Operation(
        kept,
        request("POST", "/volumes/data/snapshots/first/restore"),
        {"volume.restore.copy": unchanged, "volume.replace.exchange": unchanged, "volume.restore.answer": done},
    ),
    "volume rename": Operation(
        kept,
        request("POST", "/volumes/data/rename?name=other"),
        {
            "volume.rename.record": unchanged,
            "volume.rename.move": done,
            "volume.rename.snapshots": done,
            "volume.rename.answer": done,
        },
    ),
    "volume import": Operation(
        nothing,
        lambda engine: engine.ask("PUT", "/volumes/data/archive", data=ROOT),
        {
            "volume.import.fill": unchanged,
            "volume.adopt.record": unchanged,
            "volume.adopt.move": done,
            "volume.import.answer": done,
        },
    ),
    "load": Operation(
        nothing,
        load,
        {
            "image.load.spool": unchanged,
            "image.load.write": unchanged,
            "image.load.read": unchanged,
            "image.load.unpack": unchanged,
            "store.blob.publish": unchanged,
            "store.snapshot.publish": unchanged,
            "store.snapshot.sync": unchanged,
            "image.record.blob": unchanged,
            "image.record.record": unchanged,
            "image.load.answer": done,
        },
    ),
    "load of an image with two names": Operation(
        nothing, lambda engine: load(engine, TWO_NAMES), {"image.record.record": unchanged}
    ),
    "commit of one that runs": Operation(
        changed(start=True),
        request("POST", "/commit?container=made&repo=committed&tag=1&comment=committed"),
        {
            "container.freeze.record": unchanged,
            "container.pause.ask": unchanged,
            "container.pause.record": unchanged,
            "container.commit.layer": unchanged,
            "container.unpause.ask": unchanged,
            "container.unpause.record": unchanged,
            "container.unpause.answer": unchanged,
            "image.make.unpack": unchanged,
            "container.commit.answer": done,
        },
        {"container.pause.record", "container.unpause.record"},
        killed_only={"container.unpause.ask"},  # what cannot be thawed stays paused, and can be thawed by hand
    ),
    "commit": Operation(
        changed(),
        request("POST", "/commit?container=made&repo=committed&tag=1&comment=committed"),
        {
            "container.commit.layer": unchanged,
            "image.make.unpack": unchanged,
            "image.record.blob": unchanged,
            "image.record.record": unchanged,
        },
    ),
    "commit to a name that is taken": Operation(
        lambda engine: (changed()(engine), loaded(engine)),
        request("POST", "/commit?container=made&repo=loaded&tag=1&comment=committed"),
        {"image.make.unpack": unchanged, "image.record.record": unchanged, "container.commit.answer": done},
    ),
    "import": Operation(
        nothing,
        lambda engine: engine.ask("POST", "/images/create?fromSrc=-&repo=imported&message=imported", data=ROOT),
        {
            "image.load.spool": unchanged,
            "image.load.write": unchanged,
            "image.import.layer": unchanged,
            "image.make.unpack": unchanged,
            "image.record.blob": unchanged,
            "image.record.record": unchanged,
            "image.import.answer": done,
        },
    ),
    "cp into one that runs": Operation(
        container(start=True), put, {"container.archive.extract": unchanged, "container.archive.answer": done}
    ),
    "cp": Operation(container(), put, {"container.archive.extract": unchanged, "container.archive.answer": done}),
    "tag": Operation(
        loaded,
        request("POST", "/images/loaded:1/tag?repo=second&tag=2"),
        {"image.tag.record": unchanged, "image.tag.answer": done},
    ),
    "rmi of a name": Operation(
        loaded_twice_named,
        request("DELETE", "/images/second:2"),
        {"image.untag.record": unchanged},
    ),
    "rmi": Operation(
        loaded,
        request("DELETE", "/images/loaded:1"),
        {
            "image.delete.record": unchanged,
            "image.delete.piece": done,
            "store.tree.move": done,
            "store.tree.delete": done,
            "image.delete.answer": done,
        },
        {"image.delete.piece", "store.tree.move", "store.tree.delete"},
    ),
    "rmi by ID, two names": Operation(
        loaded_twice_named,
        request("DELETE", f"/images/{IMAGE_ID}?force=1"),
        {"image.delete.record": unchanged, "image.delete.piece": done},
        {"image.delete.piece"},
    ),
    "image prune": Operation(
        loaded,
        request("POST", '/images/prune?filters={"dangling":["false"],"label":["goes"]}'),
        {"image.delete.record": unchanged, "image.delete.piece": done},
        {"image.delete.piece"},
    ),
}

# Points that operations of other tests go through.
ELSEWHERE = {
    "container.reconcile.record",
    "container.resume.record",
    "container.update.finish",
    "container.health.probe",
    "container.health.record",
    "network.subnet.record",
    "image.pull.unpack",
    "image.pull.answer",
    "image.push.record",
    *OF_VOLUMES,
}
CASES = [pytest.param(name, point, id=f"{name}-{point}") for name, one in OPERATIONS.items() for point in one.points]
FAILING = [
    case
    for case in CASES
    if not case.values[1].endswith((".answer", ".forget"))  # nothing there can fail
    and case.values[1] not in OPERATIONS[case.values[0]].killed_only
]


def one_a_point(cases):
    """The first case of each point: the rest is slow."""
    return list({case.values[1]: case for case in reversed(cases)}.values())[::-1]


def test_every_point_is_tried():
    tried = {point for operation in OPERATIONS.values() for point in operation.points} | ELSEWHERE
    assert points_in_the_source() == tried


class Place:
    """One engine for many cases; a case that fails leaves a new one to the next."""

    def __init__(self):
        self.engine = None
        self.clean = False
        self.known = {}

    def take(self) -> FaultyEngine:
        if not self.clean:
            self.close()
            self.engine = FaultyEngine(new_engine().base)
            self.engine.start()
            self.engine.run("load", "-q", "-i", busybox_archive())
        self.clean = False
        return self.engine

    def close(self):
        if self.engine is not None:
            self.engine.stop()

    def states(self, name: str) -> tuple[State, State]:
        """What an operation makes of what, where nothing fails."""
        if name not in self.known:
            operation, engine = OPERATIONS[name], self.engine
            before = begin(engine, operation)
            succeed(engine, operation)
            self.known[name] = before, at_rest(engine)
        return self.known[name]


@pytest.fixture(scope="module")
def interface():
    """An interface for networks to be on."""
    subprocess.run(["ip", "link", "add", PARENT, "type", "veth", "peer", "name", f"{PARENT}p"], check=True)
    yield
    subprocess.run(["ip", "link", "del", PARENT], check=True)


@pytest.fixture(scope="module")
def places(interface):
    place = Place()
    yield place
    place.close()


@pytest.fixture
def place(places):
    places.take()
    return places


def at_rest(engine) -> State:
    """What is visible once nothing changes any more."""
    seen: list[object] = []

    def rests():
        seen.append((engine.visible(), engine.leaks()))
        return len(seen) > 1 and seen[-1] == seen[-2] and not seen[-1][1]

    try:
        wait_until(rests, 10, 0.1, "rest")
    except BaseException:
        pytest.fail(f"not at rest: {seen[-1]}\n{engine.log()[-2500:]}")
    return seen[-1][0]


def reset(engine):
    api = Api(engine)
    for one in api.ok("GET", "/containers/json?all=1"):
        gone = engine.ask("DELETE", f"/containers/{one['Id']}?force=1&v=1")
        assert gone in ((204, ""), (404, f"No such container: {one['Id']}")), gone
    for one in api.ok("GET", "/volumes")["Volumes"] or ():
        for kept in api.ok("GET", f"/volumes/{one['Name']}/snapshots")["Snapshots"]:
            engine.ask("DELETE", f"/volumes/{one['Name']}/snapshots/{kept['Name']}")
        engine.ask("DELETE", f"/volumes/{one['Name']}")
    for one in api.ok("GET", "/images/json"):
        if one["RepoTags"] != ["busybox:latest"]:
            engine.ask("DELETE", f"/images/{one['Id']}?force=1")
    api.ok("POST", "/networks/prune")
    api.connection.close()


def begin(engine, operation) -> State:
    reset(engine)
    operation.prepare(engine)
    return at_rest(engine)


def succeed(engine, operation) -> None:
    status, message = operation.act(engine)
    assert status == operation.status if operation.status else 0 < status < 400, (status, message)


def recover(engine, expected: State, *, slow: bool) -> None:
    engine.start()
    engine.settled(expected, "what the next daemon makes of it")
    if slow:
        engine.kill()
        engine.start()
        engine.settled(expected, "a second recovery")


def killed(place, name, point, *, slow):
    operation, engine = OPERATIONS[name], place.engine
    before, after = place.states(name)
    assert begin(engine, operation) == before
    with engine.failing(point, "kill"):
        operation.act(engine)
        engine.dies(point)
    outcome = operation.points[point]
    recover(engine, outcome(before, after), slow=slow)
    if outcome is unchanged:
        succeed(engine, operation)
        engine.settled(after, "the operation, done again")
    place.clean = True


def refused(place, name, point, error):
    operation, engine = OPERATIONS[name], place.engine
    before, after = place.states(name)
    assert begin(engine, operation) == before
    with engine.failing(point, error):
        if point in operation.late:
            succeed(engine, operation)
        else:
            status, message = operation.act(engine)
            expected = 500 if operation.streams else 503
            words = os.strerror(getattr(errno, error)), *(["the file system is full"] if error == "ENOSPC" else ())
            assert (status, any(word in message for word in words)) == (expected, True), (status, message)
            assert "defect" not in message
    if point in operation.late:
        # A state is stored soon, and the next daemon must find it; files go with the next start.
        wait_until(engine.stored, what="the states in the records")
        engine.restart()
    else:
        change = operation.failed.get(point)
        engine.settled(made(before, **change) if change else before, "after the error")
        succeed(engine, operation)
    engine.settled(after, "the operation in the end")
    place.clean = True


@pytest.mark.parametrize(("name", "point"), one_a_point(CASES))
def test_killed(place, name, point):
    killed(place, name, point, slow=False)


@pytest.mark.parametrize(("name", "point"), one_a_point(FAILING))
def test_no_space(place, name, point):
    refused(place, name, point, "ENOSPC")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "point"), CASES)
def test_killed_and_killed_again(place, name, point):
    killed(place, name, point, slow=True)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "point"), FAILING)
def test_a_broken_disk(place, name, point):
    refused(place, name, point, "EIO")


# --- points that need more than one operation


@pytest.fixture
def engine_of_its_own():
    own = FaultyEngine(new_engine().base)
    own.start()
    own.run("load", "-q", "-i", busybox_archive())
    yield own
    own.stop()


def test_killed_while_a_subnet_is_chosen(engine_of_its_own):
    engine = engine_of_its_own
    container(HostConfig=BRIDGED)(engine)
    for action in ("ENOSPC", "kill"):
        with engine.failing("network.subnet.record", action):
            status, message = engine.ask("POST", "/containers/made/start")
            assert (status, "No space left on device" in message) == ((503, True) if action == "ENOSPC" else (0, False))
    engine.dies("network.subnet.record")
    engine.start()
    assert engine.ask("POST", "/containers/made/start") == (204, "")
    before = engine.visible()
    assert before["containers"]["/made"] | {"address": True, "ports": 1} == before["containers"]["/made"]
    engine.restart()
    engine.settled(before, "the network after a restart")


def test_killed_while_it_takes_over_what_it_was_killed_in(place):
    """A start that was not written down is taken over with its address and its ports, at the second attempt as well."""
    engine = place.engine
    before, after = place.states("start")
    assert begin(engine, OPERATIONS["start"]) == before
    with engine.failing("container.start.record", "kill"):
        engine.ask("POST", "/containers/made/start")
        engine.dies("container.start.record")
    with engine.failing("container.reconcile.record", "kill"):
        assert not engine.try_to_start()
        engine.dies("container.reconcile.record")
    recover(engine, after, slow=True)
    first = Api(engine).ok("GET", "/containers/made/json")["NetworkSettings"]["Networks"]["bridge"]
    other = Api(engine).create("sleep", "1000", HostConfig={"NetworkMode": "bridge"})
    assert engine.ask("POST", f"/containers/{other}/start") == (204, "")
    second = Api(engine).ok("GET", f"/containers/{other}/json")["NetworkSettings"]["Networks"]["bridge"]
    assert first["IPAddress"] != second["IPAddress"], "an address that is in use was given away"
    assert (first["Gateway"], first["IPPrefixLen"]) == (second["Gateway"], second["IPPrefixLen"])
    assert engine.ask("POST", "/containers/made/stop?t=0") == (204, "")
    place.clean = True


def test_killed_while_it_finishes_an_update(place):
    engine = place.engine
    _, after = place.states("update")
    begin(engine, OPERATIONS["update"])
    with engine.failing("container.update.ask", "kill"):
        OPERATIONS["update"].act(engine)
        engine.dies("container.update.ask")
    with engine.failing("container.update.finish", "kill"):
        assert not engine.try_to_start()
        engine.dies("container.update.finish")
    recover(engine, after, slow=True)
    place.clean = True


def test_killed_while_it_gives_up_a_restart(place):
    """The last restart of `on-failure:1` was begun: it counts, and the next daemon does not begin another."""
    engine = place.engine
    reset(engine)
    policy = {"NetworkMode": "none", "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 1}}
    container("made", "sh", "-c", "sleep 0.2; exit 5", HostConfig=policy)(engine)
    assert engine.ask("POST", "/containers/made/start") == (204, "")
    with engine.failing("container.start.bundle", "kill"):
        engine.dies("container.start.bundle")
    with engine.failing("container.resume.record", "kill"):
        engine.try_to_start()
        engine.dies("container.resume.record")
    engine.start()
    expected = {"status": "exited", "exit": 5, "address": True, "ports": 0, "volumes": 0, "limits": [0], "put": False}
    expected["networks"] = ["none"]
    engine.settled(engine.visible() | {"containers": {"/made": expected}}, "the end")
    engine.restart()
    engine.settled(engine.visible() | {"containers": {"/made": expected}}, "the end, once more")
    place.clean = True


@pytest.mark.parametrize("point", ["container.health.probe", "container.health.record"])
def test_killed_while_it_checks_a_health(place, point):
    engine = place.engine
    reset(engine)
    check = {"Test": ["CMD", "true"], "Interval": 50_000_000}
    with engine.failing(point, "kill"):
        container(start=True, Healthcheck=check)(engine)
        engine.dies(point)
    engine.start()
    api = Api(engine)

    def healthy():
        return api.ok("GET", "/containers/made/json")["State"]["Health"]["Status"] == "healthy"

    wait_until(healthy, what="a check by the next daemon")
    with engine.failing(point, "ENOSPC"):
        log = len(api.ok("GET", "/containers/made/json")["State"]["Health"]["Log"])
        wait_until(lambda: len(api.ok("GET", "/containers/made/json")["State"]["Health"]["Log"]) > min(log, 4))
        assert healthy()
    assert engine.ask("POST", "/containers/made/stop?t=0") == (204, "")
    engine.settled(engine.visible(), "the end of the checks")
    place.clean = True


def test_a_volume_is_filled_wholly_or_not_at_all(place):
    engine = place.engine
    body = {"Image": "busybox", "HostConfig": {"NetworkMode": "none", "Binds": ["data:/etc"]}}
    whole = ["group", "passwd"]
    for point, expected in {
        "volume.populate.copy": [],
        "volume.populate.rename": [],
        "volume.populate.move": whole,
        "volume.populate.done": whole,
    }.items():
        reset(engine)
        with engine.failing(point, "kill"):
            engine.ask("POST", "/containers/create?name=made", body)
            engine.dies(point)
        engine.start()
        visible = engine.visible()
        assert (visible["containers"], visible["volumes"]) == ({}, {"data": [expected]}), point
        engine.settled(visible, point)
        assert engine.ask("POST", "/containers/create?name=made", body)[0] == 201
        assert engine.visible()["volumes"] == {"data": [whole]}
    place.clean = True


def test_killed_in_a_pull(place, registry):
    engine = place.engine
    reference = upload(LAYOUT, registry.host, "faults/pulled", "1", MANIFEST)
    path = f"/images/create?fromImage={reference.rpartition(':')[0]}&tag=1"
    reset(engine)
    before = engine.visible()
    for point in ("image.pull.unpack", "image.record.blob", "image.record.record"):
        with engine.failing(point, "ENOSPC"):
            status, message = engine.ask("POST", path)
            assert "No space left on device" in message, (status, message)
        engine.settled(before, point)
        with engine.failing(point, "kill"):
            engine.ask("POST", path)
            engine.dies(point)
        engine.start()
        engine.settled(before, point)
    with engine.failing("image.pull.answer", "kill"):
        engine.ask("POST", path)
        engine.dies("image.pull.answer")
    engine.start()
    after = engine.visible()
    assert after["images"][IMAGE_ID][0][0] == [reference]
    engine.settled(after, "the image")
    assert engine.ask("POST", path)[0] == 200
    place.clean = True


def test_killed_in_a_push(place, registry):
    """All that a push changes here is that the image has a digest there."""
    engine = place.engine
    reset(engine)
    loaded(engine)
    name = f"{registry.host}/faults/pushed"
    assert engine.ask("POST", f"/images/loaded:1/tag?repo={name}&tag=1")[0] == 201
    before = engine.visible()
    with engine.failing("image.push.record", "ENOSPC"):
        status, message = engine.ask("POST", f"/images/{name}/push?tag=1")
        assert "No space left on device" in message, (status, message)
    engine.settled(before, "the error")
    with engine.failing("image.push.record", "kill"):
        engine.ask("POST", f"/images/{name}/push?tag=1")
        engine.dies("image.push.record")
    engine.start()
    engine.settled(before, "the kill")
    assert engine.ask("POST", f"/images/{name}/push?tag=1") == (200, "")
    digests = [f"{name}@{MANIFEST['digest']}"]
    engine.settled(
        before | {"images": before["images"] | {IMAGE_ID: [(before["images"][IMAGE_ID][0][0], digests)]}}, "it"
    )
    place.clean = True


@pytest.mark.parametrize(
    ("point", "passage", "left"),
    [
        ("image.untag.record", 1, 2),  # the digest of the index, at the image that is shown for both
        ("image.delete.piece", 1, 1),  # of the other platform's image, which goes first
        ("image.delete.record", 2, 1),
        pytest.param("image.delete.record", 1, 2, marks=pytest.mark.slow),
        pytest.param("image.delete.answer", 1, 1, marks=pytest.mark.slow),
        pytest.param("image.delete.piece", 5, 0, marks=pytest.mark.slow),
        pytest.param("image.delete.answer", 2, 0, marks=pytest.mark.slow),
    ],
)
def test_killed_while_it_removes_two_platforms(place, registry, point, passage, left):
    """The image with the name goes last: until then the name leads to all that is left of both."""
    engine, layout = place.engine, Layout()
    entries = [layout.image([files(a=one)], architecture=one) for one in PLATFORMS]
    reference = upload(layout, registry.host, "faults/two", "1", layout.index(*entries))
    reset(engine)
    before = engine.visible()
    for one in PLATFORMS:
        path = f"/images/create?fromImage={reference.rpartition(':')[0]}&tag=1&platform=linux/{one}"
        assert engine.ask("POST", path) == (200, "")
    assert len(engine.records("image")) == 3
    with engine.failing(point, "stop"):
        asked = threading.Thread(target=engine.ask, args=("DELETE", f"/images/{reference}"))
        asked.start()
        for _ in range(passage - 1):
            engine.stops(point)
            engine.go_on()
        engine.stops(point)
        engine.process.kill()
        engine.dies(point)
        asked.join()
    engine.start()
    assert len(engine.records("image")) == 1 + left
    if left:
        assert engine.ask("DELETE", f"/images/{reference}") == (200, "")
    assert len(engine.records("image")) == 1
    engine.settled(before, "both removed")
    place.clean = True


def test_the_environment_arms_it():
    """The way that this file does not go: a daemon started as users start it."""
    own = new_engine()
    own.extra_env["KNARR_FAILPOINTS"] = str(own.base / "plan")
    own.start()
    try:
        (own.base / "plan").write_text("volume.create.record kill")
        own.run("volume", "create", "one", check=False)
        assert own.process.wait(10) == -signal.SIGKILL
    finally:
        own.stop()
