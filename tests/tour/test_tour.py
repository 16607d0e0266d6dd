"""The tour, replayed: docker's command line and knarr's own say with knarr what docker's says with Docker.

What Docker says is recorded (tour.py), so no Docker is needed here. Where knarr answers otherwise, a difference with its
reason is written down. It may go when knarr comes to answer as Docker does (`make tour` names those).
"""

import concurrent.futures
import contextlib
import shutil
import threading

import pytest

from tests.conftest import SCRIPTS, busybox_archive, new_engine
from tests.tour import normalise, tour, transcript

_SUBNETS = threading.Lock()  # those that a chapter names are the host's: two walks cannot have them at the same time


def walk_all(cli):
    """Every chapter's steps, and the chapters that left something behind."""
    own = new_engine()
    own.start()
    try:
        with tour.guided(cli, own.host) as guide:
            walked, left = {}, []
            for chapter in tour.CHAPTERS:
                with _SUBNETS if "network" in chapter else contextlib.nullcontext():
                    walked[chapter] = guide.walk(chapter)
                if not guide.empty():
                    left.append(chapter)
            return walked, left
    finally:
        own.stop()


@pytest.fixture(scope="module")
def walks():
    """By command line: the name of its answers, and the future of its walk. Both walk at the same time."""
    docker = shutil.which("docker")
    assert docker, "the docker command line is needed"
    busybox_archive()  # is made once, before the threads ask for it
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        yield {
            "docker": (tour.name_of(docker), threads.submit(walk_all, docker)),
            "knarr": ("knarr", threads.submit(walk_all, str(SCRIPTS / "knarr"))),
        }


@pytest.mark.timeout(400)
@pytest.mark.parametrize("chapter", tour.CHAPTERS)
@pytest.mark.parametrize("cli", ["docker", "knarr"])
def test_a_chapter(walks, cli, chapter):
    name, walk = walks[cli]
    walked, left = walk.result()
    answers, justified = tour.answers(name, chapter), tour.differences(name)
    assert [step.command for step in answers] == [step.command for step in walked[chapter]], (
        "the chapter has changed since Docker's answers were recorded"
    )
    wrong = []
    for theirs, ours in zip(answers, walked[chapter], strict=True):
        expected = [tour.said(name, theirs)]
        difference = justified.get((chapter, ours.command))
        if difference:
            expected.append(tour.said(name, difference))
        if tour.said(name, ours) not in expected:
            wrong.append(tour.described(name, expected[-1], ours))
    assert not wrong, "\n".join(wrong)
    assert chapter not in left, "the chapter leaves something behind"


@pytest.mark.parametrize("name", ["docker20", "docker28", "knarr"])
def test_differences_are_of_steps_that_there_are_and_have_reasons(name):
    steps = {
        (chapter, step.command)
        for chapter in tour.CHAPTERS
        for step in transcript.read(tour.HERE / "chapters" / f"{chapter}.tour")
    }
    differences = tour.differences(name)
    assert set(differences) <= steps
    assert not [step for step in differences.values() if step.why == tour.NO_REASON]


def test_what_means_something_stays():
    """Normalising hides no text, code or number of things."""
    text = "two 3 words 0.5 v1.2.3 a=12 deadbeef 127.0.0.1:80 -rw-r--r-- 1 root root"
    assert normalise.lines(text, {}) == [text]
    written = f"{'0f' * 32} {'1f' * 6} Up 3 seconds\n  a   b"
    assert normalise.lines(written, {}) == ["<id> <short id> Up <span>", "  a  b"]
