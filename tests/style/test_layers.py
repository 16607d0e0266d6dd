"""Imports run one way (ARCHITECTURE.md, Layers). Read from the source, so that lazy imports count as well."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "knarr"
# Lower numbers may not import higher ones; equal numbers are one layer.
LAYERS = {"_core": 0, "store": 1, "engine": 2, "api": 3, "daemon": 4, "client": 5, "cli": 6, "__main__": 7}
LEAVES = {"errors", "types", "config", "credentials", "failpoints", "garbage", "resources"}
# The client and the command line reach the engine over HTTP alone; only the `daemon` verb starts it in-process.
FORBIDDEN = {
    ("client", "engine"),
    ("client", "store"),
    ("client", "api"),
    ("client", "_core"),
    ("cli", "engine"),
    ("cli", "store"),
    ("cli", "api"),
}
ENGINE_LAYERS = {
    "apart": 0,
    "events": 0,
    "images": 1,
    "networks": 1,
    "volumes": 1,
    "containers": 2,
    "build": 3,
    "engine": 4,
}
RUST = {
    "sys": set(),
    "inflate": set(),
    "hello": set(),
    "store": {"sys", "inflate"},
    "registry": {"store", "inflate"},
    "net": {"sys"},
    "dns": set(),
    "runtime": {"sys"},
    "supervisor": {"sys", "runtime", "net", "dns", "inflate"},
    "bin": {"runtime", "supervisor"},
    "files": {"sys", "store", "runtime"},
    "py": {"store", "registry", "files"},
}


def imports(path: Path) -> set[str]:
    """The modules of ours that a file imports, without those for type checkers only."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
            base = ".".join(parts[: len(parts) - node.level]) if node.level else ""
            module = ".".join(filter(None, [base, node.module or ""]))
            found |= {module} | {
                f"{module}.{alias.name}" for alias in node.names if module in ("knarr", "knarr.engine")
            }
    return {name for name in found if name.startswith("knarr.")}


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    own = path.relative_to(PACKAGE).parts
    here = own[0].removesuffix(".py")
    for name in imports(path):
        there = name.split(".")[1]
        if here in LEAVES:
            assert there in LEAVES, f"{path}: the leaf {here} imports {name}"
        elif there not in LEAVES and here in LAYERS and there in LAYERS:
            assert LAYERS[there] <= LAYERS[here], f"{path}: {here} may not import {name}"
            assert (here, there) not in FORBIDDEN, f"{path}: {here} may not import {name}"
        if here == there == "engine" and len(own) > 1 and len(name.split(".")) > 2:
            inner, other = own[1].removesuffix(".py"), name.split(".")[2]
            if inner in ENGINE_LAYERS and other in ENGINE_LAYERS and inner != other:
                assert ENGINE_LAYERS[other] < ENGINE_LAYERS[inner], f"{path}: engine.{inner} may not import {name}"


def test_every_top_level_module_has_a_layer():
    known = set(LAYERS) | LEAVES | {"__init__"}
    found = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    assert found <= known, f"say in this test where {found - known} belong"


def test_only_known_crates_depend_on_each_other():
    for manifest in ROOT.glob("rust/*/Cargo.toml"):
        crate = manifest.parent.name
        assert crate in RUST, f"say in this test what {crate} may depend on"
        body = manifest.read_text().split("[dev-dependencies]")[0]
        used = set(re.findall(r"^knarr-(\w+)", body, re.MULTILINE))
        assert used <= RUST[crate], f"{manifest}: may depend on {RUST[crate]}, not on {used - RUST[crate]}"


def test_only_the_binding_crate_knows_python():
    users = [
        path.parent.name
        for path in ROOT.glob("rust/*/Cargo.toml")
        if re.search(r"^pyo3", path.read_text(), re.MULTILINE)
    ]
    assert users == ["py"]
