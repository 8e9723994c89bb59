"""Every public name of the libraries is accounted for in docs/peers.md."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent.parent / "docs"
MADE = runpy.run_path(str(DOCS / "make_peers.py"))


@pytest.mark.parametrize("module", MADE["MODULES"])
def test_nothing_of_theirs_is_passed_over(module: str) -> None:
    pytest.importorskip(module)
    assert [name for name in MADE["public"](module) if MADE["verdict"](module, name) is None] == []


def test_the_page_is_current() -> None:
    for module in MADE["MODULES"]:
        pytest.importorskip(module)
    assert MADE["document"]() == (DOCS / "peers.md").read_text(), "run: python docs/make_peers.py"
