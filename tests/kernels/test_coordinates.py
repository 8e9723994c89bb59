"""Step index, number of steps and lane index, as a kernel sees them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from flexsn.execution.call import CallSpec
from flexsn.execution.options import ScanOptions
from flexsn.ir.graph import Builder, LeafKind, Node
from flexsn.ir.layout import CallShape, TensorSpec, dense_strides
from flexsn.ir.plan import Holds, Plan
from flexsn.ir.simplify import simplify
from flexsn.ir.spec import verify
from flexsn.ir.step import StepGraph, StepVjp
from flexsn.kernels.backend import backend
from flexsn.planning import Gradients, ScanRequest, plan_scan

F32, I64 = torch.float32, torch.int64
INTERPRETING = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
# the interpreter computes masked lanes too
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")
STEPS, SHAPE = 5, (3, 4, 2)
BACKENDS = ["cpp", pytest.param("triton", marks=pytest.mark.skipif(not INTERPRETING, reason="needs the interpreter"))]
LAYOUTS = [
    pytest.param(0, (0, 1, 2, 3), id="contiguous"),
    pytest.param(0, (0, 1, 3, 2), id="permuted"),
    pytest.param(1, (0, 1, 2, 3), id="batch-first"),
]
BUILDER = Builder(simplify)
X, GRAD = BUILDER.leaf(LeafKind.INPUT, 0, F32), BUILDER.leaf(LeafKind.COTANGENT, 0, F32)
STEP_INDEX, NUM_STEPS, LANE_INDEX = (
    BUILDER.cast(BUILDER.coordinate(kind), F32)
    for kind in (LeafKind.STEP_INDEX, LeafKind.NUM_STEPS, LeafKind.LANE_INDEX)
)


def step_graph(*outputs: Node) -> StepGraph:
    return StepGraph(BUILDER, inputs=(X,), states=(), outputs=outputs, new_states=())


def run(name: str, plan: Plan, shape: CallShape, given: dict[Holds, Tensor]) -> dict[str, Tensor]:
    """What the plan's kernel writes."""
    verify(plan)
    call = CallSpec(cast(Any, None), backend(name), ScanOptions(), shape, torch.device("cpu"), (), cast(Any, None))
    lanes = call.lane_index(plan.slots)
    assert bool(lanes) == any(slot.holds is Holds.LANE_INDEX for slot in plan.slots)
    given = given | dict.fromkeys([Holds.LANE_INDEX] if lanes else [], *lanes)
    fresh = {s.name: call.dense(plan, s).make(torch.device("cpu")) for s in plan.slots if s.role.writes}
    for tensor in fresh.values():
        tensor.fill_(math.nan if tensor.is_floating_point() else -1)
    tensors = [fresh[s.name] if s.role.writes else given[s.holds] for s in plan.slots]
    call.bind(plan, [TensorSpec.of(t) for t in tensors])(tensors)
    return fresh


def sequence(shape: CallShape) -> Tensor:
    return shape.sequence(F32).make(torch.device("cpu")).normal_()


def call_shape(time_dim: int, order: Sequence[int]) -> CallShape:
    lengths = (*SHAPE[:time_dim], STEPS, *SHAPE[time_dim:])
    shape = CallShape.of(torch.empty_strided(lengths, dense_strides(lengths, order)), time_dim)
    assert shape.order == tuple(order)
    return shape


def expected(time_dim: int) -> tuple[Tensor, Tensor]:
    """The step index and the lane index of every value of a sequence."""
    steps = torch.arange(float(STEPS)).view(-1, 1, 1, 1).expand(STEPS, *SHAPE)
    lanes = torch.arange(float(math.prod(SHAPE))).view(SHAPE).expand(STEPS, *SHAPE)
    return steps.movedim(0, time_dim), lanes.movedim(0, time_dim)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(("time_dim", "order"), LAYOUTS)
def test_outputs_may_be_coordinates(name: str, time_dim: int, order: tuple[int, ...]) -> None:
    shape, step = call_shape(time_dim, order), step_graph(STEP_INDEX, NUM_STEPS, LANE_INDEX)
    request = ScanRequest((F32,), (F32,) * 3, training=False)
    got = run(name, plan_scan(step, no_vjp, request, backend(name)).forward, shape, {})
    steps, lanes = expected(time_dim)
    assert torch.equal(got["y0"], steps)
    assert torch.equal(got["y1"], torch.full_like(steps, STEPS))
    assert torch.equal(got["y2"], lanes)  # row by row, whatever the order in memory


@pytest.mark.parametrize("name", BACKENDS)
def test_outputs_may_be_bare_integers(name: str) -> None:
    shape = call_shape(0, (0, 1, 3, 2))
    step = step_graph(*(BUILDER.coordinate(kind) for kind in LeafKind if kind.is_coordinate))
    request = ScanRequest((F32,), (I64,) * 3, training=False)
    got = run(name, plan_scan(step, no_vjp, request, backend(name)).forward, shape, {})
    steps, lanes = expected(0)
    for found, want in zip(got.values(), (steps, torch.full_like(steps, STEPS), lanes), strict=True):
        assert torch.equal(found, want.long())


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize(("time_dim", "order"), LAYOUTS)
def test_gradients_may_read_coordinates(name: str, time_dim: int, order: tuple[int, ...]) -> None:
    where = BUILDER.op("add", LANE_INDEX, BUILDER.op("mul", STEP_INDEX, NUM_STEPS, dtype=F32), dtype=F32)
    step = step_graph(BUILDER.op("mul", X, where, dtype=F32))
    vjp = StepVjp((BUILDER.op("mul", GRAD, where, dtype=F32),), (), (), (), ())
    gradients = Gradients((F32,), (), (True,), (), False)
    request = ScanRequest((F32,), (F32,), training=True, interval=2, gradients=gradients)
    plans = plan_scan(step, lambda *_: vjp, request, backend(name))
    assert plans.backward is not None
    shape = call_shape(time_dim, order)
    steps, lanes = expected(time_dim)
    x, grad = sequence(shape), sequence(shape)
    assert torch.equal(run(name, plans.forward, shape, {Holds.INPUT: x})["y0"], x * (lanes + steps * STEPS))
    got = run(name, plans.backward, shape, {Holds.INPUT: x, Holds.COTANGENT: grad})
    assert torch.equal(got["gx0"], grad * (lanes + steps * STEPS))


def no_vjp(*_: object) -> StepVjp:
    raise AssertionError("inference needs no vjp")
