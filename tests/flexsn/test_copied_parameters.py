"""A copy of a neuron, however it is made, has parameters of its own."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from parameter_cores import (
    GLOBAL_GAIN,
    REBUILT,
    Core,
    Parent,
    Subclass,
    X,
    loop_gradient,
    make,
    of_global,
    reads_global,
)
from torch import nn

from flexsn import FlexSN


@pytest.mark.parametrize("name", REBUILT)
def test_a_deep_copy_trains_its_own_parameters(name: str, backend: str) -> None:
    neuron, parameter = make(name, backend)
    first = neuron(X)
    neuron.reset()
    clone = copy.deepcopy(neuron)
    assert clone.get_parameter(parameter) is not neuron.get_parameter(parameter)
    with torch.no_grad():
        clone.get_parameter(parameter).mul_(2.0)
    clone(X).square().sum().backward()
    assert clone.get_parameter(parameter).grad is not None
    assert neuron.get_parameter(parameter).grad is None or name == "global"
    clone.reset()
    assert torch.equal(clone(X), loop_gradient(X, clone.get_parameter(parameter))[0])
    assert torch.equal(neuron(X), first)


def test_a_copied_global_is_read_for_the_call_only(backend: str) -> None:
    clone = copy.deepcopy(FlexSN(of_global(), backend=backend))
    with torch.no_grad():
        clone.GLOBAL_GAIN.zero_()
    assert not clone(X).any()
    assert torch.equal(GLOBAL_GAIN, torch.tensor([0.5, 1.0, 1.5]))
    assert reads_global(X[0], X[0])[0].any()


def test_a_deep_copied_parent_holds_one_parameter(backend: str) -> None:
    clone = copy.deepcopy(Parent(backend))
    assert clone.neuron.weight is clone.weight
    assert clone.neuron.core.__self__ is clone
    assert len(list(clone.parameters())) == 3
    clone(X).sum().backward()
    assert clone.weight.grad is not None


def test_state_dict_round_trip(backend: str) -> None:
    neuron, parameter = make("closure", backend)
    other, _ = make("closure", backend)
    with torch.no_grad():
        neuron.get_parameter(parameter).mul_(3.0)
    other.load_state_dict(neuron.state_dict())
    assert torch.equal(other(X), neuron(X))


@pytest.mark.parametrize("build", [lambda: FlexSN(of_global()), Subclass, lambda: FlexSN(Core()), Parent])
def test_pickle(build: Callable[[], nn.Module]) -> None:
    net = build()
    net(X)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2.0)
    file = io.BytesIO(pickle.dumps(net))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.5)
    clone = pickle.load(file)
    for mine, theirs in zip(net.parameters(), clone.parameters(), strict=True):
        assert torch.equal(mine * 2.0, theirs)
    for module in (net, clone):
        getattr(module, "neuron", module).reset()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2.0)
    assert torch.equal(net(X), clone(X))


def test_data_parallel_replicas_read_their_own_tensors(backend: str) -> None:
    for neuron in (make("closure", backend)[0], Subclass(backend), make("module", backend)[0]):
        before = neuron(X)
        neuron.reset()
        replica = neuron._replicate_for_data_parallel()
        replica._modules = {
            n: m._replicate_for_data_parallel()  # type: ignore[operator]
            for n, m in neuron._modules.items()
        }
        owner = replica.core if replica._modules else replica
        owner.weight = torch.zeros(3)
        assert not replica(X).any()
        neuron.reset()
        assert torch.equal(neuron(X), before)
