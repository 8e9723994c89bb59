"""How programs use snnTorch's neurons: hidden states, resets, training loops, surrogates, subclasses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flexsn import FallbackWarning
from flexsn.neurons import snntorch as snn

X = torch.rand(5, 2, 4, generator=torch.Generator().manual_seed(0)) * 2


def hidden_net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), snn.Leaky(0.9, init_hidden=True), nn.Sequential(snn.Synaptic(0.5, 0.9)))


def test_reset_of_a_network_with_hidden_states() -> None:
    net = hidden_net()
    assert net[1].mem.shape == (0,)  # as in snnTorch before the first step
    first = net(X[0])
    other = net(X[1])
    snn.utils.reset(net)
    assert torch.equal(net(X[0])[0], first[0]) and not torch.equal(net[1].mem, other[0])
    assert net[1].mem.requires_grad
    snn.Leaky.detach_hidden()
    assert not net[1].mem.requires_grad and net[2][0].mem.requires_grad
    snn.Leaky.reset_hidden()
    assert net[1].mem.shape == (0,) and net[2][0].mem.shape == (2, 4)
    assert net[1] in snn.SpikingNeuron.instances


def test_another_shape_starts_at_zero() -> None:
    lif, fresh = snn.Synaptic(0.5, 0.9), snn.Synaptic(0.5, 0.9)
    lif(X[0])
    for got, want in zip(lif(X[1, :1]), fresh(X[1, :1]), strict=True):
        assert torch.equal(got, want)


def test_a_base_state_function_of_ones_own_is_called() -> None:
    class Halving(snn.Leaky):
        def _base_state_function(self, input_: Tensor) -> Tensor:
            return 0.5 * self.mem + input_

    own, same = Halving(0.9, step_mode="m", backend="cpp"), snn.Leaky(0.5, step_mode="m")
    assert torch.equal(own(X), same(X)) and torch.equal(own.mem, same.mem)


def test_inhibition_lets_the_largest_fire() -> None:
    lif, free = snn.Leaky(0.9, inhibition=True), snn.Leaky(0.9)
    with pytest.warns(FallbackWarning, match=r"scatter|argmax"):
        spk, mem = lif(X[0] + 1)
    allowed = torch.zeros(2, 4).scatter(1, mem.argmax(1, keepdim=True), 1.0)
    assert torch.equal(spk, free(X[0] + 1)[0] * allowed) and spk.sum() == 2


SLOPES = {
    "straight_through_estimator": lambda x: torch.ones_like(x),
    "triangular": lambda x: torch.where(x >= 0, -1.0, 1.0),
    "heaviside": lambda x: (x > 0).float(),
    "sigmoid": lambda x: 25 * torch.exp(-25 * x) / (torch.exp(-25 * x) + 1) ** 2,
    "spike_rate_escape": lambda x: 25 * torch.exp(-(x - 1).abs()),
    "LSO": lambda x: torch.where(x > 0, 1.0, 0.1),
    "SFS": lambda x: (x > 1).float() / (25 * x.abs() + 1) ** 2,
}


@pytest.mark.parametrize("name", SLOPES)
def test_surrogate_factories(name: str) -> None:
    spike = getattr(snn.surrogate, name)()
    x = torch.tensor([-1.5, -0.25, -0.0, 0.25, 1.5], requires_grad=True)
    s = spike(x)
    s.sum().backward()
    assert s.tolist() == [0, 0, 0, 1, 1]
    torch.testing.assert_close(x.grad, SLOPES[name](x.detach()))


@pytest.mark.parametrize("name", ["triangular", "custom_surrogate"])
def test_surrogates_compile(name: str) -> None:
    own = {"custom_surrogate": (lambda x, g, s: g / (1 + x.abs()) + s,)}
    results = []
    for backend in ("cpp", "torch"):
        x = X.clone().requires_grad_()
        lif = snn.Leaky(
            0.9, spike_grad=getattr(snn.surrogate, name)(*own.get(name, ())), step_mode="m", backend=backend
        )
        lif(x).sum().backward()
        results.append(x.grad)
    assert torch.equal(results[0], results[1])  # type: ignore[arg-type]


def test_whole_sequences() -> None:
    decay = torch.exp(torch.tensor(-1 / (1 / (1 - 0.75))))
    mem, want = torch.zeros(2, 4), []
    for x in X:
        mem = decay * mem + x
        want.append(mem)
    state = snn.StateLeaky(0.75, 4)
    for _ in range(2):
        spk, got = state(X)
        torch.testing.assert_close(got, torch.stack(want))
        assert torch.equal(spk, (got > 1).float())
    torch.testing.assert_close(snn.StateLeaky(0.75, 4, kernel_truncation_steps=2)(X)[1][1:], X[1:] + decay * X[:-1])
    linear = snn.LinearLeaky(0.75, 4, 3)
    torch.testing.assert_close(linear(X)[1], snn.StateLeaky(0.75, 3)(linear.linear(X))[1])


def test_leaky_parallel_is_its_rnn() -> None:
    layer, rnn = snn.LeakyParallel(4, 3, beta=0.5, learn_beta=True), nn.RNN(4, 3, nonlinearity="relu")
    rnn.load_state_dict(layer.rnn.state_dict())
    mem = rnn(X)[0]
    torch.testing.assert_close(layer(X), (mem > 1).float())
    layer(X).sum().backward()
    grad = layer.rnn.weight_hh_l0.grad
    dense = snn.LeakyParallel(4, 3, weight_hh_enable=True)
    rnn.load_state_dict(dense.rnn.state_dict())
    torch.testing.assert_close(dense(X * 4), (rnn(X * 4)[0] > 1).float())
    assert grad is not None and torch.equal(grad, grad.diagonal().diag()) and grad.any()


class Cost:
    """A loss in the manner of snntorch.functional."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, seq: Tensor, targets: Tensor) -> Tensor:
        return (seq.mean(0) - targets).pow(2).mean()


@pytest.mark.parametrize(("loop", "every"), [("BPTT", 5), ("TBPTT", 2), ("RTRL", 1)])
def test_training_loops(loop: str, every: int) -> None:
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(4, 3), snn.Leaky(0.9, init_hidden=True, output=True)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers = [torch.optim.SGD(net.parameters(), 0.5) for net in nets]
    targets = torch.rand(2, 3)
    options: dict[str, Any] = {"K": 2} if loop == "TBPTT" else {}
    loss = getattr(snn.backprop, loop)(nets[0], [(X, targets)], optimizers[0], Cost("mse_membrane_loss"), **options)
    net, losses = nets[1], []
    for chunk in X.split(every):
        mem = torch.stack([net(x)[1] for x in chunk])
        cost = Cost("")(mem, targets)
        optimizers[1].zero_grad()
        cost.backward()
        optimizers[1].step()
        net[1].detach()
        losses.append(cost.detach() * len(chunk) / 5)
    assert torch.equal(nets[0][0].weight, net[0].weight)
    torch.testing.assert_close(loss, torch.stack(losses).sum())
    with pytest.raises(ValueError, match="needs num_steps"):
        getattr(snn.backprop, loop)(nets[0], [], optimizers[0], Cost(""), time_var=False)
