"""How the API is reached: TCP with mutual TLS, in the clear, systemd's sockets, groups and stale sockets."""

import configparser
import contextlib
import grp
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from knarr import errors
from knarr.api.listen import listeners
from knarr.cli.command import parse
from knarr.cli.system import DAEMON
from knarr.client import Client
from knarr.client.frames import Demultiplexer
from knarr.client.launch import DEFAULT_RUN_ROOT
from knarr.client.tls import Tls
from knarr.config import Config
from tests import certificates
from tests.api.http_client import Api, read_all, read_head
from tests.conftest import SCRIPTS, busybox_archive, free_port, new_engine, wait_until


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pem")
    certificates.everything(directory)
    return directory


def tls_flags(pem, *more):
    files = ["--tlscacert", pem / "ca.pem", "--tlscert", pem / "server.pem", "--tlskey", pem / "server-key.pem"]
    return ["--tlsverify", *files, *more]


def client_flags(pem, name="client"):
    return [
        "--tlsverify",
        "--tlscacert",
        pem / "ca.pem",
        "--tlscert",
        pem / f"{name}.pem",
        "--tlskey",
        pem / f"{name}-key.pem",
    ]


@pytest.fixture(scope="module")
def secured(pem):
    """An engine on its socket and, with mutual TLS, on TCP; with busybox."""
    own = new_engine()
    own.port = free_port()
    own.flags = ["--host", f"tcp://127.0.0.1:{own.port}", *tls_flags(pem)]
    own.start()
    own.run("load", "-q", "-i", busybox_archive())
    yield own
    own.stop()


def secure(engine, pem, name="client", version=None):
    context = ssl.create_default_context(cafile=pem / "ca.pem")
    if name:
        context.load_cert_chain(pem / f"{name}.pem", pem / f"{name}-key.pem")
    if version:
        context.maximum_version = version
    raw = socket.create_connection(("127.0.0.1", engine.port), 20)
    return context.wrap_socket(raw, server_hostname="localhost")


def tls_run(engine, pem, *arguments, name="client", **keywords):
    host = ["--host", f"tcp://localhost:{engine.port}"]
    return engine.run(*host, *client_flags(pem, name), *arguments, **keywords)


def test_the_command_line_over_tls(secured, pem):
    assert tls_run(secured, pem, "run", "--rm", "--network", "none", "busybox", "echo", "hello").stdout == "hello\n"
    code = tls_run(secured, pem, "run", "--rm", "--network", "none", "busybox", "sh", "-c", "exit 7", check=False)
    assert code.returncode == 7


def test_the_end_of_input_is_not_the_end_of_output(secured, pem):
    """What is typed ends, and the answer to it comes after."""
    words = ["run", "--rm", "-i", "--network", "none", "busybox", "sh", "-c", "wc -c; sleep 0.3; echo after"]
    data = "x" * 3_000_000
    assert tls_run(secured, pem, *words, input=data).stdout.split() == [str(len(data)), "after"]


def test_docker_over_tls(secured, pem):
    environment = {
        "DOCKER_HOST": f"tcp://localhost:{secured.port}",
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CERT_PATH": str(pem / "docker"),
    }
    (pem / "docker").mkdir()
    for name, source in (("ca", "ca"), ("cert", "client"), ("key", "client-key")):
        (pem / "docker" / f"{name}.pem").write_bytes((pem / f"{source}.pem").read_bytes())
    command = ["docker", "run", "--rm", "-i", "--network", "none", "busybox", "sh", "-c", "cat; echo after"]
    result = subprocess.run(
        command, env={**os.environ, **environment}, input="in\n", capture_output=True, text=True, timeout=60
    )
    assert (result.stdout, result.stderr) == ("in\nafter\n", "")
    ours = {key.replace("DOCKER", "KNARR"): value for key, value in environment.items()}
    result = subprocess.run(
        [SCRIPTS / "knarr", "version", "--format", "{{.Server.Os}}"],
        env={**secured.env, **ours}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.stdout == "linux\n"


def test_the_library_over_tls(secured, pem):
    tls = Tls(ca=str(pem / "ca.pem"), cert=str(pem / "client.pem"), key=str(pem / "client-key.pem"))
    with Client(f"tcp://localhost:{secured.port}", tls) as client:
        for _ in range(3):
            assert client.info()["OSType"] == "linux"
        assert len(client._idle) == 1, "the connection was kept"
        large = client.request("GET", "/images/get", {"names": "busybox"})
        size = sum(len(piece) for piece in iter(large.piece, b""))
        assert size > 500_000


def test_who_is_not_let_in(secured, pem):
    """Nobody without a certificate, none with a stranger's, and nobody without TLS."""
    for name in ("", "stranger"):
        with pytest.raises(OSError, match=r"alert|reset|closed|EOF"), secure(secured, pem, name) as connection:
            connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
            raise ConnectionResetError("closed") if not connection.recv(100) else AssertionError("it was let in")
    with socket.create_connection(("127.0.0.1", secured.port), 20) as plain:
        plain.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" not in read_all(plain)
    result = tls_run(secured, pem, "info", name="stranger", check=False)
    assert result.returncode == 1
    assert "alert" in result.stderr
    with pytest.raises(errors.Unavailable):
        Client(f"tcp://localhost:{secured.port}").ping()


def test_the_engine_is_verified(secured, pem):
    good = {"cert": str(pem / "client.pem"), "key": str(pem / "client-key.pem")}
    with pytest.raises(errors.Unavailable, match="certificate verify failed"):
        Client(f"tcp://localhost:{secured.port}", Tls(ca=str(pem / "stranger-ca.pem"), **good)).ping()
    Client(f"tcp://localhost:{secured.port}", Tls(verify=False, **good)).ping()
    with pytest.raises(errors.InvalidArgument, match=r"nowhere\.pem: No such file"):
        Client(f"tcp://localhost:{secured.port}", Tls(ca=str(pem / "nowhere.pem"), **good)).ping()


def test_versions_of_tls(secured, pem):
    with secure(secured, pem, version=ssl.TLSVersion.TLSv1_2) as connection:
        assert connection.version() == "TLSv1.2"
        connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    with pytest.raises(OSError):
        secure(secured, pem, version=ssl.TLSVersion.TLSv1_1)


def test_a_whole_conversation_in_one_packet(secured, pem):
    """Requests that come with the end of the handshake, one after the other, on one connection."""
    with secure(secured, pem) as connection:
        connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        data = b""
        while data.count(b"OK") < 40:  # of the status and the body
            piece = connection.recv(65536)
            assert piece
            data += piece
        assert data.count(b"HTTP/1.1 200 OK") == 20


def test_attach_over_tls_carries_megabytes_and_does_not_grow(secured, pem):
    container = Api(secured).create("sh", "-c", "head -c 30000000 /dev/zero")
    with secure(secured, pem) as connection:
        connection.sendall(
            f"POST /containers/{container}/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        )
        status, _, rest = read_head(connection)
        assert status == "HTTP/1.1 200 OK"
        Api(secured).ok("POST", f"/containers/{container}/start")
        time.sleep(0.5)  # nobody reads meanwhile
        assert memory(secured.process.pid) < 150 << 20
        demultiplexer, size = Demultiplexer(), 0
        for data in (rest, *iter(lambda: connection.recv(65536), b"")):
            size += sum(len(piece) for _, piece in demultiplexer.feed(data))
    assert size == 30_000_000


def memory(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_a_silent_client_in_the_handshake_costs_nobody(secured, pem):
    silent = [socket.create_connection(("127.0.0.1", secured.port), 20) for _ in range(50)]
    silent[0].sendall(b"\x16\x03\x01\x02\x00\x01")
    with secure(secured, pem) as connection:
        connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    for one in silent:
        one.close()


def test_nothing_stays_of_closed_connections(secured, pem):
    before = len(os.listdir(f"/proc/{secured.process.pid}/fd"))
    for abrupt in (False, True):
        connections = [secure(secured, pem) for _ in range(10)]
        for connection in connections:
            connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
            connection.recv(4096)
            if not abrupt:
                with contextlib.suppress(OSError):
                    connection.unwrap()
            connection.close()
    wait_until(lambda: len(os.listdir(f"/proc/{secured.process.pid}/fd")) <= before, what="the end of the descriptors")


# --- what is refused


def refused(tmp_path, **settings):
    with pytest.raises(errors.KnarrError) as caught:
        listeners(Config(run_root=str(tmp_path / "run"), **settings))
    assert not (tmp_path / "run" / "knarr.sock").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hosts": ["tcp://0.0.0.0:0"]}, "invalid bind address (tcp://0.0.0.0:0)"),
        ({"hosts": ["tcp://127.0.0.1:99999"]}, "invalid bind address (tcp://127.0.0.1:99999)"),
        ({"hosts": ["tcp://a/b:1"]}, "invalid bind address (tcp://a/b:1)"),
        ({"hosts": ["tcp://[::1:2"]}, "invalid bind address (tcp://[::1:2)"),
        ({"hosts": ["tcp://no-such-name.invalid:1"]}, "no-such-name.invalid"),
        ({"hosts": ["tcp://192.0.2.77:39999"], "tls": False}, "cannot listen on tcp://192.0.2.77:39999"),
        ({"hosts": ["ftp://x"]}, "unsupported proto 'ftp'"),
        ({"hosts": ["npipe:////./pipe/x"]}, "unsupported proto 'npipe'"),
        ({"hosts": ["unix://relative"]}, "must be absolute"),
        ({"hosts": [f"unix:///{'x' * 200}"]}, "path too long"),
        ({"hosts": ["unix:///dev/null"]}, "there is a file that is no socket"),
        ({"hosts": ["fd://"]}, "no sockets found via socket activation"),
        ({"group": "no-such-group"}, "group no-such-group not found"),
        ({"hosts": ["tcp://0.0.0.0:39999"]}, "say --tls=false if it is meant"),
        ({"hosts": ["tcp://0.0.0.0:39999"], "tlsverify": True}, "could not read the certificate"),
        ({"tls": True}, "nowhere/cert.pem"),
    ],
)
def test_hosts_that_are_refused(tmp_path, settings, words):
    assert words in refused(tmp_path, cert_path="/nowhere", **settings)


def test_a_host_that_is_refused_closes_the_others(tmp_path):
    path = tmp_path / "one.sock"
    assert "'ftp'" in refused(tmp_path, hosts=[f"unix://{path}", "ftp://x"])
    assert not path.exists()


def test_a_daemon_says_what_is_wrong_with_its_host(tmp_path):
    env = {**os.environ, "KNARR_RUN_ROOT": str(tmp_path / "run"), "KNARR_DATA_ROOT": str(tmp_path / "data")}
    command = [SCRIPTS / "knarr", "daemon", "--host", "tcp://0.0.0.0:39999"]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
    assert result.returncode == 1
    assert "say --tls=false if it is meant" in result.stderr
    assert "Traceback" not in result.stderr


def test_certificates_that_are_refused(tmp_path, pem):
    locked = ["-aes128", "-passout", "pass:x", "-out", pem / "locked.pem"]
    certificates.openssl("ec", "-in", pem / "server-key.pem", *locked)
    files = {"tlscacert": "ca.pem", "tlscert": "server.pem", "tlskey": "server-key.pem"}
    for setting, name, words in (
        ("tlskey", "client-key.pem", "could not load X509 key pair"),
        ("tlskey", "locked.pem", "encrypted"),
        ("tlscert", "nowhere.pem", "could not read the certificate"),
        ("tlscacert", "nowhere.pem", "could not read the CA certificate"),
        ("tlscacert", "server-key.pem", "could not read CA certificate"),
    ):
        given = {key: str(pem / value) for key, value in {**files, setting: name}.items()}
        assert words in refused(tmp_path, hosts=[f"tcp://127.0.0.1:{free_port()}"], tlsverify=True, **given)


def test_names_and_ports_that_are_left_out(tmp_path, pem):
    """As Docker has them: localhost, and 2376 with TLS."""
    files = {"tlscacert": "ca.pem", "tlscert": "server.pem", "tlskey": "server-key.pem"}
    given = {key: str(pem / value) for key, value in files.items()}
    for settings in ({"tls": True}, {"hosts": ["tcp://"], "tlsverify": False}):
        (listener,) = listeners(Config(run_root=str(tmp_path), **settings, **given))
        assert listener.socket.getsockname() == ("127.0.0.1", 2376)
        assert listener.context.verify_mode == (ssl.CERT_NONE if "hosts" in settings else ssl.CERT_REQUIRED)
        listener.close()


def test_in_the_clear_it_warns(tmp_path):
    own = new_engine()
    port = free_port()
    own.flags = ["--host", f"tcp://127.0.0.1:{port}"]
    own.start()
    try:
        Client(f"tcp://127.0.0.1:{port}").ping()
        Client(own.host).ping()
        assert "without TLS whoever can connect" in own.log()
        with pytest.raises(errors.InvalidArgument, match="knarr does not speak ssh"):
            Client("ssh://root@localhost").ping()
    finally:
        own.stop()


# --- Unix sockets


def test_groups_and_stale_sockets(tmp_path):
    own = new_engine()
    other = own.base / "other.sock"
    own.base.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(other))
    group = grp.getgrgid(1).gr_name
    own.flags = ["--host", f"unix://{other}", "--group", group]
    own.start()
    try:
        for path in (own.socket, other):
            found = path.stat()
            assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o660, 0, 1)
            Client(f"unix://{path}").ping()
        other.unlink()
        with socket.socket(socket.AF_UNIX) as others:
            others.bind(str(other))  # somebody else's now
            own.process.send_signal(signal.SIGTERM)
            assert own.process.wait(15) == 0
            assert other.exists()
        assert not own.socket.exists()
    finally:
        own.stop()


# --- systemd


ACTIVATE = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = sys.argv[1]
for number, source in enumerate(sys.argv[2].split(",")):
    os.dup2(int(source), 100 + number)
    os.close(int(source))
for number in range(len(sys.argv[2].split(","))):
    os.dup2(100 + number, 3 + number)
    os.close(100 + number)
os.execv(sys.argv[3], sys.argv[3:])
"""


@pytest.mark.parametrize("which", ["fd://", "fd://4"])
def test_systemds_sockets(tmp_path, which):
    own = new_engine()
    own.run_root.mkdir(parents=True)
    paths = [own.base / name for name in ("three", "four")]
    sockets = []
    for path in paths:
        sockets.append(socket.socket(socket.AF_UNIX))
        sockets[-1].bind(str(path))
        sockets[-1].listen()
    notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notices.bind(str(own.base / "notify"))
    notices.settimeout(20)
    numbers = ",".join(str(one.fileno()) for one in sockets)
    command = [sys.executable, "-c", ACTIVATE, "2", numbers, SCRIPTS / "knarr", "daemon", "--host", which]
    roots = ["--data-root", own.data_root, "--run-root", own.run_root]
    with (own.run_root / "test-daemon.log").open("wb") as log:
        own.process = subprocess.Popen(
            [*command, *roots], pass_fds=[one.fileno() for one in sockets], stdout=log, stderr=log,
            env={**own.env, "NOTIFY_SOCKET": str(own.base / "notify")},
        )  # fmt: skip
    try:
        for one in sockets[0 if which == "fd://" else 1 :]:
            path = one.getsockname()
            one.close()
            Client(f"unix://{path}").ping()  # waits in the queue until it is served
        assert notices.recv(100) == b"READY=1"
        if which == "fd://4":
            sockets[0].close()
            with pytest.raises(errors.Unavailable):
                Client(f"unix://{paths[0]}").ping()
        for pid in own.supervisor_pids():
            assert b"LISTEN_" not in Path(f"/proc/{pid}/environ").read_bytes()
        own.process.send_signal(signal.SIGTERM)
        assert notices.recv(100) == b"STOPPING=1"
        assert own.process.wait(15) == 0
        assert all(path.exists() for path in paths), "systemd's are not ours to remove"
    finally:
        notices.close()
        own.stop()


def test_what_systemd_passed_on_must_listen(tmp_path):
    with socket.socket(socket.AF_UNIX) as plain:
        command = [sys.executable, "-c", ACTIVATE, "1", str(plain.fileno()), SCRIPTS / "knarr", "daemon"]
        roots = ["--data-root", tmp_path / "data", "--run-root", tmp_path / "run"]
        for which, words in (("fd://7", "fd://7: systemd passed on 3"), ("fd://", "fd://3: must be")):
            result = subprocess.run(
                [*command, "--host", which, *roots], pass_fds=[plain.fileno()], capture_output=True, text=True, timeout=30
            )  # fmt: skip
            assert result.returncode == 1
            assert words in result.stderr


def test_the_units_for_systemd():
    """They name the socket that the command line looks for, and a command line that the daemon takes."""
    directory = Path(__file__).resolve().parents[2] / "packaging" / "systemd"
    units = {kind: configparser.ConfigParser(strict=False) for kind in ("socket", "service")}
    for kind, unit in units.items():
        unit.optionxform = str
        unit.read(directory / f"knarr.{kind}")
    assert units["socket"]["Socket"]["ListenStream"] == f"{DEFAULT_RUN_ROOT}/knarr.sock"
    program, verb, *arguments = units["service"]["Service"]["ExecStart"].split()
    assert (Path(program).name, verb) == ("knarr", "daemon")
    assert parse(DAEMON, arguments)[0]["hosts"] == ["fd://"]
    assert units["service"]["Service"]["KillMode"] == "process", "containers run on"
