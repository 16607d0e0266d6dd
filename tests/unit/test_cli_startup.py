"""What commands import, which is what they cost before they do anything."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import knarr
from tests.unit.test_cli_bodies import Recorder

HEAVY = {
    "click",
    "pydantic",
    "aiohttp",
    "asyncio",
    "json",
    "re",
    "enum",
    "typing",
    "dataclasses",
    "inspect",
    "http",
    "email",
    "socket",
    "subprocess",
    "logging",
}
PROGRAM = """
import sys
from knarr.cli import execute
code = execute(sys.argv[1:])
sys.stderr.write("\\n".join(sorted(sys.modules)))
sys.stdout.flush()
"""


def modules(*arguments, **environment):
    # -S: what a site-packages directory runs at start is not ours
    path = ":".join(entry for entry in sys.path if entry)
    result = subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM, *arguments],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return set(result.stderr.split("\n"))


def test_version_imports_next_to_nothing():
    loaded = modules("--version")
    assert not loaded & HEAVY
    assert {name for name in loaded if name.startswith("knarr")} == {"knarr", "knarr.cli", "knarr.errors"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "-d", "--rm", "-e", "A=1", "-v", "/a:/b", "-p", "80:80", "--network", "none", "busybox", "true"],
        ["create", "busybox"],
        ["start", "x"],
        ["stop", "x"],
        ["kill", "x"],
        ["rm", "-f", "x"],
    ],
)
def test_hot_verbs_import_nothing_heavy(tmp_path, arguments):
    recorder = Recorder(tmp_path / "socket")
    loaded = modules(*arguments, KNARR_HOST=f"unix://{tmp_path}/socket")
    recorder.close()
    assert "knarr.client.http" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize(
    "arguments",
    [
        ["ps"],
        ["exec", "x", "true"],
        ["logs", "x"],
        ["wait", "x"],
        ["images"],
        ["stats"],
        ["update", "--cpus", "2", "x"],
        ["events"],
        ["info"],
        ["system", "df"],
        ["system", "prune", "-f"],
    ],
)
def test_verbs_that_fail_do_so_without_anything_heavy(tmp_path, arguments):
    loaded = modules(*arguments, KNARR_HOST=f"unix://{tmp_path}/nobody")
    assert not loaded & HEAVY


def test_the_version_is_the_workspaces():
    manifest = (Path(__file__).resolve().parents[2] / "Cargo.toml").read_text()
    assert re.search(r'\[workspace.package\]\nversion = "(.*)"', manifest)[1] == knarr.__version__
