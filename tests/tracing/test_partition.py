"""Every recorded value lands where its shape says: around the kernel, in the step, or in a sum over lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flexsn
from flexsn.errors import UnsupportedOpError
from flexsn.ir.graph import LeafKind, Node, topological
from flexsn.ir.step import StepVjp
from flexsn.planning.pieces import order
from flexsn.tracing.tracer import Tracer

F32 = torch.float32
Core = Callable[..., Any]


def trace(core: Core, *step_shape: int) -> Tracer:
    """At the sentinel, or as for calls of ``step_shape``, if the core asks for it."""
    return Tracer(core, (F32,), (F32,), torch.device("cpu"), step_shape=torch.Size(step_shape) if step_shape else None)


def vjp_of(tracer: Tracer) -> StepVjp:
    return tracer.vjp((True,), (1,))


def computed(*roots: Node) -> list[str]:
    return [str(n.op) for n in topological(roots) if not n.is_leaf]


def operands(tracer: Tracer) -> tuple[Tensor, ...]:
    """What the kernel reads of the captured tensors."""
    return tracer.host.program(tracer.operands, tracer.captured_refs)(*[t.detach() for t in tracer.captured])


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.rand(shape))


def test_what_has_a_parameters_shape_is_computed_by_torch_before_the_kernel() -> None:
    w = parameter(4)
    tracer = trace(lambda x, v: (v + x * torch.softmax(w, 0).view(4, 1, 1), v))
    assert computed(*tracer.graph.outputs) == ["mul", "add"]
    (operand,) = operands(tracer)
    assert torch.equal(operand, torch.softmax(w, 0).view(4, 1, 1))


def test_what_has_the_steps_shape_is_in_the_step_and_hoisted_if_no_input_takes_part() -> None:
    w, u = parameter(4, 1), parameter(6)
    tracer = trace(lambda x, v: (v + x * (w.expand(x.shape) * u), v), 2, 4, 6)
    program = order([*tracer.graph.outputs, *tracer.graph.new_states])
    assert [n.op for n in program.hoisted] == ["mul"] and [n.op for n in program.body] == ["mul", "add"]
    assert [tuple(o.shape) for o in operands(tracer)] == [(4, 1), (6,)]


def test_a_number_in_the_core_is_a_literal_of_the_step() -> None:
    tracer = trace(lambda x, v: (v + x * torch.tensor(0.5), v))
    assert tracer.captured == [] and tracer.operands == []
    (literal,) = (n for n in topological(tracer.graph.outputs) if n.is_const)
    assert literal.value == 0.5


@pytest.mark.parametrize(
    ("shape", "base"), [((), (1, 1, 1)), ((4,), (1, 1, 4)), ((4, 1), (1, 4, 1)), ((4, 6), (1, 4, 6))]
)
def test_a_parameters_gradient_is_a_sum_over_the_lanes_that_share_it(
    shape: tuple[int, ...], base: tuple[int, ...]
) -> None:
    w = parameter(*shape)
    (reduction,) = vjp_of(trace(lambda x, v: (v + x * w, v))).reductions
    assert (reduction.base, reduction.shape) == (base, shape)
    assert reduction.one_for_all == (shape == ())
    assert computed(reduction.node) == ["mul"]  # summed over time by the kernel, as it is before the sum


def test_what_follows_a_sum_is_computed_by_torch_after_the_kernel() -> None:
    w = parameter(4)
    tracer = trace(lambda x, v: (v + x * w.sigmoid(), v))
    vjp = vjp_of(tracer)
    (reduction,), (gradient,) = vjp.reductions, vjp.grad_captured
    assert computed(reduction.node) == ["mul"] and gradient is not None
    total, s = torch.rand(4), w.sigmoid().detach()
    after = tracer.host.program([gradient], [*tracer.captured_refs, tracer.host.leaf(("reduced", 0))])
    assert torch.allclose(after(w.detach(), total)[0], total * s * (1 - s))


def test_sums_over_the_same_lanes_that_are_added_are_one() -> None:
    w = parameter(4)
    vjp = vjp_of(trace(lambda x, v: (v * w + x * w, v)))
    assert len(vjp.reductions) == 1 and computed(vjp.reductions[0].node).count("add") == 1
    assert {LeafKind.INPUT, LeafKind.STATE} <= {n.op for n in topological([vjp.reductions[0].node])}


def test_sums_over_other_lanes_stay_apart() -> None:
    w, u = parameter(4, 1), parameter(6)
    vjp = vjp_of(trace(lambda x, v: (v * w + x * u, v)))
    assert sorted(r.base for r in vjp.reductions) == [(1, 1, 6), (1, 4, 1)]


def test_sums_of_one_parameter_over_other_lanes_are_added_after_the_kernel() -> None:
    w = parameter(4)
    vjp = vjp_of(trace(lambda x, v: (v * w.view(4, 1) + x * w, v)))
    assert sorted(r.base for r in vjp.reductions) == [(1, 1, 4), (1, 4, 1)]


MIXING: dict[str, Core] = {
    "sum over lanes": lambda x, v: (x - x.sum(-1, keepdim=True), v),
    "matmul": lambda x, v: (x @ x.transpose(-1, -2), v),
    "part of it": lambda x, v: (x[0] + x, v),
    "reshaped": lambda x, v: (x.reshape(-1), v),
}


@pytest.mark.parametrize("what", MIXING)
def test_whatever_else_changes_the_shape_mixes_lanes(what: str) -> None:
    with pytest.raises(UnsupportedOpError, match="mixes lanes") as caught:
        trace(MIXING[what], 2, 3, 5)
    assert "test_partition.py" in str(caught.value.where)


def test_what_keeps_the_shape_but_has_no_rule_is_said_to_have_none() -> None:
    with pytest.raises(UnsupportedOpError, match=r"flip.* cannot be part of a kernel\n.*\n.*no row"):
        trace(lambda x, v: (x.flip(-1), v))


class Backward(torch.autograd.Function):
    """``x * w`` whose gradients are made by a function of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, gradients: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        ctx.gradients = gradients
        return x * w

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        return (*ctx.gradients(grad), None)


@pytest.mark.parametrize(
    "gradients",
    [lambda grad: (grad, grad.sum(-1).sum()), lambda grad: (grad.sum().expand(grad.shape), grad.sum())],
    ids=["sum of a free dimension alone", "sum that goes back to the lanes"],
)
def test_a_gradient_that_mixes_lanes_says_so(gradients: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
    w = nn.Parameter(torch.tensor(0.5))
    with pytest.raises(UnsupportedOpError, match="mixes lanes"):
        vjp_of(trace(lambda x, v: (v + Backward.apply(x, w, gradients), v), 2, 3, 5))


def test_a_sum_of_something_smaller_than_the_step_is_no_sum_over_lanes() -> None:
    """A literal with the free size of the step in one dimension is a node, yet no value per lane: summed as if it were
    one, it would count every lane instead of every sample."""
    w = nn.Parameter(torch.tensor(0.5))

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        samples = x.shape[0]
        v = v + Backward.apply(x, w, lambda grad: (grad, torch.tensor(1.0).expand(samples, 1, 1).sum()))
        return v, v

    with pytest.raises(UnsupportedOpError, match=r"mixes lanes|does not depend on what flows back"):
        vjp_of(trace(core, 2, 3, 5))
    with pytest.warns(flexsn.FallbackWarning, match=r"mixes lanes|does not depend on what flows back"):
        y, _ = flexsn.scan(core, torch.ones(3, 2, 3, 5), torch.zeros(()))
        y.sum().backward()
    assert w.grad is not None and w.grad.item() == 3 * 2


@pytest.mark.parametrize("gradient", [lambda w: torch.tensor(1.0), lambda w: w], ids=["a number", "the parameter"])
def test_a_parameters_gradient_that_no_gradient_flows_into_is_the_loops(gradient: Callable[[Tensor], Tensor]) -> None:
    """It counts once per step, which a program that runs once per call cannot know."""
    w = nn.Parameter(torch.tensor(0.5))
    with pytest.warns(flexsn.FallbackWarning, match="does not depend on what flows back"):
        y, _ = flexsn.scan(
            lambda x, v: (Backward.apply(v + x, w, lambda grad: (grad, gradient(w).detach())), v),
            torch.ones(3, 2),
            torch.zeros(()),
        )
    y.sum().backward()
    assert w.grad is not None and w.grad.item() == 3 * gradient(w).item()


def test_a_parameters_gradient_may_be_zero() -> None:
    w = nn.Parameter(torch.ones(4))
    vjp = vjp_of(trace(lambda x, v: (Backward.apply(v + x, w, lambda grad: (grad, torch.zeros_like(w))), v)))
    assert vjp.grad_captured[0] is not None and not vjp.reductions


def test_of_what_an_operator_returns_some_may_be_no_tensor() -> None:
    """The gradient of a convolution of parameters alone is one of three, and the other two are None."""
    kernel, grid, x = nn.Parameter(torch.rand(1, 1, 3)), torch.eye(4).view(4, 1, 4), torch.rand(5, 2, 4)

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        v = v / 2 + x * nn.functional.conv1d(grid, kernel, padding=1).sum(0)[0]
        return v, v

    def gradient(backend: str) -> Tensor:
        y, _ = flexsn.scan(core, x, torch.zeros(2, 4), backend=backend)
        return torch.autograd.grad(y.sum(), kernel)[0]

    torch.testing.assert_close(gradient("cpp"), gradient("torch"))
