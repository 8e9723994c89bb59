"""The network-level helpers, against definitions written as plainly as possible."""

from __future__ import annotations

import doctest
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from flexsn.functional import (
    detach_net,
    first_spike_index,
    kernel_dot_product,
    losses,
    multi_step_forward,
    over_time,
    redundant_one_hot,
    reset_net,
    seq_to_ann_forward,
    set_backend,
    set_step_mode,
    set_threshold_margin,
    spike_cluster,
    spike_similar_loss,
    spike_trains,
)
from flexsn.functional import network as network_module


class Stateful(nn.Module):
    """A small neuron-like module that records what is done to it."""

    def __init__(self, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.inner = inner
        self.step_mode = "s"
        self.backend = "auto"
        self.v_threshold: Any = 1.0
        self.v: Tensor | float = 0.0
        self.calls: list[str] = []

    def forward(self, x: Tensor) -> Tensor:
        self.v = self.v + x
        return self.v

    def reset(self) -> None:
        self.calls.append("reset")
        self.v = 0.0

    def detach(self) -> None:
        self.calls.append("detach")
        if isinstance(self.v, Tensor):
            self.v = self.v.detach()


def network() -> tuple[nn.Sequential, list[Stateful]]:
    inner = Stateful()
    outer = Stateful(inner)
    last = Stateful()
    return nn.Sequential(nn.Linear(3, 3), outer, nn.Sequential(last)), [outer, inner, last]


# ---- whole networks ---------------------------------------------------------------------------------------


def test_reset_and_detach_reach_every_module_once() -> None:
    net, neurons = network()
    net(torch.ones(2, 3))
    reset_net(net)
    assert all(neuron.calls == ["reset"] and neuron.v == 0.0 for neuron in neurons)
    net(torch.ones(2, 3))
    detach_net(net)
    assert all(neuron.calls == ["reset", "detach"] for neuron in neurons)
    assert isinstance(neurons[2].v, Tensor) and not neurons[2].v.requires_grad
    alone = Stateful()
    reset_net(alone)
    assert alone.calls == ["reset"]


def test_reset_and_detach_skip_tensors_and_data_attributes() -> None:
    module = nn.Module()
    module.register_parameter("weight", nn.Parameter(torch.ones(2)))  # tensors have detach() too
    module.reset = 3  # type: ignore[assignment]
    reset_net(module)
    detach_net(module)
    assert module.weight.requires_grad


def test_set_step_mode_and_backend() -> None:
    net, neurons = network()
    set_step_mode(net, "m")
    set_backend(net, "torch")
    assert [(n.step_mode, n.backend) for n in neurons] == [("m", "torch")] * 3
    assert not hasattr(net[0], "step_mode") and not hasattr(net[0], "backend")
    with pytest.raises(ValueError, match=r"step_mode must be 's' \(single step\) or 'm' \(multi-step\), got 'x'"):
        set_step_mode(net, "x")
    assert [n.step_mode for n in neurons] == ["m"] * 3


def test_set_backend_leaves_the_check_to_the_neuron() -> None:
    class Picky(nn.Module):
        @property
        def backend(self) -> str:
            return "auto"

        @backend.setter
        def backend(self, value: str) -> None:
            raise ValueError(f"backend {value!r} is unknown")

    with pytest.raises(ValueError, match="backend 'abacus' is unknown"):
        set_backend(nn.Sequential(Picky()), "abacus")


@pytest.mark.parametrize(
    "act", [reset_net, detach_net, lambda net: set_step_mode(net, "s"), lambda net: set_backend(net, "auto")]
)
def test_a_tensor_is_no_network(act: Any) -> None:
    with pytest.raises(ValueError, match=r"net must be a torch.nn.Module, got Tensor"):
        act(torch.zeros(2))


# ---- over time --------------------------------------------------------------------------------------------


def test_multi_step_forward_goes_through_time_in_order() -> None:
    x = torch.randn(5, 2, 3)
    layer = nn.Linear(3, 3)
    expected = layer(x).cumsum(0)
    for stages in ((layer, Stateful()), ([layer, Stateful()],), (nn.Sequential(layer, Stateful()),)):
        torch.testing.assert_close(multi_step_forward(x, *stages), expected)


def test_multi_step_forward_of_tuples_and_gradients() -> None:
    x = torch.randn(4, 3, requires_grad=True)
    low, high = multi_step_forward(x, lambda v: (v - 1, v + 1), lambda a, b: (a, 2 * b))
    assert torch.equal(low, x - 1) and torch.equal(high, 2 * (x + 1))
    (low + high).sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 3.0))  # type: ignore[arg-type]


def test_multi_step_forward_errors() -> None:
    multi = Stateful()
    multi.step_mode = "m"
    for stage in (multi, nn.Sequential(nn.Identity(), multi)):
        with pytest.raises(ValueError, match=r"Stateful has step_mode='m' and would take the batch for time"):
            multi_step_forward(torch.zeros(2, 3), stage)
    with pytest.raises(ValueError, match=r"x_seq must be \[T, ...\] with T >= 1, got shape \(0, 3\)"):
        multi_step_forward(torch.zeros(0, 3), nn.Identity())
    for run in (multi_step_forward, seq_to_ann_forward):
        with pytest.raises(ValueError, match="stages must be modules or functions, got int"):
            run(torch.zeros(2, 3), nn.Identity(), 3)  # type: ignore[arg-type]


def test_seq_to_ann_forward_equals_the_loop() -> None:
    x = torch.randn(4, 2, 3, 6, 6)
    conv, pool = nn.Conv2d(3, 5, 3), nn.AvgPool2d(2)
    expected = torch.stack([pool(conv(step)) for step in x])
    torch.testing.assert_close(seq_to_ann_forward(x, conv, pool), expected)
    torch.testing.assert_close(seq_to_ann_forward(x, [conv, pool]), expected)
    assert seq_to_ann_forward(x[:0], conv).shape == (0, 2, 5, 4, 4)


def test_seq_to_ann_forward_of_tuples() -> None:
    x, y = torch.randn(3, 2, 4), torch.randn(3, 2, 4, 1)
    total, product = seq_to_ann_forward((x, y), lambda a, b: (a + b[..., 0], a * b[..., 0]))
    assert torch.equal(total, x + y[..., 0]) and torch.equal(product, x * y[..., 0])


@pytest.mark.parametrize("x", [torch.zeros(3), (torch.zeros(3, 2), torch.zeros(2, 3)), ()])
def test_seq_to_ann_forward_errors(x: Any) -> None:
    with pytest.raises(ValueError, match=r"x_seq must be \[T, B, ...\], with the same T and B in every input"):
        seq_to_ann_forward(x, nn.Identity())


# ---- spike trains -----------------------------------------------------------------------------------------


def clusters_of(times: list[int], T_in: int) -> list[list[int]]:
    found: list[list[int]] = []
    for t in times:
        if found and t - found[-1][-1] <= T_in:
            found[-1].append(t)
        else:
            found.append([t])
    return found


def brute_force(v: np.ndarray, threshold: np.ndarray, T_in: int) -> tuple[list[int], np.ndarray, np.ndarray]:
    T, N = v.shape
    counts, k_positive, k_negative = [], np.zeros((T, N), bool), np.zeros((T, N), bool)
    for n in range(N):
        times = [t for t in range(T) if v[t, n] >= threshold[n]]
        clusters = clusters_of(times, T_in)
        counts.append(len(clusters))
        if clusters:
            k_negative[min(clusters, key=len)[-1], n] = True  # min() keeps the first of equals
        free = [t for t in range(T) if all(abs(t - other) > T_in for other in times)]
        if free:
            k_positive[max(free, key=lambda t: v[t, n]), n] = True  # so does max()
    return counts, k_positive, k_negative


@settings(deadline=None, max_examples=300)
@given(
    data=st.data(),
    T=st.integers(1, 14),
    N=st.integers(1, 4),
    T_in=st.integers(0, 6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_spike_cluster_is_its_definition(data: Any, T: int, N: int, T_in: int, dtype: torch.dtype) -> None:
    # Few distinct values, so that ties and equal clusters are common.
    levels = st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0, 1.5])
    rows = data.draw(st.lists(st.lists(levels, min_size=N, max_size=N), min_size=T, max_size=T))
    threshold = np.array(data.draw(st.lists(st.sampled_from([0.5, 1.0]), min_size=N, max_size=N)))
    v = torch.tensor(rows, dtype=dtype)
    n_o, k_positive, k_negative = spike_cluster(v, torch.from_numpy(threshold), T_in)
    counts, positive, negative = brute_force(v.numpy(), threshold, T_in)
    assert n_o.tolist() == counts and n_o.dtype == dtype
    assert k_positive.dtype == k_negative.dtype == torch.bool
    np.testing.assert_array_equal(k_positive.numpy(), positive)
    np.testing.assert_array_equal(k_negative.numpy(), negative)


def test_spike_cluster_corner_cases() -> None:
    quiet = torch.full((5, 2), -3.0)
    n_o, k_positive, k_negative = spike_cluster(quiet, 1.0, 2)
    assert n_o.tolist() == [0.0, 0.0] and not k_negative.any()
    assert k_positive.nonzero().tolist() == [[0, 0], [0, 1]]
    busy = torch.ones(5, 2, requires_grad=True)
    n_o, k_positive, k_negative = spike_cluster(busy, 1.0, 0)
    assert n_o.tolist() == [5.0, 5.0] and not k_positive.any() and not n_o.requires_grad
    assert k_negative.nonzero().tolist() == [[0, 0], [0, 1]]
    n_o, k_positive, k_negative = spike_cluster(torch.ones(4, 2, 3), 1.0, 1)  # further dimensions
    assert n_o.tolist() == [[1.0] * 3] * 2 and k_negative.shape == (4, 2, 3)
    lone = torch.tensor([[1.0, 5.0], [0.9, 5.0], [0.0, 5.0]])  # the candidate is the lowest value of all
    assert spike_cluster(lone, 1.0, 1)[1].nonzero().tolist() == [[2, 0]]
    assert spike_cluster(lone, 1.0, 0)[0].tolist() == [1.0, 3.0]


def test_spike_cluster_huge_gap_and_numpy_free_input() -> None:
    v = torch.zeros(50, 1)
    v[[0, 40]] = 2.0
    for T_in, expected in ((39, 2.0), (40, 1.0), (10**6, 1.0)):
        assert spike_cluster(v, 1.0, T_in)[0].item() == expected


def test_spike_cluster_errors() -> None:
    with pytest.raises(ValueError, match=r"v must be a floating-point tensor \[T, N\] with T >= 1"):
        spike_cluster(torch.zeros(3), 1.0, 1)
    with pytest.raises(ValueError, match=r"got torch.float32 of shape \(0, 2\)"):
        spike_cluster(torch.zeros(0, 2), 1.0, 1)
    for T_in in (-1, 1.5, True):
        with pytest.raises(ValueError, match=rf"T_in must be an integer >= 0, got {T_in}"):
            spike_cluster(torch.zeros(3, 1), 1.0, T_in)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.lists(st.sampled_from([0, 0, 1, 2]), min_size=5, max_size=5), min_size=1, max_size=4))
def test_first_spike_index_is_its_definition(rows: list[list[int]]) -> None:
    expected = [[v != 0 and not any(row[:t]) for t, v in enumerate(row)] for row in rows]
    for dtype in (torch.float32, torch.int64, torch.bool):
        spikes = torch.tensor(rows).to(dtype)
        assert first_spike_index(spikes).tolist() == expected
        assert first_spike_index(spikes[:, None]).tolist() == [[row] for row in expected]


# ---- losses -----------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("module", [network_module, over_time, losses, spike_trains])
def test_doctests(module: Any) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0
