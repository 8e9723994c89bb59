"""Neurons with products in step mode "s": outputs, states and gradients are those of the loop."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fed_back import feeding
from torch import Tensor, nn

from flexsn import FallbackWarning, FlexSN, surrogate
from flexsn.ir.layout import TensorSpec

KERNELS = "triton" if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0") else "cpp"
H = 5
spike = surrogate.Rect()


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No fallback, and what nobody wrote shows."""
    make = TensorSpec.make

    def poisoned(self: TensorSpec, device: torch.device) -> Tensor:
        fresh = make(self, device)
        return fresh.fill_(float("nan")) if fresh.is_floating_point() else fresh

    monkeypatch.setattr(TensorSpec, "make", poisoned)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        yield


def small(*shape: int) -> Tensor:
    """Numbers of whose products every sum is exact, for a few steps."""
    return torch.randint(-1, 2, shape).float()


W, DECAY = nn.Parameter(small(H, H)), nn.Parameter(torch.full((H,), 0.5))
LINEAR, CONV = nn.Linear(H, H), nn.Conv2d(3, 3, 3, padding=1)
with torch.no_grad():
    for p in (*LINEAR.parameters(), *CONV.parameters()):
        p.copy_(small(*p.shape))


def behind(x: Tensor, v: Tensor, i: Tensor) -> Any:
    """The gradient of the product is that of a state, as it comes in."""
    h = v * DECAY + i
    s = spike(h - 1.0)
    return s, h * (1.0 - s), i * 0.5 + x + s @ W


CORES: dict[str, tuple[Callable[..., Any], list[Tensor], tuple[int, ...]]] = {
    "linear": (feeding(LINEAR, spike, DECAY), [*LINEAR.parameters(), DECAY], (H,)),
    "a product of a product": (feeding(lambda z: F.linear(torch.relu(z @ W), W), spike), [W], (H,)),
    "a product behind the step": (behind, [W, DECAY], (H,)),
    "convolution": (feeding(CONV, spike), list(CONV.parameters()), (3, 4, 5)),
    "convolution, channels last": (feeding(CONV, spike), list(CONV.parameters()), (4, 5, 3)),
}


def three_steps(backend: str, name: str, reset: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and final states; gradients of the input, of the initial states and of parameters."""
    torch.manual_seed(0)
    core, parameters, lanes = CORES[name]
    x, states = small(3, 2, *lanes), [small(2, *lanes), small(2, *lanes)]
    if "last" in name:
        x, states = x.movedim(-1, 2), [s.movedim(-1, 1) for s in states]
    given = [t.requires_grad_() for t in (x, *states)]
    neuron = FlexSN(core, step_mode="s", backend=backend)
    neuron.states = tuple(given[1:])
    mask = {"reset_mask": torch.tensor([True, False]).view(2, *(1 for _ in lanes))} if reset else {}
    y = [neuron(step, **mask) for step in x]
    assert neuron.states is not None
    values = [*y, *neuron.states]
    found = torch.autograd.grad(sum((i * t).sum() for i, t in enumerate(values, 1)), [*given, *parameters])
    return values, list(found)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("name", CORES)
def test_single_steps_have_the_bits_of_the_loop_where_sums_are_exact(name: str, reset: bool) -> None:
    for mine, loop in zip(three_steps(KERNELS, name, reset), three_steps("torch", name, reset), strict=True):
        for a, b in zip(mine, loop, strict=True):
            assert torch.equal(a, b)


def test_autocast_rounds_no_product() -> None:
    weight, x = nn.Parameter(torch.randn(H, H)), torch.randn(2, H)
    neurons = [FlexSN(feeding(lambda z: z @ weight, spike), step_mode="s", backend=b) for b in (KERNELS, "torch")]
    for neuron in neurons:
        neuron.states = (torch.zeros(2, H), torch.ones(2, H))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        neurons[0](x)
    neurons[1](x)
    assert neurons[0].states is not None and neurons[1].states is not None
    torch.testing.assert_close(neurons[0].states[0], neurons[1].states[0])
