"""Layers whose parameters are averaged, stacked, reparametrized, or made without memory first."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from flexsn import FlexSN, functional
from flexsn.neurons import LIF, PLIF
from tests.flexsn.contract_cores import sequence

X = sequence(6, 2, 3)


class Weighted(FlexSN):
    def __init__(self, backend: str) -> None:
        super().__init__(backend=backend)
        self.w = nn.Parameter(torch.tensor([0.5, 1.0, 0.25]))

    def core(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return v * v + x * self.w, v * self.w + x


def closed_over(backend: str) -> FlexSN:
    w = nn.Parameter(torch.tensor([0.5, 1.0, 0.25]))
    return FlexSN(lambda x, v: (v * v + x * w, v * w + x), backend=backend)


def scaled(neuron: FlexSN, factor: float) -> FlexSN:
    with torch.no_grad():
        neuron.w.mul_(factor)  # type: ignore[operator]
    return neuron


def test_an_averaged_copy_reads_its_own_average(backend: str) -> None:
    for make in (Weighted, closed_over):
        neuron = make(backend)
        neuron(X)  # an average is taken of models that ran
        average = AveragedModel(neuron, multi_avg_fn=get_ema_multi_avg_fn(0.5))
        average.update_parameters(neuron)
        average.update_parameters(scaled(neuron, 3.0))
        average.module.reset()
        neuron.reset()
        assert torch.equal(average(X), scaled(make(backend), 2.0)(X))
        assert torch.equal(neuron(X), scaled(make(backend), 3.0)(X))


def test_stacked_models(backend: str) -> None:
    nets = [scaled(Weighted(backend), 2.0**k) for k in range(3)]
    parameters, buffers = torch.func.stack_module_state(nets)  # type: ignore[arg-type]
    base = copy.deepcopy(nets[0]).to("meta")

    def run(p: dict[str, Tensor], b: dict[str, Tensor], x: Tensor) -> Tensor:
        base.reset()
        y: Tensor = torch.func.functional_call(base, (p, b), (x,))
        return y

    ys = torch.vmap(run, (0, 0, None))(parameters, buffers, X)
    assert torch.equal(ys, torch.stack([net(X) for net in nets]))


def test_weight_norm_of_a_neurons_parameter(backend: str) -> None:
    results = []
    for chosen in (backend, "torch"):
        neuron = Weighted(chosen)
        neuron.w = nn.Parameter(torch.tensor([[0.5, 1.0, 0.25]]))
        nn.utils.parametrizations.weight_norm(neuron, "w")
        y = neuron(X)
        y.sum().backward()
        results.append((y, *(p.grad for p in neuron.parameters())))
    assert len(results[0]) == 3
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_made_on_meta_and_given_memory_later() -> None:
    def make() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), PLIF(), nn.Linear(4, 3), Weighted("auto"), LIF())

    with torch.device("meta"):
        net = make()
    y = net(X.to("meta"))
    assert (y.device.type, y.shape) == ("meta", (6, 2, 3))
    plain = make()
    net.to_empty(device="cpu").load_state_dict(plain.state_dict())
    assert torch.equal(net(X), plain(X))  # states on meta never had a value to go on from
    functional.reset_net(net)
    net(X).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
