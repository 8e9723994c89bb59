"""What is read on the way back, and what no wanted gradient needs."""

from __future__ import annotations

from dataclasses import replace

import torch

from flexsn.errors import SourceLine
from flexsn.ir.graph import Builder, LeafKind, Node
from flexsn.ir.step import Outer, Reduction, Ref, StepGraph, StepVjp
from flexsn.planning.liveness import leads_nowhere, live_states, prune_gradients, states_to_checkpoint
from flexsn.planning.request import Gradients

F32 = torch.float32
B = Builder()
X = B.leaf(LeafKind.INPUT, 0, F32)
STATES = A, V, W = tuple(B.leaf(LeafKind.STATE, j, F32) for j in range(3))
GRAD = B.leaf(LeafKind.COTANGENT, 0, F32)
GRADS = GRAD_A, GRAD_V, GRAD_W = tuple(B.leaf(LeafKind.STATE_COTANGENT, j, F32) for j in range(3))
NOTHING = StepVjp((None,), ((), (), ()), (), (), ())


def product(a: Node, b: Node) -> Node:
    return B.op("mul", a, b, dtype=F32)


# V is computed from A, W from itself alone
STEP = StepGraph(B, (X,), STATES, (X,), (A, product(V, A), product(W, W)))


def wanting(inputs: bool = False, states: tuple[int, ...] = (), parameters: bool = False) -> Gradients:
    return Gradients((F32,), (False,) * 3, (inputs,), tuple(j in states for j in range(3)), parameters)


def test_a_state_is_live_if_a_gradient_reads_it() -> None:
    assert live_states(STEP, [NOTHING]) == ()
    assert live_states(STEP, [NOTHING, replace(NOTHING, grad_inputs=(product(GRAD, W),))]) == (2,)


def test_a_state_is_live_if_a_live_one_is_computed_from_it() -> None:
    assert live_states(STEP, [replace(NOTHING, grad_inputs=(product(GRAD, V),))]) == (0, 1)


def test_checkpoints_hold_whatever_any_gradient_could_read() -> None:
    asked: list[tuple[object, ...]] = []

    def vjp(*pattern: object) -> StepVjp:
        asked.append(pattern)
        return replace(NOTHING, grad_inputs=(product(GRAD, W),))

    assert states_to_checkpoint(STEP, vjp) == (2,)
    assert asked == [((True,), (1, 1, 1), False, False)]


FULL = StepVjp(
    grad_inputs=(product(GRAD, GRAD_V),),
    grad_states=((GRAD_A,), (product(GRAD_V, X), GRAD_A), (GRAD_W,)),
    reductions=(Reduction(product(GRAD_W, X), (1,), ()),),
    grad_captured=(Ref(3),),
    blocked=(),
    outers=(Outer(product(GRAD_A, X), X),),
)


def test_nothing_wanted_leaves_nothing() -> None:
    (pruned,) = prune_gradients([FULL], wanting())
    assert pruned.results == () and pruned.outers == () and pruned.grad_captured == (None,)


def test_gradients_of_states_stay_where_a_wanted_gradient_reads_them_step_after_step() -> None:
    (pruned,) = prune_gradients([FULL], wanting(inputs=True))
    assert pruned.grad_inputs == FULL.grad_inputs
    assert pruned.grad_states == (FULL.grad_states[0], FULL.grad_states[1], ())  # V's reads A's
    assert pruned.reductions == ()


def test_a_parameters_gradient_needs_what_its_sum_reads() -> None:
    (pruned,) = prune_gradients([FULL], wanting(parameters=True))
    assert pruned.grad_states == (FULL.grad_states[0], (), (GRAD_W,))
    assert (pruned.reductions, pruned.outers) == (FULL.reductions, FULL.outers)
    assert pruned.grad_captured == FULL.grad_captured


def test_what_one_step_needs_every_step_keeps() -> None:
    last = replace(FULL, grad_inputs=(None,))
    pruned = prune_gradients([last, FULL], wanting(inputs=True))
    assert [v.grad_states[1] for v in pruned] == [FULL.grad_states[1]] * 2


def test_gradients_lead_nowhere_only_where_something_blocks_them() -> None:
    blocked = replace(NOTHING, blocked=((0, SourceLine("core.py", 1, "core", "")),))
    assert leads_nowhere([blocked])
    assert leads_nowhere([replace(blocked, grad_captured=(None,))])
    assert not leads_nowhere([NOTHING])
    assert not leads_nowhere([blocked, FULL])
    assert not leads_nowhere([replace(blocked, grad_captured=(Ref(0),))])


def test_what_an_accumulator_hands_on_leads_nowhere() -> None:
    blocked = replace(NOTHING, grad_states=((), (), (GRAD_W,)), blocked=((0, None),))
    assert [leads_nowhere([blocked], own) for own in (2, 3, None)] == [True, False, False]


def test_live_states_are_in_order() -> None:
    states = tuple(B.leaf(LeafKind.STATE, j, F32) for j in range(9))
    step = StepGraph(B, (X,), states, (X,), states)
    assert live_states(step, [replace(NOTHING, grad_inputs=(product(states[8], states[0]),))]) == (0, 8)
