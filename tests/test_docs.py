"""Documents that are written from the code are current."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"


@pytest.mark.parametrize("page", ["benchmarks", "errors", "neurons", "numbers", "operations"])
def test_a_page_made_of_the_code_is_current(page: str) -> None:
    made = runpy.run_path(str(DOCS / f"make_{page}.py"))
    assert made["document"]() == (DOCS / f"{page}.md").read_text(), f"run: python docs/make_{page}.py"


def test_a_lif_neuron_is_at_the_memory_floor() -> None:
    rows = (DOCS / "neurons.md").read_text().splitlines()
    lif = next(r for r in rows if r.startswith("| LIF |")).split(" | ")
    assert lif[-3:-1] == ["8", "21"]


def promised() -> set[tuple[str, str]]:
    """``(file, name)`` of the tests in the table of promises; every promise has one."""
    rows = [row for row in (DOCS / "promises.md").read_text().splitlines() if row.startswith("| ")]
    promises = [row for row in rows if row != "| promise | test |"]
    named = [re.findall(r"`([\w/]+\.py)::(\w+)`", row) for row in promises]
    assert len(promises) > 40 and all(named)
    return {pair for pairs in named for pair in pairs}


def test_every_promise_has_a_test_that_holds_it() -> None:
    missing = []
    for file, name in promised():
        path = TESTS / file
        if not path.exists() or f"\ndef test_{name}(" not in path.read_text():
            missing.append(f"{file}::{name}")
    assert not missing, missing


def test_no_promise_rests_on_a_test_that_is_skipped(request: pytest.FixtureRequest) -> None:
    """Or is not collected; one for Triton's interpreter runs in a process of its own."""
    run: dict[str, set[str]] = {}
    for item in request.session.items:
        if not isinstance(item, pytest.Function) or not item.path.is_relative_to(TESTS):
            continue
        names = run.setdefault(item.path.relative_to(TESTS).as_posix(), set())
        if "triton" in item.nodeid or not is_skipped(item):
            names.add(item.originalname.removeprefix("test_"))
    if not {file for file, _ in promised()} <= run.keys() or request.config.option.keyword:
        pytest.skip("the whole suite tells")
    resting = sorted(f"{file}::{name}" for file, name in promised() if name not in run[file])
    assert not resting, resting


def is_skipped(item: pytest.Item) -> bool:
    return any(True for _ in item.iter_markers("skip")) or any(mark.args[0] for mark in item.iter_markers("skipif"))


FORMULAS = runpy.run_path(str(DOCS / "site_parts" / "formulas.py"))


@pytest.mark.parametrize(
    ("formula", "latex"),
    [
        ("h = v + (x − v)/tau", r"h = v + \frac{x - v}{\tau }"),
        ("s = Θ(h − v_threshold)", r"s = \Theta  \left( h - v_{\mathrm{threshold}} \right)"),
        ("a' = ρ_a·a + exp(−1/tau)", r"a' = \rho _{a} \, a + \operatorname{exp} \left( - \frac{1}{\tau } \right)"),
        ("f(x) = (α/√π) |x|²", r"f \left( x \right) = \left( \frac{\alpha }{\sqrt{\pi }} \right) \left| x \right|^{2}"),
        ("u = (v)(w)/b", r"u = \left( v \right) \frac{w}{b}"),
    ],
)
def test_a_formula_of_a_docstring_is_an_equation_on_the_site(formula: str, latex: str) -> None:
    assert FORMULAS["latex"](formula) == latex


@pytest.mark.parametrize("formula", ["h = (v", "h = v)", "h = /v", "h = v/", "h = |v"])
def test_a_formula_with_a_slip_is_an_error_of_the_build(formula: str) -> None:
    with pytest.raises(ValueError):
        FORMULAS["latex"](formula)


def test_only_formulas_become_equations() -> None:
    docstring = 'Fires at ``h ≥ 1`` with ``step_mode = "m"`` or ``tau``.\n\nArgs:\n    tau: ``tau > 1``.'
    assert FORMULAS["with_equations"](docstring) == docstring.replace("``h ≥ 1``", r":math:`h \ge 1`")
