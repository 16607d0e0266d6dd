"""Takes a command line through the tour's chapters against an engine, and writes down what it says.

    python -m tests.tour.tour record CLI [CHAPTER...]     Docker at $KNARR_TOUR_DOCKER: answers/NAME/*.answers
    python -m tests.tour.tour compare CLI [CHAPTER...]    knarr beside Docker, live or as recorded: what differs
    python -m tests.tour.tour differ CLI [CHAPTER...]     the same, written to differences/NAME/*.differences

CLI is a docker command line or knarr; NAME is docker20, docker28 (or whatever its version is) or knarr. Docker must be
empty, as some steps prune: the tour refuses another. It needs registries on loopback to be reached from there, and leaves
the engine as empty as it was. An engine for it, beside others of the host: dockerd in a network namespace (`unshare -n`),
and the tour in the same (`nsenter -n`); DOCKER_MIN_API_VERSION=1.24 in its environment lets docker20 speak to it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.conftest import busybox_archive, new_engine, running_registry
from tests.tour import normalise, transcript

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
CHAPTERS = sorted(path.stem for path in (HERE / "chapters").glob("*.tour"))
_SECONDS = 20  # then a step is ended
TIMED_OUT = 999  # and this is its code
NO_REASON = "WHY?"  # is written for people to replace
# user:right
_HTPASSWD = "user:$2y$05$knarrtourknarrtourknaenF8Yvwp/OhwEXk61FD3uDcyFIDKe2x2\n"


class Guide:
    """One command line pointed at one engine: the place where steps run."""

    def __init__(self, cli: str, host: str, registry: str, locked: str) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="knarr-tour-"))
        (self._directory / "bin").mkdir()
        (self._directory / "bin" / "docker").symlink_to(os.path.abspath(cli))
        self.work = self._directory / "work"
        self.work.mkdir()
        self.places = {
            str(self.work): "$WORK",
            registry: "$REGISTRY",
            locked: "$LOCKED",
            str(self._directory): "$HOME",
        }
        self._env = {
            "PATH": f"{self._directory}/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self._directory),
            "DOCKER_CONFIG": str(self._directory / ".docker"),
            "DOCKER_HOST": host,
            "KNARR_HOST": host,
            "DOCKER_CLI_HINTS": "false",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "WORK": str(self.work),
            "REGISTRY": registry,
            "LOCKED": locked,
        }

    def close(self) -> None:
        shutil.rmtree(self._directory)

    def docker(self, *arguments: str) -> str:
        """What `docker ARGUMENTS` writes; RuntimeError where it fails."""
        step = self.shell("docker " + " ".join(arguments))
        if step.returncode:
            raise RuntimeError(f"docker {' '.join(arguments)}: {step.stderr}")
        return step.stdout

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=self.work,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            process.returncode = TIMED_OUT
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def empty(self) -> bool:
        """Whether nothing is there but busybox."""
        images = set(self.docker("images", "--format", "'{{.Repository}}:{{.Tag}}'").split())
        return not self.docker("ps", "-aq").strip() and images <= {"busybox:latest"}

    def walk(self, chapter: str) -> list[transcript.Step]:
        """The steps of a chapter with what came of them."""
        steps = transcript.read(HERE / "chapters" / f"{chapter}.tour")
        self.docker("load", "-q", "-i", str(busybox_archive()))
        for step in steps:
            done = self.shell(step.command)
            step.code = done.returncode
            if step.is_preparation:
                if done.returncode:
                    raise RuntimeError(f"{chapter}: {step.command}: {done.stderr}")
                continue
            step.out = normalise.lines(done.stdout, self.places)
            step.err = normalise.lines(done.stderr, self.places)
        return steps


@contextlib.contextmanager
def guided(cli: str, host: str) -> Iterator[Guide]:
    """A guide with registries on loopback: an open one and one behind a password."""
    with tempfile.TemporaryDirectory(prefix="knarr-tour-") as directory:
        passwords = Path(directory) / "htpasswd"
        passwords.write_text(_HTPASSWD)
        lock = f"auth: {{htpasswd: {{realm: tour, path: {passwords}}}}}\n"
        with running_registry() as registry, running_registry(lock) as locked:
            guide = Guide(cli, host, registry.host, locked.host)
            try:
                yield guide
            finally:
                guide.close()


def _chapters(cli: str, host: str, only: list[str]) -> Iterator[tuple[str, list[transcript.Step]]]:
    with guided(cli, host) as guide:
        if not guide.empty():
            raise SystemExit("the tour removes whatever an engine has: give it one without containers and images")
        try:
            for chapter in CHAPTERS:
                if not only or chapter in only:
                    print(chapter, file=sys.stderr)
                    yield chapter, guide.walk(chapter)
        finally:
            guide.shell("docker rm -f -v $(docker ps -aq); docker rmi -f $(docker images -q)")


def record(cli: str, name: str, only: list[str]) -> int:
    for chapter, steps in _chapters(cli, os.environ["KNARR_TOUR_DOCKER"], only):
        heading = f"What Docker's engine makes of chapters/{chapter}.tour, normalised. Recorded: see tour.py."
        transcript.write(HERE / "answers" / name / f"{chapter}.answers", heading, steps)
    return 0


def compare(cli: str, name: str, only: list[str]) -> int:
    """Show where knarr's answers are neither Docker's nor justified; 1 where any is."""
    knarr, docker, justified = *_both(cli, name, only), differences(name)
    count = 0
    for chapter, steps in knarr.items():
        for theirs, ours in zip(docker[chapter], steps, strict=True):
            expected = justified.get((chapter, ours.command))
            if said(name, theirs) == said(name, ours):
                if expected:
                    print(f"\n{chapter}: $ {ours.command}\n  answered as Docker does: it is no difference any more")
                    count += 1
            elif expected is None or said(name, expected) != said(name, ours):
                count += 1
                print(f"\n{chapter}: {described(name, said(name, expected or theirs), ours)}")
    print(f"\n{count} steps differ")
    return int(count > 0)


def differ(cli: str, name: str, only: list[str]) -> int:
    """Write down what differs: known reasons stay, new differences get a line to be filled in."""
    knarr, docker, known = *_both(cli, name, only), differences(name)
    for chapter, steps in knarr.items():
        found = []
        for theirs, ours in zip(docker[chapter], steps, strict=True):
            if said(name, theirs) != said(name, ours):
                before = known.get((chapter, ours.command))
                ours.why = before.why if before else NO_REASON
                found.append(ours)
        heading = f"Where knarr does not answer chapters/{chapter}.tour as Docker does, and why."
        transcript.write(HERE / "differences" / name / f"{chapter}.differences", heading, found)
    return 0


_Answers = dict[str, list[transcript.Step]]


def _both(cli: str, name: str, only: list[str]) -> tuple[_Answers, _Answers]:
    """What a knarr of its own says, and Docker: the one at $KNARR_TOUR_DOCKER, or as it was recorded."""
    own = new_engine()
    own.start()
    try:
        knarr = dict(_chapters(cli, own.host, only))
    finally:
        own.stop()
    if "KNARR_TOUR_DOCKER" in os.environ and name != "knarr":
        return knarr, dict(_chapters(cli, os.environ["KNARR_TOUR_DOCKER"], only))
    return knarr, {chapter: answers(name, chapter) for chapter in knarr}


def answers(name: str, chapter: str) -> list[transcript.Step]:
    """Docker's recorded answers. knarr's own command line is held to those of the newest docker command line."""
    return transcript.read(HERE / "answers" / ("docker29" if name == "knarr" else name) / f"{chapter}.answers")


def differences(name: str) -> dict[tuple[str, str], transcript.Step]:
    """(chapter, command) → what knarr makes of a step, where that is not what Docker does, with the reason."""
    found = {}
    for path in sorted((HERE / "differences" / name).glob("*.differences")):
        for step in transcript.read(path):
            if not step.why:
                raise ValueError(f"{path}: {step.command}: a difference without a reason")
            found[path.stem, step.command] = step
    return found


def described(name: str, expected: list[str], ours: transcript.Step) -> str:
    """A step and in what it differs, for people."""
    lines = [line for line in difflib.ndiff(expected, said(name, ours)) if line[0] in "-+"]
    return "\n  ".join([f"$ {ours.command}", *lines])


def said(name: str, step: transcript.Step) -> list[str]:
    """What is compared: all of it; of knarr's own command line, whose complaints are in its own words, not stderr.

    What a command sorted is sorted again: it did that to ages and IDs.
    """
    if step.command.endswith("| sort"):
        step = dataclasses.replace(step, out=sorted(step.out))
    if name == "knarr":
        return transcript.Step("", out=step.out, err=["..."] if step.err else [], code=step.code).lines()[1:]
    return step.lines()[1 + len(step.why.splitlines()) :]


def name_of(cli: str) -> str:
    """docker28, docker29, ... or knarr: whose answers and differences are a command line's."""
    base = os.path.basename(cli)
    if base == "knarr" or re.fullmatch(r"docker\d+", base):
        return base
    version = subprocess.run([cli, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+)\.", version)
    if found is None:
        raise SystemExit(f"{cli} does not tell its version: give it a name such as docker29")
    return f"docker{found[1]}"


if __name__ == "__main__":
    verb = {"record": record, "compare": compare, "differ": differ}[sys.argv[1]]
    sys.exit(verb(sys.argv[2], name_of(sys.argv[2]), sys.argv[3:]))
