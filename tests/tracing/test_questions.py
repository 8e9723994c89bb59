"""What a core's Python asks of tensors is answered rightly or refused, never baked in."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from flexsn import FallbackWarning, UnsupportedOpError, scan
from flexsn.tracing.tracer import Tracer

X = torch.arange(24.0).reshape(3, 2, 4) / 64
BUFFER = torch.tensor([2.0])


class DividesByItsShape(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x > 0).float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] / grads[0].shape[-1]


class Masks(torch.autograd.Function):
    """The surrogate of most tutorials."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        grad = grads[0].clone()
        grad[x.abs() > 0.125] = 0
        return grad


class MasksForward(torch.autograd.Function):
    """The other one: spikes written through a mask."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        spikes = torch.zeros_like(x)
        spikes[x > 0] = 1.0
        return spikes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grads[0] / (x.abs() + 1.0) ** 2


def sets_data(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + x
    h.data = h.data * 2
    return h, h


ANSWERED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "shape": lambda x, v: (x / x.shape[-1], v + x),
    "len": lambda x, v: (x * len(x), v + x),
    "numel": lambda x, v: (x / x.numel(), v + x),
    "size": lambda x, v: (x / x.size(0), v + x),
    "a branch on dim": lambda x, v: (x * 2 if x.dim() == 2 else x, v + x),
    "a branch on size": lambda x, v: (x * 2 if x.shape[0] > 2 else x, v + x),
    "zeros of that shape": lambda x, v: (x + torch.zeros(x.shape), v + x + x.new_zeros(x.size())),
    "ones of those sizes": lambda x, v: (x + torch.ones(x.shape[0], x.shape[1]), v + x),
    "a table as long as the step": lambda x, v: (x + torch.ones(x.shape[0], 1), v + x),
    "a view of that shape": lambda x, v: (x.view(x.shape), v + x.reshape(v.shape)),
    "dtype and device": lambda x, v: (x.to(v.dtype) * (2 if x.is_floating_point() else 3), v + x.to(v.device)),
    "a literal per neuron": lambda x, v: (v * torch.tensor([0.5, 0.25, 1.0, 2.0]) + x, v + x),
    "shape in a backward": lambda x, v: (DividesByItsShape.apply(v + x - 0.5), v + x),
    "a number that is the shape of a step": lambda x, v: (x * 4 / x.shape[-1], v + x),
    "a mask in backward": lambda x, v: (Masks.apply(v + x - 0.25), v + x),
    "a mask in forward": lambda x, v: (MasksForward.apply(v + x - 0.25), v + x),
    "the size of ones shaped after it": lambda x, v: (x / torch.ones_like(v).numel(), v + x),
    "ones like a buffer, summed": lambda x, v: (x * torch.ones_like(BUFFER).sum(), v + x),
    "ones of other sizes, summed": lambda x, v: (x * torch.ones(x.numel() // 2).sum(), v + x),
    "a literal that torch computes": lambda x, v: (x * (torch.zeros(()).exp() + torch.ones(4)), v + x),
}
REFUSED: dict[str, tuple[str, Callable[[Tensor, Tensor], Any]]] = {
    "stride": ("asks for stride", lambda x, v: (x * x.stride(0), v + x)),
    "is_contiguous": ("asks for is_contiguous", lambda x, v: (x * 2 if x.is_contiguous() else x, v + x)),
    "numpy": ("asks for numpy", lambda x, v: (x * float(v.detach().numpy().max()), v + x)),
    "asarray": ("asks for array", lambda x, v: (x * float(np.asarray(v.detach()).max()), v + x)),
    "repr": ("asks for repr", lambda x, v: (x * len(repr(v)), v + x)),
    "format": ("a Python value|asks for format", lambda x, v: (x * len(f"{v.sum()}"), v + x)),
    "allclose": ("asks for allclose|a Python value", lambda x, v: (x * 2 if torch.allclose(x, v) else x, v + x)),
    "tolist of a buffer": ("asks for tolist", lambda x, v: (x * BUFFER.tolist()[0], v + x)),
    "tensor of a buffer": ("puts the values of tensors", lambda x, v: (x * torch.tensor([BUFFER[0]]), v + x)),
    "data_ptr": ("asks for data_ptr", lambda x, v: (x * (x.data_ptr() % 2), v + x)),
    "requires_grad": ("asks for requires_grad", lambda x, v: (x * 2 if x.requires_grad else x, v + x)),
    "grad_fn": ("asks for grad_fn", lambda x, v: (x * 2 if v.grad_fn is None else x, v + x)),
    "setting data": ("sets data", sets_data),
    "ones shaped after it, summed": ("sum.* mixes lanes", lambda x, v: (x / torch.ones_like(v).sum(), v + x)),
    "ones of its shape, summed": ("sum.* mixes lanes", lambda x, v: (x / torch.ones(x.shape).sum(), v + x)),
    "filled, then its norm": ("norm.* mixes lanes", lambda x, v: (x / v.new_empty(v.shape).fill_(2.0).norm(), v + x)),
    "expanded to it, averaged": ("mean.* mixes lanes", lambda x, v: (x * BUFFER.expand_as(x).mul(2.0).mean(), v + x)),
    "flattened ones": ("the shape .* of a value", lambda x, v: (x * torch.ones_like(x).view(-1).shape[0], v + x)),
    "random": ("something else each time", lambda x, v: (x * random.random(), v + x)),
    "numpy's random": ("something else each time", lambda x, v: (x * np.random.rand(), v + x)),
}


def results(core: Callable[..., Any], backend: str, x: Tensor = X) -> list[Tensor]:
    random.seed(0)
    np.random.seed(0)
    leaf = x.clone().requires_grad_()
    y, v = scan(core, leaf, torch.zeros(x.shape[1:]), backend)
    (y.sum() + v.sum()).backward()
    assert leaf.grad is not None
    return [y.detach(), v.detach(), leaf.grad]


def same(core: Callable[..., Any], backend: str, x: Tensor = X) -> bool:
    return all(map(torch.equal, results(core, backend, x), results(core, "torch", x)))


@pytest.mark.parametrize("name", ANSWERED)
def test_answered_for_the_shape_of_the_call(name: str, backend: str) -> None:
    assert same(ANSWERED[name], backend)
    if not name.startswith(("ones of", "a table")):  # these name two dimensions
        assert same(ANSWERED[name], backend, X[:, 0])


@pytest.mark.parametrize("name", ["shape", "len", "a branch on size"])
def test_another_shape_is_another_answer(name: str, backend: str) -> None:
    assert same(ANSWERED[name], backend)
    assert same(ANSWERED[name], backend, X.transpose(1, 2).contiguous())


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_line_and_run_as_the_loop(name: str) -> None:
    what, core = REFUSED[name]
    with pytest.raises(UnsupportedOpError, match=what) as caught:
        results(core, "cpp")
    assert "test_questions.py" in str(caught.value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        assert same(core, "auto")


def test_random_numbers_are_drawn_again_by_the_loop() -> None:
    with pytest.warns(FallbackWarning):
        found = results(lambda x, v: (x * random.random(), v + x), "auto")
    random.seed(0)
    want = X * torch.tensor([random.random() for _ in range(3)])[:, None, None]
    assert torch.allclose(found[0], want)


class AsksNeeds(torch.autograd.Function):
    """Its gradients are the same whichever are asked for, or not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor, depends: bool) -> Tensor:
        ctx.depends = depends
        return x + v

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        factor = 2.0 if ctx.depends and not ctx.needs_input_grad[1] else 1.0
        return (grads[0] * factor if ctx.needs_input_grad[0] else None), grads[0], None


def trace(core: Callable[..., Any], mentions: tuple[str, ...]) -> Tracer:
    tracer = Tracer(core, [torch.float32], [torch.float32], torch.device("cpu"), mentions=mentions)
    tracer.trace_backward()
    return tracer


def test_a_backward_that_asks_what_is_needed_is_tried_with_each_alone() -> None:
    trace(lambda x, v: (AsksNeeds.apply(x, v, False), v), ("needs_input_grad",))
    with pytest.raises(UnsupportedOpError, match="which gradients are asked for"):
        trace(lambda x, v: (AsksNeeds.apply(x, v, True), v), ("needs_input_grad",))


def test_a_core_that_asks_for_the_mode_is_tried_in_both() -> None:
    trace(lambda x, v: (x * 2 if torch.is_grad_enabled() or True else x, v), ("is_grad_enabled",))
    with pytest.raises(UnsupportedOpError, match="whether gradients are enabled"):
        trace(lambda x, v: (x * 2 if torch.is_grad_enabled() else x, v), ("is_grad_enabled",))
