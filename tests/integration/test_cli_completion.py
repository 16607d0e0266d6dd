"""Completion in shells: bash itself, and what zsh and fish ask by their scripts."""

import subprocess

import pytest

from tests.conftest import SCRIPTS

SHAPE = {"bash": "plain,{}", "fish": "plain,{}", "zsh": "plain\n{}\n_"}


@pytest.fixture(scope="module")
def peopled(shared_engine):
    """The shared engine with a container in each state."""
    shared_engine.run("run", "-d", "--name", "tab-runs", "busybox", "sleep", "1000")
    shared_engine.run("run", "-d", "--name", "tab-paused", "busybox", "sleep", "1000")
    shared_engine.run("pause", "tab-paused")
    shared_engine.run("create", "--name", "tab-made", "busybox", "true")
    yield shared_engine
    shared_engine.run("rm", "-f", "tab-runs", "tab-paused", "tab-made")


CASES = [
    (["stop", "tab-"], {"tab-runs", "tab-paused"}, {"tab-made"}),
    (["exec", "tab-"], {"tab-runs"}, {"tab-made", "tab-paused"}),
    (["exec", "-it", "-u", "app", "tab-"], {"tab-runs"}, {"tab-made"}),
    (["start", "tab-"], {"tab-made"}, {"tab-runs", "tab-paused"}),
    (["unpause", ""], {"tab-paused"}, {"tab-runs", "tab-made"}),
    (["rm", "tab-"], {"tab-made"}, {"tab-runs"}),
    (["rm", "-f", "tab-"], {"tab-made", "tab-runs", "tab-paused"}, set()),
    (["container", "logs", "tab-"], {"tab-made", "tab-runs", "tab-paused"}, set()),
    (["stop", "tab-runs", "tab-"], {"tab-paused"}, {"tab-runs"}),
    (["exec", "tab-runs", ""], set(), {"tab-runs", "tab-paused"}),
    (["rename", "tab-runs", ""], set(), {"tab-runs", "tab-paused"}),
    (["run", "--rm", "bus"], {"busybox:latest"}, set()),
    (["run", "busybox", "bus"], set(), {"busybox:latest"}),
    (["rmi", "bus"], {"busybox:latest"}, set()),
    (["run", "--network", ""], {"bridge", "host", "none"}, set()),
    (["run", "--restart", "un"], {"unless-stopped"}, {"always"}),
    (["run", "--volumes-from", "tab-"], {"tab-made", "tab-runs"}, set()),
    (["kill", "-s", "SIGT"], {"SIGTERM", "SIGTSTP"}, {"SIGKILL"}),
    (["inspect", "--type", ""], {"container", "image"}, set()),
    (["inspect", ""], {"tab-made", "busybox:latest", "bridge"}, set()),
    (["run", "--no-h"], {"--no-healthcheck"}, {"--name"}),
    (["co"], {"container"}, {"run"}),
    (["container", "re"], {"restart", "rename"}, {"run"}),
]


@pytest.fixture(scope="module")
def offered(peopled):
    """What one bash offers for the last of the words of each case."""
    script = 'eval "$(_KNARR_COMPLETE=bash_source knarr)"\n'
    for words, _, _ in CASES:
        listed = " ".join(f"'{word}'" for word in ("knarr", *words))
        script += f"COMPREPLY=(); COMP_WORDS=({listed}); COMP_CWORD={len(words)}; _knarr_completion knarr\n"
        script += 'echo ":${COMPREPLY[*]}"\n'
    result = subprocess.run(
        ["bash", "-c", script], env=peopled.env, capture_output=True, text=True, timeout=100, check=True
    )
    assert result.stderr == ""
    answers = [set(line[1:].split()) for line in result.stdout.splitlines() if line.startswith(":")]
    return {tuple(words): answer for (words, _, _), answer in zip(CASES, answers, strict=True)}


@pytest.mark.parametrize(("words", "some", "none"), CASES, ids=[" ".join(words) for words, _, _ in CASES])
def test_bash(offered, words, some, none):
    found = offered[tuple(words)]
    assert some <= found
    assert not none & found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_is_told(peopled, shell):
    environment = {
        **peopled.env,
        "_KNARR_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": "knarr start tab-" if shell != "fish" else "knarr start",
        "COMP_CWORD": "2" if shell != "fish" else "tab-",
    }
    asked = subprocess.run([SCRIPTS / "knarr"], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert asked.stdout.strip() == SHAPE[shell].format("tab-made")
    script = subprocess.run(
        [SCRIPTS / "knarr"],
        env={**environment, "_KNARR_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "_KNARR_COMPLETE" in script.stdout


def test_without_an_engine_there_is_nothing_to_offer(peopled, tmp_path):
    environment = {**peopled.env, "KNARR_HOST": f"unix://{tmp_path}/nobody"}
    environment |= {"_KNARR_COMPLETE": "bash_complete", "COMP_WORDS": "knarr stop ", "COMP_CWORD": "2"}
    asked = subprocess.run([SCRIPTS / "knarr"], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert (asked.stdout.strip(), asked.stderr) == ("", "")
