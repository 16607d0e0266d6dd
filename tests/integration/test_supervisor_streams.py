"""Attach and exec: every mode, several clients, slow ones, those that vanish, terminals."""

import os
import socket
import time
from pathlib import Path

import pytest

from tests.integration.supervisor_harness import Attached, Refused, Supervisor, process, unframed


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory):
    supervisor = Supervisor(tmp_path_factory.mktemp("streams"))
    launched = supervisor.launch()
    assert launched.returncode == 0, launched.stderr
    yield supervisor
    supervisor.stop()


@pytest.fixture
def client(supervisor):
    client = supervisor.client()
    yield client
    for listed in client.call("hello")["containers"]:
        if listed["status"] == "running":
            client.call("signal", container=listed["container"], signal=9)
            client.exit(listed["container"])
        client.call("forget", container=listed["container"])


def rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_attached_before_the_start_everything_is_seen(supervisor, client):
    container, fields = supervisor.bundle(["sh", "-c", "echo out; echo err >&2; exit 2"])
    attached = Attached(client, container, stdin=False)
    client.call("start", **fields)
    assert attached.frames() == {1: b"out\n", 2: b"err\n"}
    assert client.exit(container)["code"] == 2


@pytest.mark.parametrize(
    ("wants", "expected"),
    [({"stderr": False}, b"out\n"), ({"stdout": False}, b"err\n"), ({"stdout": False, "stderr": False}, b"")],
)
def test_a_client_gets_what_it_asked_for(supervisor, client, wants, expected):
    container, fields = supervisor.bundle(["sh", "-c", "echo out; echo err >&2"])
    attached = Attached(client, container, multiplexed=False, **wants)
    client.call("start", **fields)
    assert attached.read() == expected


def test_a_start_that_fails_closes_those_who_wait(supervisor, client):
    container, fields = supervisor.bundle(["nosuchthing"])
    attached = Attached(client, container)
    with pytest.raises(Refused):
        client.call("start", **fields)
    assert attached.read() == b""


def test_attached_to_what_has_ended_the_connection_is_closed(supervisor, client):
    container = supervisor.start(client, ["echo", "gone"])
    client.exit(container)
    assert Attached(client, container).read() == b""


def test_input_goes_in_and_its_end_too(supervisor, client):
    container, fields = supervisor.bundle(["cat"])
    attached = Attached(client, container)
    client.call("start", **fields, stdin=True, stdin_once=True)
    data = os.urandom(300_000)
    attached.socket.sendall(data[:1000])
    attached.socket.sendall(data[1000:])
    attached.socket.shutdown(socket.SHUT_WR)
    assert attached.frames()[1] == data
    assert client.exit(container)["code"] == 0


def test_bytes_sent_before_the_attach_come_first(supervisor, client):
    container, fields = supervisor.bundle(["cat"])
    client.call("start", **fields, stdin=True, stdin_once=True)
    attached = Attached(client, container, initial="Zmlyc3QK")
    attached.socket.sendall(b"second\n")
    attached.socket.shutdown(socket.SHUT_WR)
    assert attached.frames()[1] == b"first\nsecond\n"


def test_input_stays_open_for_others_unless_once(supervisor, client):
    container = supervisor.start(client, ["sh", "-c", "read a; read b; echo $a $b"], stdin=True)
    first = Attached(client, container)
    first.socket.sendall(b"one\n")
    first.socket.shutdown(socket.SHUT_WR)
    time.sleep(0.1)
    second = Attached(client, container)
    second.socket.sendall(b"two\n")
    assert first.frames()[1] == b"one two\n"
    assert second.frames()[1] == b"one two\n"


def test_without_stdin_there_is_none(supervisor, client):
    container = supervisor.start(client, ["sh", "-c", "cat; echo end"])
    client.exit(container)
    assert supervisor.output(container) == "end\n"


def test_a_client_that_vanishes_ends_input_once_and_kills_nothing(supervisor, client):
    container, fields = supervisor.bundle(["sh", "-c", "cat; sleep 0.2; seq 1 1000; exit 9"])
    attached = Attached(client, container)
    client.call("start", **fields, stdin=True, stdin_once=True)
    attached.socket.sendall(b"typed\n")
    attached.read_until(b"typed\n")
    attached.socket.close()
    assert client.exit(container)["code"] == 9
    assert supervisor.output(container).endswith("1000\n")


def test_what_a_vanished_client_had_typed_arrives(supervisor, client):
    container, fields = supervisor.bundle(["sh", "-c", "sleep 0.3; wc -c"])
    client.call("start", **fields, stdin=True, stdin_once=True)
    attached = Attached(client, container)
    data = b"x" * 150_000
    attached.socket.sendall(data)
    attached.socket.close()
    client.exit(container)
    assert supervisor.output(container).strip() == "150000"


def test_a_client_that_vanishes_leaves_the_input_open_for_others(supervisor, client):
    container = supervisor.start(client, ["cat"], stdin=True)
    Attached(client, container).socket.close()
    time.sleep(0.1)
    attached = Attached(client, container)
    attached.socket.sendall(b"still here\n")
    attached.read_until(b"still here\n")


def test_several_clients_see_the_same(supervisor, client):
    container, fields = supervisor.bundle(["seq", "1", "50000"])
    attached = [Attached(client, container, stdin=False) for _ in range(4)]
    client.call("start", **fields)
    expected = "".join(f"{number}\n" for number in range(1, 50001)).encode()
    for one in attached:
        assert one.frames()[1] == expected


def test_a_client_that_lags_loses_nothing_and_holds_up_nobody(supervisor, client):
    container, fields = supervisor.bundle(["sh", "-c", "head -c 50000000 /dev/zero; exit 5"])
    fields["log"] = None
    slow, quick = (Attached(client, container, stdin=False, multiplexed=False) for _ in range(2))
    client.call("start", **fields)
    assert len(quick.read()) == 50_000_000
    assert client.exit(container)["code"] == 5
    pid = client.call("hello")["pid"]
    assert rss(pid) < 40_000_000, "what the slow client has not read is kept in memory"
    assert len(slow.read()) == 50_000_000


def test_what_comes_fast_comes_as_it_was_written(supervisor, client):
    """Through a pipe and connections that are widened while they are full, and what is kept for who does not read."""
    script = "seq 1 2000000 >/tmp/n; dd if=/tmp/n bs=1M 2>/dev/null; exec dd if=/tmp/n bs=1M 2>/dev/null"
    container, fields = supervisor.bundle(["sh", "-c", script])
    framed, slow = (Attached(client, container, stdin=False, multiplexed=kind) for kind in (True, False))
    client.call("start", **fields)
    expected = "".join(f"{number}\n" for number in range(1, 2_000_001)).encode() * 2
    assert framed.frames()[1] == expected
    assert client.exit(container)["code"] == 0
    assert slow.read() == expected


def flooded(supervisor, client):
    """A container that writes more than is kept for a client, and the client that it is run for."""
    container, fields = supervisor.bundle(["sh", "-c", "head -c 500000000 /dev/zero; exit 5"])
    fields["log"] = None
    attached = Attached(client, container, stdin=False, multiplexed=False)
    client.call("start", **fields)
    return container, attached


def test_a_process_waits_for_the_client_that_it_is_run_for(supervisor, client):
    """As in a pipeline: who asked for it before it started gets every byte, however late it reads."""
    container, slow = flooded(supervisor, client)
    time.sleep(1)
    assert client.call("describe", container=container)["pid"], "it runs, and waits"
    assert len(slow.read()) == 500_000_000
    assert client.exit(container)["code"] == 5


def test_a_process_waits_no_longer_than_its_client_is_there(supervisor, client):
    container, slow = flooded(supervisor, client)
    time.sleep(1)
    slow.socket.close()
    assert client.exit(container)["code"] == 5


def test_a_process_does_not_wait_for_ever(tmp_path):
    """For a client that is there, and reads nothing at all."""
    own = Supervisor(tmp_path, "--patience", "1")
    own.launch()
    try:
        client = own.client()
        container, slow = flooded(own, client)
        assert client.exit(container)["code"] == 5
        assert len(slow.read()) < 10_000_000
        assert "a process waits for it, and it has read nothing for 1 s" in own.log()
    finally:
        own.stop()


def test_a_client_that_looks_on_and_lags_too_much_is_cut_off(supervisor, client):
    container, fields = supervisor.bundle(["sh", "-c", "read x; head -c 300000000 /dev/zero; exit 5"])
    fields |= {"log": None, "stdin": True}
    client.call("start", **fields)
    slow = Attached(client, container, multiplexed=False)
    slow.socket.sendall(b"go\n")
    assert client.exit(container)["code"] == 5
    assert len(slow.read()) < 10_000_000
    assert "it lags by more than" in supervisor.log()


def test_input_that_is_not_read_holds_up_the_client_only(supervisor, client):
    container = supervisor.start(client, ["sleep", "30"], stdin=True)
    attached = Attached(client, container)
    attached.socket.setblocking(False)
    sent = 0
    end = time.monotonic() + 1
    while time.monotonic() < end:
        try:
            sent += attached.socket.send(b"x" * 65536)
        except BlockingIOError:
            time.sleep(0.01)
    assert sent < 2_000_000
    before = time.process_time()
    other = supervisor.start(client, ["true"])
    client.exit(other)
    assert time.process_time() - before < 1


def cpu(pid: int) -> int:
    words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(words[11]) + int(words[12])


def test_nothing_spins(supervisor, client):
    """Clients that are stuck, half closed or gone while input waits, and streams that are closed, cost no time."""
    stuck = supervisor.start(client, ["sleep", "30"], stdin=True, stdin_once=True)
    attached = Attached(client, stuck)
    attached.socket.setblocking(False)
    for _ in range(50):
        try:
            attached.socket.send(b"x" * 65536)
        except BlockingIOError:
            time.sleep(0.005)
    attached.socket.close()
    quiet = supervisor.start(client, ["sh", "-c", "exec >&- 2>&- <&-; sleep 30"], stdin=True)
    half = Attached(client, quiet)
    half.socket.shutdown(socket.SHUT_WR)
    terminal = supervisor.start(client, ["sh", "-c", "exec >&- 2>&- <&-; sleep 30"], terminal=True)
    early = Attached(client, "neverstarted")
    early.socket.shutdown(socket.SHUT_WR)
    pid = client.call("hello")["pid"]
    time.sleep(0.2)
    before = cpu(pid)
    time.sleep(1)
    assert cpu(pid) - before <= 3, "the supervisor spins"
    early.socket.close()
    assert terminal


def test_a_terminal_is_one_stream_with_a_size(supervisor, client):
    container, fields = supervisor.bundle(
        ["sh", "-c", "stty size; read line; stty size; echo got $line; [ -t 0 ] && [ -t 2 ] && exit 3"], terminal=True
    )
    attached = Attached(client, container)
    client.call("start", **fields, stdin=True, size=[33, 111])
    attached.read_until(b"33 111\r\n")
    client.call("resize", container=container, rows=44, cols=155)
    attached.socket.sendall(b"typed\r")
    assert attached.read() == b"typed\r\n44 155\r\ngot typed\r\n"
    assert client.exit(container)["code"] == 3
    with pytest.raises(Refused):
        client.call("resize", container=container, rows=1, cols=1)


def test_a_terminal_has_job_control(supervisor, client):
    container, fields = supervisor.bundle(["sh"], terminal=True)
    attached = Attached(client, container)
    client.call("start", **fields, stdin=True, size=[24, 80])
    attached.socket.sendall(b"sleep 60\r")
    attached.read_until(b"sleep 60\r\n")
    time.sleep(0.2)
    attached.socket.sendall(b"\x03")
    attached.socket.sendall(b"echo code $?\r")
    attached.read_until(b"code 130\r\n")
    attached.socket.sendall(b"exit 12\r")
    assert client.exit(container)["code"] == 12


def test_a_size_needs_a_terminal(supervisor, client):
    container = supervisor.start(client, ["sleep", "30"])
    with pytest.raises(Refused, match="has no terminal"):
        client.call("resize", container=container, rows=1, cols=1)


def test_detach_keys_detach(supervisor, client):
    container, fields = supervisor.bundle(["sh"], terminal=True)
    attached = Attached(client, container, detach_keys=[16, 17])
    client.call("start", **fields, stdin=True, stdin_once=True)
    attached.socket.sendall(b"echo a\x10b\r")
    attached.read_until(b"\n")
    attached.socket.sendall(b"\x10")
    time.sleep(0.05)
    attached.socket.sendall(b"\x11")
    assert client.event("detach", container=container)["exec"] is None
    attached.read()
    again = Attached(client, container)
    again.socket.sendall(b"echo on\rexit 4\r")
    again.read_until(b"on\r\n")
    assert client.exit(container)["code"] == 4


def test_the_daemons_copy_of_a_connection_does_not_keep_it_open(supervisor, client):
    container, fields = supervisor.bundle(["echo", "x"])
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    client.call("attach", [theirs.fileno()], container=container, stdout=True)
    client.call("start", **fields)
    data = b""
    while chunk := ours.recv(100):
        data += chunk
    assert data == b"x\n"
    theirs.close()


def test_output_is_not_lost_to_a_client_that_still_types(supervisor, client):
    for _ in range(10):
        container, fields = supervisor.bundle(["sh", "-c", "echo last words"])
        attached = Attached(client, container, multiplexed=False)
        client.call("start", **fields, stdin=True)
        for _ in range(50):
            attached.socket.send(b"unread input\n")
            time.sleep(0.001)
        assert attached.read() == b"last words\n"


def test_over_tcp_too(supervisor, client):
    listener = socket.create_server(("127.0.0.1", 0))
    ours = socket.create_connection(listener.getsockname())
    ours.settimeout(10)
    theirs, _ = listener.accept()
    container, fields = supervisor.bundle(["cat"])
    client.call("attach", [theirs.fileno()], container=container, stdin=True, stdout=True)
    theirs.close()
    client.call("start", **fields, stdin=True, stdin_once=True)
    ours.sendall(b"hello")
    ours.shutdown(socket.SHUT_WR)
    data = b""
    while chunk := ours.recv(100):
        data += chunk
    assert data == b"hello"


def test_exec_with_a_client(supervisor, client):
    container = supervisor.start(client, ["sleep", "30"])
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    code = ["sh", "-c", "cat; echo err >&2; hostname; exit 21"]
    attach = {"stdin": True, "stdout": True, "stderr": True, "multiplexed": True}
    answer = client.call(
        "exec", [theirs.fileno()], container=container, exec="e1", process=process(code), stdin=True, attach=attach
    )
    theirs.close()
    assert answer["pid"] > 1
    ours.sendall(b"typed ")
    ours.shutdown(socket.SHUT_WR)
    data = b""
    while chunk := ours.recv(1000):
        data += chunk
    assert unframed(data) == {1: b"typed " + container[:12].encode() + b"\n", 2: b"err\n"}
    exit = client.event("exec_exit", container=container, exec="e1")
    assert (exit["code"], exit["known"]) == (21, True)
    assert supervisor.client().event("exec_exit", exec="e1") == exit
    client.call("forget", container=container, exec="e1")
    assert not list((supervisor.run_root / "containers" / container).glob("exec-*"))


def test_exec_on_a_terminal(supervisor, client):
    container = supervisor.start(client, ["sleep", "30"])
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    attach = {"stdin": True, "stdout": True, "detach_keys": [1]}
    client.call(
        "exec",
        [theirs.fileno()],
        container=container,
        exec="t",
        process=process(["sh"], True),
        terminal=True,
        size=[20, 60],
        stdin=True,
        attach=attach,
    )
    theirs.close()
    ours.sendall(b"stty size\r")
    data = b""
    while b"20 60" not in data:
        data += ours.recv(1000)
    client.call("resize", container=container, exec="t", rows=21, cols=61)
    ours.sendall(b"stty size\r")
    while b"21 61" not in data:
        data += ours.recv(1000)
    ours.sendall(b"\x01")
    assert client.event("detach", container=container, exec="t")
    client.call("signal", container=container, exec="t", signal=9)
    assert client.event("exec_exit", exec="t")["code"] == 137


def test_an_exec_can_be_attached_to_later(supervisor, client):
    container = supervisor.start(client, ["sleep", "30"])
    client.call("exec", container=container, exec="l", process=process(["cat"]), stdin=True)
    attached = Attached(client, container, exec="l", multiplexed=False)
    attached.socket.sendall(b"later")
    attached.socket.shutdown(socket.SHUT_WR)
    assert attached.read() == b"later"
    assert client.event("exec_exit", exec="l")["code"] == 0


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"process": process(["nosuchthing"])}, "NotFound", 'exec: "nosuchthing": executable file not found in $PATH'),
        ({"process": process(["true"]), "attach": {}}, "InvalidArgument", "one descriptor is needed"),
        ({"process": process(["true"]), "attach": {"container": "x"}}, "InvalidArgument", "of its own"),
        ({"process": {"args": 5}}, "InvalidArgument", "exec: "),
        ({"process": process(["true"]), "user": "nobody at all"}, None, "unable to find user nobody at all"),
    ],
    ids=["command", "descriptor", "names", "types", "user"],
)
def test_execs_that_cannot_be(supervisor, client, change, kind, words):
    container = supervisor.start(client, ["sleep", "30"])
    with pytest.raises(Refused) as refused:
        client.call("exec", container=container, exec="bad", **change)
    assert words in str(refused.value)
    if kind:
        assert refused.value.kind in (kind, "InvalidArgument")
    assert not list((supervisor.run_root / "containers" / container).glob("exec-*"))
    client.call("exec", container=container, exec="bad", process=process(["true"]))
    assert client.event("exec_exit", exec="bad")["code"] == 0


def test_execs_end_with_their_container(supervisor, client):
    container = supervisor.start(client, ["sleep", "30"])
    client.call("exec", container=container, exec="x", process=process(["sleep", "60"]))
    with pytest.raises(Refused, match="exists already"):
        client.call("exec", container=container, exec="x", process=process(["true"]))
    client.call("signal", container=container, signal=9)
    assert client.event("exec_exit", exec="x")["code"] == 137
    client.exit(container)
    with pytest.raises(Refused, match="not running"):
        client.call("exec", container=container, exec="y", process=process(["true"]))
