"""Containers on a terminal: size, raw mode and its return, detach keys, control keys, progress of a pull."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import termios
import threading
import time
import uuid

import pytest

from tests.conftest import SCRIPTS, busybox_archive, push


class Terminal:
    """A command of knarr on a terminal of its own."""

    def __init__(self, engine, *arguments, size=(33, 99)):
        self.output = b""
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
            os.execve(SCRIPTS / "knarr", ["knarr", *arguments], engine.env)

    def resize(self, rows, columns):
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.descriptor, text)

    def expect(self, pattern, seconds=15):
        """Read until the pattern; what came up to its end is used up."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.output)):
            assert time.monotonic() < end, f"{pattern!r} did not come: {self.output[-500:]!r}"
            if select.select([self.descriptor], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    data = os.read(self.descriptor, 65536)
                    assert data, f"it ended before {pattern!r}: {self.output[-500:]!r}"
                    self.output += data
        self.output = self.output[found.end() :]
        return found

    @property
    def cooked(self):
        return bool(termios.tcgetattr(self.descriptor)[3] & termios.ICANON)

    def wait(self, seconds=15):
        """The exit code."""
        end = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < end, f"it did not end: {self.output[-500:]!r}"
            if select.select([self.descriptor], [], [], 0.05)[0]:
                with contextlib.suppress(OSError):
                    self.output += os.read(self.descriptor, 65536)

    def close(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.descriptor)


@pytest.fixture
def name(shared_engine):
    value = "tty-" + uuid.uuid4().hex[:8]
    yield value
    shared_engine.run("rm", "-f", "-v", value, check=False)


@pytest.fixture
def on_terminal(shared_engine):
    opened = []

    def start(*arguments, **keywords):
        opened.append(Terminal(shared_engine, *arguments, **keywords))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


SHELL = ["--network", "none", "busybox", "sh"]


def test_a_shell_has_the_terminals_size_and_follows_it(on_terminal, name):
    shell = on_terminal("run", "-it", "--rm", "--name", name, *SHELL)
    shell.expect(rb"# ")
    assert not shell.cooked
    shell.type(b"stty size; tty\n")
    shell.expect(rb"33 99\r\n/dev/pts/0\r\n")
    shell.resize(40, 120)
    time.sleep(0.3)
    shell.type(b"stty size\n")
    shell.expect(rb"40 120\r\n")
    shell.type(b"exit 9\n")
    assert shell.wait() == 9
    assert shell.cooked


def test_control_keys_go_to_the_program(on_terminal, name):
    shell = on_terminal("run", "-it", "--rm", "--name", name, *SHELL)
    shell.expect(rb"# ")
    shell.type(b"sleep 100\n")
    time.sleep(0.3)
    shell.type(b"\x03")
    shell.type(b"echo $?\n")
    shell.expect(rb"130\r\n")
    shell.type(b"\x04")
    assert shell.wait() == 0


def test_detach_and_attach_again(on_terminal, shared_engine, name):
    shell = on_terminal("run", "-it", "--rm", "--name", name, *SHELL)
    shell.expect(rb"# ")
    shell.type(b"x=kept\n")
    shell.type(b"\x10\x11")
    assert shell.wait() == 0
    assert shell.cooked
    assert shared_engine.run("ps", "-q", "--filter", f"name={name}").stdout
    again = on_terminal("attach", name)
    again.type(b"echo $x; exit 3\n")
    again.expect(rb"kept\r\n")
    assert again.wait() == 3


def test_other_detach_keys(on_terminal, name):
    shell = on_terminal("run", "-it", "--rm", "--detach-keys", "ctrl-a,d", "--name", name, *SHELL)
    shell.expect(rb"# ")
    shell.type(b"\x10\x11\x01x\x15echo 'st'ill\n")
    shell.expect(rb"still\r\n")
    shell.type(b"\x01d")
    assert shell.wait() == 0


def test_exec_on_a_terminal(on_terminal, shared_engine, name):
    shared_engine.run("run", "-d", "--name", name, "--network", "none", "busybox", "sleep", "100")
    shell = on_terminal("exec", "-it", name, "sh")
    shell.expect(rb"# ")
    shell.type(b"stty size; exit 4\n")
    shell.expect(rb"33 99\r\n")
    assert shell.wait() == 4
    assert shell.cooked


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_given_back_when_a_signal_ends_us(on_terminal, shared_engine, name, number):
    shared_engine.run("run", "-d", "--name", name, "--network", "none", "busybox", "sleep", "100")
    shell = on_terminal("exec", "-it", name, "sh")
    shell.expect(rb"# ")
    os.kill(shell.pid, number)
    assert shell.wait() == 128 + number
    assert shell.cooked


def test_the_progress_of_a_pull_is_drawn_over(on_terminal, shared_engine, registry):
    reference = push(busybox_archive(), registry, f"tty/{uuid.uuid4().hex[:8]}:1")
    pull = on_terminal("pull", reference)
    pull.expect(rb"Status: Downloaded newer image for ")
    assert pull.wait() == 0
    plain = shared_engine.run("pull", reference).stdout
    assert "\x1b" not in plain
    assert plain.endswith(f"{reference}\n")
    assert shared_engine.run("pull", "-q", reference).stdout == f"{reference}\n"


class Relay:
    """A socket before the engine's that lets so many bytes through in either direction, and then the rest when told."""

    def __init__(self, engine, path, most):
        self.host = f"unix://{path}"
        self.onward = threading.Event()
        self._most = most
        self._listener = socket.create_server(str(path), family=socket.AF_UNIX)
        self._engine = str(engine.socket)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._engine)
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source, target):
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
                passed += len(data)
                if passed >= self._most:
                    self.onward.wait()
            target.shutdown(socket.SHUT_WR)

    def close(self):
        self.onward.set()
        self._listener.close()


@pytest.fixture
def relay(shared_engine, tmp_path):
    made = Relay(shared_engine, tmp_path / "relay.sock", 4 << 20)
    yield made
    made.close()


def test_a_copy_shows_how_much_has_gone(on_terminal, shared_engine, name, relay, tmp_path):
    shared_engine.run("create", "--name", name, "--network", "none", "busybox", "true")
    (tmp_path / "big").write_bytes(os.urandom(12 << 20))
    for source, target, words in (
        (tmp_path / "big", f"{name}:/big", rb"Copying to container - "),
        (f"{name}:/big", tmp_path / "back", rb"Copying from container - "),
    ):
        relay.onward.clear()
        terminal = on_terminal("-H", relay.host, "cp", str(source), str(target))
        terminal.expect(words + rb"[4-9]\.\d+MB")
        relay.onward.set()
        terminal.expect(rb"\r\x1b\[2KSuccessfully copied 12.6MB [^\r]*\r\n")  # the line is wiped before
        assert terminal.wait() == 0
    assert (tmp_path / "back").read_bytes() == (tmp_path / "big").read_bytes()
    relay.onward.clear()
    quiet = on_terminal("-H", relay.host, "cp", "-q", f"{name}:/big", str(tmp_path / "back"))
    time.sleep(1)
    relay.onward.set()
    assert quiet.wait() == 0
    assert quiet.output == b""
    piped = shared_engine.run("-H", relay.host, "cp", f"{name}:/big", tmp_path / "back")
    assert (piped.stdout, piped.stderr) == ("", "")
