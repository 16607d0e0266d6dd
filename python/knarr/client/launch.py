"""Start the daemon when nothing listens.

Order and locking: `<run-root>/start.lock` is flocked from before the last try to connect until the new daemon has said
that it is ready, so that of two commands at the same instant one starts a daemon and the other finds it.
The daemon says so by one byte on the pipe whose descriptor `--ready-fd` names, and closes it unwritten when
it fails; its own words are in `<run-root>/daemon.log` then. The lock is dropped by the kernel with its holder.
"""

import os

from knarr.client.http import Connection
from knarr.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from knarr.client.tls import Tls

DEFAULT_RUN_ROOT = "/run/knarr"
DEFAULT_DATA_ROOT = "/var/lib/knarr"
START_SECONDS = 60
LOG_LIMIT = 4 << 20


def run_root() -> str:
    """The run root of this environment, absolute."""
    return os.path.abspath(os.environ.get("KNARR_RUN_ROOT") or DEFAULT_RUN_ROOT)


def data_root() -> str:
    """The data root of this environment, absolute."""
    return os.path.abspath(os.environ.get("KNARR_DATA_ROOT") or DEFAULT_DATA_ROOT)


def default_host() -> str:
    """Where the daemon of this environment listens."""
    return f"unix://{run_root()}/knarr.sock"


def connect_or_start(host: str, tls: "Tls | None" = None) -> Connection:
    """Connect; start the daemon first where the host is the one of this environment and nothing listens."""
    try:
        return Connection(host, tls)
    except Unavailable:
        if host != default_host():
            raise
    root = run_root()
    try:
        os.makedirs(root, 0o711, exist_ok=True)
        lock = os.open(os.path.join(root, "start.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unavailable(
            f"no daemon listens on {host}, and none can be started in {root}: {error.strerror}. "
            "Run as root, or point KNARR_HOST or --host at a running engine"
        ) from error
    try:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return Connection(host)  # somebody else was faster
        except Unavailable:
            _start(host, root)
        return Connection(host)
    finally:
        os.close(lock)


def _start(host: str, root: str) -> None:
    import select
    import sys
    import time

    log = os.path.join(root, "daemon.log")
    if os.path.exists(log) and os.path.getsize(log) > LOG_LIMIT:
        os.replace(log, log + ".1")
    ready, write = os.pipe()
    command = [sys.executable, "-m", "knarr", "daemon", "--ready-fd", str(write)]
    command += ["--data-root", data_root(), "--run-root", root, "--host", host]
    try:
        began = os.path.getsize(log) if os.path.exists(log) else 0
        _spawn(command, log, write)
        os.close(write)
        write = -1
        poll = select.poll()
        poll.register(ready, select.POLLIN)
        end = time.monotonic() + START_SECONDS
        while not poll.poll(max(0, int((end - time.monotonic()) * 1000))):
            if time.monotonic() >= end:
                raise Unavailable(
                    f"the daemon did not become ready within {START_SECONDS} s; see {log}{_tail(log, began)}"
                )
        if not os.read(ready, 1):
            raise Unavailable(f"the daemon did not start; see {log}{_tail(log, began)}")
    finally:
        os.close(ready)
        if write >= 0:
            os.close(write)


def _spawn(command: list[str], log: str, keep: int) -> None:
    """Run a command as nobody's child: own session, root directory, no descriptor but 0-2 and one to keep."""
    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    child = os.fork()
    if child:
        os.close(null)
        os.close(out)
        os.waitpid(child, 0)
        return
    try:  # from here on nobody hears an exception; the closed pipe tells that it failed
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir("/")
        os.umask(0o022)
        for source, target in ((null, 0), (out, 1), (out, 2)):
            os.dup2(source, target)
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2:
                _keep_from_exec(int(name))
        os.set_inheritable(keep, True)
        os.execv(command[0], command)  # noqa: S606
    finally:
        os._exit(127)


def _keep_from_exec(descriptor: int) -> None:
    try:
        os.set_inheritable(descriptor, False)
    except OSError:
        return  # the one that listed the directory, closed since


def _tail(log: str, began: int) -> str:
    """What the daemon wrote since it began: its last lines, set off from the message before them."""
    try:
        with open(log, "rb") as file:
            file.seek(max(began, os.path.getsize(log) - 4096))
            lines = file.read().decode(errors="replace").rstrip().splitlines()
    except OSError as error:
        return f" ({error.strerror})"
    return ":\n  " + "\n  ".join(lines[-12:]) if lines else ", which says nothing"
