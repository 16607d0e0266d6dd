"""Signals that reach the command line while a container is in the foreground.

On `_signal`, not `signal`: the latter brings `enum`, 3 ms. Handlers run between two bytecodes of the main thread,
also while a system call waits (PEP 475), so a forwarded signal does not wait for output to be written. Each request
that a handler makes has a connection of its own: whatever the main thread is in the middle of is left alone.

A signal that comes after the last bytecode before a system call and before the call itself interrupts nothing, and
its handler would run when the call returns, which may be never: who waits polls `waking()` as well.
"""

import _signal  # type: ignore[import-not-found]  # of the interpreter, and without a stub
import os

from knarr.errors import KnarrError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from typing_extensions import Self

    from knarr.client import Client

FORWARDED = {
    _signal.SIGHUP: "HUP",
    _signal.SIGINT: "INT",
    _signal.SIGQUIT: "QUIT",
    _signal.SIGUSR1: "USR1",
    _signal.SIGUSR2: "USR2",
    _signal.SIGALRM: "ALRM",
    _signal.SIGTERM: "TERM",
}
ENDING = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM)
_INSIST = 3
_wake = -1


def waking() -> int:
    """A descriptor that every signal with a handler in Python makes readable, until `heard` is called."""
    global _wake
    if _wake < 0:
        _wake, told = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        _signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    return _wake


def heard() -> None:
    """The handlers run before the next poll: empty what `waking` gave."""
    try:
        while os.read(_wake, 64):
            pass
    except BlockingIOError:
        return


class Forward:
    """While the block lasts, signals go to the container. What comes before it has been started is sent after."""

    def __init__(self, client: "Client", container: str, *, started: bool = False) -> None:
        self._client = client
        self._container = container
        self._started = started
        self._early: list[str] = []
        self._ends = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Self":
        for number in FORWARDED:
            self._before[number] = _signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            _signal.signal(number, handler)

    def started(self) -> None:
        """The container runs now."""
        self._started = True
        for name in self._early:
            self._send(name)

    def _handle(self, number: int, _frame: object) -> None:
        if number in (_signal.SIGINT, _signal.SIGTERM):
            self._ends += 1
            if self._ends > _INSIST:
                raise SystemExit(128 + number)  # it was asked often enough; the container runs on
        if self._started:
            self._send(FORWARDED[number])
        else:
            self._early.append(FORWARDED[number])

    def _send(self, name: str) -> None:
        try:
            self._client.containers.kill(self._container, name)
        except KnarrError:
            return  # it has ended, or the daemon is away: the wait for it tells which


class Nothing:
    """In place of Forward where signals keep their meaning."""

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def started(self) -> None:
        """Nothing was kept back."""


def end_orderly() -> None:
    """Make signals that end a program raise SystemExit, so that the terminal is given back."""

    def handle(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    for number in ENDING:
        _signal.signal(number, handle)


def on_resize(action: "Callable[[], None]", again: "Callable[[], None]") -> None:
    """Call the first when the terminal has another size, both when we were stopped and go on."""

    def handle(number: int, _frame: object) -> None:
        if number == _signal.SIGCONT:
            again()
        action()

    _signal.signal(_signal.SIGWINCH, handle)
    _signal.signal(_signal.SIGCONT, handle)


def die_of(number: int) -> int:
    """End as a program does that the signal ended, so that a shell stops its loop as well; else the exit code."""
    _signal.signal(number, _signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number
