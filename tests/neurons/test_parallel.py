"""The parallel family against NumPy sums."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from reference import DTYPES, noise
from torch import Tensor, nn

from flexsn import surrogate
from flexsn.neurons.parallel import PSN, MaskedPSN, SlidingPSN

T = 6
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def numpy_psn(weight: Any, bias: Any, x: Any, g: Any) -> tuple[Any, ...]:
    """Spikes of ``Θ(W x + b)`` and, for the output gradient ``g``, the gradients of x, W and b under ATan."""
    h = np.einsum("ij,j...->i...", weight, x) + bias.reshape(-1, *[1] * (x.ndim - 1))
    gh = g / (1 + (np.pi * h) ** 2)
    flat = gh.reshape(len(h), -1)
    return h >= 0, np.einsum("ij,i...->j...", weight, gh), flat @ x.reshape(len(x), -1).T, flat.sum(1)


def banded(weight: Any, steps: int) -> Any:
    k, W = len(weight), np.zeros((steps, steps))
    for t in range(steps):
        for j in range(max(0, t - k + 1), t + 1):
            W[t, j] = weight[k - 1 - (t - j)]
    return W


def stepwise(neuron: nn.Module, x: Tensor) -> Tensor:
    neuron.step_mode = "s"  # type: ignore[assignment]
    return torch.stack([neuron(x_t) for x_t in x.unbind(0)])


def run(neuron: nn.Module, x: Tensor, step_mode: str) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, the gradient of their sum weighted by noise with respect to x, and that noise."""
    x = x.clone().requires_grad_()
    neuron.zero_grad()
    y = stepwise(neuron, x) if step_mode == "s" else neuron(x)
    g = noise(*y.shape, dtype=y.dtype, seed=5)
    (y * g).sum().backward()
    assert x.grad is not None
    return y.detach(), x.grad, g


def near(ours: Tensor | None, wanted: Any) -> None:
    assert ours is not None
    tolerance = TOLERANCE[ours.dtype]
    np.testing.assert_allclose(ours.numpy(), wanted.reshape(ours.shape), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 2)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_psn(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    psn = PSN(T).to(dtype)
    nn.init.uniform_(psn.bias, -0.3, 0.3)
    x = noise(T, *shape, dtype=dtype)
    y, gx, g = run(psn, x, "m")
    s, wx, w_weight, w_bias = numpy_psn(*(t.detach().double().numpy() for t in (psn.weight, psn.bias, x, g)))
    assert np.array_equal(y.numpy(), s)
    for ours, wanted in ((gx, wx), (psn.weight.grad, w_weight), (psn.bias.grad, w_bias)):
        near(ours, wanted)


@pytest.mark.parametrize("step_mode", ["m", "s"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 3, T, T + 2])
@pytest.mark.parametrize("lambda_", [0.0, 0.25, 1.0])
def test_masked_psn(lambda_: float, k: int, dtype: torch.dtype, step_mode: str) -> None:
    neuron = MaskedPSN(k, T, lambda_init=lambda_, step_mode="m").to(dtype)
    nn.init.uniform_(neuron.bias, -0.3, 0.3)
    x = noise(T, 3, 2, dtype=dtype)
    if step_mode == "s" and lambda_ < 1:
        with pytest.raises(ValueError, match="sees future steps; single-step mode needs lambda_ = 1"):
            stepwise(neuron, x)
        return
    i, j = np.indices((T, T))
    mask = lambda_ * ((j <= i) & (i <= j + k - 1)) + (1 - lambda_)
    weight, bias = neuron.weight.detach().double().numpy(), neuron.bias.detach().double().numpy()
    y, gx, g = run(neuron, x, step_mode)
    s, wx, w_weight, w_bias = numpy_psn(mask * weight, bias, x.double().numpy(), g.double().numpy())
    assert np.array_equal(y.numpy(), s)
    for ours, wanted in ((gx, wx), (neuron.weight.grad, mask * w_weight), (neuron.bias.grad, w_bias)):
        near(ours, wanted)


@pytest.mark.parametrize(("step_mode", "backend"), [("m", "gemm"), ("m", "conv"), ("s", "gemm")])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 3, T, T + 2])
def test_sliding_psn(k: int, dtype: torch.dtype, step_mode: str, backend: str) -> None:
    neuron = SlidingPSN(k, exp_init=False, step_mode=step_mode, backend=backend).to(dtype)
    nn.init.constant_(neuron.bias, 0.1)
    x = noise(T, 3, 2, dtype=dtype)
    weight = neuron.weight.detach().double().numpy()
    y, gx, g = run(neuron, x, step_mode)
    bias = np.full(T, neuron.bias.item())
    s, wx, w_matrix, w_bias = numpy_psn(banded(weight, T), bias, x.double().numpy(), g.double().numpy())
    w_weight = np.array([np.trace(w_matrix, -(k - 1 - i)) for i in range(k)])
    assert np.array_equal(y.numpy(), s)
    for ours, wanted in ((gx, wx), (neuron.weight.grad, w_weight), (neuron.bias.grad, w_bias.sum())):
        near(ours, wanted)


def test_starting_values() -> None:
    assert SlidingPSN(4).weight.tolist() == [0.125, 0.25, 0.5, 1.0]
    for neuron in (PSN(3), MaskedPSN(2, 3), SlidingPSN(3)):
        assert torch.all(neuron.bias == -1)
    torch.manual_seed(0)
    weight = PSN(5).weight
    torch.manual_seed(0)
    assert torch.equal(weight, nn.init.kaiming_uniform_(torch.empty(5, 5), a=5**0.5))


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_16_bit_inputs_are_computed_in_the_precision_of_the_weights(half: torch.dtype) -> None:
    psn, x = PSN(T), noise(T, 50).to(half)
    nn.init.zeros_(psn.bias)
    y = psn(x)
    assert y.dtype == half and torch.equal(y.float(), psn(x.float()))


def test_one_step_too_many() -> None:
    neuron = MaskedPSN(2, 3, lambda_init=1.0)
    stepwise(neuron, noise(3, 2))
    with pytest.raises(OverflowError, match=r"MaskedPSN\(T=3\) has already run 3 steps"):
        neuron(noise(2))
    neuron.reset()
    neuron(noise(2))


def test_state_of_single_steps() -> None:
    neuron, x = SlidingPSN(3), noise(4, 5).requires_grad_()
    whole = stepwise(neuron, x)
    clone = copy.deepcopy(neuron)
    assert torch.equal(clone(x[0]), neuron(x[0])) and len(neuron.queue) == 3
    neuron.detach()
    assert not any(step.requires_grad for step in neuron.queue)
    with pytest.raises(ValueError, match=r"the step shape changed from \(5,\) to \(4,\) while SlidingPSN"):
        neuron(torch.zeros(4))
    neuron.reset()
    assert torch.equal(stepwise(neuron, x), whole)


def test_edges_and_backends() -> None:
    neuron = SlidingPSN(3, step_mode="m")
    assert neuron(torch.empty(0, 4)).shape == (0, 4)
    assert neuron.supported_backends == ("gemm", "conv")
    neuron.backend = "conv"
    assert neuron(noise(5, 0)).shape == (5, 0)
    neuron.backend = "auto"
    assert neuron.backend == "gemm"
    assert PSN(2, surrogate.Sigmoid()).surrogate_function.alpha == 4.0


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: PSN(0), "PSN(T=0): T must be an integer >= 1"),
        (lambda: PSN(2.0), "PSN(T=2.0): T must be an integer >= 1"),
        (lambda: PSN(2)(torch.zeros(3, 4)), "PSN(T=2) takes x_seq of shape [2, ...], got (3, 4)"),
        (lambda: setattr(PSN(2), "step_mode", "s"), "PSN(step_mode='s'): step_mode must be 'm'"),
        (lambda: MaskedPSN(0, 2), "MaskedPSN(k=0): k must be an integer >= 1"),
        (lambda: MaskedPSN(1, 2, 1.5), "MaskedPSN(lambda_=1.5): lambda_ must be in [0, 1]"),
        (lambda: setattr(MaskedPSN(1, 2), "lambda_", -1), "MaskedPSN(lambda_=-1.0): lambda_ must be in [0, 1]"),
        (lambda: SlidingPSN(2, step_mode="x"), "SlidingPSN(step_mode='x'): step_mode must be 's' or 'm'"),
        (lambda: SlidingPSN(2, backend="x"), "SlidingPSN(backend='x'): backend must be 'gemm' or 'conv'"),
        (lambda: SlidingPSN(2, surrogate_function=1), "SlidingPSN(surrogate_function=1): surrogate_function must"),
    ],
)
def test_wrong_arguments(build: Any, text: str) -> None:
    with pytest.raises(ValueError) as error:
        build()
    assert text in str(error.value)


def test_repr() -> None:
    assert "T=4, step_mode='m'" in repr(PSN(4))
    assert "k=2, T=4, lambda_=0.5, step_mode='s'" in repr(MaskedPSN(2, 4, 0.5))
    assert "k=3, step_mode='s', backend='gemm'" in repr(SlidingPSN(3))
