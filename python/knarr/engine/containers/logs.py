"""Reading a container's log: json-file entries, over rotated files, and on as they are written.

The supervisor writes `<id>-json.log` and moves it to `.1`, `.2` ... when it is full. A reader holds its file open, so
a rotation under it loses nothing: at the file's end it looks which file came after it.
"""

from __future__ import annotations

import asyncio
import calendar
import json
import logging
import os
import time
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["Entry", "LogReader", "Wanted", "follow", "nanoseconds"]

log = logging.getLogger("knarr.containers")

BATCH = 256 * 1024  # bytes read at a time
FASTEST, SLOWEST = 0.005, 0.1  # seconds between looks at a log that is followed


class Entry(NamedTuple):
    """One entry: at most a line; one without a newline at its end goes on in the next."""

    stream: str
    time: str  # RFC 3339 with nanoseconds, as it was written
    text: str


class Wanted(NamedTuple):
    """Which entries are wanted."""

    stdout: bool = True
    stderr: bool = True
    since: int = 0  # ns since the epoch; 0 for all
    until: int = 0
    tail: int = -1  # this many from the end; below 0 for all


def nanoseconds(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time in UTC."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = calendar.timegm(time.strptime(whole[:19], "%Y-%m-%dT%H:%M:%S"))
    return seconds * 1_000_000_000 + int((fraction or "0").ljust(9, "0")[:9])


class LogReader:
    """Reads one container's log from the oldest wanted entry on. Blocks: for threads."""

    def __init__(self, path: str, wanted: Wanted) -> None:
        self._path = path
        self._wanted = wanted
        self._file: BinaryIO | None = None
        self._rest = b""
        self.finished = False  # an entry later than `until` was met

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self) -> list[Entry]:
        """The next entries; none at the end of what is written. May give an empty list and not be at the end
        only where filters took everything: `at_end` tells.
        """
        if self._file is None and not self._open():
            self.at_end = True
            return []
        assert self._file is not None
        data = self._file.read(BATCH)
        if not data:
            self.at_end = not self._next()
            return []
        self.at_end = False
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        return self._entries(lines)

    at_end = False

    def _entries(self, lines: list[bytes]) -> list[Entry]:
        found = []
        wanted = self._wanted
        for line in lines:
            try:
                item = json.loads(line)
                entry = Entry(item["stream"], item["time"], item["log"])
            except (ValueError, KeyError, TypeError):
                log.warning("%s: an entry is not readable and was left out", self._path)
                continue
            if not (wanted.stdout if entry.stream == "stdout" else wanted.stderr):
                continue
            if wanted.since or wanted.until:
                when = nanoseconds(entry.time)
                if when < wanted.since:
                    continue
                if wanted.until and when > wanted.until:
                    self.finished = True
                    break
            found.append(entry)
        return found

    def _files(self) -> list[str]:
        """The log's files, oldest first."""
        found = [self._path] if os.path.exists(self._path) else []
        number = 1
        while os.path.exists(f"{self._path}.{number}"):
            found.insert(0, f"{self._path}.{number}")
            number += 1
        return found

    def _open(self) -> bool:
        files = self._files()
        if not files:
            return False
        start, offset = 0, 0
        if self._wanted.tail >= 0:
            start, offset = _tail(files, self._wanted.tail)
        try:
            self._file = open(files[start], "rb")  # noqa: SIM115  closed by close()
        except FileNotFoundError:
            return False  # rotated away this very moment: the next look finds the rest
        self._file.seek(offset)
        return True

    def _next(self) -> bool:
        """Go on with the file that came after this one, if there is one."""
        assert self._file is not None
        mine = os.fstat(self._file.fileno())
        files = self._files()
        for number, path in enumerate(files):
            try:
                found = os.stat(path)
            except FileNotFoundError:
                continue
            if (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino):
                if number + 1 == len(files):
                    return False
                if self._file.tell() < found.st_size:
                    return True  # more was written before it was moved
                return self._switch(files[number + 1])
        # It was rotated out altogether while we read: go on with the oldest that is left.
        return self._switch(files[0]) if files else False

    def _switch(self, path: str) -> bool:
        try:
            later = open(path, "rb")  # noqa: SIM115  closed by close()
        except FileNotFoundError:
            return False
        self.close()
        self._file = later
        self._rest = b""
        return True


def _tail(files: list[str], count: int) -> tuple[int, int]:
    """(file, offset) where the last `count` entries begin."""
    for number in range(len(files) - 1, -1, -1):
        try:
            with open(files[number], "rb") as file:
                position = file.seek(0, os.SEEK_END)
                end = position
                if count == 0:
                    return number, end
                while position > 0:
                    size = min(65536, position)
                    position -= size
                    file.seek(position)
                    block = file.read(size)
                    at = len(block)
                    while (at := block.rfind(b"\n", 0, at)) >= 0:
                        if position + at == end - 1:
                            continue  # the newline that ends the last entry
                        count -= 1
                        if count == 0:
                            return number, position + at + 1
                if end:
                    count -= 1  # the file's first entry
                    if count == 0:
                        return number, 0
        except FileNotFoundError:
            continue
    return 0, 0


async def follow(path: str, wanted: Wanted, running: Callable[[], bool], *, on: bool) -> AsyncIterator[list[Entry]]:
    """The entries, in batches; with `on` also those still to be written, until the container has ended."""
    reader = LogReader(path, wanted)
    delay = FASTEST
    try:
        while True:
            was_running = running()
            entries = await asyncio.to_thread(reader.read)
            if entries:
                delay = FASTEST
                yield entries
            if reader.finished:
                return
            if not reader.at_end:
                continue
            if not on or not was_running or (wanted.until and time.time_ns() > wanted.until):
                return
            await asyncio.sleep(delay)
            delay = min(delay * 1.5, SLOWEST)
    finally:
        reader.close()
