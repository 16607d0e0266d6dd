"""What `pip install` of the wheel gives, in a bare virtual environment with no compiler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import new_engine

WHEELS = Path(__file__).resolve().parents[2] / "target" / "wheels"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A virtual environment with the wheel in it, installed with a PATH that has no compiler."""
    (wheel,) = WHEELS.glob("knarr-*.whl")
    assert "manylinux2014" in wheel.name
    assert "abi3" in wheel.name
    base = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", base], check=True)
    bare = {**os.environ, "PATH": f"{base}/bin"}
    subprocess.run(
        [base / "bin" / "pip", "install", "-q", "--only-binary", ":all:", wheel], check=True, env=bare, timeout=300
    )
    return base


@pytest.mark.timeout(400)
def test_the_programs_are_there_and_static(environment):
    for program in ("knarr", "knarr-supervisor", "knarr-runtime"):
        path = environment / "bin" / program
        assert os.access(path, os.X_OK)
        if program != "knarr":
            # A static program names no interpreter (ELF, PT_INTERP).
            assert b"/ld-linux" not in path.read_bytes()[:4096]
    out = subprocess.run(
        [environment / "bin" / "knarr", "--version"], capture_output=True, text=True, check=True
    ).stdout
    assert out.startswith("knarr version ")


@pytest.mark.timeout(400)
def test_hello_runs_without_any_image_or_network(environment):
    own = new_engine()
    env = {**own.env, "PATH": f"{environment}/bin"}
    try:
        out = subprocess.run(
            [environment / "bin" / "knarr", "run", "--rm", "hello"],
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert out.returncode == 0, out.stderr
        assert "Hello from a knarr container!" in out.stdout
    finally:
        subprocess.run(["pkill", "-f", f"daemon.*{own.run_root}"], check=False)
        own.stop()
