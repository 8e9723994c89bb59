"""Printed plans are not only readable: run as Python, they do what the loop does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flexsn import surrogate
from flexsn.ir.layout import CallShape
from flexsn.ir.ops import OPS
from flexsn.ir.passes import describe
from flexsn.ir.plan import Holds, Plan, Role
from flexsn.kernels.backend import backend
from flexsn.planning import Gradients, ScanRequest, plan_scan
from flexsn.tracing.tracer import Tracer

F32 = torch.float32
STEPS, LANES, K = 7, 5, 3
SHAPE = CallShape(STEPS, (LANES,), 0, (0, 1))
Core = Callable[..., Any]
spike = surrogate.ATan()
weight = nn.Parameter(torch.rand(LANES))


def lif(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) / 2.0
    s = spike(h - 1.0)
    return s, h * (1.0 - s)


def stateless(x: Tensor) -> Tensor:
    return (x * 0.5).exp()


def swapped(x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return a * x, b * 0.5, a + b * x


def returned(x: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    v = v * 0.5 + w * weight + x
    return v, v, w + v * v


def gated(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    v = v * 0.5 + 1.0
    return (v * x).exp(), v  # the next state needs no input, what waits for the walk back does


CORES: dict[Core, int] = {lif: 1, stateless: 0, swapped: 2, returned: 2, gated: 1}


def operation(name: str) -> Callable[..., Tensor]:
    def run(*args: Any) -> Tensor:
        if name == "cast":
            return torch.as_tensor(args[0]).to(args[1])
        dtype = next((a.dtype for a in args[name == "where" :] if isinstance(a, Tensor)), F32)
        tensors = [a if isinstance(a, Tensor) else torch.tensor(a, dtype=dtype) for a in args]
        result: Tensor = getattr(torch, name)(*tensors)
        return result

    return run


def execute(plan: Plan, given: dict[Holds, Any]) -> dict[str, Any]:
    """Run a printed plan on tensors; what its variables are in the end, together with what it wrote."""
    names: dict[str, Any] = {name: operation(name) for name in OPS}
    names |= {str(d).removeprefix("torch."): d for d in (F32, torch.int64, torch.bool)}
    names |= {"ceil": math.ceil, "saved": {}}
    tensors = {}
    for slot in plan.slots:
        fresh = SHAPE.dense(slot, (STEPS - 1) // K).make(torch.device("cpu"))
        tensors[slot.name] = fresh.fill_(math.nan) if slot.role.writes else given[slot.holds][slot.index]
    text = describe(plan)
    exec(f"{text}\n    return locals()", names)
    function = names[text.partition("(")[0].removeprefix("def ")]
    found: dict[str, Any] = function(**tensors, T=STEPS)
    return found


@pytest.mark.parametrize("target", ["cpp", "triton"])
@pytest.mark.parametrize("core", CORES, ids=lambda core: core.__name__)
def test_a_printed_plan_does_what_the_loop_does(core: Core, target: str) -> None:
    count = CORES[core]
    tracer = Tracer(core, (F32,), (F32,) * count, torch.device("cpu"))
    gradients = Gradients((F32,), (False,) * count, (True,), (True,) * count, bool(tracer.captured))
    request = ScanRequest((F32,), (F32,), training=True, interval=K, gradients=gradients)
    plans = plan_scan(tracer.graph, tracer.vjp, request, backend(target))
    assert plans.backward is not None

    torch.manual_seed(0)
    x, grad = torch.randn(STEPS, LANES, requires_grad=True), torch.randn(STEPS, LANES)
    states = [torch.randn(LANES, requires_grad=True) for _ in range(count)]
    given: dict[Holds, Any] = {Holds.INPUT: [x.detach()], Holds.STATE: [v.detach() for v in states]}
    given |= {Holds.OPERAND: [t.detach() for t in tracer.captured], Holds.COTANGENT: [grad]}
    forward = execute(plans.forward, given)
    given[Holds.CHECKPOINT] = {s.index: forward[s.name] for s, _ in plans.forward.checkpoints}
    backward = execute(plans.backward, given)

    carried, outputs = tuple(states), []
    for step in x.unbind():
        values = core(step, *carried)
        y, *carried = values if isinstance(values, tuple) else (values,)
        outputs.append(y)
    y = torch.stack(outputs)
    want = torch.autograd.grad(y, [x, *states, *tracer.captured], grad)
    assert torch.equal(forward["y0"], y)
    assert all(torch.equal(forward[f"v_final{j}"], v) for j, v in enumerate(carried))
    assert torch.equal(backward["gx0"], want[0])
    assert all(torch.equal(backward[f"gv{j}"], g) for j, g in enumerate(want[1 : 1 + count]))
    for accumulator, g in zip(plans.backward.accumulators, want[1 + count :], strict=True):
        assert accumulator.role is Role.LANE_STORE
        assert torch.allclose(backward[accumulator.name], g, rtol=1e-6)
