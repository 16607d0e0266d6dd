"""A signal that interrupts no system call, as one does that comes just before the call, is forwarded all the same."""

import subprocess
import sys

import pytest

# The other thread takes the signal, so nothing wakes the main thread's poll: Python only notes that a handler is due.
SCRIPT = """
import signal, socket, sys, threading, time
from knarr.cli.session import Session, Wait
from knarr.cli.signals import Forward

ours, theirs = socket.socketpair()

class Connection:
    socket, buffered = ours, False
    def take(self):
        return ours.recv(100)

class Containers:
    def kill(self, container, name):
        print(container, name)
        theirs.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 16\\r\\n\\r\\n" if WAIT else b"")
        theirs.close()
    def send_wait(self, container, condition):
        return Connection()

class Response:
    headers = {"content-length": "2"}
    def json(self):
        return {"StatusCode": 5}

class Client:
    containers = Containers()
    def receive(self, connection):
        ours.recv(100)
        return Response()

def interrupt():
    time.sleep(0.2)
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

WAIT = sys.argv[1] == "wait"
threading.Thread(target=interrupt, daemon=True).start()
with Forward(Client(), "box", started=True):
    if WAIT:
        print(Wait(Client(), "box", "not-running").code())
    else:
        print(Session(Connection(), tty=True, stdin=False).run())
"""


@pytest.mark.parametrize(("what", "answer"), [("session", "box INT\nended\n"), ("wait", "box INT\n5\n")])
def test_a_signal_just_before_the_call_is_forwarded(what, answer):
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, what], capture_output=True, text=True, timeout=10, check=False
    )
    assert (result.stdout, result.stderr) == (answer, "")
