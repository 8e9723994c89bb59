"""What is shipped, and which way imports go."""

from __future__ import annotations

import ast
from importlib import metadata
from pathlib import Path

import pytest

import flexsn

ROOT = Path(__file__).parent.parent
FROM_KERNELS = {
    "flexsn.ir.graph",
    "flexsn.planning.plans",
    "flexsn.ir.plan",
    "flexsn.planning.rematerialize",
    "flexsn.planning.boundary",
    "flexsn.ir.layout",
    "flexsn.errors",
}


def imports(path: Path) -> set[str]:
    """The modules a file of the project imports, relative ones spelled out."""
    found = set()
    package = "flexsn" if path.parent.name == "flexsn" else f"flexsn.{path.parent.name}"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found.add(f"{package}.{module}".rstrip(".") if node.level else module)
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "kernels").glob("*.py")), ids=lambda p: p.name)
def test_kernels_read_only_the_plan_and_what_it_is_made_of(path: Path) -> None:
    ours = {name for name in imports(path) if name.split(".")[0] == "flexsn"}
    assert {n for n in ours if not n.startswith("flexsn.kernels")} <= FROM_KERNELS


@pytest.mark.parametrize("path", sorted((ROOT / "flexsn").glob("*.py")), ids=lambda p: p.name)
def test_flexsn_does_not_know_the_built_in_neurons(path: Path) -> None:
    names = {n for n in imports(path) if n.startswith("flexsn.neurons")}
    assert not names or path.name in ("explain.py", "__main__.py")


@pytest.mark.parametrize("path", sorted((ROOT / "neurons").glob("*.py")), ids=lambda p: p.name)
def test_neurons_do_not_reach_past_flexsn(path: Path) -> None:
    assert not {n for n in imports(path) if n.startswith("flexsn.kernels")}


def test_public_names_exist() -> None:
    assert set(flexsn.__all__) <= set(dir(flexsn))
    assert callable(flexsn.scan) and isinstance(flexsn.FlexSN, type)


def test_typed_and_versioned() -> None:
    for folder in ("flexsn", "kernels", "neurons"):
        assert (ROOT / folder / "py.typed").exists()
    assert metadata.version("flexsn") == "0.1.0"


def test_no_file_has_a_name_that_says_nothing() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [p for p in ROOT.glob("[fknbt]*/**/*.py") if p.stem in vague]
