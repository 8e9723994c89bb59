"""The step and the vjp where a mask sets states back."""

from __future__ import annotations

import pytest
import torch
from small_step import Small, told, told_all

from flexsn.ir.graph import LeafKind
from flexsn.ir.spec import verify
from flexsn.ir.step import StepVjp
from flexsn.planning.resets import with_resets


def gradients(states: tuple[int, ...], learned: tuple[int, ...]) -> tuple[Small, StepVjp]:
    small = Small()
    found = with_resets(small.step, small.vjp, learned)[1]((True,), states, True, True)
    verify(found)
    return small, found


def test_the_mask_is_one_more_input_and_every_state_enters_by_it() -> None:
    small = Small()
    step, _ = with_resets(small.step, small.vjp, ())
    verify(step)
    mask = step.inputs[-1]
    assert (len(step.inputs), mask.op, mask.index, mask.dtype) == (3, LeafKind.INPUT, 2, torch.bool)
    assert step.states == (small.v, small.w)
    assert told_all(step.outputs) == ["add(input0, where(input2, initial0, state0))"]
    assert told_all(step.new_states) == [
        "mul(product0, where(input2, initial0, state0))",
        "sub(where(input2, initial1, state1), input1)",
    ]
    assert [told(p.source) for p in step.products] == ["where(input2, initial0, state0)"]


def test_an_initial_state_that_is_learned_is_a_state_that_stays_the_same() -> None:
    small = Small()
    step, _ = with_resets(small.step, small.vjp, (1, 0))
    verify(step)
    assert told_all(step.states) == ["state0", "state1", "state2", "state3"]
    assert step.new_states[2:] == step.states[2:]


def test_gradients_stop_at_a_reset() -> None:
    small, found = gradients((1, 0), ())
    assert small.asked == [((True,), (1, 0), False, True)]
    total = "add(grad_output0, grad_state0)"
    entering = "where(input2, initial0, state0)"
    assert told_all(found.grad_inputs) == [total, "-", "-"]
    assert [told_all(g) for g in found.grad_states] == [[f"where(input2, 0.0, mul({total}, {entering}))"], []]
    assert [told(r.node) for r in found.reductions] == [f"mul({total}, {entering})"]


@pytest.mark.parametrize("comes", [False, True])
def test_and_go_to_the_initial_states_that_are_learned(comes: bool) -> None:
    small, found = gradients((0, 0, int(comes), int(comes)), (1, 0))
    assert small.asked == [((True,), (0, 0), False, True)]
    at_reset = "where(input2, mul(grad_output0, where(input2, initial0, state0)), 0.0)"
    of_w, of_v = found.grad_states[2:]
    assert told_all(of_w) == (["grad_state2"] if comes else [])
    assert told_all(of_v) == [f"add(grad_state3, {at_reset})" if comes else at_reset]
