"""Logs of real containers, read with curl's HTTP, the docker command line, docker-py and attach."""

import datetime as dt
import gzip
import json
import os
import signal
import subprocess
import threading
import time

import docker
import pytest

from tests.api.http_client import Api, frames, read_all, read_head
from tests.conftest import SCRIPTS, busybox_archive, new_engine, wait_until

NUMBERS = "i=0; while [ $i -lt {0} ]; do echo line $i; i=$((i+1)); done"


@pytest.fixture
def api(shared_engine):
    made = []
    client = Api(shared_engine)
    create = client.create

    def remembered(*command, driver="json-file", options=None, host=None, **fields):
        config = {"Type": driver, "Config": options or {}}
        made.append(create(*command, HostConfig={"LogConfig": config, **(host or {})}, **fields))
        return made[-1]

    client.create = remembered
    yield client
    for container in made:
        client.call("DELETE", f"/containers/{container}?force=1")


def run(api, script, **keywords):
    """A container that has run to its end."""
    container = api.create("sh", "-c", script, **keywords)
    api.ok("POST", f"/containers/{container}/start")
    api.ok("POST", f"/containers/{container}/wait")
    return container


def get(api, container, query="stdout=1&stderr=1"):
    api.connection.request("GET", f"/containers/{container}/logs?{query}")
    response = api.connection.getresponse()
    body = response.read()
    assert response.status == 200, body
    return frames(body)


def lines(api, container, query="stdout=1&stderr=1"):
    return b"".join(data for _, data in get(api, container, query)).decode().splitlines()


def open_logs(api, container, query):
    """A client that has the head of its answer."""
    sock = api.raw(f"GET /containers/{container}/logs?{query} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
    status, head, rest = read_head(sock)
    assert "200" in status
    assert "transfer-encoding: chunked" in head
    return sock, rest


def unchunk(data):
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        body, data = body + data[:length], data[length + 2 :]
        if not length:
            return body
    raise AssertionError(f"no end after {body[-100:]!r}")


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_what_was_written_is_read(api, driver):
    container = run(api, "echo one; sleep 0.05; echo two >&2; sleep 0.05; printf '\\303\\244\\t\"x\"'", driver=driver)
    assert get(api, container) == [(1, b"one\n"), (2, b"two\n"), (1, 'ä\t"x"'.encode())]
    assert get(api, container, "stderr=1") == [(2, b"two\n")]
    assert get(api, container, "stdout=1&tail=1") == [(1, 'ä\t"x"'.encode())]
    assert get(api, container, "stdout=1&stderr=1&tail=0") == []
    path = api.ok("GET", f"/containers/{container}/json")["LogPath"]
    assert (path != "") == (driver == "json-file")
    if path:
        with open(path) as file:
            assert json.loads(file.readline())["log"] == "one\n"


@pytest.mark.parametrize("driver", ["json-file", "local"])
@pytest.mark.parametrize("compress", ["true", "false"])
def test_rotated_files_are_one_log(api, shared_engine, driver, compress):
    options = {"max-size": "20k", "max-file": "4", "compress": compress}
    container = run(api, NUMBERS.format(1000) + "; sleep 0.2; echo end", driver=driver, options=options)
    found = lines(api, container)
    first = int(found[0].split()[1])
    assert found == [f"line {number}" for number in range(first, 1000)] + ["end"]
    directory = shared_engine.data_root / "containers" / container
    packed = list(directory.rglob("*.gz"))
    assert bool(packed) == (compress == "true")
    for path in packed:
        with gzip.open(path) as file:
            assert len(file.read()) < 25_000
    assert lines(api, container, "stdout=1&tail=700") == found[-700:]
    assert shared_engine.docker("logs", "-n", "650", container).stdout.splitlines() == found[-650:]


def test_long_lines_come_back_whole(api, shared_engine):
    script = "head -c 40000 /dev/zero | tr '\\0' x; echo; head -c 16384 /dev/zero | tr '\\0' y; echo; echo end"
    for driver in ("json-file", "local"):
        container = run(api, script, driver=driver)
        assert [len(data) for _, data in get(api, container)] == [16384, 16384, 40000 - 32768 + 1, 16384, 1, 4]
        assert shared_engine.run("logs", container).stdout == "x" * 40000 + "\n" + "y" * 16384 + "\nend\n"
        # Each part of a line has the time of the first.
        stamps = {data.split()[0] for _, data in get(api, container, "stdout=1&timestamps=1")[:3]}
        assert len(stamps) == 1


def test_details_are_what_the_options_ask_for(api, shared_engine):
    options = {"labels": "app", "env-regex": "^X", "tag": "{{.ImageName}}/{{.Name}}"}
    for driver in ("json-file", "local"):
        container = run(
            api, "echo hello", driver=driver, options=options, Labels={"app": "a b", "no": "1"}, Env=["XY=1,2", "Z=3"]
        )
        name = api.ok("GET", f"/containers/{container}/json")["Name"][1:]
        expected = f"XY=1%2C2,app=a+b,tag=busybox%2F{name} hello\n"
        assert get(api, container, "stdout=1&details=1") == [(1, expected.encode())]
        for program in (shared_engine.docker, shared_engine.run):
            # Both command lines write the details as the daemon sends them.
            assert program("logs", "--details", container).stdout == expected


def test_since_and_until(api, shared_engine):
    container = run(api, "for i in 1 2 3 4; do echo $i; sleep 0.15; done")
    stamps = [data.split()[0].decode() for _, data in get(api, container, "stdout=1&timestamps=1")]

    def seconds(stamp):
        whole = dt.datetime.fromisoformat(stamp[:19] + "+00:00")
        return f"{int(whole.timestamp())}.{stamp[20:-1]}"

    second, third = seconds(stamps[1]), seconds(stamps[2])
    assert lines(api, container, f"stdout=1&since={second}") == ["2", "3", "4"]
    assert lines(api, container, f"stdout=1&until={second}") == ["1", "2"]
    assert lines(api, container, f"stdout=1&since={second}&until={third}") == ["2", "3"]
    assert lines(api, container, f"stdout=1&since={second}&tail=1") == ["4"]
    for program in (shared_engine.docker, shared_engine.run):
        assert program("logs", "--since", stamps[1], "--until", stamps[2], container).stdout == "2\n3\n"
        assert program("logs", "--since", "10m", container).stdout == "1\n2\n3\n4\n"
        assert program("logs", "--until", "10m", container).stdout == ""
    status, answer = api.call("GET", f"/containers/{container}/logs?stdout=1&since=soon")
    assert (status, answer["message"][:25]) == (400, 'invalid value for "since"')
    assert api.call("GET", f"/containers/{container}/logs")[0] == 400
    assert api.call("GET", "/containers/nobody/logs?stdout=1")[0] == 404


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_a_follower_gets_everything_while_files_rotate(api, driver):
    options = {"max-size": "20k", "max-file": "3", "compress": "true"}
    script = "read go; " + NUMBERS.format(5000)
    container = api.create("sh", "-c", script, driver=driver, options=options, OpenStdin=True)
    api.ok("POST", f"/containers/{container}/start")
    sock, rest = open_logs(api, container, "stdout=1&follow=1")
    attached = api.raw(
        f"POST /containers/{container}/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: d\r\nUpgrade: tcp\r\n\r\ngo\n".encode()
    )
    body = unchunk(read_all(sock, rest))
    attached.close()
    found = b"".join(data for _, data in frames(body)).decode().splitlines()
    # Nothing is lost but what was rotated away before the reader's turn came.
    numbers = [int(line.split()[1]) for line in found]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 4999


def test_following_begins_at_the_tail_and_ends_with_the_container(api, shared_engine):
    container = api.create("sh", "-c", "echo a; echo b; sleep 0.5; echo c; sleep 0.1; printf d")
    api.ok("POST", f"/containers/{container}/start")
    wait_until(lambda: lines(api, container) == ["a", "b"], what="the first lines")
    assert lines(api, container, "stdout=1&follow=1&tail=1") == ["b", "c", "d"]
    assert shared_engine.docker("logs", "-f", "--tail", "1", container).stdout == "d"
    assert lines(api, container, "stdout=1&follow=1") == ["a", "b", "c", "d"], "it does not run: that is all"


def test_following_ends_at_its_time_and_with_removal(api):
    container = api.create("sh", "-c", "while :; do echo tick; sleep 0.05; done")
    silent = api.create("sh", "-c", "echo up; sleep 1000")
    for made in (container, silent):
        api.ok("POST", f"/containers/{made}/start")
    until = time.time() + 0.5
    assert set(lines(api, container, f"stdout=1&follow=1&until={until:.3f}")) == {"tick"}
    wait_until(lambda: lines(api, silent) == ["up"], what="the line")
    assert lines(api, silent, f"stdout=1&follow=1&until={time.time() + 0.3:.3f}") == ["up"]
    sock, rest = open_logs(api, silent, "stdout=1&follow=1")
    assert api.call("DELETE", f"/containers/{silent}?force=1")[0] == 204
    assert frames(unchunk(read_all(sock, rest))) == [(1, b"up\n")]
    assert api.call("GET", f"/containers/{silent}/logs?stdout=1")[0] == 404


def test_a_terminals_log_is_raw(api, shared_engine):
    container = run(api, "echo hi; echo err >&2", Tty=True)
    api.connection.request("GET", f"/containers/{container}/logs?stdout=1")
    response = api.connection.getresponse()
    assert response.headers["Content-Type"] == "application/vnd.docker.raw-stream"
    assert response.read() == b"hi\r\nerr\r\n"
    assert shared_engine.run("logs", container).stdout == "hi\nerr\n"


def test_old_clients(api):
    container = run(api, "echo hi")
    sock = api.raw(f"GET /v1.40/containers/{container}/logs?stdout=1 HTTP/1.0\r\n\r\n".encode())
    _, head, rest = read_head(sock)
    assert "chunked" not in head
    assert "application/vnd.docker.raw-stream" in head
    assert frames(read_all(sock, rest)) == [(1, b"hi\n")]
    sock = api.raw(f"GET /v9.99/containers/{container}/logs?stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n".encode())
    assert "400" in read_head(sock)[0]


def test_a_log_that_is_not_kept(api, shared_engine):
    container = run(api, "echo hi", driver="none")
    status, answer = api.call("GET", f"/containers/{container}/logs?stdout=1")
    assert (status, answer["message"]) == (501, "configured logging driver does not support reading")
    assert "does not support reading" in shared_engine.docker("logs", container, check=False).stderr
    assert api.ok("GET", f"/containers/{container}/json")["LogPath"] == ""


def test_drivers_are_listed_and_others_refused(api, shared_engine):
    info = api.ok("GET", "/info")
    assert info["LoggingDriver"] == "json-file"
    assert {"json-file", "local", "none"} <= set(info["Plugins"]["Log"])
    for arguments, words in (
        (["--log-driver", "pigeon"], "logger: no log driver named 'pigeon' is registered"),
        (["--log-opt", "nonsense=1"], "unknown log opt 'nonsense' for json-file log driver"),
        (["--log-opt", "max-size=x"], "invalid size: 'x'"),
        (["--log-driver", "none", "--log-opt", "x=1"], "invalid logging opts for driver none"),
    ):
        for program in (shared_engine.docker, shared_engine.run):
            result = program("run", *arguments, "busybox", "true", check=False)
            assert result.returncode == 125
            assert words in result.stderr


def test_docker_py_reads_streams(api, shared_engine):
    client = docker.DockerClient(base_url=shared_engine.host)
    container = client.containers.get(
        api.create("sh", "-c", "echo one; sleep 0.3; echo two >&2; sleep 0.3; echo three")
    )
    container.start()
    assert b"".join(container.logs(stream=True, follow=True)) == b"one\ntwo\nthree\n"
    assert container.logs(stdout=False) == b"two\n"
    assert container.logs(tail=1) == b"three\n"
    stamped = container.logs(timestamps=True).splitlines()
    second = dt.datetime.fromisoformat(stamped[1][:26].decode() + "+00:00")
    assert container.logs(since=second.timestamp()) == b"two\nthree\n"
    assert container.logs(until=second.timestamp() - 0.1) == b"one\n"
    client.close()


def attach(api, container, query, sent=b""):
    sock = api.raw(
        f"POST /containers/{container}/attach?{query} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode()
        + sent
    )
    _, _, rest = read_head(sock)
    return sock, rest


def test_attach_sends_the_log_first_and_nothing_twice(api):
    script = "printf 'start\\nhalf'; read x; echo $x; " + NUMBERS.format(3000)
    container = api.create("sh", "-c", script, OpenStdin=True)
    api.ok("POST", f"/containers/{container}/start")
    wait_until(lambda: lines(api, container) == ["start"], what="the first line")
    sock, rest = attach(api, container, "stream=1&stdin=1&stdout=1&logs=1", b"go\n")
    body = b"".join(data for _, data in frames(read_all(sock, rest))).decode()
    assert body == "start\nhalfgo\n" + "".join(f"line {number}\n" for number in range(3000))
    sock, rest = attach(api, container, "stdout=1&logs=1")
    assert b"".join(data for _, data in frames(read_all(sock, rest))).decode() == body


def test_attach_to_a_log_while_it_is_written(api):
    script = NUMBERS.format(20000) + "; read go"  # not to end before all are attached
    container = api.create("sh", "-c", script, options={"max-size": "10m", "max-file": "3"}, OpenStdin=True)
    api.ok("POST", f"/containers/{container}/start")
    found = []
    for _ in range(5):
        sock, rest = attach(api, container, "stream=1&stdout=1&logs=1")
        thread = threading.Thread(target=lambda sock=sock, rest=rest: found.append(read_all(sock, rest)))
        thread.start()
        threading.Event().wait(0.02)
    attach(api, container, "stream=1&stdin=1", b"go\n")
    api.ok("POST", f"/containers/{container}/wait")
    wait_until(lambda: len(found) == 5, what="the end of every client")
    for data in found:
        text = b"".join(piece for _, piece in frames(data)).decode()
        assert text == "".join(f"line {number}\n" for number in range(20000))


def test_clients_that_vanish_leave_nothing(api, shared_engine):
    container = api.create("sh", "-c", "while :; do echo x; sleep 0.01; done")
    api.ok("POST", f"/containers/{container}/start")
    supervisor = max(shared_engine.supervisor_pids())

    def descriptors():
        """Without the namespaces that are made ahead for others, in their own time."""
        found = [f"/proc/{supervisor}/fd/{number}" for number in os.listdir(f"/proc/{supervisor}/fd")]
        return sum(os.path.lexists(one) and not os.readlink(one).startswith("net:") for one in found)

    before = descriptors()
    socks = [open_logs(api, container, "stdout=1&follow=1")[0] for _ in range(20)]
    socks += [attach(api, container, "stream=1&stdout=1&logs=1")[0] for _ in range(20)]
    assert descriptors() > before
    for sock in socks:
        sock.close()
    wait_until(lambda: descriptors() <= before, what="the end of every reader")


def test_a_follower_outlives_the_daemon(busybox):
    api = Api(busybox)
    container = api.create("sh", "-c", "echo one; read x; echo $x", OpenStdin=True, StdinOnce=False)
    api.ok("POST", f"/containers/{container}/start")
    sock, rest = open_logs(api, container, "stdout=1&follow=1")
    while b"one\n" not in rest:
        rest += sock.recv(4096)
    busybox.restart()
    attached = Api(busybox).raw(
        f"POST /containers/{container}/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: d\r\nUpgrade: tcp\r\n\r\ntwo\n".encode()
    )
    assert frames(unchunk(read_all(sock, rest))) == [(1, b"one\n"), (1, b"two\n")]
    attached.close()


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_the_supervisor_may_be_killed_while_it_logs(busybox, driver):
    api = Api(busybox)
    config = {"Type": driver, "Config": {"max-size": "100k", "max-file": "50"}}
    container = api.create("sh", "-c", NUMBERS.format(40_000) + "; sleep 1", HostConfig={"LogConfig": config})
    api.ok("POST", f"/containers/{container}/start")
    os.kill(max(busybox.supervisor_pids()), signal.SIGKILL)
    api.ok("POST", f"/containers/{container}/wait")
    numbers = [int(line.split()[1]) for line in lines(api, container)]
    assert numbers == sorted(set(numbers)), "nothing twice"
    assert numbers[-1] == 39_999
    assert len(numbers) > 10_000  # one batch that was read and not yet written, and a torn line


def test_the_daemons_own_defaults(tmp_path):
    own = new_engine()
    settings = tmp_path / "config.json"
    settings.write_text(json.dumps({"log_driver": "local", "log_opts": {"max-size": "50k"}}))
    own.extra_env["KNARR_CONFIG"] = str(settings)
    own.start()
    try:
        own.run("load", "-q", "-i", busybox_archive())
        own.run("run", "--name", "one", "busybox", "echo", "hi")
        assert own.docker("inspect", "-f", "{{json .HostConfig.LogConfig}}", "one").stdout.strip() == (
            '{"Type":"local","Config":{"max-size":"50k"}}'
        )
        assert own.docker("info", "-f", "{{.LoggingDriver}}").stdout == "local\n"
        assert own.run("logs", "one").stdout == "hi\n"
    finally:
        own.stop()
    result = subprocess.run(
        [
            SCRIPTS / "knarr",
            "daemon",
            "--run-root",
            str(tmp_path / "run"),
            "--data-root",
            str(tmp_path / "data"),
            "--log-opt",
            "nonsense=1",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 1
    assert "failed to set log opts: unknown log opt 'nonsense' for json-file log driver" in result.stderr
