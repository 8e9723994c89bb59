"""The mutants that are tried are the ones that are meant, and what is written about them is current."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutants import ROOMS, ROOT, equivalents, files, mutants

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
    for path in (p for paths in ROOMS[room] for p in paths):
        assert (ROOT / path).exists(), path


def test_what_is_named_equivalent_is_still_there() -> None:
    there = {m.name for room in ROOMS for path in files(room) for m in mutants(path)}
    assert equivalents() <= there
