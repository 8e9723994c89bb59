"""Each rule of the spec rejects a form with one thing broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flexsn import surrogate
from flexsn.ir.graph import Builder, LeafKind, Node
from flexsn.ir.plan import BackwardPlan, ForwardPlan, Holds, Role, Saved, Slot
from flexsn.ir.program import Program
from flexsn.ir.spec import SpecError, verify, verify_node
from flexsn.kernels.backend import backend
from flexsn.planning import Gradients, ScanPlans, ScanRequest, plan_scan
from flexsn.tracing.tracer import Tracer

F32, F64, F16, I32, I64, BOOL = (
    *(torch.float32, torch.float64, torch.float16),
    *(torch.int32, torch.int64, torch.bool),
)
B = Builder()
X, Y, C = (B.leaf(LeafKind.INPUT, i, d) for i, d in enumerate((F32, F32, BOOL)))
STRAY = B.op("exp", B.leaf(LeafKind.INPUT, 7, F32), dtype=F32)
spike = surrogate.ATan()
weight = nn.Parameter(torch.tensor(0.3))


def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) * weight.sigmoid()
    s = spike(h - 1.0)
    return s, h * (1.0 - s)


TRACER = Tracer(core, (F32,), (F32,), torch.device("cpu"))
STEP, VJP = TRACER.graph, TRACER.vjp((True,), (1,))


def plans() -> ScanPlans:
    gradients = Gradients(outputs=(F32,), finals=(True,), inputs=(True,), states=(True,), parameters=True)
    request = ScanRequest((F32,), (F32,), training=True, interval=4, gradients=gradients)
    return plan_scan(STEP, TRACER.vjp, request, backend("triton"))


FORWARD: ForwardPlan = plans().forward
BACKWARD: BackwardPlan = plans().backward  # type: ignore[assignment]
SAVED: Saved = BACKWARD.saved  # type: ignore[assignment]


def test_what_flexsn_makes_is_well_formed() -> None:
    for form in (STEP, VJP, FORWARD, BACKWARD, "source"):
        verify(form)


NODES: dict[str, Node] = {
    "a leaf has no arguments": Node(LeafKind.INPUT, (X,), F32),
    "literals, and only these, have a value": Node(LeafKind.INPUT, (), F32, 1.0),
    "only gradients of states come in parts": Node(LeafKind.COTANGENT, (), F32, part=1),
    "a coordinate has 64 bits": Node(LeafKind.STEP_INDEX, (), I32),
    "no such operation": Node("plus", (X, Y), F32),
    "add takes 2": Node("add", (X,), F32),
    "add of": Node("add", (X, Y), F64),
    "lt of": Node("lt", (X, B.const(1, F64)), BOOL),
    "logical_and of": Node("logical_and", (X, Y), BOOL),
    "isnan of": Node("isnan", (X,), F32),
    "where of": Node("where", (X, X, Y), F32),
    "cast of": Node("cast", (X,), F32),
    "16-bit floats": Node("neg", (B.leaf(LeafKind.INPUT, 3, F16),), F16),
}


@pytest.mark.parametrize("rule", NODES)
def test_a_node_obeys_its_operation(rule: str) -> None:
    with pytest.raises(SpecError, match=rule):
        verify_node(NODES[rule])


def test_16_bit_floats_may_be_chosen_and_cast() -> None:
    half = B.leaf(LeafKind.INPUT, 3, F16)
    verify_node(B.op("where", C, half, half, dtype=F16))
    verify_node(B.cast(X, F16))


def earlier(program: Program, *nodes: Node) -> Program:
    return replace(program, body=(*nodes, *program.body))


def stepping(plan: BackwardPlan, **changes: Any) -> BackwardPlan:
    return replace(plan, step=replace(plan.step, **changes))


Z = Slot(Role.STORE, F32, Holds.OUTPUT, 9)
COTANGENT = B.leaf(LeafKind.COTANGENT, 0, F32)
FORMS: dict[str, Callable[[], object]] = {
    "a gradient on the way forward": lambda: replace(STEP, outputs=(COTANGENT,)),
    "arguments": lambda: replace(STEP, inputs=STEP.states),
    "a state keeps its dtype": lambda: replace(STEP, new_states=(B.const(0, F64),)),
    "is not there yet": lambda: replace(FORWARD, program=Program((), FORWARD.program.body[::-1])),
    "hoisted, but it changes with time": lambda: replace(FORWARD, program=Program(FORWARD.program.body, ())),
    "stored, but not computed": lambda: replace(FORWARD, stores=((FORWARD.stores[0][0], STRAY),)),
    "two slots of one name": lambda: replace(FORWARD, slots=(*FORWARD.slots, FORWARD.slots[0])),
    "every slot is used": lambda: replace(FORWARD, slots=(*FORWARD.slots, Z)),
    "and no other": lambda: replace(FORWARD, slots=FORWARD.slots[1:]),
    "unroll divides the interval": lambda: replace(FORWARD, unroll=3),
    "a state starts somewhere": lambda: replace(
        FORWARD,
        slots=tuple(s for s in FORWARD.slots if s.holds is not Holds.STATE),
        carries=(replace(FORWARD.carries[0], initial=None),),
    ),
    "a gradient that is not computed": lambda: stepping(BACKWARD, grad_states=(STRAY,)),
    "one value per accumulator": lambda: stepping(BACKWARD, accumulate=()),
    "one value per carry": lambda: stepping(BACKWARD, grad_states=()),
    "gradients of inputs are stored": lambda: stepping(BACKWARD, stores=((BACKWARD.slots[0], None),)),
    "branches": lambda: replace(BACKWARD, branches=(*BACKWARD.branches, BACKWARD.branches[-1])),
    "one step for all is for all": lambda: stepping(BACKWARD, when=B.const(True, BOOL)),
    "a gradient that is not carried": lambda: replace(BACKWARD, finals=((BACKWARD.finals[0][0], COTANGENT),)),
    "saved, but not computed": lambda: replace(BACKWARD, saved=replace(SAVED, values=(STRAY,))),
    r"input0 float32> is not there": lambda: replace(BACKWARD, advance_loads=()),
    r"input7 float32> is not there": lambda: stepping(BACKWARD, program=earlier(BACKWARD.step.program, STRAY)),
    r"> is not there yet: <": lambda: replace(BACKWARD, saved=replace(SAVED, walk_back=SAVED.walk_back[::-1])),
}


@pytest.mark.parametrize("rule", FORMS)
def test_a_step_or_plan_with_one_thing_broken_is_rejected(rule: str) -> None:
    with pytest.raises(SpecError, match=rule):
        verify(FORMS[rule]())


def test_coordinates_may_stand_anywhere_in_a_vjp_but_unknown_operations_may_not() -> None:
    verify(replace(VJP, grad_inputs=(B.coordinate(LeafKind.STEP_INDEX),)))
    with pytest.raises(SpecError, match="no such operation"):
        verify(replace(VJP, grad_inputs=(Node("plus", (X, Y), F32),)))
