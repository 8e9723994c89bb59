"""Documents that are written from the code are current."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("page", ["benchmarks", "errors", "neurons", "numbers", "operations"])
def test_a_page_made_of_the_code_is_current(page: str) -> None:
    made = runpy.run_path(str(DOCS / f"make_{page}.py"))
    assert made["document"]() == (DOCS / f"{page}.md").read_text(), f"run: python docs/make_{page}.py"


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
