"""SpikingJelly's recurrent containers, its gated and its online neurons in the preset: as those of SpikingJelly 2.0."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flexsn.neurons import spikingjelly as ours
from flexsn.neurons.spikingjelly import layer as our_layer

pytest.importorskip("spikingjelly")
from spikingjelly.activation_based import functional, surrogate
from spikingjelly.activation_based import layer as their_layer
from spikingjelly.activation_based import neuron as theirs

X = torch.rand(8, 3, 4, generator=torch.Generator().manual_seed(0)) * 3


def results(net: Any, x: Tensor, whole: bool) -> tuple[Any, ...]:
    x = x.clone().requires_grad_()
    if whole:
        net.step_mode = "m"
        y = net(x)
    else:
        y = torch.stack([net(step) for step in x])
    (y * torch.linspace(-1.0, 2.0, y.numel()).view_as(y)).sum().backward()
    return y.detach(), x.grad, {name: p.grad for name, p in net.named_parameters()}


def spiral(neuron: Any) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 2), neuron.LIFNode(v_reset=None))


CONTAINERS: dict[str, Any] = {
    "a neuron": lambda layer, neuron: layer.LinearRecurrentContainer(neuron.ParametricLIFNode(), 4, 4),
    "linear": lambda layer, neuron: layer.LinearRecurrentContainer(spiral(neuron), 4, 2, bias=False),
    "steps": lambda layer, neuron: layer.LinearRecurrentContainer(nn.Sequential(spiral(neuron), nn.ReLU()), 4, 2),
    "pointwise": lambda layer, neuron: layer.ElementWiseRecurrentContainer(neuron.IFNode(), lambda y, x: x - 0.5 * y),
    "theirs inside": lambda layer, neuron: layer.LinearRecurrentContainer(theirs.IFNode(3.0), 4, 4),
}


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("case", CONTAINERS)
def test_containers(case: str, whole: bool) -> None:
    torch.manual_seed(0)
    peer, mine = CONTAINERS[case](their_layer, theirs), CONTAINERS[case](our_layer, ours)
    assert isinstance(mine, type(peer)) and mine.state_dict().keys() == peer.state_dict().keys()
    with torch.no_grad():
        for weight in peer.parameters():
            weight.abs_()
    mine.load_state_dict(peer.state_dict())
    want = results(peer, X, whole)
    assert 0 < want[0].mean() < 1
    torch.testing.assert_close(results(mine, X, whole), want, rtol=2e-5, atol=2e-6)
    torch.testing.assert_close(mine.y, peer.y)
    if case == "linear":
        torch.testing.assert_close(mine.sub_module[1].v, peer.sub_module[1].v)
    mine.detach()  # SpikingJelly's cannot, where y is a view
    assert not mine.y.requires_grad
    functional.detach_net(mine)
    copied = copy.deepcopy(mine)
    functional.reset_net(mine)
    assert mine.y is None and copied.y is not None
    for given in (X, X[:, :2]):
        functional.reset_net(peer)
        functional.reset_net(copied)
        torch.testing.assert_close(results(copied, given, whole)[0], results(peer, given, whole)[0])


def test_a_batch_of_another_shape_is_refused() -> None:
    for layer, neuron in ((their_layer, theirs), (our_layer, ours)):
        net = CONTAINERS["linear"](layer, neuron)
        net(X[0])
        with pytest.raises(ValueError, match="reset_net"):
            net(X[0, :2])


@pytest.mark.parametrize("inplane", [None, 4])
def test_gated(inplane: int | None) -> None:
    x = torch.rand(5, 2, 4, 3, 3) * 3
    peer = theirs.GatedLIFNode(5, inplane, surrogate_function=surrogate.ATan())
    mine = ours.GatedLIFNode(5, inplane, surrogate_function=surrogate.ATan())
    assert [(k, v.shape) for k, v in mine.state_dict().items()] == [(k, v.shape) for k, v in peer.state_dict().items()]
    learned = {k: v for k, v in peer.state_dict().items() if k not in ("alpha", "beta", "gamma")}  # which are random
    torch.testing.assert_close({k: mine.state_dict()[k] for k in learned}, learned)
    mine.load_state_dict(peer.state_dict())
    for _ in range(2):  # the membrane goes on from call to call, the spike starts anew
        for node in (peer, mine):
            node.detach()
            node.zero_grad()
        want, got = results(peer, x, True), results(mine, x, True)
        assert 0 < want[0].mean() < 1
        torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-6)
        torch.testing.assert_close(mine.u, peer.u)


@pytest.mark.parametrize("name", ["OTTTLIFNode", "SLTTLIFNode"])
def test_online(name: str) -> None:
    peer, mine = getattr(theirs, name)(), getattr(ours, name)()
    grads = []
    for node in (peer, mine):
        x, outputs, v = X.clone().requires_grad_(), [], []
        for step in x:
            out = node(step)
            outputs += out if isinstance(out, list) else [out]
            v.append(node.v)
            (outputs[-2 if name == "OTTTLIFNode" else -1].sum() + 2 * node.v.sum()).backward()
        grads.append((outputs, v, x.grad))
        node.eval()
        functional.reset_net(node)
        grads[-1][0].append(node(X[0]))
    torch.testing.assert_close(grads[1], grads[0])
    assert isinstance(mine, getattr(theirs, name))


def test_a_network_that_learns_online() -> None:
    nets = []
    for neuron in (theirs, ours):
        torch.manual_seed(0)
        node = neuron.OTTTLIFNode
        net = their_layer.OTTTSequential(nn.Linear(4, 6), node(), nn.Linear(6, 2), node())
        for x in X:
            net(x)[0].sum().backward()
        nets.append([p.grad for p in net.parameters()])
    torch.testing.assert_close(nets[1], nets[0])
    assert nets[0][0].any()
