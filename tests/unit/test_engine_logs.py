"""Reading logs: tails, times, streams, and rotation under the reader's feet."""

import asyncio
import json
import os

import pytest

from knarr.engine.containers.logs import LogReader, Wanted, follow, nanoseconds


def line(number, stream="stdout"):
    return (
        json.dumps(
            {"log": f"line {number}\n", "stream": stream, "time": f"2026-01-01T00:00:{number % 60:02d}.{number:09d}Z"}
        )
        + "\n"
    )


@pytest.fixture
def log(tmp_path):
    """A log of 30 entries in three files."""
    path = tmp_path / "x-json.log"
    for name, numbers in ((".2", range(10)), (".1", range(10, 20)), ("", range(20, 30))):
        (tmp_path / f"x-json.log{name}").write_text("".join(line(number) for number in numbers))
    return path


def read(path, **wanted):
    reader = LogReader(str(path), Wanted(**wanted))
    found = []
    while True:
        entries = reader.read()
        found += [int(entry.text.split()[1]) for entry in entries]
        if reader.finished or (not entries and reader.at_end):
            reader.close()
            return found


def test_every_file_is_read_oldest_first(log):
    assert read(log) == list(range(30))


@pytest.mark.parametrize("tail", [0, 1, 5, 10, 11, 19, 20, 25, 30, 31, 1000])
def test_tail_counts_over_files(log, tail):
    assert read(log, tail=tail) == list(range(30))[30 - min(tail, 30) :]


def test_since_and_until(log):
    assert read(log, since=nanoseconds("2026-01-01T00:00:12.000000012Z")) == list(range(12, 30))
    assert read(log, until=nanoseconds("2026-01-01T00:00:05.000000005Z")) == list(range(6))


def test_streams(tmp_path):
    path = tmp_path / "x-json.log"
    path.write_text(line(1) + line(2, "stderr") + line(3))
    assert read(path, stderr=False) == [1, 3]
    assert read(path, stdout=False) == [2]


def test_a_line_that_is_still_being_written_waits(tmp_path):
    path = tmp_path / "x-json.log"
    path.write_text(line(1) + line(2)[:20])
    reader = LogReader(str(path), Wanted())
    assert [entry.text for entry in reader.read()] == ["line 1\n"]
    with path.open("a") as file:
        file.write(line(2)[20:])
    assert [entry.text for entry in reader.read()] == ["line 2\n"]
    reader.close()


def test_rotation_under_a_reader_loses_nothing(tmp_path):
    path = tmp_path / "x-json.log"
    path.write_text(line(0))
    reader = LogReader(str(path), Wanted())
    found = [entry.text for entry in reader.read()]
    with path.open("a") as file:
        file.write(line(1))
    os.rename(path, f"{path}.1")
    path.write_text(line(2))
    os.rename(f"{path}.1", f"{path}.2")
    os.rename(path, f"{path}.1")
    path.write_text(line(3))
    for _ in range(12):
        found += [entry.text for entry in reader.read()]
    assert found == [f"line {number}\n" for number in range(4)]
    reader.close()


def test_an_unreadable_line_is_left_out(tmp_path):
    path = tmp_path / "x-json.log"
    path.write_text(line(1) + "garbage\n{}\n" + line(2))
    assert read(path) == [1, 2]


def test_following_ends_with_the_container(tmp_path):
    path = tmp_path / "x-json.log"
    path.write_text(line(1))
    running = True

    async def collect():
        nonlocal running
        found = []

        async def write():
            nonlocal running
            await asyncio.sleep(0.05)
            with path.open("a") as file:
                file.write(line(2))
            await asyncio.sleep(0.05)
            with path.open("a") as file:
                file.write(line(3))
            running = False

        task = asyncio.create_task(write())
        async for batch in follow(str(path), Wanted(), lambda: running, on=True):
            found += [entry.text for entry in batch]
        await task
        return found

    assert asyncio.run(asyncio.wait_for(collect(), 5)) == [f"line {number}\n" for number in (1, 2, 3)]


def test_no_log_at_all(tmp_path):
    assert read(tmp_path / "none") == []
