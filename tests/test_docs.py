"""Documents that are written from the code are current."""

from __future__ import annotations

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
