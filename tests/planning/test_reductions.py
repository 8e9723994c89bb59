"""Outputs that are reduced over time are states, and their gradients those of states."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_step import F32, Small, told, told_all

from flexsn.ir.graph import LeafKind
from flexsn.ir.spec import verify
from flexsn.ir.step import StepGraph, StepVjp
from flexsn.planning.reductions import _Accumulator, with_reductions
from flexsn.planning.rules import SequenceRules, accumulator_dtype

LARGER = (
    "logical_or(gt(add(input0, state0), state2), logical_and(isnan(add(input0, state0)), logical_not(isnan(state2))))"
)
FIRST = f"logical_or(eq(t, 0), {LARGER})"


def reduced(*wanted: int, **rules: Any) -> StepGraph:
    small = Small()
    step, _ = with_reductions(small.with_sequences(*wanted), small.vjp, SequenceRules(wanted_states=wanted, **rules))
    verify(step)
    return step


def gradients(outputs: tuple[bool, ...], states: tuple[int, ...], *wanted: int, **rules: Any) -> tuple[Small, StepVjp]:
    small = Small()
    _, vjp = with_reductions(small.with_sequences(*wanted), small.vjp, SequenceRules(wanted_states=wanted, **rules))
    found = vjp(outputs, states, True, False)
    verify(found)
    return small, found


@pytest.mark.parametrize(
    ("how", "following"),
    [
        ("sum", "add(state2, add(input0, state0))"),
        ("mean", "add(state2, add(input0, state0))"),
        ("last", "add(input0, state0)"),
        ("max", f"where({FIRST}, add(input0, state0), state2)"),
    ],
)
def test_what_an_accumulator_becomes(how: str, following: str) -> None:
    step = reduced(time_reduction=how)
    assert told_all(step.states) == ["state0", "state1", "state2"]
    assert step.outputs == () and told(step.new_states[2]) == following


def test_sequences_of_states_stay_outputs() -> None:
    assert told_all(reduced(1, time_reduction="sum").outputs) == ["sub(state1, input1)"]


def test_a_rate_takes_no_output_away() -> None:
    step = reduced(rate=True)
    assert told_all(step.outputs) == ["add(input0, state0)"]
    assert told_all(step.new_states[2:]) == ["add(state2, add(input0, state0))"]


def test_integers_are_added_up_in_64_bits_and_have_no_nan_for_a_maximum() -> None:
    small = Small()
    fired = small.builder.op("gt", small.y, small.v, dtype=torch.bool)
    count = small.builder.cast(fired, torch.int32)
    found = []
    for how, output in (("sum", fired), ("sum", count), ("max", count)):
        step, _ = with_reductions(replace(small.step, outputs=(output,)), small.vjp, SequenceRules(time_reduction=how))
        verify(step)
        found.append(told(step.new_states[2], {fired: "fired", count: "count"}))
        assert step.states[2].dtype == step.new_states[2].dtype == accumulator_dtype(how, output.dtype)
    larger = "logical_or(eq(t, 0), gt(count, state2))"
    assert found == ["add(state2, int64(fired))", "add(state2, int64(count))", f"where({larger}, count, state2)"]


@pytest.mark.parametrize(
    ("how", "of_output", "of_accumulator"),
    [
        ("sum", "grad_state2", ["grad_state2"]),
        ("last", "grad_state2", []),
        ("max", f"where({FIRST}, grad_state2, 0.0)", [f"where({FIRST}, 0.0, grad_state2)"]),
    ],
)
def test_the_gradient_of_an_accumulator_is_the_output_s(how: str, of_output: str, of_accumulator: list[str]) -> None:
    small, found = gradients((), (0, 0, 1), time_reduction=how)
    assert small.asked == [((True,), (0, 0), True, False)]
    assert told_all(found.grad_inputs) == [of_output, "-"]
    assert told_all(found.grad_states[2]) == of_accumulator


def test_gradients_of_an_output_are_added_up_its_sequence_s_first() -> None:
    _, found = gradients((True,), (0, 0, 1), rate=True)
    assert told_all(found.grad_inputs)[0] == "add(grad_output0, grad_state2)"
    _, found = gradients((), (0, 0, 1, 1), time_reduction="last", rate=True)
    assert told_all(found.grad_inputs)[0] == "add(grad_state2, grad_state3)"
    assert [told_all(g) for g in found.grad_states[2:]] == [[], ["grad_state3"]]


def test_sequences_of_states_keep_their_place_among_the_step_s_outputs() -> None:
    small, found = gradients((True,), (1, 0, 0), 1, time_reduction="sum")
    assert small.asked == [((False, True), (1, 0), True, False)]
    assert told_all(found.grad_inputs)[0] == "add(grad_output0, grad_state0)"
    assert [told_all(g) for g in found.grad_states[1:]] == [[], []]


def test_an_accumulator_of_integers_has_no_gradient() -> None:
    small = Small()
    fired = small.builder.op("gt", small.y, small.v, dtype=torch.bool)
    step = replace(small.step, outputs=(fired,))
    with_reductions(step, small.vjp, SequenceRules(time_reduction="sum"))[1]((), (1, 0, 1), True, False)
    assert small.asked == [((False,), (1, 0), True, False)]


def test_16_bit_floats_are_accumulated_in_fp32_and_get_gradients_of_16_bits() -> None:
    small = Small()
    half = small.builder.cast(small.y, torch.float16)
    accumulator = _Accumulator(small.builder, 2, "sum", half)
    assert told(accumulator.following()) == "add(state2, float32(float16(add(input0, state0))))"
    assert told(accumulator.grad_output()) == "float16(grad_state2)"


def test_only_what_one_value_receives_as_several_outputs_is_added_up_as_one() -> None:
    small = Small()
    youngest_first = small.op("add", *(small.builder.leaf(LeafKind.COTANGENT, k, F32) for k in (1, 0)))
    own = StepVjp((youngest_first, None), ((), ()), (), (), ())
    found = []
    for other in (small.y, small.op("neg", small.y)):
        step = replace(small.step, outputs=(small.y, other), products=())
        _, vjp = with_reductions(step, lambda *_: own, SequenceRules(time_reduction="last"))
        found.append(told_all(vjp((), (0, 0, 1, 1), True, False).grad_inputs)[0])
    assert found == ["add(grad_state2, grad_state3)", "add(grad_state3, grad_state2)"]
