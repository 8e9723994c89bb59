"""Activation checkpointing of layers: around a compiled model and inside one. See test_states for states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from flexsn import FlexSN, scan
from tests.flexsn.contract_cores import sequence, smooth

REENTRANT = pytest.mark.parametrize("use_reentrant", [False, True])


def block() -> nn.Module:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.linear, self.neuron = nn.Linear(3, 4), FlexSN(smooth)

        def forward(self, x: Tensor) -> Tensor:
            self.neuron.reset()
            y: Tensor = self.neuron(self.linear(x))
            return y

    return Block()


def gradients(run: Callable[[Tensor], Tensor], of: nn.Module | None = None) -> list[Any]:
    x = sequence(20, 2, 3).requires_grad_()
    run(x).square().sum().backward()
    return [x.grad, *([] if of is None else [p.grad for p in of.parameters()])]


@REENTRANT
@pytest.mark.parametrize("compiled", [False, True])
def test_around(use_reentrant: bool, compiled: bool) -> None:
    torch._dynamo.reset()
    net, plain = block(), block()
    run = torch.compile(net, backend="aot_eager", fullgraph=True) if compiled else net
    found = gradients(lambda x: checkpoint(run, x, use_reentrant=use_reentrant), net)
    assert all(map(torch.equal, found, gradients(plain, plain)))


@REENTRANT
def test_inside_a_graph(use_reentrant: bool) -> None:
    torch._dynamo.reset()

    def run(x: Tensor) -> Tensor:
        y: Tensor = scan(smooth, x, torch.zeros(2, 3))[0] * x
        return y

    fast = torch.compile(lambda x: checkpoint(run, x, use_reentrant=use_reentrant), backend="aot_eager", fullgraph=True)
    assert torch.equal(gradients(fast)[0], gradients(run)[0])


def test_a_neuron_inside_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """It changes its states, which torch has to be told is meant."""
    torch._dynamo.reset()
    net, plain = block(), block()
    fast = torch.compile(lambda x: checkpoint(net, x, use_reentrant=False), backend="aot_eager", fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="skip_fwd_side_effects_in_bwd_under_checkpoint"):
        fast(sequence(20, 2, 3))
    monkeypatch.setattr(torch._dynamo.config, "skip_fwd_side_effects_in_bwd_under_checkpoint", True)
    assert all(map(torch.equal, gradients(fast, net), gradients(plain, plain)))
