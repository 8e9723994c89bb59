"""The step and the vjp of samples that end at a step of their own."""

from __future__ import annotations

import torch
from small_step import F32, Small, told, told_all

from flexsn.ir.graph import LeafKind, Node
from flexsn.ir.spec import verify
from flexsn.ir.step import StepGraph, StepVjp
from flexsn.planning.lengths import with_lengths


def alive(small: Small) -> Node:
    """The condition that all of it hangs on."""
    (condition,) = {n.args[0] for n in with_lengths(small.step, small.vjp, ())[0].new_states}
    return condition


def ended(wanted: tuple[int, ...] = ()) -> tuple[Small, StepGraph]:
    small = Small()
    step, _ = with_lengths(small.with_sequences(*wanted), small.vjp, wanted)
    verify(step)
    return small, step


def gradients(outputs: tuple[bool, ...], states: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[Small, StepVjp]:
    small = Small()
    _, vjp = with_lengths(small.with_sequences(*wanted), small.vjp, wanted)
    found = vjp(outputs, states, True, True)
    verify(found)
    return small, found


def test_a_sample_goes_on_while_the_step_is_one_of_its_own() -> None:
    condition = alive(Small())
    assert told(condition) == "lt(int32(t), length0)"
    assert condition.args[1].dtype == torch.int32


def test_past_its_end_outputs_are_zero_and_states_stay() -> None:
    small, step = ended()
    names = {alive(small): "alive"}
    assert told_all(step.outputs, names) == ["where(alive, add(input0, state0), 0.0)"]
    assert told_all(step.new_states, names) == [
        "where(alive, mul(product0, state0), state0)",
        "where(alive, sub(state1, input1), state1)",
    ]


def test_sequences_of_states_show_that_they_stay() -> None:
    _, step = ended(wanted=(1,))
    assert step.outputs[1] is step.new_states[1]
    assert len(step.outputs) == 2 and told(step.outputs[0]).endswith("0.0)")


def test_the_step_is_asked_about_what_comes_in_from_outputs_and_from_states_by_either_way() -> None:
    asked = [gradients(*given, wanted=(1,))[0].asked[-1] for given in (((True, True), (1, 0)), ((False, True), (0, 1)))]
    assert asked == [((True, False), (1, 1), False, False), ((False, False), (0, 1), False, False)]
    small, _ = gradients((True, False), (0, 0), wanted=(1,))
    assert small.asked == [((True, False), (0, 0), False, False)]


def test_past_its_end_gradients_of_inputs_and_parameters_are_zero() -> None:
    small, found = gradients((True,), (0, 0), wanted=())
    names = {alive(small): "alive"}
    assert told_all(found.grad_inputs, names) == ["where(alive, grad_output0, 0.0)", "-"]
    assert [told(r.node, names) for r in found.reductions] == ["where(alive, mul(grad_output0, state0), 0.0)"]
    (outer,) = found.outers
    assert told_all((outer.left, outer.right), names) == [
        "where(alive, state0, 0.0)",
        "where(alive, grad_output0, 0.0)",
    ]


def test_past_its_end_the_gradient_of_a_state_goes_through() -> None:
    small, found = gradients((False,), (1, 1), wanted=())
    names = {alive(small): "alive"}
    assert [told_all(summands, names) for summands in found.grad_states] == [
        ["where(alive, mul(add(grad_state0, grad_state1), state0), grad_state0)"],
        ["where(alive, 0.0, grad_state1)"],
    ]


def test_no_gradient_goes_through_where_none_comes() -> None:
    small, found = gradients((True,), (0, 0), wanted=())
    names = {alive(small): "alive"}
    assert [told_all(summands, names) for summands in found.grad_states] == [
        ["where(alive, mul(grad_output0, state0), 0.0)"],
        [],
    ]


def test_the_gradient_of_a_sequence_is_the_first_summand_of_its_state_s() -> None:
    small, found = gradients((False, True), (0, 1), wanted=(1,))
    both = small.builder.op(
        "add",
        small.builder.leaf(LeafKind.COTANGENT, 1, F32),
        small.builder.leaf(LeafKind.STATE_COTANGENT, 1, F32),
        dtype=F32,
    )
    assert told_all(found.grad_states[1], {alive(small): "alive", both: "both"}) == ["where(alive, 0.0, both)"]
    assert told_all(found.grad_inputs, {alive(small): "alive", both: "both"})[0] == "where(alive, both, 0.0)"


def test_each_sequence_of_a_state_has_its_own_gradient() -> None:
    small, found = gradients((False, True, True), (0, 0), wanted=(1, 0))
    assert (
        told_all(found.grad_inputs, {alive(small): "alive"})[0] == "where(alive, add(grad_output2, grad_output1), 0.0)"
    )
