"""A neuron in somebody's training loop: mixed precision, scaled losses, hooks, anomaly mode, accumulated gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from flexsn import FlexSN, functional
from flexsn.neurons import LIF, PLIF
from tests.flexsn.contract_cores import sequence, smooth

X = sequence(6, 2, 3)


class Net(nn.Module):
    def __init__(self, backend: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 4), PLIF(backend=backend), nn.Linear(4, 2), LIF(backend=backend))

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        y: Tensor = self.layers(x)
        return y


def gradients(net: nn.Module) -> list[Tensor]:
    return [p.grad for p in net.parameters() if p.grad is not None]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_around(dtype: torch.dtype, backend: str) -> None:
    """Linear layers give 16 bits; states and membranes stay fp32, as in the loop."""
    if backend == "triton" and dtype is torch.bfloat16:
        pytest.skip("Triton's interpreter has no bfloat16")
    found = []
    for chosen in (backend, "torch"):
        net = Net(chosen)
        with torch.autocast("cpu", dtype=dtype):
            y = net(X)
        assert (y.dtype, net.layers[1].v.dtype) == (dtype, torch.float32)
        (y.float().sum() + net.layers[1].v.sum()).backward()
        found.append((y, *gradients(net)))
    assert torch.equal(found[0][0], found[1][0])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_autocast_in_the_core(backend: str) -> None:
    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            v = v * 0.5 + x
        return v * v, v

    assert torch.equal(FlexSN(core, backend=backend)(X), FlexSN(core, backend="torch")(X))


def test_a_scaled_loss(backend: str) -> None:
    """Scaled gradients, unscaled, are the gradients; a step with an infinite one is left out."""
    net, plain = Net(backend), Net(backend)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    scaler.scale(net(X).mean()).backward()
    scaler.unscale_(optimizer)
    plain(X).mean().backward()
    assert all(map(torch.equal, gradients(net), gradients(plain)))  # by a power of two
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    before = [p.clone() for p in net.parameters()]
    assert not all(map(torch.equal, before, plain.parameters()))
    scaler.scale(net(X).mean() * torch.inf).backward()
    scaler.step(optimizer)
    scaler.update()
    assert all(map(torch.equal, before, net.parameters()))
    assert scaler.get_scale() == 512.0


def test_gradients_accumulate(backend: str) -> None:
    net, whole = Net(backend), Net(backend)
    for part in X.split(1, dim=1):
        net(part).sum().backward()
    whole(X).sum().backward()
    for a, b in zip(gradients(net), gradients(whole), strict=True):
        torch.testing.assert_close(a, b)


def test_hooks_see_each_gradient_once(backend: str) -> None:
    """Of parameters and inputs, from the first call on; what they make of it counts, in second derivatives too."""
    results = []
    for chosen in (backend, "torch"):
        weight = nn.Parameter(torch.tensor([0.5, 1.0, 0.25], dtype=torch.float64))
        seen: list[Tensor] = []
        weight.register_hook(lambda g, seen=seen: seen.append(g.detach()) or g * 2.0)  # type: ignore[misc]
        neuron = FlexSN(lambda x, v, w=weight: (v * v + x * w, v * w + x), backend=chosen)
        x = sequence(4, 3).double().requires_grad_()
        hidden = x * 1.0
        hidden.register_hook(lambda g: g * 4.0)
        found = torch.autograd.grad(neuron(hidden).square().sum(), (x, weight), create_graph=True)
        assert len(seen) == 1
        torch.stack([f.sum() for f in found]).sum().backward()
        assert len(seen) == 2
        results.append((*found, *seen, x.grad, weight.grad))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_hooks_of_modules(backend: str) -> None:
    net, seen = Net(backend), []
    neuron = net.layers[1]
    neuron.register_full_backward_pre_hook(lambda module, of_y: seen.append("before"))
    neuron.register_full_backward_hook(lambda module, of_x, of_y: seen.append(of_x[0].shape))
    neuron.register_forward_hook(lambda module, args, y: y * 2.0)
    plain = Net(backend)
    net(X).sum().backward()
    plain.layers[2].weight.data.mul_(2.0)
    assert torch.equal(net(X), plain(X))
    assert seen == ["before", (6, 2, 4)]


@pytest.mark.filterwarnings("ignore:Anomaly", "ignore:Error detected")
def test_anomaly_mode(backend: str) -> None:
    """A core is traced in it as always, and it names the call that a NaN came of."""
    x = X.clone()
    x[1, 0, 0] = torch.nan
    neuron = FlexSN(smooth, backend=backend)
    with torch.autograd.detect_anomaly(check_nan=True):
        neuron(X.clone().requires_grad_()).sum().backward()
        neuron.reset()
        with pytest.raises(RuntimeError, match=r"Function '\w+' returned nan values"):
            neuron(x.requires_grad_()).sum().backward()
