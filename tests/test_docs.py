"""Documents that are written from the code are current."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def test_the_table_of_neurons_is_current() -> None:
    made = runpy.run_path(str(DOCS / "make_neurons.py"))
    assert made["table"]() == (DOCS / "neurons.md").read_text(), "run: python docs/make_neurons.py"


def test_the_table_of_promises_is_current() -> None:
    made = runpy.run_path(str(DOCS / "make_numbers.py"))
    assert made["document"]() == (DOCS / "numbers.md").read_text(), "run: python docs/make_numbers.py"


def test_a_lif_neuron_is_at_the_memory_floor() -> None:
    rows = (DOCS / "neurons.md").read_text().splitlines()
    lif = next(r for r in rows if r.startswith("| LIF |")).split(" | ")
    assert lif[-3:-1] == ["8", "21"]


def test_every_promise_has_a_test_that_holds_it() -> None:
    rows = [row for row in (DOCS / "promises.md").read_text().splitlines() if row.startswith("| ")]
    promises = [row for row in rows if row != "| promise | test |"]
    named = [re.findall(r"`([\w/]+\.py)::(\w+)`", row) for row in promises]
    assert len(promises) > 40 and all(named)
    tests = Path(__file__).parent
    missing = []
    for file, name in {pair for pairs in named for pair in pairs}:
        path = tests / file
        if not path.exists() or f"\ndef test_{name}(" not in path.read_text():
            missing.append(f"{file}::{name}")
    assert not missing, missing
