"""The house: which rooms there are, what each may read, and how large it may grow."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import flexsn

ROOT = Path(__file__).parent.parent
FOLDERS = {"flexsn": "flexsn", "flexsn.kernels": "kernels", "flexsn.neurons": "neurons"}

# What each room may read besides itself and the errors: only rooms that stand before it.
INNER = {
    "errors": set[str](),
    "ir": set[str](),
    "kernels": {"ir"},
    "captures": set[str](),
    "tracing": {"ir", "captures"},
    "planning": {"ir"},
    "execution": {"ir", "kernels", "captures", "tracing", "planning"},
    "graphs": {"ir", "captures", "planning", "execution"},
    "report": {"ir", "kernels", "captures", "tracing", "planning", "execution"},
    "modules": {"ir", "captures", "tracing", "planning", "execution", "graphs", "report"},
    "surrogate": set[str](),
    "checking": {"execution", "modules", "report", "surrogate"},
}
# These read what users read: the names of flexsn, and of these rooms as a whole.
OUTER = {
    "functional": {"surrogate"},
    "plot": {"surrogate", "functional"},
    "neurons": {"surrogate", "functional"},
    "nir": {"surrogate", "functional", "neurons"},
    "demo": {"surrogate", "functional", "plot", "neurons"},
    "commands": {"functional", "kernels", "neurons", "plot", "demo"},
}
TOP = ("flexsn", "flexsn.__main__")


def found() -> dict[str, Path]:
    """Every module of the tree and its file."""
    modules = {}
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            modules[".".join((package, *parts)).removesuffix(".__init__")] = path
    return modules


MODULES = found()
ROOMS = {module: path.parent for module, path in MODULES.items() if path.name == "__init__.py"}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def imported(module: str) -> Iterator[tuple[str, str]]:
    """``(module, name)`` of every import, wherever it stands; no name where a module is imported as a whole."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (("." * node.level + (node.module or ""), alias.name) for alias in node.names)


FRONT_DOOR = {name: module for module, name in imported("flexsn")}


def reads(module: str) -> Iterator[str]:
    """The modules of the tree that a module reads; a name of the front door is read where it comes from."""
    for source, name in imported(module):
        if f"{source}.{name}" in MODULES:
            yield f"{source}.{name}"
        elif source == "flexsn" and module != "flexsn":
            yield FRONT_DOOR.get(name, source)
        elif source.partition(".")[0] == "flexsn":
            yield source


def room(module: str) -> str:
    return module.split(".")[1]


def inside(name: str) -> list[str]:
    return [module for module in MODULES if module not in TOP and room(module) == name]


def test_every_room_has_its_place() -> None:
    assert {room(module) for module in MODULES if module not in TOP} == INNER.keys() | OUTER.keys()
    before = {"errors"}
    for name, may_read in {**INNER, **OUTER}.items():
        assert may_read <= before
        before.add(name)


@pytest.mark.parametrize("name", INNER)
def test_a_room_reads_only_what_stands_before_it(name: str) -> None:
    """And never the front door, which is still opening while it is loaded."""
    may_read = INNER[name] | {name, "errors"}
    wrong = [(m, r) for m in inside(name) for r in reads(m) if r in TOP or room(r) not in may_read]
    wrong += [(m, f"flexsn, for {of}") for m in inside(name) for source, of in imported(m) if source == "flexsn"]
    assert not wrong, wrong


@pytest.mark.parametrize("name", OUTER)
def test_outer_rooms_read_public_names(name: str) -> None:
    rooms = {f"flexsn.{other}" for other in OUTER[name]}
    names = {name for name in flexsn.__all__ if f"flexsn.{name}" not in MODULES}
    wrong = []
    for module in inside(name):
        for source, of in imported(module):
            own = f"{source}.".startswith(f"flexsn.{name}.")
            public = source in rooms or (source == "flexsn" and (of in names or f"flexsn.{of}" in rooms))
            if source.partition(".")[0] == "flexsn" and not own and not public:
                wrong.append((module, source, of))
    assert not wrong, wrong


def test_no_modules_read_each_other_in_a_circle() -> None:
    """Imports inside functions and for type checkers count."""
    graph = {module: set(reads(module)) - {module} for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_imports_are_absolute() -> None:
    assert not [module for module in MODULES for source, _ in imported(module) if source.startswith(".")]


def test_rooms_and_files_stay_small() -> None:
    assert not {r: n for r, path in ROOMS.items() if (n := len(list(path.glob("*.py")))) > 15}
    assert not {m: n for m, path in MODULES.items() if (n := len(path.read_text().splitlines())) > 330}


def test_every_room_says_what_it_is_for() -> None:
    first = {module: (ast.get_docstring(tree(module)) or "").split("\n")[0] for module in ROOMS}
    assert not [module for module, line in first.items() if not line.endswith(".")]


def test_every_room_is_shipped() -> None:
    listed = re.search(r"^packages = (\[.*?\])", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert listed and sorted(ast.literal_eval(listed[1])) == sorted(ROOMS)
    assert {path.parent for path in MODULES.values()} == set(ROOMS.values())


def test_no_file_has_a_name_that_says_nothing() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [path for path in ROOT.glob("[fknbt]*/**/*") if path.stem in vague]
