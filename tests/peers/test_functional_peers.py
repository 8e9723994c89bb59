"""The network-level helpers against SpikingJelly 2.0's, where it has them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flexsn import functional


@pytest.fixture(scope="module")
def jelly() -> Any:
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based import functional as theirs

    return theirs


KERNELS: list[tuple[Any, ...]] = [("linear",), ("polynomial", 2), ("sigmoid", 0.5), ("gaussian", 1.5)]


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel_dot_product(jelly: Any, kernel: tuple[Any, ...]) -> None:
    x, y = torch.randn(2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours, theirs = functional.kernel_dot_product(x, y, *kernel), jelly.kernel_dot_product(x, y, *kernel)
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("loss_type", ["mse", "l1", "bce"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_spike_similar_loss(jelly: Any, kernel: tuple[Any, ...], loss_type: str) -> None:
    generator = torch.Generator().manual_seed(0)
    scale = 0.2 if kernel[0] == "polynomial" else 1.0
    spikes = (torch.rand(8, 4, 6, generator=generator) < 0.4).float() * scale
    labels = (torch.rand(8, 3, generator=generator) < 0.5).long()
    if (kernel[0], loss_type) == ("linear", "bce"):
        pytest.skip("the peer raises: a cosine of 1 comes out as 1.0000001; see the next test")
    grads: list[Tensor] = []
    losses: list[Tensor] = []
    for loss in (functional.spike_similar_loss, jelly.spike_similar_loss):
        x = spikes.clone().requires_grad_()
        value: Tensor = loss(x, labels, kernel[0], loss_type, *kernel[1:])
        losses.append(value)
        grads += torch.autograd.grad(value, x)
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=0)
    if loss_type != "bce":  # whose slope at a similarity of 1 is a matter of the last bit
        torch.testing.assert_close(grads[0], grads[1], rtol=1e-5, atol=1e-8)


def test_bce_of_identical_trains_where_the_peer_fails(jelly: Any) -> None:
    spikes = torch.rand(64, 7, generator=torch.Generator().manual_seed(0))
    with pytest.raises(RuntimeError, match="between 0 and 1"):
        jelly.spike_similar_loss(spikes, torch.eye(64), "linear", "bce")
    assert functional.spike_similar_loss(spikes, torch.eye(64), "linear", "bce").isfinite()


@pytest.mark.parametrize("training", [True, False])
def test_set_threshold_margin(jelly: Any, training: bool) -> None:
    from spikingjelly.activation_based import neuron

    label = torch.eye(4)[torch.tensor([1, 3, 0])]
    layers = [neuron.IFNode(), neuron.IFNode()]
    for layer, library in zip(layers, (functional, jelly), strict=True):
        layer.train(training)
        library.set_threshold_margin(layer, label, 0.7, 0.8, 1.3)
    ours, theirs = (torch.as_tensor(layer.v_threshold) for layer in layers)
    assert torch.equal(ours, theirs)


def test_labels_and_first_spikes(jelly: Any) -> None:
    labels = torch.randint(0, 5, (9,))
    assert torch.equal(functional.redundant_one_hot(labels, 5, 3), jelly.redundant_one_hot(labels, 5, 3))
    spikes = (torch.rand(3, 4, 20) < 0.1).float()
    assert torch.equal(functional.first_spike_index(spikes), jelly.first_spike_index(spikes))
    graded = torch.tensor([0.0, 2.0, 1.0])
    assert functional.first_spike_index(graded).tolist() == [False, True, False]
    assert not jelly.first_spike_index(graded).any()  # it counts the height of the spikes, not the spikes


def test_over_time_with_the_peers_neurons(jelly: Any) -> None:
    """Their modules obey our helpers, so a half-moved network still works."""
    from spikingjelly.activation_based import neuron

    net = nn.Sequential(nn.Linear(3, 4), neuron.LIFNode(), nn.Sequential(neuron.IFNode()))
    x = torch.randn(6, 2, 3)
    ours: list[Tensor] = []
    theirs: list[Tensor] = []
    for kept, library in ((ours, functional), (theirs, jelly)):
        library.reset_net(net)
        library.set_step_mode(net, "s")
        kept.append(library.multi_step_forward(x, net))
        library.detach_net(net)
        assert not net[1].v.requires_grad
        library.set_step_mode(net, "m")
        library.reset_net(net)
        kept.append(net[1:](library.seq_to_ann_forward(x, net[0])))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)
