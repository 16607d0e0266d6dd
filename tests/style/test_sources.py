"""House rules that a formatter does not know."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRACKED = [
    ROOT / name
    for name in subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
]
CODE = [path for path in TRACKED if path.suffix in {".py", ".rs"} and path.exists()]
LIMIT = 600


def relative(path):
    return str(path.relative_to(ROOT))


def without_tests(path: Path) -> list[str]:
    lines = path.read_text().splitlines()
    if path.suffix == ".rs":
        for number, line in enumerate(lines):
            if line.strip() == "#[cfg(test)]":
                return lines[:number]
    return lines


@pytest.mark.parametrize("path", [path for path in CODE if "tests" not in path.parts], ids=relative)
def test_no_file_is_too_long(path):
    assert len(without_tests(path)) <= LIMIT, "has more than one reason to exist"


@pytest.mark.parametrize("path", CODE, ids=relative)
def test_names_say_something(path):
    assert path.stem not in {"utils", "util", "helpers", "helper", "common", "misc", "manager"}


@pytest.mark.parametrize("path", [path for path in CODE if path.suffix == ".rs"], ids=relative)
def test_unsafe_stays_in_sys_and_is_explained(path):
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        if not re.search(r"\bunsafe\s*(\{|impl|fn|extern)", line.split("//")[0]):
            continue
        assert relative(path).startswith("rust/sys/"), f"line {number + 1}: unsafe belongs in rust/sys"
        if re.search(r"unsafe\s*(\{|impl)", line):
            before = "\n".join(lines[max(0, number - 6) : number + 1])
            assert "SAFETY" in before, f"line {number + 1}: say why it is sound"


@pytest.mark.parametrize("path", [path for path in CODE if path.suffix == ".rs" and "/src/" in str(path)], ids=relative)
def test_rust_modules_open_with_what_they_are(path):
    assert path.read_text().startswith("//!")


@pytest.mark.parametrize(
    "path", [path for path in CODE if path.is_relative_to(ROOT / "python") and path.read_text().strip()], ids=relative
)
def test_python_modules_open_with_what_they_are(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_nothing_is_unfinished():
    words = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|\btodo!\(|\bunimplemented!\(|NotImplementedError")
    found = [
        f"{relative(path)}:{number}"
        for path in CODE
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if words.search(line)
    ]
    assert not found


def test_no_test_is_skipped_silently():
    words = re.compile(r"pytest\.skip\(|mark\.skip|importorskip|mark\.xfail|#\[ignore")
    allowed = {"tests/conftest.py"}  # the slow tests, which have a target of their own
    found = [
        f"{relative(path)}:{number}"
        for path in CODE
        if relative(path) not in allowed and path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if words.search(line)
    ]
    assert not found
