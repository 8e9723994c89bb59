"""Lengths, resets, cuts and reductions, against the same written out by hand, one sample at a time."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from by_hand import Asked, Core, scan_by_hand
from torch import Tensor, nn

import flexsn
from flexsn import surrogate

INTERPRETING = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
KERNELS = "triton" if INTERPRETING else "cpp"
# the interpreter computes masked lanes too
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero):RuntimeWarning")
STEPS, BATCH, CHANNELS = 7, 4, 3
spike = surrogate.Rect(1.0)


def lif(x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    h = v + (x - v) / 2.0
    s = spike(h - 1.0)
    return s, h * (1.0 - s)


def readout(x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """A state that is an output, and another output of it."""
    v = v * 0.5 + x
    return v, v * v, v


class Adaptive(nn.Module):
    """Two inputs, two states of which one feeds the other, a parameter per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, 1.0, -0.25]))

    def forward(self, x: Tensor, y: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        h = v * 0.5 + x * self.weight - w
        s = spike(h - 0.5)
        return s, h - y, h * (1.0 - s.detach()), w * 0.5 + s * 0.25


class Recurrent(nn.Module):
    """Products with matrices: of a state, and of a value of the step."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.fed, self.mixed = (
            nn.Parameter(torch.randint(-4, 5, (CHANNELS, CHANNELS), generator=generator) / 4.0) for _ in range(2)
        )
        self.bias = nn.Parameter(torch.tensor([0.25, 0.0, -0.5]))

    def forward(self, x: Tensor, v: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        h = v * 0.5 + x + nn.functional.linear(z, self.fed, self.bias)
        s = spike(h - 0.5)
        return s, h, h * (1.0 - s.detach()), s - (x * 0.5) @ self.mixed


CORES: dict[str, tuple[Core, int, int]] = {
    "lif": (lif, 1, 1),
    "readout": (readout, 1, 1),
    "adaptive": (Adaptive(), 2, 2),
    "recurrent": (Recurrent(), 1, 2),
}
LENGTHS = (7, 0, 3, 5)
RESETS = torch.tensor([[0, 0, 1, 0, 0, 0, 1], [0, 1, 0, 1, 0, 0, 0], [1, 0, 0, 1, 1, 0, 0], [0] * 7]).bool().T
N = 3
HOW = ("sum", "mean", "last", "max")
ALONE = [
    Asked(lengths=LENGTHS),
    Asked(reset_mask=RESETS),
    Asked(detach_every=N),
    *(Asked(time_reduction=how) for how in HOW),
    Asked(rate=True),
]
# every two values of two of them meet in one of these
COVERING = [
    Asked(LENGTHS, RESETS, N, None, False),
    Asked(None, None, None, None, True),
    Asked(LENGTHS, None, 1, "sum", False),
    Asked(None, RESETS, None, "sum", True),
    Asked(LENGTHS, RESETS, None, "mean", False),
    Asked(None, None, 2, "mean", True),
    Asked(LENGTHS, None, None, "last", True),
    Asked(None, RESETS, N, "last", False),
    Asked(LENGTHS, RESETS, 4, "max", True),
    Asked(None, None, None, "max", False),
]


def named(asked: Asked) -> str:
    shown = {k: v for k, v in vars(asked).items() if v is not None and v is not False}
    return " ".join(v if k == "time_reduction" else k for k, v in shown.items())


def numbers(core: str) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and initial states, multiples of 1/16: all sums are exact."""
    _, num_inputs, num_states = CORES[core]
    generator = torch.Generator().manual_seed(3)

    def dyadic(*shape: int) -> Tensor:
        return torch.randint(-24, 40, shape, generator=generator).float().div(16).requires_grad_()

    inputs = [dyadic(STEPS, BATCH, CHANNELS) for _ in range(num_inputs)]
    return inputs, [dyadic(BATCH, CHANNELS) for _ in range(num_states)]


def options(asked: Asked) -> dict[str, Any]:
    lengths = None if asked.lengths is None else torch.tensor(asked.lengths)
    return {**vars(asked), "lengths": lengths, "return_state_seqs": True}


def flat(results: Any) -> list[Tensor]:
    return [results] if isinstance(results, Tensor) else [t for r in results for t in flat(r)]


def gradients(results: list[Tensor], core: Any, leaves: list[Tensor]) -> list[Tensor]:
    parameters = list(core.parameters()) if isinstance(core, nn.Module) else []
    generator = torch.Generator().manual_seed(5)
    grads = [torch.randint(-2, 3, r.shape, generator=generator).float() for r in results]
    found = torch.autograd.grad(results, [*leaves, *parameters], grads, materialize_grads=True)
    return list(found)


def check(core: str, asked: Asked, backend: str) -> None:
    function = CORES[core][0]
    inputs, states = numbers(core)
    want = scan_by_hand(function, inputs, states, asked)
    got = flat(flexsn.scan(function, inputs, tuple(states), backend, checkpoint=2, **options(asked)))
    for g, w in zip(got, want, strict=True):
        assert torch.equal(g, w)
    exact = asked.time_reduction != "mean" and not asked.rate  # a seventh is not: its gradients are rounded
    for g, w in zip(*(gradients(r, function, [*inputs, *states]) for r in (got, want)), strict=True):
        assert torch.equal(g, w) if exact else torch.allclose(g, w, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("asked", [*ALONE, *COVERING], ids=named)
def test_the_loop_gives_what_is_written_by_hand(core: str, asked: Asked) -> None:
    check(core, asked, "torch")


@pytest.mark.parametrize("backend", [KERNELS])
@pytest.mark.parametrize("core", ["readout", "adaptive", "recurrent"])
@pytest.mark.parametrize("asked", COVERING, ids=named)
def test_kernels_give_what_is_written_by_hand(core: str, asked: Asked, backend: str) -> None:
    check(core, asked, backend)


@pytest.mark.parametrize(
    "asked", [{}, {"time_reduction": "max"}, {"lengths": torch.tensor([5, 2, 0])}], ids=["rate", "max", "lengths"]
)
def test_what_one_value_receives_as_several_results_is_added_up_as_in_the_loop(asked: dict[str, Any]) -> None:
    """Floats added in another order have other bits."""

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = v * 0.5 + x
        return h, h, h

    found = []
    for backend in ("torch", KERNELS):
        generator = torch.Generator().manual_seed(0)
        x, v = (torch.randn(*shape, generator=generator).requires_grad_() for shape in ((5, 3, 4), (3, 4)))
        (y, z), final, rate = flexsn.scan(core, x, v, backend, rate=True, **asked)
        results = (y, z, final, rate)
        found.append(torch.autograd.grad(results, (x, v), [torch.randn(r.shape, generator=generator) for r in results]))
    assert all(map(torch.equal, *found))
