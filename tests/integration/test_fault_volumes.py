"""The daemon killed, or refused by the disk, at every step of volumes that are mounted, a plugin's, or filled elsewhere.

After each: what is mounted is what runs, the plugin has what the engine knows, and what was asked for can be asked for again.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.api.http_client import Api
from tests.api.volume_plugin import VolumePlugin
from tests.conftest import busybox_archive, new_engine, wait_until
from tests.integration.faults import FaultyEngine

if TYPE_CHECKING:
    from collections.abc import Callable

TMPFS = {"type": "tmpfs", "device": "tmpfs"}


class Place:
    """An engine, a plugin, and a directory that a volume binds."""

    def __init__(self) -> None:
        self.engine = FaultyEngine(new_engine().base)
        base = self.engine.base
        (base / "config.json").write_text(json.dumps({"plugin_sockets": str(base / "plugins"), "plugin_specs": []}))
        self.engine.extra_env["KNARR_CONFIG"] = str(base / "config.json")
        self.plugin = VolumePlugin(base / "plugins" / "files.sock", base / "of-the-plugin")
        self.bound = base / "bound"
        self.engine.start()
        self.engine.run("load", "-q", "-i", busybox_archive())

    def reset(self) -> None:
        api = Api(self.engine)
        for one in api.ok("GET", "/containers/json?all=1"):
            api.call("DELETE", f"/containers/{one['Id']}?force=1&v=1")
        for one in api.ok("GET", "/volumes")["Volumes"]:
            api.ok("DELETE", f"/volumes/{one['Name']}")
        shutil.rmtree(self.bound, ignore_errors=True)
        self.bound.mkdir()
        bind = {"type": "none", "o": "bind", "device": str(self.bound)}
        api.ok("POST", "/volumes/create", {"Name": "bound", "DriverOpts": bind})
        api.ok("POST", "/volumes/create", {"Name": "ram", "DriverOpts": TMPFS})
        api.connection.close()

    def close(self) -> None:
        self.plugin.close()
        self.engine.stop()

    def wrong(self) -> dict[str, object]:
        """What is not as the engine says that it is."""
        api = Api(self.engine)
        running = {one["Id"]: one["Mounts"][0]["Name"] for one in api.ok("GET", "/containers/json")}
        known = {one["Name"] for one in api.ok("GET", "/volumes")["Volumes"] if one["Driver"] == "files"}
        api.connection.close()
        users = {user for users in self.plugin.users.values() for user in users}
        expected = {str(self.engine.data_root / "volumes/ram/_data")} if "ram" in running.values() else set()
        mounted = {
            line.split()[4]
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if str(self.engine.base) in line.split()[4]
        }
        found = {
            "mounts": mounted ^ expected,
            "users": users ^ {key for key, name in running.items() if name == "data"},
            "volumes": known ^ set(self.plugin.volumes),
        }
        return {name: value for name, value in found.items() if value}


@pytest.fixture(scope="module")
def place():
    made = Place()
    yield made
    made.close()


def container(volume: str, *, start: bool = False) -> Callable[[Place], None]:
    def prepare(place: Place) -> None:
        api = Api(place.engine)
        if volume == "data":
            api.ok("POST", "/volumes/create", {"Name": "data", "Driver": "files"})
        api.create("sleep", "1000", name="made", HostConfig={"Binds": [f"{volume}:/mnt"]})
        if start:
            api.ok("POST", "/containers/made/start")
        api.connection.close()

    return prepare


def plugin_volume(place: Place) -> None:
    assert place.engine.ask("POST", "/volumes/create", {"Name": "data", "Driver": "files"})[0] == 201


START, STOP = ("POST", "/containers/made/start"), ("POST", "/containers/made/stop?t=0")
FILL = ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Binds": ["bound:/etc"]}})
# Point → (what comes before, the request, whether an error there only shows later).
POINTS: dict[str, tuple[Callable[[Place], None], tuple, bool]] = {
    "volume.mount.begin": (container("ram"), START, False),
    "volume.unmount.begin": (container("ram", start=True), STOP, True),
    "volume.mount.ask": (container("data"), START, False),
    "volume.unmount.ask": (container("data", start=True), STOP, True),
    "volume.create.ask": (lambda _: None, ("POST", "/volumes/create", {"Name": "data", "Driver": "files"}), False),
    "volume.remove.ask": (plugin_volume, ("DELETE", "/volumes/data"), False),
    "volume.remove.forget": (plugin_volume, ("DELETE", "/volumes/data"), False),
    "volume.populate.begin": (lambda _: None, FILL, False),
    "volume.populate.complete": (lambda _: None, FILL, False),
    "volume.populate.enter": (lambda _: None, FILL, False),
    "volume.populate.leave": (lambda _: None, FILL, False),
}


# Points of others, at which something is mounted already.
MOUNTED = [(volume, point) for volume in ("ram", "data") for point in ("container.start.ask", "container.start.record")]


@pytest.mark.parametrize(("volume", "point"), MOUNTED)
def test_killed_with_something_mounted(place, volume, point):
    place.reset()
    container(volume)(place)
    with place.engine.failing(point, "kill"):
        place.engine.ask(*START)
        place.engine.dies(point)
    place.engine.start()
    settled(place, START, point)


@pytest.mark.parametrize("point", POINTS)
def test_killed(place, point):
    prepare, request, _ = POINTS[point]
    place.reset()
    prepare(place)
    with place.engine.failing(point, "kill"):
        place.engine.ask(*request)
        place.engine.dies(point)
    place.engine.start()
    settled(place, request, point)


@pytest.mark.parametrize("point", POINTS)
def test_no_space(place, point):
    prepare, request, late = POINTS[point]
    place.reset()
    prepare(place)
    with place.engine.failing(point, "ENOSPC"):
        status, message = place.engine.ask(*request)
        assert (status, "No space" in message) == ((204, False) if late else (503, True)), (status, message)
        if late:
            wait_until(lambda: "stays mounted" in place.engine.log(), what="a word about it")
    if late:
        place.engine.restart()
    settled(place, request, point)


def settled(place: Place, request: tuple, point: str) -> None:
    """It can be asked for again, and all is as it should be."""
    if point == "volume.remove.forget":  # the plugin has removed it: the record goes when somebody asks
        place.engine.ask("GET", "/volumes/data")
    wait_until(lambda: place.wrong() == {}, what=f"order after {point}: {place.wrong()}")
    status, message = place.engine.ask(*request)
    assert status in (201, 204, 304) or (status, message) == (404, "get data: no such volume"), (status, message)
    wait_until(lambda: place.wrong() == {}, what=f"order after {point} and another try")
    if request is FILL:
        names = os.listdir(place.bound)
        assert "passwd" in names
        assert not [name for name in names if name.startswith(".knarr")]
