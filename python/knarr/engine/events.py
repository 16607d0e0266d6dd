"""What happened, for whoever asks: `GET /events`.

The last EVENTS are kept for `since`. A listener that does not keep up loses its oldest events
rather than holding anybody up.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Event", "Events", "Listener"]

KEPT = 256  # as many as Docker keeps
BACKLOG = 4096  # events of one listener that wait to be read

Event = dict[str, Any]  # the API's EventMessage


class Listener:
    """A queue of events. Iterate it; leave it by `Events.leave`."""

    def __init__(self) -> None:
        self._queue: deque[Event] = deque(maxlen=BACKLOG)
        self._wake = asyncio.Event()

    def put(self, event: Event) -> None:
        """Add an event; the oldest goes where there are too many."""
        self._queue.append(event)
        self._wake.set()

    async def get(self) -> Event:
        """The next event."""
        while not self._queue:
            self._wake.clear()
            await self._wake.wait()
        return self._queue.popleft()


class Events:
    """The engine's events, newest last. Belongs to the event loop; `emit` may be called from threads."""

    def __init__(self) -> None:
        self._kept: deque[Event] = deque(maxlen=KEPT)
        self._listeners: set[Listener] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say which loop the events belong to."""
        self._loop = loop

    def emit(self, kind: str, action: str, actor: str, attributes: dict[str, str]) -> None:
        """Tell that `action` happened to the `kind` (container, image, network, volume) named `actor`."""
        now = time.time_ns()
        event: Event = {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": actor, "Attributes": attributes},
            "scope": "local",
            "time": now // 1_000_000_000,
            "timeNano": now,
        }
        loop = self._loop
        if loop is None:
            self._kept.append(event)
            return
        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:
            here = False
        if here:
            self._publish(event)
        elif not loop.is_closed():
            loop.call_soon_threadsafe(self._publish, event)

    def _publish(self, event: Event) -> None:
        self._kept.append(event)
        for listener in self._listeners:
            listener.put(event)

    def past(self, since: int, until: int, wanted: Callable[[Event], bool]) -> list[Event]:
        """The kept events between two times (ns, both included) that are wanted."""
        return [event for event in self._kept if since <= event["timeNano"] <= until and wanted(event)]

    def join(self) -> Listener:
        """A listener for every event from now on."""
        listener = Listener()
        self._listeners.add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """Stop listening."""
        self._listeners.discard(listener)

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)
