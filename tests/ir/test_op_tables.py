"""The table of operations, and how each backend spells it."""

from __future__ import annotations

import string

import pytest

from flexsn.ir.ops import OPS, Rule
from flexsn.kernels.cpp.spelling import SPELLINGS as CPP
from flexsn.kernels.triton.spelling import SPELLINGS as TRITON

SPELLED = {name: op for name, op in OPS.items() if op.rule is not Rule.CAST}


@pytest.mark.parametrize("table", [CPP, TRITON], ids=["cpp", "triton"])
def test_a_backend_spells_every_operation_but_casts_and_no_other(table: dict[str, object]) -> None:
    assert set(table) == set(SPELLED)


@pytest.mark.parametrize("table", [CPP, TRITON], ids=["cpp", "triton"])
def test_a_spelling_uses_every_argument_and_no_more(table: dict[str, str | tuple[str, str]]) -> None:
    for name, spelled in table.items():
        for text in [spelled] if isinstance(spelled, str) else spelled:
            fields = {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}
            assert fields == set(map(str, range(OPS[name].arity))), name


ARITY = {Rule.COMPARE: (2,), Rule.LOGICAL: (1, 2), Rule.TEST: (1,), Rule.SELECT: (3,), Rule.CAST: (1,)}


def test_a_rule_goes_with_its_arity() -> None:
    for op in OPS.values():
        assert op.arity in ARITY.get(op.rule, (1, 2, 3)), op.name


def test_folds_take_as_many_numbers_as_the_operation_takes_arguments() -> None:
    folding = [op for op in OPS.values() if op.fold is not None]
    assert folding
    for op in folding:
        assert op.fold is not None
        op.fold(*(1,) * op.arity)
