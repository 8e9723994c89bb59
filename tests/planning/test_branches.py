"""The backward plan of branches made by hand: what is carried, written, added up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from small_step import F32, told, told_all

from flexsn.ir.graph import Builder, LeafKind, Node
from flexsn.ir.plan import BackwardPlan, Role
from flexsn.ir.spec import verify
from flexsn.ir.step import Outer, Place, Reduction, Ref, StepGraph, StepVjp, TorchCall
from flexsn.planning import Gradients, ScanRequest
from flexsn.planning.backward import plan_backward, share_accumulators
from flexsn.planning.boundary import nth_from_end, unify_last_steps

F16, F64 = torch.float16, torch.float64
B = Builder()
X, U = (B.leaf(LeafKind.INPUT, i, F32) for i in range(2))
V, W = (B.leaf(LeafKind.STATE, j, F32) for j in range(2))
GRAD = B.leaf(LeafKind.COTANGENT, 0, F32)
GRAD_V, GRAD_W = (B.leaf(LeafKind.STATE_COTANGENT, j, F32) for j in range(2))
GRAD_W1 = B.leaf(LeafKind.STATE_COTANGENT, 1, F32, 1)
STEP = StepGraph(B, (X, U), (V, W), (V,), (X, W))
NOTHING = StepVjp((None, None), ((), ()), (), (), ())


def op(name: str, *args: Node) -> Node:
    return B.op(name, *args, dtype=F32)


def plan(*vjps: StepVjp, **wanted: Any) -> BackwardPlan:
    """Branches of the last step, the one before, ..., and of all others."""
    whens = [*(nth_from_end(B, n) for n in range(len(vjps) - 1)), None]
    gradients = Gradients((F32,), (True, True), (True, True), (False, False), True)
    gradients = replace(gradients, **wanted)
    request = ScanRequest((F32, F16), (F32,), training=True, gradients=gradients)
    found = plan_backward(STEP, list(zip(whens, vjps, strict=True)), request, gradients, 4)
    verify(found)
    return found


def carries(found: BackwardPlan) -> list[str]:
    return [told(c.leaf) for c in found.carries]


def test_a_gradient_is_carried_if_it_is_read_or_wanted() -> None:
    reads_v = replace(NOTHING, grad_inputs=(GRAD_V, None))
    assert carries(plan(reads_v)) == ["grad_state0"]
    assert carries(plan(reads_v, states=(False, True))) == ["grad_state0", "grad_state1"]
    assert carries(plan(replace(NOTHING, grad_inputs=(GRAD, None)))) == []


def test_a_gradient_in_parts_is_carried_in_as_many_as_any_step_gives() -> None:
    last = replace(NOTHING, grad_states=((), (GRAD,)))
    usual = replace(NOTHING, grad_states=((), (GRAD, op("add", GRAD_W, GRAD_W1))))
    found = plan(last, usual, states=(True, True))
    assert carries(found) == ["grad_state0", "grad_state1", "grad_state1_part1"]
    assert [c.initial.name if c.initial else "-" for c in found.carries] == ["gv_final0", "gv_final1", "-"]
    assert [told_all(b.grad_states) for b in found.branches] == [
        ["-", "grad_output0", "-0.0"],
        ["-", "grad_output0", "add(grad_state1, grad_state1_part1)"],
    ]
    assert [(slot.name, told(node)) for slot, node in found.finals] == [
        ("gv0", "grad_state0"),
        ("gv1", "add(grad_state1, grad_state1_part1)"),
    ]


def test_the_sum_of_three_parts_is_from_the_first_on() -> None:
    parts = tuple(op("mul", GRAD, B.const(float(n), F32)) for n in range(3))
    found = plan(replace(NOTHING, grad_states=((), parts)), states=(False, True))
    ((_, total),) = found.finals
    assert told(total) == "add(add(grad_state1, grad_state1_part1), grad_state1_part2)"


def test_what_every_step_reads_and_none_hands_on_is_zero_after_the_last() -> None:
    """Of the final state a gradient comes in; the steps before read its place too, where nothing may stand."""
    reads_w = replace(NOTHING, grad_inputs=(op("add", GRAD, GRAD_W), None), grad_states=((GRAD_V,), ()))
    found = plan(replace(reads_w, grad_inputs=(GRAD, None)), reads_w)
    assert carries(found) == ["grad_state0", "grad_state1"]
    assert [told_all(b.grad_states)[-1] for b in found.branches] == ["-0.0", "-0.0"]
    only_last = plan(reads_w, replace(reads_w, grad_inputs=(GRAD, None)))
    assert [told_all(b.grad_states)[-1] for b in only_last.branches] == ["-", "-"]


def test_what_a_step_reads_and_hands_on_is_absent_where_no_gradient_has_come_in_yet() -> None:
    found = plan(NOTHING, replace(NOTHING, grad_states=((), (op("neg", GRAD_W),))))
    assert [told_all(b.grad_states) for b in found.branches] == [["-"], ["neg(grad_state1)"]]


def test_what_the_last_step_hands_on_is_used_up_by_the_one_before() -> None:
    found = plan(replace(NOTHING, grad_states=((), (GRAD,))), replace(NOTHING, grad_inputs=(GRAD_W, None)))
    assert [told_all(b.grad_states) for b in found.branches] == [["grad_output0"], ["-0.0"]]


def unified(*vjps: StepVjp, **wanted: Any) -> BackwardPlan:
    found = unify_last_steps(B, plan(*vjps, **wanted))
    verify(found)
    return found


LAST = "eq(add(t, 1), T)"


def test_where_a_branch_has_no_gradient_of_an_input_or_parameter_it_is_zero_and_anything_where_it_is_carried() -> None:
    decay = op("exp", B.leaf(LeafKind.OPERAND, 0, F32))
    scaled = op("mul", GRAD, decay)
    usual = StepVjp((scaled, None), ((), (op("neg", GRAD_W),)), (Reduction(GRAD, (1, 4), (4,)),), (), ())
    step = unified(NOTHING, usual).step
    assert [told(n) for _, n in step.stores if n] == [f"where({LAST}, 0.0, {told(scaled)})"]
    assert told_all(step.accumulate) == [f"where({LAST}, 0.0, grad_output0)"]
    assert told_all(step.grad_states) == ["neg(grad_state1)"]
    assert step.program.hoisted == (decay,) and decay not in step.program.body and scaled in step.program.body
    other = unified(usual, NOTHING, states=(True, False)).step
    assert [told(n) for _, n in other.stores if n] == [f"where({LAST}, {told(scaled)}, 0.0)"]
    assert told_all(other.grad_states) == ["-", "neg(grad_state1)"]


def test_one_branch_is_the_step() -> None:
    found = plan(replace(NOTHING, grad_inputs=(GRAD, None)))
    assert unify_last_steps(B, found) is found


def test_an_input_has_a_gradient_if_any_step_gives_it_one() -> None:
    found = plan(NOTHING, replace(NOTHING, grad_inputs=(None, GRAD)))
    assert [(slot.name, slot.dtype) for slot, _ in found.step.stores] == [("gx1", F16)]
    assert [told_all(node for _, node in b.stores) for b in found.branches] == [["-"], ["grad_output0"]]


def test_a_factor_that_is_there_anyway_is_not_computed() -> None:
    found = plan(replace(NOTHING, outers=(Outer(X, op("neg", GRAD)),)))
    assert [slot.name for slot, _ in found.step.loads] == ["gy0"]
    assert [(o.left.slot.name, o.right.slot.name) for o in found.outers] == [("x0", "f0")]


def test_sums_are_added_up_in_their_own_dtype_where_lanes_share_a_parameter_in_groups() -> None:
    wide = B.cast(GRAD, F64)
    found = plan(replace(NOTHING, reductions=(Reduction(wide, (1, 1), ()), Reduction(GRAD, (1, 4), (4,)))))
    assert [(s.name, s.role, s.dtype) for s in found.accumulators] == [
        ("acc0", Role.GROUP_STORE, F64),
        ("acc1", Role.LANE_STORE, F32),
    ]


SUM = Reduction(GRAD, (1, 4), (4,))
CALL = TorchCall(torch.nn.functional.linear, (Place(0), Place(1)))
OTHERS = [
    replace(NOTHING, reductions=(replace(SUM, base=(2, 4)),)),
    replace(NOTHING, reductions=(replace(SUM, shape=(2, 2)),)),
    replace(NOTHING, reductions=(replace(SUM, node=B.cast(GRAD, F64)),)),
    replace(NOTHING, reductions=(SUM, SUM)),
    replace(NOTHING, reductions=(SUM,), grad_captured=(Ref(1),)),
    replace(NOTHING, reductions=(SUM,), outers=(Outer(X, GRAD),)),
    replace(NOTHING, reductions=(SUM,), outers=(Outer(X, GRAD, call=CALL),)),
]


def test_only_vjps_whose_sums_become_the_same_gradients_share_accumulators() -> None:
    one, alike = (replace(NOTHING, reductions=(replace(SUM, node=node),)) for node in (GRAD, GRAD_V))
    groups, group_of = share_accumulators([one, *OTHERS, alike])
    assert group_of[0] == group_of[-1] == 0 and sorted(group_of[1:-1]) == list(range(1, len(OTHERS) + 1))
    assert [first for first, _ in groups] == [0, 1, 2, 3, 4, 6, 7, 8]
    assert [vjp for _, vjp in groups] == [alike, *reversed(OTHERS)]
