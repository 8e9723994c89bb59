"""Every surrogate inside a compiled scan against its slope in NumPy, through several steps of a reset membrane.

Tests of the surrogates by themselves are in tests/flexsn/test_surrogate.py. Here all of them run side by side in one
core, each with an input and a membrane of its own, so that a backend builds two kernels for all and not for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from reference import BACKENDS, noise
from torch import Tensor, nn

from flexsn import FlexSN, surrogate
from tests.flexsn.surrogate_formulas import FORMULAS, others

NAMES = sorted(FORMULAS)
T, SHAPE = 6, (3, 7)


def step(spike: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v * 0.5 + x
    s = spike(h - 0.5)
    return s, h * (1.0 - s)


class SideBySide(nn.Module):
    def __init__(self, spikes: Sequence[Any]) -> None:
        super().__init__()
        self.spikes = nn.ModuleList(spikes)

    def forward(self, *xs_and_vs: Tensor) -> tuple[Tensor, ...]:
        count = len(self.spikes)
        sides = zip(self.spikes, xs_and_vs[:count], xs_and_vs[count:], strict=True)
        pairs = [step(spike, x, v) for spike, x, v in sides]
        return *(s for s, _ in pairs), *(v for _, v in pairs)


def inputs(dtype: torch.dtype) -> Tensor:
    x = noise(T, *SHAPE, dtype=dtype, scale=1.5)
    x[0, 0, :3] = 0.5  # exactly at the threshold
    return x


def weights(name: str, dtype: torch.dtype) -> Tensor:
    return noise(T, *SHAPE, dtype=dtype, seed=1 + NAMES.index(name))


def make(name: str, **arguments: Any) -> Any:
    return getattr(surrogate, name)(**arguments)


@lru_cache
def fused(backend: str, variant: str) -> dict[str, tuple[Tensor, Tensor, list[Tensor]]]:
    """Of each surrogate the outputs, and the gradients of the input and of the learnable coefficients.

    Variants: defaults in fp32; in fp64 other coefficients, learnable and with ``x > 0``, or the smooth primitive.
    """
    dtype = torch.float32 if variant == "defaults" else torch.float64
    spikes = {}
    for name in NAMES:
        arguments: dict[str, Any] = {} if variant == "defaults" else dict(others(name))
        if variant == "learnable":
            learned = {k: nn.Parameter(torch.tensor(c, dtype=dtype)) for k, c in arguments.items() if k != "n"}
            arguments |= learned
        spikes[name] = make(name, **arguments, strict=variant == "learnable", spiking=variant != "smooth")
    count = len(NAMES)
    neuron = FlexSN(SideBySide(list(spikes.values())), num_inputs=count, num_states=count, backend=backend)
    xs = [inputs(dtype).requires_grad_() for _ in NAMES]
    ys = neuron(*xs)
    torch.autograd.backward(ys, [weights(name, dtype) for name in NAMES])
    return {
        name: (y.detach(), x.grad, [p.grad for p in spikes[name].parameters()])
        for name, x, y in zip(NAMES, xs, ys, strict=True)
    }


def by_hand(name: str, coefficients: dict[str, float], strict: bool, dtype: torch.dtype) -> tuple[Any, ...]:
    """Spikes, the gradient of the input, thresholded values and the gradients of the spikes: BPTT in NumPy."""
    formula, x, w = FORMULAS[name][1], inputs(dtype).numpy(), weights(name, dtype).double().numpy()
    v, u, h, s = np.zeros_like(x[0]), np.empty_like(x), np.empty_like(x), np.empty_like(x)
    for t in range(T):
        h[t] = v * x.dtype.type(0.5) + x[t]
        u[t] = h[t] - x.dtype.type(0.5)
        s[t] = u[t] > 0 if strict else u[t] >= 0
        v = h[t] * (1 - s[t])
    gx, gs, gv = np.empty(x.shape), np.empty(x.shape), np.zeros(x[0].shape)
    for t in reversed(range(T)):
        gs[t] = w[t] - gv * h[t]
        gx[t] = gv * (1 - s[t]) + gs[t] * formula(u[t].astype(np.float64), **coefficients)
        gv = 0.5 * gx[t]
    return s, gx, u, gs


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", ["defaults", "learnable"])
@pytest.mark.parametrize("name", NAMES)
def test_spikes_and_gradients(name: str, variant: str, backend: str) -> None:
    coefficients = FORMULAS[name][0] if variant == "defaults" else others(name)
    y, gx, learned = fused(backend, variant)[name]
    s, want, u, gs = by_hand(name, coefficients, variant == "learnable", y.dtype)
    assert np.array_equal(y.numpy(), s) and 0.2 < s.mean() < 0.8
    assert (u == 0).any()
    eps = torch.finfo(y.dtype).eps
    np.testing.assert_allclose(gx.numpy(), want, rtol=16 * eps, atol=16 * eps * abs(want).max())
    keys = [key for key in coefficients if key != "n"] if variant == "learnable" else []
    for key, grad in zip(keys, learned, strict=True):
        up, down = (
            make(name, **{**coefficients, key: coefficients[key] + d}, spiking=False)(torch.from_numpy(u)).numpy()
            for d in (1e-6, -1e-6)
        )
        assert grad.item() == pytest.approx((gs * (up - down)).sum() / 2e-6, rel=1e-6, abs=1e-7), key


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_smooth_primitives(name: str, backend: str) -> None:
    x, v, ys = inputs(torch.float64).requires_grad_(), torch.zeros(SHAPE, dtype=torch.float64), []
    for x_t in x.unbind(0):
        y, v = step(make(name, **others(name), spiking=False), x_t, v)
        ys.append(y)
    want = torch.stack(ys)
    (grad,) = torch.autograd.grad((want * weights(name, torch.float64)).sum(), x)
    y, gx, _ = fused(backend, "smooth")[name]
    torch.testing.assert_close(y, want.detach(), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(gx, grad, rtol=1e-12, atol=1e-12 * grad.abs().max().item())


@pytest.mark.parametrize("backend", BACKENDS)
def test_custom(backend: str) -> None:
    spike = surrogate.custom(lambda x: 1.0 / (1.0 + 10.0 * x.abs()) ** 2)
    x = inputs(torch.float64).requires_grad_()
    y = FlexSN(lambda x: spike(x - 0.5), num_states=0, backend=backend)(x)
    w = weights("ATan", torch.float64)
    (grad,) = torch.autograd.grad((y * w).sum(), x)
    assert torch.equal(y, (x >= 0.5).double())
    torch.testing.assert_close(grad, w / (1 + 10 * (x.detach() - 0.5).abs()) ** 2, rtol=1e-14, atol=0)
