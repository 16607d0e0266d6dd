"""Volumes as wholes: clone, snapshots, restore, rename, export, import; and what a size does."""

import contextlib
import gzip
import io
import json
import os
import socket
import subprocess
import tarfile
import threading
import time
from pathlib import Path

import pytest

from tests.api.http_client import Api
from tests.conftest import tar_of, wait_until

ODD_TIME = 1_234_567_890_123_456_789


@pytest.fixture
def api(shared_engine):
    yield Api(shared_engine)
    for one in Api(shared_engine).ok("GET", "/containers/json?all=1"):
        Api(shared_engine).ok("DELETE", f"/containers/{one['Id']}?force=1&v=1")
    for one in Api(shared_engine).ok("GET", "/volumes")["Volumes"] or ():
        name = one["Name"]
        for kept in Api(shared_engine).ok("GET", f"/volumes/{name}/snapshots")["Snapshots"]:
            Api(shared_engine).ok("DELETE", f"/volumes/{name}/snapshots/{kept['Name']}")
        Api(shared_engine).ok("DELETE", f"/volumes/{name}")
    left = [name for name in os.listdir(shared_engine.data_root / "volumes") if name.startswith("@")]
    wait_until(lambda: not os.listdir(shared_engine.data_root / "tmp"), what="the removal of what was removed")
    left += [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(shared_engine.base) in line]
    assert left == []


def volume(api, name="data", **options):
    """A volume; the directory of its files."""
    return Path(api.ok("POST", "/volumes/create", {"Name": name, "DriverOpts": options or None})["Mountpoint"])


def fill(place, *, deep=True):
    """One of everything that a copy can lose."""
    (place / "file").write_bytes(b"content")
    os.chown(place / "file", 1000, 2000)
    os.chmod(place / "file", 0o4751)
    os.setxattr(place / "file", "user.note", b"kept")
    os.setxattr(place / "file", "trusted.note", b"too")
    os.link(place / "file", place / "other")
    (place / "link").symlink_to("../../../etc/passwd")
    os.mkfifo(place / "pipe", 0o622)
    os.mknod(place / "null", 0o20666, os.makedev(1, 3))
    with (place / "sparse").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"x" * 5000)
    here = os.open(place, os.O_RDONLY)
    for _ in range(60 if deep else 35):  # beyond PATH_MAX, and beyond the descriptors that a copy holds
        os.mkdir("d" * 100, dir_fd=here)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.link("bottom", "again", src_dir_fd=here, dst_dir_fd=here)
    os.close(here)
    (place / "empty").mkdir(mode=0o750)
    for name in ("file", "link", "empty"):
        os.utime(place / name, ns=(ODD_TIME, ODD_TIME + 1), follow_symlinks=False)
    os.chown(place, 70, 70)
    os.chmod(place, 0o700)
    os.utime(place, ns=(ODD_TIME, ODD_TIME))


def seen(place, *, trusted=True):
    """All that there is to see of a tree, by paths; file IDs as the paths that share them."""
    found, inodes = {}, {}
    for directory, names, files, handle in os.fwalk(place):
        for name in [".", *names, *files] if directory == str(place) else [*names, *files]:
            stat = os.stat(name, dir_fd=handle, follow_symlinks=False)
            path = os.path.normpath(f"{os.path.relpath(directory, place)}/{name}")
            first = inodes.setdefault(stat.st_ino, path)
            content = None
            if (stat.st_mode & 0o170000) == 0o100000:
                with open(os.open(name, os.O_RDONLY, dir_fd=handle), "rb") as file:
                    content = hash(file.read())
                    listed = os.listxattr(file.fileno())
                    content = (
                        content,
                        {key: os.getxattr(file.fileno(), key) for key in listed if trusted or "trusted" not in key},
                    )
            elif (stat.st_mode & 0o170000) == 0o120000:
                content = os.readlink(name, dir_fd=handle)
            found[path] = (
                oct(stat.st_mode), stat.st_uid, stat.st_gid, stat.st_mtime_ns, stat.st_rdev,
                stat.st_size if content is not None else 0, first, content,
            )  # fmt: skip
    return found


def archive(api, name, query=""):
    api.connection.request("GET", f"/volumes/{name}/archive{query}")
    response = api.connection.getresponse()
    data = response.read()
    assert response.status == 200, data
    return data


def put(api, name, data):
    api.connection.request("PUT", f"/volumes/{name}/archive", data, {"Content-Type": "application/x-tar"})
    response = api.connection.getresponse()
    return response.status, json.loads(response.read() or b"null")


def test_a_clone_is_the_same_to_the_nanosecond(api):
    api.ok("POST", "/volumes/create", {"Name": "data", "Labels": {"a": "b"}})
    place = volume(api)
    fill(place)
    made = api.ok("POST", "/volumes/data/clone?to=copy")
    assert (made["Name"], made["Labels"]) == ("copy", {"a": "b"})
    copy = Path(made["Mountpoint"])
    assert seen(copy) == seen(place)
    assert (copy / "sparse").stat().st_blocks < 1000
    (copy / "file").write_text("changed")
    assert (place / "file").read_text() == "content"
    status, answer = api.call("POST", "/volumes/data/clone?to=copy")
    assert (status, "volume copy exists already" in answer["message"]) == (409, True)
    assert api.call("POST", "/volumes/none/clone?to=other")[0] == 404
    assert api.call("POST", "/volumes/data/clone?to=../x")[0] == 400
    assert api.call("POST", "/volumes/data/clone")[0] == 400


def test_a_volume_is_restored_to_a_snapshot(api):
    place = volume(api)
    (place / "file").write_text("one")
    first = api.ok("POST", "/volumes/data/snapshots?name=first")
    assert (first["Name"], first["Volume"]) == ("first", "data")
    (place / "file").write_text("two")
    api.ok("POST", "/volumes/data/snapshots")
    names = [one["Name"] for one in api.ok("GET", "/volumes/data/snapshots")["Snapshots"]]
    assert names[0] == "first"
    assert len(names) == 2
    status, answer = api.call("POST", "/volumes/data/snapshots?name=first")
    assert (status, "has a snapshot first already" in answer["message"]) == (409, True)
    copy = Path(api.ok("POST", "/volumes/data/clone?to=copy&snapshot=first")["Mountpoint"])
    assert (copy / "file").read_text() == "one"
    api.ok("POST", "/volumes/data/snapshots/first/restore")
    assert (place / "file").read_text() == "one"
    api.ok("POST", f"/volumes/data/snapshots/{names[1]}/restore")
    assert (place / "file").read_text() == "two"
    status, answer = api.call("DELETE", "/volumes/data")
    assert status == 409
    assert f"knarr volume rm data@first data@{names[1]}" in answer["message"]
    assert api.call("POST", "/volumes/prune?filters=%7B%22all%22%3A%5B%221%22%5D%7D")[1]["VolumesDeleted"] == ["copy"]
    assert api.call("POST", "/volumes/data/snapshots/none/restore")[0] == 404
    api.ok("DELETE", "/volumes/data/snapshots/first")
    assert api.call("DELETE", "/volumes/data/snapshots/first")[0] == 404


def test_a_restore_waits_for_nobody_who_uses_the_volume(api):
    volume(api)
    api.ok("POST", "/volumes/data/snapshots?name=first")
    made = api.create("sleep", "100", HostConfig={"Binds": ["data:/d"]})
    api.ok("POST", f"/containers/{made}/start")
    status, answer = api.call("POST", "/volumes/data/snapshots/first/restore")
    assert (status, made in answer["message"], "stop them first" in answer["message"]) == (409, True, True)
    api.ok("POST", f"/containers/{made}/kill")
    api.ok("POST", "/volumes/data/snapshots/first/restore")
    api.ok("POST", f"/containers/{made}/start")


WRITER = "i=0; while :; do i=$((i+1)); echo $i > /d/a; echo $i > /d/b; done"


def test_containers_that_write_are_still_while_they_are_copied(api, shared_engine):
    place = volume(api)
    for number in range(300):
        (place / f"filler{number}").write_bytes(b"x" * 2000)
    made = api.create("sh", "-c", WRITER, HostConfig={"Binds": ["data:/d"]})
    reader = api.create("sleep", "100", HostConfig={"Binds": ["data:/d:ro"]})
    for one in (made, reader):
        api.ok("POST", f"/containers/{one}/start")
    wait_until((place / "b").exists, what="the writer")
    events = subprocess.Popen(
        ["curl", "-sN", "--unix-socket", shared_engine.socket, "http://x/events"], stdout=subprocess.PIPE, text=True
    )
    time.sleep(0.2)
    for number in range(5):
        copy = Path(api.ok("POST", f"/volumes/data/clone?to=copy{number}")["Mountpoint"])
        a, b = ((copy / name).read_text().strip() or "0" for name in "ab")
        assert 0 <= int(a) - int(b) <= 1 or "0" in (a, b), (a, b)
    api.ok("POST", "/volumes/data/clone?to=live&pause=0")
    events.terminate()
    told = [json.loads(line) for line in events.stdout.read().splitlines()]
    paused = [event["Actor"]["ID"] for event in told if event["Action"] == "pause"]
    assert paused == [made] * 5
    for one in (made, reader):
        assert api.ok("GET", f"/containers/{one}/json")["State"]["Status"] == "running"


def test_copies_that_overlap_thaw_once(api):
    place = volume(api)
    for number in range(300):
        (place / f"filler{number}").write_bytes(b"x" * 2000)
    made = api.create("sleep", "100", HostConfig={"Binds": ["data:/d"]})
    api.ok("POST", f"/containers/{made}/start")
    results = []

    def clone(number, engine_api):
        results.append(engine_api.call("POST", f"/volumes/data/clone?to=copy{number}")[0])

    class Here:
        socket = api.path

    threads = [threading.Thread(target=clone, args=(number, Api(Here))) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [201] * 4
    assert api.ok("GET", f"/containers/{made}/json")["State"]["Status"] == "running"


def test_a_rename_takes_everything_along(api):
    place = volume(api)
    (place / "file").write_text("content")
    api.ok("POST", "/volumes/data/snapshots?name=first")
    made = api.create("true", name="user", HostConfig={"Binds": ["data:/d"]})
    status, answer = api.call("POST", "/volumes/data/rename?name=other")
    assert (status, made in answer["message"]) == (409, True)
    api.ok("DELETE", f"/containers/{made}")
    volume(api, "taken")
    assert api.call("POST", "/volumes/data/rename?name=taken")[0] == 409
    assert api.call("POST", "/volumes/data/rename?name=data")[0] == 400
    api.ok("POST", "/volumes/data/rename?name=other")
    assert api.call("GET", "/volumes/data")[0] == 404
    found = api.ok("GET", "/volumes/other")
    assert (Path(found["Mountpoint"]) / "file").read_text() == "content"
    assert api.ok("GET", "/volumes/other/snapshots")["Snapshots"][0]["Volume"] == "other"


@pytest.mark.parametrize("packing", ["", "gzip", "zstd"])
def test_what_is_exported_can_be_imported(api, packing):
    place = volume(api)
    fill(place, deep=False)
    data = archive(api, "data", f"?compression={packing}")
    assert data[:2] == {"": b"Pa", "gzip": b"\x1f\x8b", "zstd": b"\x28\xb5"}[packing]  # "PaxHeaders" and magic numbers
    status, answer = put(api, "copy", data)
    assert status == 201, answer
    assert seen(Path(answer["Mountpoint"])) == seen(place, trusted=False)
    assert api.call("GET", "/volumes/data/archive?compression=rar")[0] == 400
    status, answer = put(api, "copy", data)
    assert (status, "not empty" in answer["message"]) == (409, True)


def test_an_import_fills_a_volume_that_is_empty(api):
    place = volume(api)
    status, answer = put(api, "data", tar_of([("a/file", b"content")]))
    assert (status, answer["Mountpoint"]) == (201, str(place))
    assert (place / "a/file").read_text() == "content"
    volume(api, "used")
    made = api.create("sleep", "100", HostConfig={"Binds": ["used:/d"]})
    api.ok("POST", f"/containers/{made}/start")
    assert put(api, "used", tar_of([("file", b"")]))[0] == 409


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, None


HOSTILE = {
    "up": (500, [("../escaped", b"x")]),
    "up inside": (500, [("a/../../escaped", b"x")]),
    "absolute": (201, [("/escaped", b"x")]),
    "through a link": (201, [link("out", "/"), ("out/escaped", b"x")]),
    "through a link up": (201, [link("out", "../../../../.."), ("out/escaped", b"x")]),
    "hard link out": (500, [link("file", "../../state.db", tarfile.LNKTYPE)]),
    "torn": (500, None),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_stays_inside(api, shared_engine, name):
    expected, entries = HOSTILE[name]
    data = tar_of(entries) if entries else tar_of([("file", b"x" * 100_000)])[:50_000]
    status, answer = put(api, "hostile", data)
    assert status == expected, answer
    for above in (Path("/"), shared_engine.base, shared_engine.data_root, shared_engine.data_root / "volumes"):
        assert not (above / "escaped").exists()
    if status == 201:
        found = Path(answer["Mountpoint"])
        assert (found / "escaped").read_bytes() == b"x"
    else:
        assert api.call("GET", "/volumes/hostile")[0] == 404


def test_a_client_that_goes_leaves_nothing(api, shared_engine):
    data = tar_of([("file", os.urandom(1 << 20))])
    sock = api.raw(
        b"PUT /volumes/half/archive HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data)
        + data[: len(data) // 2]
    )
    volumes = shared_engine.data_root / "volumes"
    wait_until(lambda: any(name.startswith("@") for name in os.listdir(volumes)), what="the import's beginning")
    sock.shutdown(socket.SHUT_WR)
    sock.close()
    wait_until(lambda: not any(name.startswith("@") for name in os.listdir(volumes)), what="the import's end")
    assert api.call("GET", "/volumes/half")[0] == 404
    # A reader that goes does not keep the volume.
    place = volume(api)
    (place / "large").write_bytes(os.urandom(8 << 20))
    sock = api.raw(b"GET /volumes/data/archive HTTP/1.1\r\nHost: x\r\n\r\n")
    assert sock.recv(1000)
    status, answer = api.call("DELETE", "/volumes/data")
    assert (status, "being exported" in answer["message"]) == (409, True)
    sock.close()
    wait_until(lambda: api.call("DELETE", "/volumes/data")[0] == 204, what="the export's end")


def test_the_command_line(api, shared_engine, tmp_path):
    knarr = shared_engine.run
    place = volume(api)
    (place / "file").write_text("content")
    assert knarr("volume", "snapshot", "data", "first").stdout == "data@first\n"
    assert knarr("volume", "snapshots", "-q", "data").stdout == "data@first\n"
    assert "SNAPSHOT" in knarr("volume", "snapshots", "data").stdout
    assert knarr("volume", "clone", "data@first", "copy").stdout == "copy\n"
    output = tmp_path / "data.tar.gz"
    knarr("volume", "export", "-o", output, "data@first")
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(output.read_bytes()))) as archive:
        assert archive.extractfile("./file").read() == b"content"
    assert knarr("volume", "import", output, "imported").stdout == "imported\n"
    piped = knarr("volume", "export", "data", text=False).stdout
    assert knarr("volume", "import", "-", "piped", input=piped, text=False).stdout == b"piped\n"
    knarr("volume", "rename", "piped", "renamed")
    assert knarr("volume", "restore", "data@first").stdout == "data@first\n"
    assert knarr("volume", "restore", "data", check=False).returncode == 1
    refused = knarr("volume", "rm", "data", check=False)
    assert "knarr volume rm data@first" in refused.stderr
    assert knarr("volume", "rm", "data@first", "data", "copy").stdout == "data@first\ndata\ncopy\n"
    missing = knarr("volume", "export", "-o", tmp_path / "none.tar", "none", check=False)
    assert (missing.returncode, "no such volume" in missing.stderr) == (1, True)
    assert sorted(os.listdir(tmp_path)) == ["data.tar.gz"]


# --- sizes


def free_inside(place):
    found = os.statvfs(place)
    return found.f_blocks * found.f_frsize


def test_a_size_holds_for_containers_and_copies(api):
    place = volume(api, size="24m")
    assert api.ok("GET", "/volumes/data")["Options"] == {"size": "24m"}
    assert os.listdir(place) == []
    assert 8 << 20 < free_inside(place) <= 24 << 20
    fill_up = "dd if=/dev/zero of=/d/big bs=1M count=40; echo written > /d/small; echo $?"
    made = api.create("sh", "-c", fill_up, HostConfig={"Binds": ["data:/d"]})
    api.ok("POST", f"/containers/{made}/start")
    api.ok("POST", f"/containers/{made}/wait")
    assert (place / "big").stat().st_size < 24 << 20
    api.ok("DELETE", f"/containers/{made}")
    # A clone has the same size, and what does not fit is said.
    copy = Path(api.ok("POST", "/volumes/data/clone?to=copy")["Mountpoint"])
    assert seen(copy) == seen(place)
    assert free_inside(copy) == free_inside(place)
    status, answer = put(api, "copy2", tar_of([("file", bytes(30 << 20))]))
    assert status == 201, answer
    volume(api, "small", size="24m")
    status, answer = put(api, "small", tar_of([("file", os.urandom(30 << 20))]))
    assert (status, "full" in answer["message"] or "quota" in answer["message"]) == (503, True), answer
    assert api.ok("GET", "/volumes/small")["Name"] == "small"
    # It is renamed, restored and removed like any other.
    api.ok("POST", "/volumes/data/snapshots?name=first")
    (place / "big").unlink()
    api.ok("POST", "/volumes/data/snapshots/first/restore")
    assert (place / "big").exists()
    api.ok("POST", "/volumes/data/rename?name=other")
    assert (Path(api.ok("GET", "/volumes/other")["Mountpoint"]) / "big").exists()
    sizes = {one["Name"]: one["UsageData"]["Size"] for one in api.ok("GET", "/system/df?type=volume")["Volumes"]}
    assert 8 << 20 < sizes["other"] < 24 << 20


def test_a_size_that_is_none_is_refused(api):
    for size in ("", "0", "x", "-1g", "10q", "1e9"):
        status, answer = api.call("POST", "/volumes/create", {"Name": "data", "DriverOpts": {"size": size}})
        assert (status, "invalid size" in answer["message"]) == (400, True), size
    status, answer = api.call("POST", "/volumes/create", {"Name": "data", "DriverOpts": {"size": "1k"}})
    assert (status, "too small" in answer["message"]) == (400, True), answer
    status, answer = api.call("POST", "/volumes/create", {"Name": "data", "DriverOpts": {"size": "900t"}})
    assert (status, "no room" in answer["message"]) == (503, True), answer
    assert api.ok("GET", "/volumes")["Volumes"] == []


def test_what_is_mounted_from_elsewhere_is_renamed_and_no_more(api):
    volume(api, "ram", type="tmpfs", device="tmpfs", o="size=1m")
    for ask in ("clone?to=copy", "snapshots?name=first", "snapshots/first/restore"):
        status, answer = api.call("POST", f"/volumes/ram/{ask}")
        assert (status, "volume ram is what its options (device, o, type) mount" in answer["message"]) == (501, True)
    status, answer = put(api, "ram", tar_of([("file", b"x")]))
    assert status == 501, answer
    made = api.create("sleep", "1000", HostConfig={"Binds": ["ram:/d"]})
    api.ok("POST", f"/containers/{made}/start")
    status, answer = api.call("POST", "/volumes/ram/rename?name=other")
    assert (status, made in answer["message"]) == (409, True), answer
    api.ok("DELETE", f"/containers/{made}?force=1")
    api.ok("POST", "/volumes/ram/rename?name=other")  # mounted yet or not
    made = api.create("sh", "-c", "grep ' /d tmpfs ' /proc/mounts", HostConfig={"Binds": ["other:/d"]})
    api.ok("POST", f"/containers/{made}/start")
    assert api.ok("POST", f"/containers/{made}/wait")["StatusCode"] == 0
    assert [one["Name"] for one in api.ok("GET", "/volumes")["Volumes"]] == ["other"]


def test_a_volume_of_a_size_is_pruned_with_what_limits_it(api):
    volume(api, size="16m")
    assert api.ok("POST", '/volumes/prune?filters={"all":["1"]}')["VolumesDeleted"] == ["data"]


def test_an_image_fills_a_volume_of_a_size(api):
    place = volume(api, size="16m")
    made = api.create("true", HostConfig={"Binds": ["data:/etc"]})
    assert (place / "passwd").exists()
    assert sorted(os.listdir(place.parent)) == ["_data", "lost+found"]
    api.ok("DELETE", f"/containers/{made}")


def test_sizes_outlive_the_daemon_and_a_reboot(busybox):
    api = Api(busybox)
    place = volume(api, size="16m")
    (place / "file").write_text("content")
    (place.parent / "_copying/half").mkdir(parents=True)  # of an image's content, when the daemon was killed
    busybox.restart()
    assert (place / "file").read_text() == "content"
    assert not (place.parent / "_copying").exists()
    busybox.kill()
    subprocess.run(["umount", place.parent], check=True)  # as after a reboot
    assert os.listdir(place.parent) == ["_disk"]
    busybox.start()
    assert (place / "file").read_text() == "content"
    api = Api(busybox)
    made = api.create("sleep", "100", HostConfig={"Binds": ["data:/d"]})
    api.ok("POST", f"/containers/{made}/start")
    busybox.kill()
    # Unmounted while a container still has it: it is mounted again by the same device.
    subprocess.run(["umount", "-l", place.parent], check=True)
    busybox.start()
    busybox.run("exec", made, "sh", "-c", "echo inside > /d/file")
    assert (place / "file").read_text() == "inside\n"
    api = Api(busybox)
    api.ok("DELETE", f"/containers/{made}?force=1")
    api.ok("DELETE", "/volumes/data")
    assert str(place.parent) not in Path("/proc/self/mounts").read_text()


def test_the_layer_of_a_container_needs_project_quotas(api):
    body = {"Image": "busybox", "HostConfig": {"StorageOpt": {"size": "1G"}}}
    status, answer = api.call("POST", "/containers/create?name=limited", body)
    assert status == 400
    assert "--storage-opt is supported only for overlay over xfs with 'pquota' mount option" in answer["message"]
    assert api.call("GET", "/containers/limited/json")[0] == 404
    body["HostConfig"]["StorageOpt"] = {"size": "many"}
    status, answer = api.call("POST", "/containers/create", body)
    assert (status, "invalid size" in answer["message"]) == (400, True)


# --- idmapped mounts


def test_files_made_inside_belong_to_the_owner_outside(api, shared_engine, tmp_path):
    for above in (tmp_path, *tmp_path.parents):
        with contextlib.suppress(PermissionError):
            above.chmod(above.stat().st_mode | 0o055)
    source = tmp_path / "source"
    source.mkdir()
    os.chown(source, 1234, 5678)
    command = ("sh", "-c", "stat -c %u:%g /src; mkdir /src/made; touch /src/made/file; chown 77 /src/made/file")
    mount = {"Type": "bind", "Source": str(source), "Target": "/src", "BindOptions": {"IDMap": "match-user"}}
    made = api.create(*command, HostConfig={"Mounts": [mount]})
    api.ok("POST", f"/containers/{made}/start")
    assert api.ok("POST", f"/containers/{made}/wait")["StatusCode"] == 0
    assert ((source / "made").stat().st_uid, (source / "made").stat().st_gid) == (1234, 5678)
    assert ((source / "made/file").stat().st_uid, (source / "made/file").stat().st_gid) == (77, 5678)
    assert shared_engine.run("logs", made).stdout == "0:0\n"
    assert api.ok("GET", f"/containers/{made}/json")["HostConfig"]["Mounts"][0]["BindOptions"]["IDMap"] == "match-user"
    # Of another user of the container's; by both command lines.
    shown = f"type=bind,source={source},target=/src,idmap=match-user"
    shared_engine.run("run", "--rm", "--network=none", "-u", "app", "--mount", shown, "busybox", "touch", "/src/app")
    shared_engine.docker(
        "run", "--rm", "--network=none", "-v", f"{source}:/src:idmap=match-user", "busybox", "touch", "/src/docker"
    )
    for name in ("app", "docker"):
        assert ((source / name).stat().st_uid, (source / name).stat().st_gid) == (1234, 5678)
    # Root's files of the host's are nobody's inside.
    (source / "roots").write_text("secret")
    (source / "roots").chmod(0o600)
    refused = shared_engine.run(
        "run", "--rm", "--network=none", "--mount", shown, "busybox", "sh", "-c", "stat -c %u /src/roots; cat /src/roots",
        check=False,
    )  # fmt: skip
    assert (refused.returncode, refused.stdout) == (1, "65534\n")


def test_what_cannot_be_mapped_is_said(api):
    wrong = {"Type": "bind", "Source": "/proc/1", "Target": "/src", "BindOptions": {"IDMap": "match-user"}}
    made = api.create("true", User="app", HostConfig={"Mounts": [wrong]})
    status, answer = api.call("POST", f"/containers/{made}/start")
    assert (status, "cannot show other user and group IDs" in answer["message"]) == (501, True), answer
    wrong["BindOptions"]["IDMap"] = "other"
    body = {"Image": "busybox", "HostConfig": {"Mounts": [wrong]}}
    status, answer = api.call("POST", "/containers/create", body)
    assert (status, "invalid IDMap: other" in answer["message"]) == (400, True)
    body["HostConfig"] = {"Binds": ["data:/d:idmap=match-user"]}
    assert api.call("POST", "/containers/create", body)[0] == 400
