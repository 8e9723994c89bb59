"""Kernels between spike trains, losses and margins, against definitions written as plainly as possible."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from network_modules import Stateful
from torch import nn

from flexsn.functional import (
    kernel_dot_product,
    redundant_one_hot,
    set_threshold_margin,
    spike_similar_loss,
)


def kernel_by_definition(x: np.ndarray, y: np.ndarray, kernel: str, *args: float) -> np.ndarray:
    one: Any = {
        "linear": lambda a, b: a @ b,
        "polynomial": lambda a, b: (a @ b) ** args[0],
        "sigmoid": lambda a, b: 1 / (1 + math.exp(-args[0] * (a @ b))),
        "gaussian": lambda a, b: math.exp(-((a - b) ** 2).sum() / (2 * args[0] ** 2)),
    }[kernel]
    return np.array([[one(a, b) for b in y] for a in x])


KERNELS: list[tuple[Any, ...]] = [("linear",), ("polynomial", 3), ("sigmoid", 0.5), ("gaussian", 1.5)]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 4), m=st.integers(1, 5), kernel=st.sampled_from(KERNELS))
def test_kernel_dot_product_is_its_definition(seed: int, n: int, m: int, kernel: tuple[Any, ...]) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, m)), rng.normal(size=(n + 1, m))
    got = kernel_dot_product(torch.from_numpy(x), torch.from_numpy(y), *kernel)
    np.testing.assert_allclose(got.numpy(), kernel_by_definition(x, y, *kernel), rtol=1e-12, atol=1e-13)


def test_gaussian_kernel_never_exceeds_one() -> None:
    x = torch.randn(50, 300, generator=torch.Generator().manual_seed(1)) * 30
    assert kernel_dot_product(x, x, "gaussian", 0.1).max() == 1.0


@pytest.mark.parametrize("loss_type", ["mse", "l1", "bce"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_spike_similar_loss_is_its_definition(kernel: tuple[Any, ...], loss_type: str) -> None:
    rng = np.random.default_rng(3)
    scale = 0.3 if kernel[0] == "polynomial" else 1.0  # keeps the similarity below 1 for bce
    spikes = (rng.random((6, 3, 4)) < 0.4) * scale
    labels = (rng.random((6, 5)) < 0.4).astype(int)
    flat = spikes.reshape(6, -1)
    p = kernel_by_definition(flat, flat, *kernel)
    if kernel[0] == "linear":
        norm = np.sqrt((flat**2).sum(1))
        p = p / (norm[:, None] * norm[None] + 1e-8)
    target = np.minimum(labels @ labels.T, 1)
    with np.errstate(divide="ignore"):
        expected = {
            "mse": lambda: ((p - target) ** 2).mean(),
            "l1": lambda: abs(p - target).mean(),
            "bce": lambda: (
                -np.where(
                    target,
                    np.maximum(np.log(np.minimum(p, 1)), -100),
                    np.maximum(np.log1p(-np.minimum(p, 1)), -100),
                ).mean()
            ),
        }[loss_type]()
    x = torch.from_numpy(spikes).requires_grad_()
    loss = spike_similar_loss(x, torch.from_numpy(labels), kernel[0], loss_type, *kernel[1:])
    assert loss.item() == pytest.approx(expected, rel=1e-6)  # log of 1 − p where p is all but 1
    torch.autograd.backward(loss)
    assert x.grad is not None and x.grad.isfinite().all()


def test_bce_survives_a_cosine_of_one() -> None:
    """Identical trains have a cosine that rounds to just above 1 for some of these."""
    spikes = torch.rand(64, 7, generator=torch.Generator().manual_seed(0))
    loss = spike_similar_loss(spikes, torch.eye(64), "linear", "bce")
    assert loss.isfinite()


def test_silent_samples_and_half_precision() -> None:
    spikes = torch.zeros(2, 3, 4, dtype=torch.float16, requires_grad=True)
    loss = spike_similar_loss(spikes, torch.eye(2))
    assert loss.item() == 0.5
    torch.autograd.backward(loss)
    assert spikes.grad is not None and torch.equal(spikes.grad, torch.zeros_like(spikes))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: kernel_dot_product(x, x[:, :2]), r"same M, got \(3, 4\) and \(3, 2\)"),
        (
            lambda x: kernel_dot_product(x, x, "cubic"),
            r"kernel must be one of linear, polynomial, .*got 'cubic'",
        ),
        (
            lambda x: kernel_dot_product(x, x, "polynomial"),
            r"'polynomial' takes the degree d, got 0 arguments",
        ),
        (lambda x: kernel_dot_product(x, x, "linear", 2.0), r"'linear' takes no argument, got 1 arguments"),
        (lambda x: kernel_dot_product(x, x, "gaussian", 0.0), r"'gaussian' takes sigma > 0, got 0.0"),
        (
            lambda x: spike_similar_loss(x, x, "linear", "huber"),
            r"loss_type must be one of mse, l1, bce; got 'huber'",
        ),
        (lambda x: spike_similar_loss(x, x[:2]), r"with the same N, got \(3, 4\) and \(2, 4\)"),
        (lambda x: spike_similar_loss(2 * x, x, "polynomial", "bce", 2), r"in \[0, 1\].*gives \[256, 256\]"),
        (
            lambda x: redundant_one_hot(x, 3, 2),
            r"labels must be integers \[B\], got torch.float32 of shape \(3, 4\)",
        ),
        (
            lambda x: redundant_one_hot(torch.tensor([0, 5]), 5, 2),
            r"labels must be in \[0, 5\), got values from 0 to 5",
        ),
        (lambda x: redundant_one_hot(torch.tensor([-1]), 5, 2), r"got values from -1 to -1"),
        (
            lambda x: redundant_one_hot(torch.tensor([1]), 5, 0),
            r"num_classes and n must be >= 1, got 5 and 0",
        ),
        (
            lambda x: set_threshold_margin(Stateful(), x[0]),
            r"label_one_hot must be \[B, C\], got shape \(4,\)",
        ),
    ],
)
def test_value_errors(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call(torch.ones(3, 4))


@settings(deadline=None, max_examples=50)
@given(labels=st.lists(st.integers(0, 4), max_size=6), n=st.integers(1, 3))
def test_redundant_one_hot_is_its_definition(labels: list[int], n: int) -> None:
    got = redundant_one_hot(torch.tensor(labels, dtype=torch.int64), 5, n)
    assert got.dtype == torch.float32 and got.shape == (len(labels), 5 * n)
    assert got.tolist() == [[float(column // n == label) for column in range(5 * n)] for label in labels]


def test_set_threshold_margin() -> None:
    layer = Stateful()
    labels = torch.tensor([[0, 1, 0], [1, 0, 0]])
    set_threshold_margin(layer, labels, eval_threshold=0.5, threshold0=0.25, threshold1=2.0)
    assert layer.v_threshold.tolist() == [[0.25, 2.0, 0.25], [2.0, 0.25, 0.25]]
    assert layer.v_threshold.dtype == torch.float32
    set_threshold_margin(layer, labels.double())
    assert layer.v_threshold.dtype == torch.float64
    layer.eval()
    set_threshold_margin(layer, labels, eval_threshold=0.5)
    assert layer.v_threshold == 0.5
    set_threshold_margin(layer, labels)
    assert layer.v_threshold == 1.0


def test_set_threshold_margin_finds_the_neuron_of_a_layer() -> None:
    class Output(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neuron = Stateful()

    layer = Output()
    set_threshold_margin(layer, torch.eye(2), threshold0=0.5, threshold1=1.5)
    assert layer.neuron.v_threshold.tolist() == [[1.5, 0.5], [0.5, 1.5]]
    with pytest.raises(ValueError, match=r"Linear needs a v_threshold \(its own or its neuron's\)"):
        set_threshold_margin(nn.Linear(2, 2), torch.eye(2))
    learned = nn.Module()
    learned.v_threshold = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="not a learnable parameter"):
        set_threshold_margin(learned, torch.eye(2))
