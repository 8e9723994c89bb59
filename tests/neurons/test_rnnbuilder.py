"""rnnbuilder's neurons against their equations, looped in eager torch."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from reference import BACKENDS, DTYPES, Parameters, hold, noise, strict_spike
from torch import Tensor, nn

from flexsn.neurons import rnnbuilder

spike = strict_spike(lambda u: torch.clamp(1 - u.abs(), min=0) * 0.3)
TAU, TAU_THR, GAMMA = 4.0, 7.0, 0.3
BETA = math.exp(-1 / TAU)


def lif(p: Parameters, x: Tensor, m: Tensor) -> tuple[Tensor, ...]:
    h = BETA * m + x
    s = spike(h - 1)
    return s, h - s


def no_reset(p: Parameters, x: Tensor, m: Tensor) -> tuple[Tensor, ...]:
    m = BETA * m + x
    return spike(m - 1), m


def cooldown(p: Parameters, x: Tensor, m: Tensor) -> tuple[Tensor, ...]:
    n = x.shape[-1]
    sign = torch.tensor([1.0] * (n // 2) + [-1.0] * (n - n // 2), dtype=x.dtype)
    return spike(sign * (m - 1)), BETA * m + (1 - BETA) * torch.exp(x)


def adaptive(p: Parameters, x: Tensor, m: Tensor, r: Tensor) -> tuple[Tensor, ...]:
    threshold = 1 + r
    s = spike((m - threshold) / threshold)
    return s, BETA * m + x - s * threshold, math.exp(-1 / TAU_THR) * r + GAMMA * s


CASES: dict[str, tuple[Any, dict[str, float], list[Any]]] = {
    "LIF": (lif, {}, []),
    "NoReset": (no_reset, {}, []),
    "Cooldown": (cooldown, {}, []),
    "Adaptive": (adaptive, {"tau_thr": TAU_THR, "gamma": GAMMA}, [0.0]),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_equation(name: str, dtype: torch.dtype, backend: str) -> None:
    step, own, more_starts = CASES[name]
    neuron = getattr(rnnbuilder, name)(tau=TAU, in_shape=5, **own).to(dtype)
    with torch.no_grad():
        neuron.initial_mem.copy_(noise(5, seed=9))
    x = noise(7, 3, 5, dtype=dtype, scale=0.9) + (0.5 if name != "Cooldown" else 0.0)
    hold(neuron, step, x, [lambda p: p["initial_mem"], *more_starts], backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_discontinuous(backend: str) -> None:
    neuron = rnnbuilder.Discontinuous(threshold=0.25, backend=backend)
    x = noise(4, 3).requires_grad_()
    y = neuron(x)
    y.sum().backward()
    u = x.detach() - 0.25
    assert torch.equal(y, (u > 0).float())
    torch.testing.assert_close(x.grad, torch.clamp(1 - u.abs(), min=0) * 0.3)
    neuron.threshold = 10.0
    assert neuron(x).sum() == 0


def test_comparison_is_strict() -> None:
    assert rnnbuilder.LIF()(torch.tensor([[1.0]])).item() == 0.0


def test_shape_comes_from_the_first_input() -> None:
    neuron = rnnbuilder.Cooldown()
    assert isinstance(neuron.initial_mem, nn.UninitializedParameter)
    assert list(neuron.state_dict()) == ["initial_mem", "sgn"]
    optimizer = torch.optim.SGD(neuron.parameters(), lr=1.0)
    neuron(torch.ones(3, 2, 4, 2)).sum().backward()
    assert neuron.initial_mem.shape == (4, 2)
    assert neuron.sgn.tolist() == [[1, 1], [1, 1], [-1, -1], [-1, -1]]
    assert neuron.initial_mem.abs().sum() == 0
    optimizer.step()
    assert neuron.initial_mem.abs().sum() > 0
    assert rnnbuilder.LIF()(torch.ones(3, 4)).shape == (3, 4)
    single = rnnbuilder.LIF(step_mode="s")
    single(torch.ones(2, 6))
    assert single.initial_mem.shape == (6,)


def test_loading_before_the_first_input() -> None:
    source = rnnbuilder.LIF(in_shape=(3,))
    nn.init.ones_(source.initial_mem)
    target = rnnbuilder.LIF()
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.initial_mem, source.initial_mem)
    assert torch.equal(target(torch.ones(2, 1, 3)), source(torch.ones(2, 1, 3)))


@pytest.mark.parametrize("ready", [False, True])
def test_copies(ready: bool) -> None:
    neuron = rnnbuilder.Adaptive(tau=3)
    if ready:
        neuron(torch.ones(2, 1, 3))
    x = noise(4, 1, 3) + 1
    for clone in (copy.deepcopy(neuron), pickle.loads(pickle.dumps(neuron))):
        assert torch.equal(clone(x), copy.deepcopy(neuron)(x))
        assert clone.initial_mem is not neuron.initial_mem


def test_tau_is_read_at_every_call() -> None:
    neuron, x = rnnbuilder.NoReset(tau=1, in_shape=1), torch.tensor([[[0.8]], [[0.8]]])
    before = neuron(x)[-1].item()
    neuron.reset()
    neuron.tau = 50
    assert (before, neuron(x)[-1].item()) == (1.0, 1.0)
    neuron.reset()
    neuron.tau = 0.1
    assert neuron(x)[-1].item() == 0.0


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: rnnbuilder.LIF(tau=0), "LIF(tau=0): tau must be > 0"),
        (lambda: rnnbuilder.Adaptive(tau_thr=-1.0), "Adaptive(tau_thr=-1.0): tau_thr must be > 0"),
        (
            lambda: rnnbuilder.LIF(spike_function="x"),
            "LIF(spike_function='x'): spike_function must be callable",
        ),
        (lambda: rnnbuilder.LIF(in_shape=4)(torch.ones(2, 3, 5)), "LIF has neurons of shape (4,), the step"),
    ],
)
def test_wrong_arguments(build: Any, text: str) -> None:
    with pytest.raises(ValueError) as error:
        build()
    assert text in str(error.value)


def test_repr() -> None:
    assert "tau=5, in_shape=None, step_mode='m'" in repr(rnnbuilder.LIF())
    assert "in_shape=(4,)" in repr(rnnbuilder.Adaptive(in_shape=4)) and "gamma=0.25" in repr(rnnbuilder.Adaptive())
