"""The order in which gradients come in, and the summands a marked recording tells apart."""

from __future__ import annotations

import torch
from torch import Tensor

from flexsn.ir.graph import Builder, LeafKind, Node
from flexsn.ir.step import StepVjp
from flexsn.tracing.cotangents import cotangents, mark, pullback, summands
from flexsn.tracing.tracer import Tracer

F32 = torch.float32


def names(outputs: tuple[bool, ...], states: tuple[int, ...], last: bool) -> list[str]:
    return [c.name for c in cotangents(outputs, states, last)]


def test_outputs_come_first_and_the_last_of_them_before_the_others() -> None:
    assert names((True, False, True), (1,), last=False) == ["grad_output2", "grad_output0", "grad_state0"]


def test_at_the_last_step_final_states_come_before_outputs() -> None:
    assert names((True, True), (1, 0, 1), last=True) == [
        *("grad_state0", "grad_state2", "grad_output1", "grad_output0")
    ]


def test_a_gradient_in_parts_comes_part_by_part() -> None:
    assert names((False,), (2, 1), last=False) == ["grad_state0", "grad_state0_part1", "grad_state1"]


def test_a_cotangent_knows_the_value_it_is_the_gradient_of() -> None:
    assert [c.value for c in cotangents((True, True), (1, 1), last=False)] == [1, 0, 2, 3]
    assert mark(1).name == "mark1" and mark(1).part != 0


B = Builder()
MARK = B.leaf(LeafKind.STATE_COTANGENT, 0, F32, mark(0).part)
TERMS = [B.leaf(LeafKind.COTANGENT, i, F32) for i in range(3)]


def added(*nodes: Node) -> Node:
    total, *rest = nodes
    for node in rest:
        total = B.op("add", total, node, dtype=F32)
    return total


def test_summands_are_what_was_added_to_the_mark() -> None:
    assert summands(B, added(MARK, *TERMS), added(*TERMS)) == tuple(TERMS)
    assert summands(B, added(MARK, TERMS[0]), TERMS[0]) == (TERMS[0],)


def test_a_sum_within_a_term_is_one_summand() -> None:
    inner = added(*TERMS[:2])
    assert summands(B, added(MARK, TERMS[2], inner), added(TERMS[2], inner)) == (TERMS[2], inner)


def test_a_gradient_that_does_not_begin_with_the_mark_stays_whole() -> None:
    total = added(*TERMS)
    assert summands(B, added(TERMS[0], MARK, TERMS[1]), total) == (total,)
    assert summands(B, added(MARK, *TERMS[1:]), total) == (total,)
    assert summands(B, total, added(*TERMS[1:])) == (added(*TERMS[1:]),)


def vjp(*pattern: tuple[int, ...], apart: bool = True) -> StepVjp:
    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        v = v * v + x
        return v, v

    outputs, states = pattern
    return Tracer(core, (F32,), (F32,), torch.device("cpu")).vjp(tuple(map(bool, outputs)), states, apart)


def test_a_state_that_is_an_output_gives_its_gradient_apart() -> None:
    ((first, second),) = vjp((1,), (1,)).grad_states
    assert first.op == second.op == "mul"
    ((whole,),) = vjp((1,), (1,), apart=False).grad_states
    assert whole.op == "add" and {n.op for n in whole.args} == {"mul"}


def test_without_a_gradient_of_the_output_nothing_is_apart() -> None:
    (summed,) = vjp((0,), (1,)).grad_states
    assert len(summed) == 1


def test_pullback_is_autograds_grad() -> None:
    x, unused = torch.rand(3, requires_grad=True), torch.rand(3, requires_grad=True)
    grads = [torch.rand(3), torch.rand(3)]
    (got, none) = pullback([x * x, x.exp()], grads, [x, unused])
    (want,) = torch.autograd.grad([x * x, x.exp()], [x], grads)
    assert got is not None and torch.equal(got, want) and none is None
    assert pullback([], [], [x]) == (None,)
