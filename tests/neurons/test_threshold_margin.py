"""A threshold per sample and class, as functional.set_threshold_margin sets it, in the compiled kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from reference import BACKENDS, noise
from torch import Tensor

from flexsn import neurons, surrogate
from flexsn.functional import redundant_one_hot, set_threshold_margin

T, B, C = 7, 4, 6
LABELS = torch.tensor([1, 0, 2, 2])


def output_layer(backend: str, v_reset: float | None, dtype: torch.dtype, step_mode: str = "m") -> neurons.LIF:
    neuron = neurons.LIF(
        2.0, v_reset=v_reset, surrogate_function=surrogate.ATan(), step_mode=step_mode, backend=backend
    )
    set_threshold_margin(neuron, redundant_one_hot(LABELS, 3, 2).to(dtype), 0.9, 0.75, 1.5)
    return neuron


def currents(dtype: torch.dtype) -> Tensor:
    return noise(T, B, C, dtype=dtype, scale=1.5) + 1.0


def by_hand(x: Any, threshold: Any, v_reset: float | None, w: Any) -> tuple[Any, Any, Any]:
    """Spikes, last membrane and gradient of ``sum(w·s) + sum(v²)``, step by step in NumPy; ATan's slope."""
    v, hs, ss = np.zeros_like(x[0]), [], []
    for x_t in x:
        h = v + (x_t - v) / 2
        s = (h - threshold >= 0).astype(x.dtype)
        v = h - s * threshold if v_reset is None else (1 - s) * h
        hs.append(h)
        ss.append(s)
    gx, gv = np.empty_like(x), 2 * v
    for t in reversed(range(T)):
        u = hs[t] - threshold
        to_spike = w[t] - gv * (threshold if v_reset is None else hs[t])
        gh = gv * (1 if v_reset is None else 1 - ss[t]) + to_spike / (1 + (np.pi * u) ** 2)
        gx[t], gv = gh / 2, gh / 2
    return np.stack(ss), v, gx


@pytest.mark.parametrize("backend", BACKENDS)  # by name: one that cannot compile this raises
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("v_reset", [0.0, None])
def test_the_kernel_takes_it(v_reset: float | None, dtype: torch.dtype, backend: str) -> None:
    threshold = np.where(redundant_one_hot(LABELS, 3, 2).bool(), 1.5, 0.75)
    w = noise(T, B, C, dtype=dtype, seed=1)
    s, v, gx = by_hand(currents(dtype).numpy(), threshold.astype(w.numpy().dtype), v_reset, w.numpy())
    assert 0.1 < s.mean() < 0.9
    results = []
    for chosen in (backend, "torch"):
        neuron, x = output_layer(chosen, v_reset, dtype), currents(dtype).requires_grad_()
        y = neuron(x)
        ((y * w).sum() + (neuron.v * neuron.v).sum()).backward()
        results.append((y.detach(), neuron.v.detach(), x.grad))
        assert np.array_equal(y.detach().numpy(), s)
        tolerance = 64 * torch.finfo(dtype).eps
        np.testing.assert_allclose(neuron.v.detach().numpy(), v, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(x.grad.numpy(), gx, rtol=tolerance, atol=tolerance)
    for got, want in zip(*results, strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_step_by_step_and_with_other_labels(backend: str) -> None:
    """A threshold set between two calls counts from the next one on."""
    neuron = output_layer(backend, 0.0, torch.float32, step_mode="s")
    x, v = currents(torch.float32), torch.zeros(B, C)
    for t, x_t in enumerate(x):
        one_hot = redundant_one_hot((LABELS + t) % 3, 3, 2)
        set_threshold_margin(neuron, one_hot, threshold0=0.75, threshold1=1.5)
        h = v + (x_t - v) / 2
        s = (h >= torch.where(one_hot == 1, 1.5, 0.75)).float()
        v = (1 - s) * h
        assert torch.equal(neuron(x_t), s)
    assert torch.equal(neuron.v, v)


@pytest.mark.parametrize("backend", BACKENDS)
def test_evaluation_takes_the_number(backend: str) -> None:
    neuron, x = output_layer(backend, 0.0, torch.float32), currents(torch.float32)
    trained = neuron(x)
    neuron.eval()
    neuron.reset()
    set_threshold_margin(neuron, redundant_one_hot(LABELS, 3, 2), eval_threshold=0.9)
    evaluated = neuron(x)
    assert torch.equal(evaluated, neurons.LIF(2.0, v_threshold=0.9, step_mode="m", backend="torch")(x))
    assert not torch.equal(evaluated, trained)


@pytest.mark.parametrize("backend", BACKENDS)
def test_maps(backend: str) -> None:
    """``[B, C, 1, 1]`` broadcasts against the maps of a convolution."""
    neuron = neurons.IF(step_mode="m", backend=backend)
    set_threshold_margin(neuron, redundant_one_hot(LABELS, 3, 2), threshold0=0.75, threshold1=1.5)
    neuron.v_threshold = neuron.v_threshold[:, :, None, None]
    x = noise(T, B, C, 3, 2) + 0.5
    want = neurons.IF(step_mode="m", backend="torch")
    want.v_threshold = neuron.v_threshold.expand(B, C, 3, 2).contiguous()
    assert torch.equal(neuron(x), want(x))
