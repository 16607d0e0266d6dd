"""Places where the daemon can be made to fail, for tests that kill it between any two steps.

Each step that changes what outlives the daemon (a file, a record, a request to the supervisor) is preceded by
`reached("noun.verb.step")`, named after that step; where an operation ends in a change, `noun.verb.answer`
follows it. Nothing happens there unless the daemon was started with KNARR_FAILPOINTS, the path of a file: that
file's content, `point action`, is read anew at each point. Actions: `kill` (SIGKILL of the daemon itself), `stop`
(SIGSTOP), or the name of an errno such as ENOSPC, which is raised as the OSError of the step that would have come.
"""

from __future__ import annotations

import errno
import os
import signal

__all__ = ["reached"]

_plan = os.environ.get("KNARR_FAILPOINTS")


def reached(point: str) -> None:
    """Fail here if that was asked for."""
    if _plan is not None:
        _act(point, _plan)


def _act(point: str, plan: str) -> None:
    try:
        with open(plan, encoding="ascii") as file:
            wanted, _, action = file.read().strip().partition(" ")
    except FileNotFoundError:
        return
    if wanted != point:
        return
    if action in ("kill", "stop"):
        os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)
    else:
        number = getattr(errno, action)
        raise OSError(number, os.strerror(number), point)
