"""journald and syslog: systemd's journald and busybox's syslogd, each in a mount namespace of its own, and plain listeners."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import time

import pytest

from tests.conftest import busybox_archive, new_engine, wait_until

NUMBERS = "i=0; while [ $i -lt {0} ]; do echo line $i; i=$((i+1)); done"


def isolated(script):
    """A process in a mount namespace of its own; its files are seen below /proc/<pid>/root."""
    return subprocess.Popen(
        ["unshare", "-m", "sh", "-c", f"mount --make-rprivate / && {script}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def journald():
    """The root of a running journald."""
    process = isolated(
        "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal /run/log/journal && "
        "exec /lib/systemd/systemd-journald"
    )
    root = f"/proc/{process.pid}/root"
    path = f"{root}/run/systemd/journal/socket"

    def listens():
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            return probe.connect_ex(path) == 0

    wait_until(listens, what="journald")
    yield root
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def own(journald, tmp_path_factory):
    """An engine whose journal is that one."""
    settings = tmp_path_factory.mktemp("settings") / "config.json"
    settings.write_text(json.dumps({"log": {"journal": f"{journald}/run/systemd/journal/socket"}}))
    made = new_engine()
    made.extra_env["KNARR_CONFIG"] = str(settings)
    made.start()
    made.run("load", "-q", "-i", busybox_archive())
    yield made
    made.stop()


def journal(root, container):
    command = [
        "journalctl",
        "-D",
        f"{root}/run/log/journal",
        "-a",
        "-o",
        "json",
        "--no-pager",
        f"CONTAINER_ID_FULL={container}",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


def run(engine, script, *options, check=True):
    result = engine.run("run", "-d", *options, "busybox", "sh", "-c", script, check=check)
    return result.stdout.strip() if check else result


def syslog(address, **options):
    arguments = ["--log-driver", "syslog", "--log-opt", f"syslog-address={address}"]
    for name, value in options.items():
        arguments += ["--log-opt", f"{name.replace('_', '-')}={value}"]
    return arguments


def test_the_journal_has_dockers_fields(own, journald):
    script = (
        "echo one; sleep 0.1; echo two >&2; sleep 0.1; head -c 20000 /dev/zero | tr '\\0' x; echo; printf 'a\\033b\\n'"
    )
    container = run(
        own, script, "--log-driver", "journald", "--label", "com.app=web", "-e", "_X-Y=1",
        "--log-opt", "labels=com.app", "--log-opt", "env=_X-Y", "--log-opt", "tag={{.Name}}!", "--name", "journaled",
    )  # fmt: skip
    own.run("wait", container)
    entries = wait_until(lambda: len(found := journal(journald, container)) >= 5 and found, what="the entries")
    texts = [entry["MESSAGE"] for entry in entries]
    assert texts[:2] == ["one", "two"]
    assert [len(text) for text in texts[2:4]] == [16384, 20000 - 16384]
    assert bytes(texts[4]) == b"a\033b"
    first = entries[0]
    expected = {
        "PRIORITY": "6",
        "CONTAINER_ID": container[:12],
        "CONTAINER_NAME": "journaled",
        "CONTAINER_TAG": "journaled!",
        "SYSLOG_IDENTIFIER": "journaled!",
        "IMAGE_NAME": "busybox",
        "COM_APP": "web",
        "X_Y": "1",
        "CONTAINER_LOG_ORDINAL": "1",
    }
    assert {name: first.get(name) for name in expected} == expected
    assert entries[1]["PRIORITY"] == "3"
    assert "CONTAINER_PARTIAL_ID" not in first
    parts = [(entry["CONTAINER_PARTIAL_ORDINAL"], entry["CONTAINER_PARTIAL_LAST"]) for entry in entries[2:4]]
    assert parts == [("1", "false"), ("2", "true")]
    assert entries[2]["CONTAINER_PARTIAL_ID"] == entries[3]["CONTAINER_PARTIAL_ID"]
    assert entries[2]["CONTAINER_PARTIAL_MESSAGE"] == "true"
    # What is kept here as well is what `logs` reads.
    assert own.run("logs", container).stdout == "one\n" + "x" * 20000 + "\na\033b\n"
    assert own.docker("logs", "--tail", "1", container).stdout == "a\033b\n"
    assert own.docker("inspect", "-f", "{{.LogPath}}", container).stdout == "\n"


def test_without_the_copy_there_is_nothing_to_read(own, journald):
    options = ["--log-driver", "journald", "--log-opt", "cache-disabled=true", "-e", "BIG=" + "y" * 90_000]
    container = run(own, "echo with much", *options, "--log-opt", "env-regex=^BIG")
    own.run("wait", container)
    (entry,) = wait_until(lambda: journal(journald, container), what="the entry")
    assert (entry["MESSAGE"], len(entry["BIG"])) == ("with much", 90_000)
    result = own.docker("logs", container, check=False)
    assert "configured logging driver does not support reading" in result.stderr


def test_a_journal_that_is_not_there(shared_engine):
    result = run(shared_engine, "true", "--log-driver", "journald", check=False)
    assert result.returncode == 125
    assert "failed to initialize logging driver: journald is not enabled on this host" in result.stderr


def test_busyboxs_syslogd_understands_it(own):
    process = isolated("mount -t tmpfs tmpfs /dev && mkdir /dev/x && exec busybox syslogd -n -O /dev/messages")
    address = f"/proc/{process.pid}/root/dev/log"
    try:

        def listens():
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
                return probe.connect_ex(address) == 0

        wait_until(listens, what="syslogd")
        container = run(
            own, "echo hello; echo bad >&2; echo; echo end", *syslog(f"unixgram://{address}", syslog_facility="local3")
        )
        own.run("wait", container)

        def messages():
            with open(f"/proc/{process.pid}/root/dev/messages") as file:
                text = file.read()
            return text if "end" in text else None

        text = wait_until(messages, what="the messages")
        found = re.findall(rf"local3\.(\w+) {container[:12]}\[\d+\]: (.*)", text)
        assert sorted(found) == [("err", "bad"), ("info", "end"), ("info", "hello")]
        assert own.run("logs", container).stdout == "hello\n\nend\n"
    finally:
        process.kill()
        process.wait()


class Listener:
    """A plain receiver of datagrams, or of one connection."""

    def __init__(self, kind=socket.SOCK_STREAM, port=0):
        self.socket = socket.socket(socket.AF_INET, kind)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("127.0.0.1", port))
        self.port = self.socket.getsockname()[1]
        self.data = b""
        self.peers = []
        if kind == socket.SOCK_STREAM:
            self.socket.listen()

    def read(self, until, timeout=20):
        end = time.monotonic() + timeout
        while until not in self.data:
            assert time.monotonic() < end, self.data[-500:]
            for ready in select.select([self.socket, *self.peers], [], [], 0.2)[0]:
                if ready is self.socket and self.socket.type == socket.SOCK_STREAM:
                    self.peers.append(self.socket.accept()[0])
                elif data := ready.recv(65536):
                    self.data += data
                else:
                    self.peers.remove(ready)
        return self.data.decode()

    def close(self):
        for one in [self.socket, *self.peers]:
            one.close()


HOST = re.escape(socket.gethostname())
CLOCK = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
ZONE = r"(?:Z|[+-]\d\d:\d\d)"


@pytest.mark.parametrize(
    ("scheme", "form", "pattern"),
    [
        ("udp", None, rf"<30>{CLOCK} T\[\d+\]: hello\n<27>{CLOCK} T\[\d+\]: bad\n"),
        ("tcp", "rfc3164", rf"<30>{CLOCK} {HOST} T\[\d+\]: hello\n<27>{CLOCK} {HOST} T\[\d+\]: bad\n"),
        ("tcp", "rfc5424", rf"<30>1 \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d{ZONE} {HOST} T \d+ T - hello\n<27>1 .* bad\n"),
        (
            "udp",
            "rfc5424micro",
            rf"<30>1 \d{{4}}-\d\d-\d\dT[\d:]{{8}}\.\d{{6}}{ZONE} {HOST} T \d+ T - hello\n<27>1 .*\n",
        ),
    ],
)
def test_messages_have_dockers_forms(own, scheme, form, pattern):
    listener = Listener(socket.SOCK_STREAM if scheme == "tcp" else socket.SOCK_DGRAM)
    try:
        options = {"syslog_format": form} if form else {}
        run(
            own,
            "echo hello; sleep 0.2; echo bad >&2",
            *syslog(f"{scheme}://127.0.0.1:{listener.port}", tag="T", **options),
        )
        assert re.fullmatch(pattern, listener.read(b"bad\n"))
    finally:
        listener.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"address": "carrier://x"}, "unsupported scheme: 'carrier'"),
        ({"address": "unix:///no/such"}, "stat /no/such: no such file or directory"),
        ({"address": "udp://127.0.0.1", "syslog_facility": "nonsense"}, "invalid syslog facility"),
        ({"address": "udp://127.0.0.1", "syslog_facility": "24"}, "invalid syslog facility"),
        ({"address": "udp://127.0.0.1", "syslog_format": "nonsense"}, "Invalid syslog format"),
        ({"address": "udp://127.0.0.1", "max_size": "1m"}, "unknown log opt 'max-size' for syslog log driver"),
        ({"address": "udp://127.0.0.1", "cache_disabled": "maybe"}, "invalid value for option cache-disabled: maybe"),
        ({"address": "tcp+tls://127.0.0.1"}, "log option syslog-address=tcp+tls://127.0.0.1 is not supported"),
        (
            {"address": "tcp://127.0.0.1:1"},
            "failed to initialize logging driver: dial tcp 127.0.0.1:1: connect: connection refused",
        ),
    ],
)
def test_what_cannot_be_is_refused(own, options, words):
    result = run(own, "true", *syslog(**options), check=False)
    assert result.returncode in {125, 127}, "docker's command line takes a missing file for a missing program"
    assert words in result.stderr


def test_a_daemon_that_dies_holds_up_nobody_and_is_found_again(own):
    listener = Listener()
    port = listener.port
    container = run(
        own,
        "echo first; read x; " + NUMBERS.format(2000) + "; read x; sleep 1.2; echo last",
        "-i",
        *syslog(f"tcp://127.0.0.1:{port}"),
    )
    listener.read(b"first\n")
    listener.close()
    say(own, container, b"go\n")
    wait_until(lambda: own.run("logs", "--tail", "1", container).stdout == "line 1999\n", what="the container to go on")
    listener = Listener(port=port)
    say(own, container, b"go\n")
    listener.read(b"last\n")
    listener.close()
    assert own.run("wait", container).stdout == "0\n"
    assert len(own.run("logs", container).stdout.splitlines()) == 2002
    assert "its log cannot be written" in (own.run_root / "supervisor.log").read_text()


def say(engine, container, data):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(engine.socket))
        head = f"POST /containers/{container}/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: d\r\nUpgrade: tcp\r\n\r\n"
        sock.sendall(head.encode())
        assert b"101" in sock.recv(4096)
        sock.sendall(data)
        time.sleep(0.1)


def test_a_daemon_that_does_not_read_holds_up_its_container_alone(own):
    listener = Listener()
    endless = "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done"
    container = run(own, endless, *syslog(f"tcp://127.0.0.1:{listener.port}", cache_disabled="true"))
    try:
        pid = own.docker("inspect", "-f", "{{.State.Pid}}", container).stdout.strip()

        def waits():
            with open(f"/proc/{pid}/wchan") as file:
                return "pipe_write" in file.read()

        def held():
            if not waits():
                return False
            time.sleep(0.3)
            return waits()

        wait_until(held, 30, what="the container to be held up")
        # Another goes its way, and so does one that may lose what it says.
        assert own.run("run", "--rm", "busybox", "echo", "free").stdout == "free\n"
        options = syslog(f"tcp://127.0.0.1:{listener.port}", mode="non-blocking", max_buffer_size="64k")
        assert (
            own.run("run", "--rm", *options, "busybox", "sh", "-c", NUMBERS.format(100000), timeout=60).returncode == 0
        )
        # Once it is read again the container goes on.
        listener.read(b"x" * 60)

        def goes_on():
            listener.data = b""
            listener.read(b"\n")
            return not waits()

        wait_until(goes_on, 20, what="the container to go on")
        begun = time.monotonic()
        own.run("kill", "--signal", "KILL", container)
        own.run("wait", container)
        assert time.monotonic() - begun < 30, "its end does not wait for the daemon"
    finally:
        listener.close()
        own.run("rm", "-f", container, check=False)


def test_the_supervisor_may_be_killed_meanwhile(own):
    listener = Listener()
    container = run(own, "echo before; read x; echo after", "-i", *syslog(f"tcp://127.0.0.1:{listener.port}"))
    listener.read(b"before\n")
    signalled = max(own.supervisor_pids())
    os.kill(signalled, signal.SIGKILL)
    wait_until(lambda: max(own.supervisor_pids()) != signalled, what="the next supervisor")
    wait_until(lambda: own.run("logs", container, check=False).stdout == "before\n", what="the log")
    say(own, container, b"go\n")
    listener.read(b"after\n")
    listener.close()
    assert own.run("logs", container).stdout == "before\nafter\n"
