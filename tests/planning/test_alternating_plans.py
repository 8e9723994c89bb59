"""The plans of the alternating way, of a step and a vjp made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from by_stage import named, same, stages
from small_step import F32, Pattern, incoming, told

from flexsn.ir.graph import Builder, LeafKind, Node
from flexsn.ir.plan import Holds
from flexsn.ir.step import Outer, Product, Reduction, StepGraph, StepVjp
from flexsn.planning import Gradients, ScanRequest, SequenceRules
from flexsn.planning.alternating import (
    AlternatingBackward,
    AlternatingForward,
    plan_alternating,
    plan_alternating_backward,
)

F16, F64 = torch.float16, torch.float64


class Fed:
    """``h = v + x + z @ M``, ``v = h``, ``z = exp(h)``, which is the output; an input ``u`` without a gradient.

    On the way back the gradient of ``h`` is multiplied by a matrix for that of ``z``, and by ``v`` for a parameter's.
    """

    def __init__(self) -> None:
        self.builder = Builder()
        leaf = self.builder.leaf
        self.x, self.u = (leaf(LeafKind.INPUT, i, F32) for i in range(2))
        self.v, self.z = (leaf(LeafKind.STATE, j, F32) for j in range(2))
        self.fed = Product(leaf(LeafKind.PRODUCT, 0, F32), self.z, (0,))
        self.h = self.op("add", self.op("add", self.v, self.x), self.fed.leaf)
        spike = self.op("exp", self.h)
        self.step = StepGraph(self.builder, (self.x, self.u), (self.v, self.z), (spike,), (self.h, spike), (self.fed,))
        self.asked: list[Pattern] = []

    def op(self, name: str, *args: Node) -> Node:
        return self.builder.op(name, *args, dtype=F32)

    def vjp(self, outputs: tuple[bool, ...], states: tuple[int, ...], apart: bool, last: bool) -> StepVjp:
        self.asked.append((outputs, states, apart, last))
        leaf, total = self.builder.leaf, incoming(self.builder, outputs, states)
        flows = self.op("mul", total, self.h)
        back = Product(leaf(LeafKind.PRODUCT, 1, F32), flows, (1,))
        return StepVjp(
            grad_inputs=(flows, None),
            grad_states=((flows,), (back.leaf,)),
            reductions=(Reduction(self.op("mul", flows, self.v), (1,), ()),),
            grad_captured=(),
            blocked=(),
            outers=(Outer(self.z, flows),),
            products=(self.fed, back),
        )


class Target:
    name, saves_in_registers, largest_matrix = "a", False, 0

    def __init__(self) -> None:
        self.asked: list[int] = []

    def choose_interval(self, step_bytes: int) -> int:
        self.asked.append(step_bytes)
        return 16


REQUEST = ScanRequest((F32, F16), (F32,), training=True)
GRADIENTS = Gradients((F32,), (False, False), (True, True), (True, True), True)
H = "add(add(state0, input0), product0)"


def forward(fed: Fed, target: Target | None = None, **request: Any) -> AlternatingForward:
    return plan_alternating(fed.step, fed.vjp, replace(REQUEST, **request), target or Target())


def backward(
    fed: Fed, in_rows: bool = True, rules: SequenceRules | None = None, **gradients: Any
) -> AlternatingBackward:
    wanted = replace(GRADIENTS, **gradients)
    request = replace(REQUEST, gradients=wanted, rules=rules)
    found = plan_alternating_backward(fed.step, fed.vjp, request, wanted, in_rows)
    assert found is not None
    return found


# ---- forward ----------------------------------------------------------------------------------------------------


def test_a_step_gives_outputs_and_next_states() -> None:
    found = forward(Fed(), training=False)
    assert stages(found.kernels) == [
        ({}, ["product0"]),
        ({"output 0": f"exp({H})", "next 0": H, "next 1": f"exp({H})"}, []),
    ]
    assert (found.live, found.interval, found.kept) == ((), None, ())


def test_outputs_are_written_in_their_own_dtype_and_never_for_torch() -> None:
    fed = Fed()
    mixed = Product(fed.builder.leaf(LeafKind.PRODUCT, 1, F32), fed.x, (1,))
    step = replace(fed.step, outputs=(fed.x,), new_states=(mixed.leaf, fed.z), products=(mixed,))
    request = ScanRequest((F32, F32), (F32,), training=False)
    found = plan_alternating(step, fed.vjp, request, Target()).kernels
    first, _ = stages(found)
    assert first == ({"copy input0": "input0", "output 0": "input0", "next 1": "state1"}, ["product1"])
    half = plan_alternating(step, fed.vjp, replace(request, output_dtypes=(F16,)), Target()).kernels
    assert [slot.dtype for slot in half.slots if slot.holds is Holds.OUTPUT] == [F32, F16, F32]


def test_training_keeps_states_now_and_then_and_the_products_that_the_way_back_reads() -> None:
    fed, target = Fed(), Target()
    found = forward(fed, target)
    assert fed.asked == [((True,), (1, 1), False, False)]
    assert found.live == (0, 1) and found.kept == (fed.fed.leaf,)
    assert found.interval == 16 and target.asked == [4 + 4 + 4 + 2]
    assert forward(Fed(), interval=3).interval == 3


def test_a_kept_product_stays_where_it_is() -> None:
    fed = Fed()
    fed.step = replace(fed.step, new_states=(fed.fed.leaf, fed.z))
    assert same(forward(fed, training=False).kernels) == {"next 0": "product0"}
    found = forward(fed)
    assert found.kept == (fed.fed.leaf,) and found.kernels.same == {}


def test_a_product_is_kept_only_if_it_is_read() -> None:
    """By gradients, by products of gradients, or by the next value of a state that is read."""
    fed = Fed()
    linear = fed.builder.leaf(LeafKind.COTANGENT, 0, F32)
    nothing = StepVjp((linear, None), ((), ()), (), (), ())
    through = Product(fed.builder.leaf(LeafKind.PRODUCT, 1, F32), fed.op("mul", linear, fed.fed.leaf), (1,))
    for vjp, kept, live in (
        (nothing, False, ()),
        (replace(nothing, grad_inputs=(fed.op("mul", linear, fed.fed.leaf), None)), True, ()),
        (replace(nothing, grad_inputs=(through.leaf, None), products=(fed.fed, through)), True, ()),
        (replace(nothing, grad_inputs=(fed.op("mul", linear, fed.v), None)), True, (0,)),
    ):
        found = plan_alternating(fed.step, lambda *_, vjp=vjp: vjp, REQUEST, Target())  # type: ignore[misc]
        assert (found.kept == (fed.fed.leaf,), found.live) == (kept, live)


# ---- backward ---------------------------------------------------------------------------------------------------


def test_the_last_step_has_no_gradient_from_after_it() -> None:
    last, usual = backward(Fed()).branches
    assert last.when is not None and told(last.when) == "eq(add(t, 1), T)" and usual.when is None
    for branch, total in ((last, "grad_output0"), (usual, "add(add(grad_output0, grad_state0), grad_state1)")):
        flows = f"mul({total}, {H})"
        summed = {"state2": f"add(state2, mul({flows}, state0))"}
        assert stages(branch.kernels) == [({"input 0": flows, "carry 0": flows, **summed}, ["product1"]), ({}, [])]


def test_a_factor_is_the_gradient_of_an_input_where_that_lies_in_rows() -> None:
    for in_rows, elsewhere in ((True, "input 0"), (False, None)):
        branch = backward(Fed(), in_rows).branches[-1]
        flows = branch.vjp.outers[0].right
        assert branch.factors == (flows,)
        assert same(branch.kernels) == {"carry 1": "product1", **({told(flows): elsewhere} if elsewhere else {})}
        assert (told(flows) in stages(branch.kernels)[0][0]) is (elsewhere is None)


def test_a_factor_that_is_a_product_is_kept_apart_from_what_is_carried() -> None:
    fed = Fed()
    usual = fed.vjp
    fed.vjp = lambda *asked: (  # type: ignore[method-assign]
        replace(found := usual(*asked), outers=(Outer(fed.fed.leaf, found.products[1].leaf), Outer(fed.x, fed.z)))
    )
    branch = backward(fed).branches[-1]
    assert list(map(told, branch.factors)) == ["product1", "input0"], "the others are of the forward pass"
    first, second = stages(branch.kernels)
    assert "carry 1" not in same(branch.kernels) and second == ({"carry 1": "product1"}, [])
    assert first[0]["copy input0"] == "input0"


def test_gradients_of_inputs_lie_in_memory_as_the_inputs_do() -> None:
    fed = Fed()
    usual = fed.vjp
    fed.vjp = lambda *asked: replace(found := usual(*asked), grad_inputs=found.grad_inputs[::-1])  # type: ignore[method-assign]
    branch = backward(fed, outputs=(F16,)).branches[0]
    dtypes = {named(k): s.dtype for s, k in zip(branch.kernels.slots, branch.kernels.stages[0].keys, strict=True)}
    assert dtypes["input 1"] == F16 and dtypes["carry 0"] == F32 and "input 0" not in dtypes
    assert dtypes["grad_output0"] == F16


def test_an_input_of_16_bits_is_read_as_such() -> None:
    fed = Fed()
    found = plan_alternating(
        replace(fed.step, outputs=(fed.op("add", fed.u, fed.x),)), fed.vjp, replace(REQUEST, training=False), Target()
    )
    ((slot, _),) = [load for load in found.kernels.stages[1].plan.loads if load[0].dtype == F16]  # type: ignore[union-attr]
    assert slot.holds is Holds.INPUT


def test_what_is_carried_and_what_is_added_up() -> None:
    found = backward(Fed())
    assert [told(c) for c in found.carries] == ["grad_state0", "grad_state1"]
    assert [(told(a), a.dtype) for a in found.accumulators] == [("state2", F32)]
    assert [first for first, _ in found.groups] == [0] and [b.group for b in found.branches] == [0, 0]
    assert all(branch.hands_on(c) for branch in found.branches for c in found.carries)


def test_a_gradient_in_parts_is_carried_in_parts_and_one_that_is_not_given_is_not_handed_on() -> None:
    fed = Fed()
    usual = fed.vjp

    def parts(outputs: tuple[bool, ...], states: tuple[int, ...], apart: bool, last: bool) -> StepVjp:
        found = usual(outputs, tuple(map(bool, states)), apart, last)
        incoming = fed.builder.leaf(LeafKind.COTANGENT, 0, F32)
        own = found.grad_states[0][0]
        return replace(found, grad_states=((incoming, own) if any(states) else (own,), ()))

    fed.vjp = parts  # type: ignore[method-assign]
    found = backward(fed)
    assert [told(c) for c in found.carries] == ["grad_state0", "grad_state0_part1", "grad_state1"]
    hands_on = [[branch.hands_on(c) for c in found.carries] for branch in found.branches]
    assert hands_on == [[True, False, False], [True, True, False], [True, True, False]]
    written = {k: v for writes, _ in stages(found.branches[-1].kernels) for k, v in writes.items()}
    assert written["carry 0"] == "grad_output0" and written["carry 1"].startswith("mul(") and "carry 2" not in written


def test_sums_that_become_other_gradients_have_accumulators_of_their_own() -> None:
    fed = Fed()
    usual = fed.vjp

    def differing(outputs: tuple[bool, ...], states: tuple[int, ...], apart: bool, last: bool) -> StepVjp:
        found = usual(outputs, states, apart, last)
        wide = Reduction(fed.builder.cast(found.reductions[0].node, F64), (1, 4), (4,))
        return replace(found, reductions=(*found.reductions, wide) if any(states) else found.reductions)

    fed.vjp = differing  # type: ignore[method-assign]
    found = backward(fed)
    assert [(told(a), a.dtype) for a in found.accumulators] == [("state2", F32), ("state3", F64), ("state4", F32)]
    assert [first for first, _ in found.groups] == [0, 2] and [b.group for b in found.branches] == [1, 0]
    sums = [[k for k in stages(b.kernels)[0][0] if k.startswith("state")] for b in found.branches]
    assert sums == [["state4"], ["state2", "state3"]]


def test_the_states_of_an_interval_are_one_scan() -> None:
    found = backward(Fed())
    advance = found.advance
    assert found.live == (0, 1) and advance.plan is not None
    assert list(map(named, advance.keys)) == [
        *("input0", "product0", "first 0", "first 1", "state0", "state1", "after 0", "after 1"),
    ]
    names = {leaf: named(key) for (_, leaf), key in zip(advance.plan.loads, advance.keys, strict=False)}
    assert [told(c.next, names) for c in advance.plan.carries if c.next] == [H, f"exp({H})"]
    assert [told(node) for _, node in advance.plan.stores] == ["state0", "state1"], "those before the step"
    assert advance.plan.interval is None and advance.products == ()


def test_only_states_that_are_read_are_known_at_every_step() -> None:
    """Each by its own number, whichever others there are."""
    fed = Fed()
    decay = fed.builder.leaf(LeafKind.OPERAND, 0, F32)
    following = fed.op("mul", fed.op("add", fed.z, fed.u), decay)
    fed.step = replace(fed.step, new_states=(fed.h, following), outputs=(following,), products=())
    fed.vjp = lambda *_: StepVjp(  # type: ignore[method-assign]
        (fed.op("mul", fed.builder.leaf(LeafKind.COTANGENT, 0, F32), fed.z), None), ((), ()), (), (), ()
    )
    found = backward(fed)
    assert found.live == (1,)
    assert list(map(named, found.advance.keys)) == ["input1", "operand 0", "first 1", "state1", "after 1"]
    assert found.advance.plan is not None and found.advance.plan.slots[0].dtype == F16
    slots = [*found.advance.plan.slots, *(s for b in found.branches for s in b.kernels.slots)]
    assert found.slots == slots


def test_gradients_that_are_not_wanted_are_not_computed() -> None:
    branch = backward(Fed(), inputs=(False, True), states=(False, True), parameters=False).branches[-1]
    assert branch.vjp.grad_inputs == (None, None) and branch.factors == () and branch.vjp.reductions == ()
    assert list(stages(branch.kernels)[0][0])[-1] == "carry 0"


def test_gradients_that_lead_nowhere_have_no_plan() -> None:
    fed = Fed()
    blocked = StepVjp((None, None), ((), ()), (), (), ((0, None),))
    for rules in (None, SequenceRules(time_reduction="last")):
        request = replace(REQUEST, gradients=GRADIENTS, rules=rules)
        gradients = GRADIENTS if rules is None else replace(GRADIENTS, outputs=(), finals=(False, False, True))
        assert plan_alternating_backward(fed.step, lambda *_: blocked, request, gradients, True) is None


def test_rules_hold_in_the_alternating_way() -> None:
    fed = Fed()
    every_other = backward(fed, rules=SequenceRules(detach_every=2))
    assert [told(b.when) for b in every_other.branches if b.when] == [
        "logical_and(logical_or(eq(add(t, 1), T), eq(remainder(add(t, 1), 2), 0)), logical_not(False))"
    ]
    ended = plan_alternating(
        fed.step, fed.vjp, replace(REQUEST, training=False, rules=SequenceRules(lengths=True)), Target()
    )
    assert stages(ended.kernels)[1][0]["next 1"] == f"where(lt(int32(t), length0), exp({H}), state1)"
