"""Containers' files over HTTP: archive, export, changes; running and stopped, through volumes and binds."""

import base64
import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import subprocess
import tarfile
import threading
import urllib.parse

import docker
import pytest

from tests.api.http_client import Api, read_all, read_head
from tests.conftest import tar_of, wait_until

DIRECTORY, LINK = 1 << 31, 1 << 27


def opened(data):
    """A tar archive, to be read."""
    return tarfile.TarFile(fileobj=io.BytesIO(data))


class Files:
    """The archive endpoints of one container."""

    def __init__(self, engine, container):
        self.api = Api(engine)
        self.id = container

    def path(self, place, **more):
        return f"/containers/{self.id}/archive?" + urllib.parse.urlencode({"path": place, **more})

    def head(self, place):
        connection = self.api.connection
        connection.request("HEAD", self.path(place))
        response = connection.getresponse()
        response.read()
        field = response.headers["X-Docker-Container-Path-Stat"]
        return response.status, json.loads(base64.b64decode(field)) if field else None

    def get(self, place):
        """The archive of a path."""
        connection = self.api.connection
        connection.request("GET", self.path(place))
        response = connection.getresponse()
        data = response.read()
        assert response.status == 200, data
        return opened(data)

    def names(self, place):
        return [member.name for member in self.get(place)]

    def read(self, place):
        archive = self.get(place)
        return archive.extractfile(archive.next()).read()

    def put(self, place, data, **more):
        connection = self.api.connection
        connection.request("PUT", self.path(place, **more), data)
        response = connection.getresponse()
        body = response.read()
        return response.status, json.loads(body)["message"] if body.strip() else ""

    def changes(self):
        found = self.api.ok("GET", f"/containers/{self.id}/changes")
        return [("CAD"[change["Kind"]], change["Path"]) for change in found or []]


@pytest.fixture(params=["running", "stopped", "created"])
def state(request):
    return request.param


@pytest.fixture
def make(shared_engine):
    made = []
    api = Api(shared_engine)

    def create(script="", state="running", **fields):
        command = ["sh", "-c", f"{script}\n" + ("exec sleep 1000" if state == "running" else "true")]
        container = api.create(*command, **fields)
        made.append(container)
        if state != "created":
            api.ok("POST", f"/containers/{container}/start")
        if state == "stopped":
            api.ok("POST", f"/containers/{container}/wait")
        elif state == "running":
            pid = api.ok("GET", f"/containers/{container}/json")["State"]["Pid"]

            def ready():
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    return file.read().startswith(b"sleep")

            wait_until(ready, what="the script's end")
        return Files(shared_engine, container)

    yield create
    for container in made:
        api.call("DELETE", f"/containers/{container}?force=1&v=1")


def test_what_is_put_is_got_and_seen_inside(make, state, shared_engine):
    files = make(state=state)
    info = tarfile.TarInfo("sub/tool")
    info.mode, info.uid, info.gid, info.mtime = 0o4755, 12, 34, 1_600_000_000
    folder = tarfile.TarInfo("sub")
    folder.type, folder.mode, folder.uid, folder.mtime = tarfile.DIRTYPE, 0o1777, 5, 1_500_000_000
    link = tarfile.TarInfo("sub/link")
    link.type, link.linkname = tarfile.SYMTYPE, "tool"
    hard = tarfile.TarInfo("sub/hard")
    hard.type, hard.linkname = tarfile.LNKTYPE, "sub/tool"
    data = b"#!/bin/sh\necho it runs\n"
    assert files.put("/tmp", tar_of([(folder, None), (info, data), (link, None), (hard, None)])) == (200, "")
    found = {member.name: member for member in files.get("/tmp/sub")}
    assert list(found) == ["sub", "sub/hard", "sub/link", "sub/tool"]
    assert (found["sub"].mode, found["sub"].uid, found["sub"].mtime) == (0o1777, 5, 1_500_000_000)
    first, second = found["sub/hard"], found["sub/tool"]
    assert (first.mode, first.uid, first.gid, first.mtime, first.size) == (0o4755, 12, 34, 1_600_000_000, len(data))
    assert (second.type, second.linkname) == (tarfile.LNKTYPE, "sub/hard")
    assert found["sub/link"].linkname == "tool"
    assert files.read("/tmp/sub/tool") == data
    if state == "running":
        assert shared_engine.run("exec", files.id, "/tmp/sub/link").stdout == "it runs\n"
    else:
        shared_engine.run("start", files.id)
        assert files.read("/tmp/sub/tool") == data


def test_the_header_tells_what_is_there(make, state):
    files = make(state=state)
    link = tarfile.TarInfo("to")
    link.type, link.linkname = tarfile.SYMTYPE, "../etc/passwd"
    broken = tarfile.TarInfo("broken")
    broken.type, broken.linkname = tarfile.SYMTYPE, "/etc/none/x"
    files.put("/tmp", tar_of([(link, None), (broken, None), ("f", b"12345")]))
    status, found = files.head("/tmp/f")
    assert status == 200
    assert (found["name"], found["size"], found["mode"], found["linkTarget"]) == ("f", 5, 0o644, "")
    assert found["mtime"].startswith("1970-01-01T00:00:00")
    assert files.head("/tmp")[1]["mode"] == DIRECTORY | 1 << 20 | 0o777
    assert files.head("tmp/")[1]["name"] == "tmp"
    assert files.head("/tmp/.")[1]["name"] == "."
    assert files.head("/")[1]["name"] == "/"
    found = files.head("/tmp/to")[1]
    assert (found["mode"] & LINK, found["linkTarget"]) == (LINK, "/etc/passwd")
    assert files.head("/tmp/broken")[1]["linkTarget"] == "/etc/none/x"
    assert files.head("/bin/../tmp/../etc/passwd")[1]["name"] == "passwd"
    assert files.head("/none") == (404, None)
    status, answer = files.api.call("GET", files.path("/none"))
    name = files.api.ok("GET", f"/containers/{files.id}/json")["Name"][1:]
    assert (status, answer["message"]) == (404, f"Could not find the file /none in container {name}")
    assert files.api.call("GET", f"/containers/{files.id}/archive")[0] == 400
    assert files.api.call("GET", "/containers/none/archive?path=/")[0] == 404


def test_what_an_archive_is_called_follows_the_path(make):
    files = make("mkdir -p /d/e; echo 1 >/d/f; ln -s d /l")
    assert files.names("/d") == ["d", "d/e", "d/f"]
    assert files.names("/d/") == ["d", "d/e", "d/f"]
    assert files.names("/d/.") == [".", "./e", "./f"]
    assert files.names("/d/f") == ["f"]
    assert files.names("/l") == ["l"]
    assert files.names("/l/") == ["l", "l/e", "l/f"]
    assert files.names("/l/.") == [".", "./e", "./f"]
    assert "/bin/busybox" in files.names("/")


def test_a_compressed_archive_is_taken(make, state):
    files = make(state=state)
    plain = tar_of([("packed", b"inside" * 1000)])
    zstd = subprocess.run(["zstd", "-q", "-c"], input=plain, capture_output=True, check=True).stdout
    for number, data in enumerate((plain, gzip.compress(plain), bz2.compress(plain), lzma.compress(plain), zstd)):
        place = f"/tmp/{number}"
        folder = tarfile.TarInfo(str(number))
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        files.put("/tmp", tar_of([(folder, None)]))
        assert files.put(place, data) == (200, "")
        assert files.read(f"{place}/packed") == b"inside" * 1000
    for broken in (gzip.compress(plain)[:-20], lzma.compress(plain)[:-40], bz2.compress(plain)[:-5], b"no tar" * 200):
        status, message = files.put("/tmp", broken)
        assert status == 500, message
        assert message


def test_the_connection_goes_on_after_an_upload(make):
    files = make()
    assert files.put("/tmp", tar_of([("a", b"1")])) == (200, "")
    sock = files.api.connection.sock
    assert sock is not None
    assert files.put("/tmp", iter([tar_of([("b", b"2" * 70_000)])])) == (200, "")
    assert files.read("/tmp/b") == b"2" * 70_000
    assert files.api.connection.sock is sock


def test_an_upload_that_is_refused_may_be_sent_to_its_end(shared_engine):
    """A client that sends its body whatever the answer says is not cut off before it looks."""
    body = bytes(1 << 20)
    sock = Api(shared_engine).raw(
        b"PUT /containers/none/archive?path=/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    with sock:
        sock.settimeout(10)
        assert read_head(sock)[0] == "HTTP/1.1 404 Not Found"
        sock.sendall(body)
        while sock.recv(4096):
            pass  # the rest of the answer, and the end


def test_chunks_in_any_pieces_and_expect_continue(make):
    files = make()
    data = tar_of([("piece", os.urandom(3000))])
    head = f"PUT {files.path('/tmp')} HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    with contextlib.closing(files.api.raw(head.encode())) as sock:
        assert read_head(sock)[0] == "HTTP/1.1 100 Continue"
        for at in range(0, len(data), 777):
            piece = data[at : at + 777]
            for byte in f"{len(piece):x}\r\n".encode():
                sock.sendall(bytes([byte]))
            sock.sendall(piece + b"\r\n")
        # And a request right behind it.
        sock.sendall(b"0\r\n\r\nGET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
        status, _, rest = read_head(sock)
        assert status == "HTTP/1.1 200 OK"
        assert read_all(sock, rest).endswith(b"OK")
    assert files.get("/tmp/piece")


def test_an_upload_is_refused_in_dockers_words(make, state):
    files = make(state=state)
    files.put("/tmp", tar_of([("file", b"")]))
    good = tar_of([("x", b"y")])
    assert files.put("/tmp/file", good) == (400, "extraction point is not a directory")
    status, message = files.put("/tmp/none", good)
    assert status == 404
    assert message.startswith("Could not find the file /tmp/none in container ")
    status, message = files.put("", good)
    assert (status, message) == (400, "bad parameter: path cannot be empty")


@pytest.mark.parametrize("path", ["/tmp/" + "x" * 256, "/x" * 2048])
def test_a_path_that_no_file_can_have_is_not_found(make, state, path):
    files = make(state=state)
    assert files.head(path) == (404, None)
    status, answer = files.api.call("GET", files.path(path))
    assert status == 404
    assert "is too long" in answer["message"]
    assert files.put(path, tar_of([("x", b"y")]))[0] == 404
    longest = "/tmp/" + "ä" * 127
    assert files.put("/tmp", tar_of([(longest[5:], b"y")])) == (200, "")
    assert files.read(longest) == b"y"


def test_nothing_of_another_kind_is_overwritten_where_that_is_asked_for(make, state):
    files = make(state=state)
    folder = tarfile.TarInfo("here")
    folder.type, folder.mode = tarfile.DIRTYPE, 0o755
    files.put("/tmp", tar_of([(folder, None), ("file", b"old")]))
    as_folder = tarfile.TarInfo("file")
    as_folder.type, as_folder.mode = tarfile.DIRTYPE, 0o755
    status, message = files.put("/tmp", tar_of([("here", b"new")]), noOverwriteDirNonDir="true")
    assert (status, message) == (400, 'cannot overwrite directory "here" with non-directory "/tmp"')
    status, message = files.put("/tmp", tar_of([(as_folder, None)]), noOverwriteDirNonDir="1")
    assert (status, message) == (400, 'cannot overwrite non-directory "file" with directory "/tmp"')
    assert files.put("/tmp", tar_of([("here", b"new"), (as_folder, None)])) == (200, "")
    assert files.read("/tmp/here") == b"new"
    assert files.head("/tmp/file")[1]["mode"] & DIRECTORY


def test_the_containers_user_owns_what_is_copied_for_it(make, state):
    files = make(state=state, User="app")
    assert files.put("/tmp", tar_of([("a/b", b"")]), copyUIDGID="true") == (200, "")
    member = files.get("/tmp/a/b").next()
    assert (member.uid, member.gid) == (1000, 1000)


def test_volumes_and_binds_are_part_of_it(make, state, tmp_path):
    (tmp_path / "bound").mkdir()
    (tmp_path / "bound/seen").write_text("of the host")
    (tmp_path / "single").write_text("one file")
    binds = [f"{tmp_path}/bound:/mnt/bound", f"{tmp_path}/single:/mnt/single:ro", "/vol"]
    files = make(state=state, HostConfig={"Binds": binds})
    assert files.read("/mnt/bound/seen") == b"of the host"
    assert files.read("/mnt/single") == b"one file"
    assert files.put("/mnt/bound", tar_of([("new", b"from outside")])) == (200, "")
    assert (tmp_path / "bound/new").read_text() == "from outside"
    assert files.put("/vol", tar_of([("in", b"volume")])) == (200, "")
    assert files.names("/mnt") == ["mnt", "mnt/bound", "mnt/bound/new", "mnt/bound/seen", "mnt/single"]
    # Not of the exported root file system.
    status, data = export(files)
    assert status == 200
    names = opened(data).getnames()
    assert "mnt/bound" in names
    assert "mnt/bound/seen" not in names
    assert not any(name.startswith("vol/") for name in names)


def export(files):
    files.api.connection.request("GET", f"/containers/{files.id}/export")
    response = files.api.connection.getresponse()
    return response.status, response.read()


def test_what_is_read_only_stays_as_it_is(make, state, tmp_path):
    (tmp_path / "ro").mkdir()
    binds = [f"{tmp_path}/ro:/ro:ro", "/rw"]
    files = make(state=state, HostConfig={"Binds": binds, "ReadonlyRootfs": True})
    data = tar_of([("x", b"y")])
    assert files.put("/ro", data) == (400, "mounted volume is marked read-only")
    assert files.put("/tmp", data) == (400, "container rootfs is marked read-only")
    assert files.put("/rw", data) == (200, "")
    # Nor through an archive's own link into it.
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/ro"
    files.put("/", tar_of([(link, None), ("link/x", b"y")]))
    assert list((tmp_path / "ro").iterdir()) == []


def test_a_tmpfs_of_a_running_container_is_the_one_it_has(make):
    files = make("echo kept >/scratch/in", HostConfig={"Tmpfs": {"/scratch": ""}})
    assert files.read("/scratch/in") == b"kept\n"
    assert files.put("/scratch", tar_of([("more", b"")])) == (200, "")
    assert files.names("/scratch") == ["scratch", "scratch/in", "scratch/more"]


def test_the_kernels_own_file_systems_are_no_part_of_it(make):
    files = make("ln -s /proc/1/environ /leak")
    assert files.names("/proc") == ["proc"]
    assert files.names("/sys") == ["sys"]
    assert files.head("/proc/1")[0] == 404
    assert files.names("/leak") == ["leak"]
    assert files.head("/leak/")[0] == 404
    status, _ = files.put("/proc/sys", tar_of([("x", b"")]))
    assert status == 404
    assert files.head("/etc/hosts")[1]["size"] > 0


def test_an_export_is_the_whole_root_file_system(make, state, tmp_path):
    script = "mkdir /new; echo 1 >/new/file; ln /new/file /new/hard; rm /bin/vi; chmod 700 /home; mknod /new/dev c 5 1"
    files = make(script, state=state)
    status, data = export(files)
    assert status == 200
    archive = opened(data)
    found = {member.name: member for member in archive}
    assert found["bin/busybox"].size == os.path.getsize("/bin/busybox")
    assert found["etc/passwd"].isreg()
    if state == "created":
        assert "bin/vi" in found
        return
    assert "bin/vi" not in found
    assert found["home"].mode == 0o700
    assert found["new/hard"].linkname == "new/file"
    assert (found["new/dev"].type, found["new/dev"].devmajor) == (tarfile.CHRTYPE, 5)
    listed = subprocess.run(["tar", "t"], input=data, capture_output=True, check=True).stdout.decode().split()
    assert "new/file" in listed


def test_changes_are_told_as_docker_tells_them(make):
    script = """
    echo x >>/etc/passwd; mkdir -p /opt/a/b; echo 1 >/opt/a/b/c; rm /bin/vi /bin/yes
    rm -r /home; touch -r /bin/busybox /tmp/new; chmod 700 /usr/bin; rm -r /var; echo file >/var
    chown 7 /bin/ls -h; cp -a /root /root2; mkdir /root/x; rmdir /root/x
    """
    files = make(script)
    assert files.changes() == [
        ("C", "/bin"), ("C", "/bin/ls"), ("D", "/bin/vi"), ("D", "/bin/yes"), ("C", "/etc"), ("C", "/etc/passwd"), ("D", "/home"),
        ("A", "/opt"), ("A", "/opt/a"), ("A", "/opt/a/b"), ("A", "/opt/a/b/c"), ("A", "/root2"), ("C", "/tmp"),
        ("A", "/tmp/new"), ("C", "/usr"), ("C", "/usr/bin"), ("C", "/var"),
    ]  # fmt: skip


def test_a_directory_that_was_made_anew_has_lost_what_it_held(make):
    files = make("rm -r /usr; mkdir -p /usr/bin /usr/lib; rm -r /home; mkdir /home; mkdir /home/app; touch /home/app/x")
    assert files.changes() == [
        ("C", "/home"),
        ("C", "/home/app"),
        ("A", "/home/app/x"),
        ("C", "/usr"),
        ("A", "/usr/lib"),
    ]
    files = make("rm -r /home; mkdir /home; touch /home/y")
    assert files.changes() == [("C", "/home"), ("D", "/home/app"), ("A", "/home/y")]


def test_nothing_has_changed_where_nothing_was_done(make, state):
    assert make(state=state).changes() == []


def test_sizes_count_what_was_written(make, shared_engine):
    files = make("dd if=/dev/zero of=/big bs=1M count=3 2>/dev/null")
    image = files.api.ok("GET", "/images/busybox/json")["Size"]
    found = files.api.ok("GET", f"/containers/{files.id}/json?size=1")
    assert 3 << 20 <= found["SizeRw"] < 4 << 20
    assert found["SizeRootFs"] == found["SizeRw"] + image
    filters = urllib.parse.quote(json.dumps({"id": [files.id]}))
    listed = files.api.ok("GET", f"/containers/json?size=1&filters={filters}")[0]
    assert (listed["SizeRw"], listed["SizeRootFs"]) == (found["SizeRw"], found["SizeRootFs"])


def test_events_say_what_was_copied(make, shared_engine):
    files = make()
    client = docker.APIClient(base_url=shared_engine.host)
    since = client.info()["SystemTime"]
    files.put("/tmp", tar_of([("x", b"")]))
    files.read("/tmp/x")
    export(files)
    until = client.info()["SystemTime"]
    events = client.events(since=since, until=until, filters={"container": files.id}, decode=True)
    actions = [event["Action"] for event in events]
    client.close()
    assert actions == ["extract-to-dir", "archive-path", "export"]


def test_a_client_that_stops_reading_or_sending_holds_nobody_up(make):
    files = make("dd if=/dev/zero of=/big bs=1M count=8 2>/dev/null")
    other = make(state="stopped")
    slow = [files.api.raw(f"GET {files.path('/big')} HTTP/1.1\r\nHost: d\r\n\r\n".encode()) for _ in range(40)]
    head = f"PUT {files.path('/tmp')} HTTP/1.1\r\nHost: d\r\nContent-Length: 5000\r\n\r\n"
    slow += [files.api.raw(head.encode()) for _ in range(40)]
    slow += [other.api.raw(f"GET {other.path('/')} HTTP/1.1\r\nHost: d\r\n\r\n".encode()) for _ in range(20)]
    for sock in slow[:40] + slow[80:]:
        read_head(sock)
    assert files.read("/big") == bytes(8 << 20)
    files.api.ok("POST", f"/containers/{other.id}/start")
    files.api.ok("POST", f"/containers/{files.id}/stop?t=0")
    for sock in slow:
        sock.close()


def test_a_client_that_goes_away_leaves_nothing(make, shared_engine):
    files = make("dd if=/dev/zero of=/big bs=1M count=64 2>/dev/null")

    def threads():
        return len(os.listdir(f"/proc/{shared_engine.process.pid}/task"))

    def descriptors():
        return len(os.listdir(f"/proc/{shared_engine.process.pid}/fd"))

    before = threads(), descriptors()
    for _ in range(5):
        with contextlib.closing(
            files.api.raw(f"GET {files.path('/big')} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        ) as sock:
            read_head(sock)
        head = f"PUT {files.path('/tmp')} HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n"
        files.api.raw(head.encode()).close()
    wait_until(lambda: threads() <= before[0] + 1 and descriptors() <= before[1] + 1, what="the daemon to be as before")
    assert "Traceback" not in shared_engine.log()


def test_an_error_reaches_a_client_that_is_still_sending(make):
    files = make()
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    head = f"PUT {files.path('/none')} HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n"
    with contextlib.closing(files.api.raw(head.encode())) as sock:
        sent = threading.Event()

        def send():
            with contextlib.suppress(OSError):
                for _ in range(500):
                    sock.sendall(chunk)
                sock.sendall(b"0\r\n\r\n")
            sent.set()

        threading.Thread(target=send).start()
        assert read_head(sock)[0] == "HTTP/1.1 404 Not Found"
        assert sent.wait(30)


def test_a_stopped_container_is_not_started_while_it_is_written_to(make):
    files = make(state="stopped")
    data = tar_of([("late", b"but there")])
    head = f"PUT {files.path('/tmp')} HTTP/1.1\r\nHost: d\r\nContent-Length: {len(data)}\r\n\r\n"
    with contextlib.closing(files.api.raw(head.encode() + data[:700])) as sock:
        started = threading.Thread(
            target=lambda: Api.ok(Files(_Same(files), "").api, "POST", f"/containers/{files.id}/start")
        )
        started.start()
        started.join(0.3)
        assert started.is_alive()
        sock.sendall(data[700:])
        assert read_head(sock)[0] == "HTTP/1.1 200 OK"
        started.join(10)
        assert not started.is_alive()
    assert files.read("/tmp/late") == b"but there"


class _Same:
    """Another connection to the same engine."""

    def __init__(self, files):
        self.socket = files.api.path


def test_docker_py_copies_both_ways(make, shared_engine):
    files = make()
    client = docker.DockerClient(base_url=shared_engine.host)
    container = client.containers.get(files.id)
    assert container.put_archive("/tmp", tar_of([("py/a", b"1"), ("py/b", b"2")])) is True
    stream, stat = container.get_archive("/tmp/py")
    assert stat["name"] == "py"
    archive = opened(b"".join(stream))
    assert archive.getnames() == ["py", "py/a", "py/b"]
    assert container.diff()
    names = opened(b"".join(container.export())).getnames()
    assert "tmp/py/a" in names
    with pytest.raises(docker.errors.NotFound):
        container.get_archive("/none")
    client.close()


def test_a_large_tree_survives_the_round_trip(make, tmp_path):
    files = make()
    tree = tmp_path / "tree"
    for number in range(300):
        place = tree / f"{number % 7}" / ("d" * 50) / ("e" * 60)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"file{number}").write_bytes(os.urandom(number * 37))
    subprocess.run(["ln", "-s", "x" * 150, tree / "long-link"], check=True)
    data = subprocess.run(["tar", "c", "-C", tmp_path, "tree"], capture_output=True, check=True).stdout
    assert files.put("/", data) == (200, "")
    back = files.get("/tree")
    back.extractall(tmp_path / "back", filter="fully_trusted")
    subprocess.run(["diff", "-r", "--no-dereference", tree, tmp_path / "back/tree"], check=True)
