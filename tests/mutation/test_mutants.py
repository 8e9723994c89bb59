"""The mutants that are tried are the ones that are meant, and what is written about them is current."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mutants import INTERPRETED, ROOMS, TESTS, equivalents
from planting import ROOT, files, mutants, plant

MADE = {
    "a = b < c": ["a = b <= c", "a = b >= c", "a = True", "a = False"],
    "a = b and (not c)": ["a = b or not c", "a = b and c"],
    "a = b + 1": ["a = b - 1", "a = b + 2", "a = b + 0"],
    "a = f(b) if c else d": ["a = f(b)", "a = d"],
    "key = (a, b)": ["key = (None, b)", "key = (a, None)"],
    "f(a, b=c)": ["pass", "f(a)"],
    "a += b": ["pass"],
    "a = min(b)": ["a = max(b)"],
    "a = [b for b in c if d]": ["a = [b for b in c]"],
    "assert a < 1": [],
    "a = zip(b, c, strict=True)": [],
}


@pytest.mark.parametrize("source", MADE)
def test_faults_of_a_statement(source: str, tmp_path: Path) -> None:
    path = tmp_path / "statement.py"
    path.write_text(source)
    assert [m.after for m in mutants(path)] == MADE[source]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_mutants_and_tests(room: str) -> None:
    assert any(mutants(path) for path in files(room))
    for path in (f"tests/{room}", *TESTS, *INTERPRETED):
        assert (ROOT / path).exists(), path


def test_what_is_named_equivalent_is_still_there() -> None:
    of_room = {path for room in ROOMS for path in files(room)}
    for file in {ROOT / name[0] for name in equivalents()}:
        assert file in of_room
        assert {name for name in equivalents() if ROOT / name[0] == file} <= {m.name for m in mutants(file)}


MODULE = """
def outer(a):
    def inner(b):
        return a + b
    return inner

class Held:
    @property
    def two(self):
        return 2

DEFAULT = 1 + 1
"""


def test_a_fault_is_planted_in_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(MODULE)
    module: dict[str, Any] = {}
    exec(compile(MODULE, path, "exec"), module)
    before, held = module["outer"](3), module["Held"]()
    found = {(m.before, m.after): m for m in mutants(path)}
    assert plant(found["return a + b", "return a - b"])
    assert before(1) == module["outer"](3)(1) == 2  # the closure that was there, and one that is made now
    assert plant(found["return 2", "return 3"]) and held.two == 3
    assert not plant(found["DEFAULT = 1 + 1", "DEFAULT = 1 - 1"])  # only an import would see it
