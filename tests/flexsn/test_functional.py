"""The network-level helpers, against definitions written as plainly as possible."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
import torch
from network_modules import Stateful, network
from torch import Tensor, nn

from flexsn.functional import (
    detach_net,
    losses,
    over_time,
    reset_net,
    set_backend,
    set_step_mode,
    spike_trains,
)
from flexsn.functional import network as network_module


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


@pytest.mark.parametrize("module", [network_module, over_time, losses, spike_trains])
def test_doctests(module: Any) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0
