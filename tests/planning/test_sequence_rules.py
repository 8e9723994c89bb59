"""What rules ask for: which outputs are accumulated, how, and in what."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_step import Small, told_all

from flexsn.ir.spec import verify
from flexsn.planning import step_by_rules
from flexsn.planning.rules import SequenceRules, accumulator_dtype

F16, F32, F64 = torch.float16, torch.float32, torch.float64


@pytest.mark.parametrize(
    ("rules", "accumulated"),
    [
        ({}, ()),
        ({"rate": True}, ("0 sum",)),
        ({"time_reduction": "sum"}, ("0 sum", "1 sum")),
        ({"time_reduction": "mean"}, ("0 sum", "1 sum")),
        ({"time_reduction": "sum", "rate": True}, ("0 sum", "1 sum")),
        ({"time_reduction": "last", "rate": True}, ("0 last", "1 last", "0 sum")),
        ({"time_reduction": "max"}, ("0 max", "1 max")),
    ],
)
def test_a_rate_is_a_sum_that_may_be_there_anyway(rules: dict[str, Any], accumulated: tuple[str, ...]) -> None:
    assert tuple(f"{k} {how}" for k, how in SequenceRules(**rules).accumulated(2)) == accumulated


def test_the_sum_of_an_only_output_is_its_rate_too() -> None:
    assert SequenceRules(time_reduction="sum", rate=True).accumulated(1) == ((0, "sum"),)


def test_no_rules_make_no_other_step() -> None:
    small = Small()
    step = small.step
    assert step_by_rules(step, small.vjp, SequenceRules())[0] is step


def test_states_stay_what_they_are_by_all_rules_at_once() -> None:
    """The accumulators are behind what is learned, and a sample that has ended keeps both."""
    small = Small()
    rules = SequenceRules(lengths=True, resets=True, learned=(1,), time_reduction="last", wanted_states=(0,))
    step, vjp = step_by_rules(small.with_sequences(0), small.vjp, rules)
    verify(step)
    verify(vjp((True,), (1, 1, 1, 1), True, True))
    assert told_all(step.states) == ["state0", "state1", "state2", "state3"]
    entering = "where(input2, initial0, state0)"
    alive = "lt(int32(t), length0)"
    assert told_all(step.new_states)[2:] == [
        f"where({alive}, state2, state2)",
        f"where({alive}, add(input0, {entering}), state3)",
    ]


@pytest.mark.parametrize(
    ("how", "output", "dtype"),
    [
        ("sum", torch.bool, torch.int64),
        ("sum", torch.int32, torch.int64),
        ("max", torch.int32, torch.int32),
        ("last", torch.bool, torch.bool),
        ("sum", F16, F32),
        ("max", torch.bfloat16, F32),
        ("sum", F64, F64),
        ("last", F32, F32),
    ],
)
def test_what_an_output_is_accumulated_in(how: str, output: torch.dtype, dtype: torch.dtype) -> None:
    assert accumulator_dtype(how, output) == dtype
