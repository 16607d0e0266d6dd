"""Containers that move their links while files are copied, and archives that mean other files than they say.

CVE-2018-15664: a path was looked up, then used: a link swapped in between led to the host's files. CVE-2019-14271: a
helper that ran in the container's root loaded its libraries.
"""

import contextlib
import ctypes
import http.client
import lzma
import os
import subprocess
import tarfile
import threading
from contextlib import contextmanager

import pytest

from knarr import _core, errors
from tests.api.http_client import Api
from tests.api.test_archives import Files
from tests.conftest import oci_archive, tar_of, wait_until

_libc = ctypes.CDLL(None, use_errno=True)
ROUNDS = 60


def info(name, kind=tarfile.REGTYPE, link="", **more):
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, link, more.pop("mode", 0o755)
    for field, value in more.items():
        setattr(made, field, value)
    return made


@pytest.fixture
def canary(tmp_path):
    """Files of the host's that no container may reach."""
    place = tmp_path / "canary"
    place.mkdir()
    (place / "secret").write_text("of the host")
    (place / "work").mkdir()
    yield place
    assert sorted(path.name for path in place.rglob("*")) == ["secret", "work"]
    assert (place / "secret").read_text() == "of the host"


@contextmanager
def swapping(directory, target):
    """`directory/swap` is a directory with a file `secret` one moment, and a link to `target` the next."""
    (directory / "swap").mkdir()
    (directory / "swap/secret").write_text("of the container")
    (directory / "other").symlink_to(target)
    ending = threading.Event()

    def swap():
        exchange = 2
        first, second = os.fsencode(directory / "swap"), os.fsencode(directory / "other")
        while not ending.is_set():
            _libc.renameat2(-100, first, -100, second, exchange)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


@pytest.fixture(params=["running", "stopped"])
def box(request, shared_engine, tmp_path):
    """A container with a volume that the test moves things in, as the container could."""
    (tmp_path / "shared").mkdir()
    api = Api(shared_engine)
    container = api.create("sleep", "1000", HostConfig={"Binds": [f"{tmp_path}/shared:/shared"]})
    if request.param == "running":
        api.ok("POST", f"/containers/{container}/start")
    yield Files(shared_engine, container), tmp_path / "shared"
    api.call("DELETE", f"/containers/{container}?force=1")


def fetch(files, place):
    """What a path's archive holds, as far as it comes: an archive may break off where things move."""
    files.api.connection.close()
    files.api.connection.request("GET", files.path(place))
    response = files.api.connection.getresponse()
    data = b""
    with contextlib.suppress(http.client.IncompleteRead, ValueError):
        while piece := response.read(1 << 16):
            data += piece
    files.api.connection.close()
    return data


@pytest.mark.parametrize("way", ["absolute", "relative"])
def test_a_link_that_is_swapped_leads_nowhere_outside(box, canary, way):
    files, shared = box
    target = canary if way == "absolute" else "../" * 12 + str(canary).lstrip("/")
    upload = tar_of([("secret", b"overwritten"), ("new", b"planted")])
    nested = tar_of([("swap/secret", b"overwritten"), ("swap/new", b"planted"), ("swap/work/deep", b"planted")])
    seen = set()
    with swapping(shared, target):
        for _ in range(ROUNDS):
            seen.add(files.put("/shared/swap", upload)[0])
            seen.add(files.put("/shared", nested)[0])
            for place in ("/shared/swap/secret", "/shared/swap/", "/shared", "/shared/swap/."):
                assert b"of the host" not in fetch(files, place)
            files.head("/shared/swap/secret")
    assert 200 in seen
    assert seen <= {200, 400, 404, 500}


def test_a_container_that_swaps_in_its_own_root(shared_engine, canary):
    api = Api(shared_engine)
    script = f"while :; do rm -rf /w; mkdir /w; echo mine >/w/secret; rm -rf /w; ln -s {canary} /w; rm /w; ln -s /proc/self/root/../..{canary} /w; done"
    container = api.create("sh", "-c", script)
    api.ok("POST", f"/containers/{container}/start")
    files = Files(shared_engine, container)
    try:
        for _ in range(ROUNDS):
            files.put("/w", tar_of([("secret", b"overwritten")]))
            files.put("/", tar_of([("w/secret", b"overwritten"), ("w/x/y", b"planted")]))
            for place in ("/w/secret", "/w/"):
                assert b"of the host" not in fetch(files, place)
            assert api.call("GET", f"/containers/{container}/changes")[0] == 200
    finally:
        api.call("DELETE", f"/containers/{container}?force=1")


HOSTILE = [
    ("dot dot", lambda canary: [("../../../../../.." + str(canary / "new"), b"x")]),
    ("dot dot inside", lambda canary: [("a/../../../../../../.." + str(canary / "new"), b"x")]),
    ("hard link out", lambda canary: [(info("h", tarfile.LNKTYPE, "../../../../.." + str(canary / "secret")), None)]),
    ("hard link to nothing", lambda canary: [(info("h", tarfile.LNKTYPE, str(canary / "secret")), None)]),
    ("hard link through a link", lambda canary: [
        (info("l", tarfile.SYMTYPE, str(canary)), None), (info("h", tarfile.LNKTYPE, "l/secret"), None),
    ]),
    ("device 0:0", lambda _: [(info("d", tarfile.CHRTYPE, devmajor=0, devminor=0), None)]),
    ("through a file", lambda _: [("f", b"x"), ("f/g", b"y")]),
    ("through a loop", lambda _: [(info("a", tarfile.SYMTYPE, "b"), None), (info("b", tarfile.SYMTYPE, "a"), None), ("a/c", b"")]),
    ("a long name", lambda _: [("n" * 300, b"x")]),
    ("a long path", lambda _: [("p/" * 3000 + "x", b"x")]),
]  # fmt: skip


@pytest.mark.parametrize(("what", "entries"), HOSTILE, ids=[name for name, _ in HOSTILE])
def test_an_archive_that_leads_out_is_refused(box, canary, what, entries):
    files, _ = box
    status, message = files.put("/tmp", tar_of(entries(canary)))
    assert status in (400, 403, 500), what
    assert message


def test_links_in_an_archive_stay_inside(box, canary):
    files, shared = box
    (shared / str(canary).lstrip("/")).mkdir(parents=True)  # as if it were the container's own
    entries = [
        (info("l", tarfile.SYMTYPE, str(canary)), None), ("l/secret", b"inside"),
        (info("up", tarfile.SYMTYPE, "../" * 10 + str(canary).lstrip("/")), None), ("up/other", b"inside"),
        ("/absolute", b"inside"), (info("file", tarfile.SYMTYPE, str(canary / "secret")), None), ("file", b"inside"),
    ]  # fmt: skip
    assert files.put("/shared", tar_of(entries)) == (200, "")
    assert (shared / "absolute").read_text() == "inside"
    assert not (shared / "file").is_symlink()
    assert (shared / "l").is_symlink()
    there = shared / str(canary).lstrip("/")
    assert ((there / "secret").read_text(), (there / "other").read_text()) == ("inside", "inside")
    missing = [(info("m", tarfile.SYMTYPE, f"{canary}/x/../new/y"), None), ("m/z", b"made")]
    assert files.put("/shared", tar_of(missing)) == (200, "")
    assert (there / "new/y/z").read_text() == "made"


def test_what_is_mounted_on_is_never_taken_away(box, tmp_path):
    """Deleting what a mount is on takes the mount away, and in a namespace that is not ours the kernel lets us."""
    files, shared = box
    if not files.api.ok("GET", f"/containers/{files.id}/json")["State"]["Running"]:
        files.api.ok("POST", f"/containers/{files.id}/start")
    hosts = files.read("/etc/hosts")
    (shared / "kept").write_text("kept")
    for place, entry in (("/etc", "hosts"), ("/", "etc"), ("/", "shared")):
        status, message = files.put(place, tar_of([(entry, b"other")]))
        assert status == 409, message
        assert "is mounted on" in message
    assert files.read("/etc/hosts") == hosts
    assert files.read("/shared/kept") == b"kept"
    pid = files.api.ok("GET", f"/containers/{files.id}/json")["State"]["Pid"]
    with open(f"/proc/{pid}/mountinfo") as file:
        mounts = file.read()
    assert " /etc/hosts " in mounts
    assert " /shared " in mounts


def test_devices_are_made_and_never_opened(box):
    files, shared = box
    entries = [(info("zero", tarfile.CHRTYPE, devmajor=1, devminor=5), None), (info("pipe", tarfile.FIFOTYPE), None)]
    assert files.put("/shared", tar_of(entries)) == (200, "")
    assert [member.type for member in files.get("/shared")] == [tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
    # Replaced, not written to.
    assert files.put("/shared", tar_of([("zero", b"data"), ("pipe", b"data")])) == (200, "")
    assert (shared / "zero").read_bytes() == (shared / "pipe").read_bytes() == b"data"


def test_a_file_that_is_larger_than_the_archive_says_nothing_more(box):
    files, _ = box
    huge = info("huge")
    huge.size = 1 << 50
    status, message = files.put("/tmp", huge.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    assert status in (400, 500)
    assert "limit" in message or "truncated" in message or "ends" in message
    bomb = subprocess.run(["sh", "-c", "head -c 300M /dev/zero | xz -0 -c"], capture_output=True, check=True).stdout
    status, message = files.put("/tmp", bomb)
    assert status == 500
    assert "unpack to more than" in message


def test_no_code_of_an_image_runs_outside_it(shared_engine, tmp_path):
    """Libraries of the image's at every place where a program of the host's would load them from."""
    source = tmp_path / "evil.c"
    mark = tmp_path / "loaded"
    source.write_text(
        "#include <fcntl.h>\n__attribute__((constructor)) static void run(void)"
        f' {{ open("{mark}", O_CREAT | O_WRONLY, 0600); }}\n'
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "evil.so", source], check=True)
    data = (tmp_path / "evil.so").read_bytes()
    names = [
        f"{place}/{library}"
        for place in ("lib", "lib64", "lib/x86_64-linux-gnu", "usr/lib", "usr/lib/x86_64-linux-gnu")
        for library in ("libnss_files.so.2", "libnss_compat.so.2", "libnss_dns.so.2", "libc.so.6", "libgcc_s.so.1")
    ]
    layer = tar_of([
        *((info(name), data) for name in names),
        ("etc/ld.so.preload", b"/lib/libc.so.6\n"), ("etc/nsswitch.conf", b"passwd: files compat\n"),
        ("etc/passwd", b"who:x:7:8::/:/\n"), ("etc/group", b"who:x:8:\n"),
        *((info(f"{place}/{program}"), b"#!/bin/sh\n") for place in ("bin", "usr/bin") for program in ("tar", "gzip", "xz", "bzip2", "unpigz")),
    ])  # fmt: skip
    (tmp_path / "evil.tar").write_bytes(oci_archive([layer], {"Cmd": ["x"]}, "evil:latest"))
    shared_engine.run("load", "-q", "-i", tmp_path / "evil.tar")
    api = Api(shared_engine)
    container = api.create("x", Image="evil", User="who:who")
    files = Files(shared_engine, container)
    assert files.put("/etc", tar_of([("mine", b"")]), copyUIDGID="1") == (200, "")
    assert files.get("/etc/mine").next().uid == 7
    assert files.put("/etc", lzma.compress(tar_of([("xz", b"")]))) == (200, "")
    assert files.names("/lib")
    connection = api.connection
    connection.request("GET", f"/containers/{container}/export")
    assert connection.getresponse().read()
    assert api.call("POST", f"/commit?container={container}")[0] == 201
    assert not mark.exists()
    with open(f"/proc/{shared_engine.process.pid}/maps") as maps:
        assert "evil" not in (text := maps.read())
        assert str(shared_engine.data_root) not in text.replace(f"{shared_engine.data_root}/state.db", "")
    api.ok("DELETE", f"/containers/{container}")


def test_a_process_of_somebody_elses_is_no_container(box):
    files, _ = box
    for pid in (os.getpid(), 1, 2**22):
        with pytest.raises(errors.Conflict, match="is not running"):
            _core.View.running(pid, files.id, [])


def test_the_hosts_mount_table_never_changes(box):
    files, shared = box

    def table():
        with open("/proc/self/mountinfo") as file:
            return sorted(line.split()[4] for line in file)

    before = table()
    for _ in range(5):
        files.put("/shared", tar_of([("x", b"y")]))
        assert files.read("/shared/x") == b"y"
        assert table() == before
    wait_until(lambda: table() == before, what="the mounts to be gone")
    subprocess.run(["mount", "-t", "tmpfs", "t", shared], check=True)
    try:
        files.head("/shared")
    finally:
        subprocess.run(["umount", shared], check=True)  # a view that is gone keeps nothing busy
