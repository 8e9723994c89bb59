"""The first thing to read: FlexSN does what a hand-written loop does, bit for bit, forward and backward."""

from __future__ import annotations

import pytest
import torch

from flexsn import FlexSN, surrogate

spike = surrogate.ATan(alpha=2.0)


def core(x: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One time step: ``(*inputs, *states) -> (*outputs, *new_states)``."""
    h = v + (x - v) / 2.0  # charge
    s = spike(h - 1.0)  # fire
    return s, h * (1.0 - s)  # reset


@pytest.mark.parametrize("backend", FlexSN(core).supported_backends)
def test_a_neuron_is_its_loop(backend: str) -> None:
    x = torch.randn(16, 4, 33, generator=torch.Generator().manual_seed(0)) * 2
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()

    neuron = FlexSN(core, backend=backend)
    y = neuron(ours)
    y.sum().backward()

    v = torch.zeros(4, 33)
    spikes = []
    for step in theirs.unbind(0):
        s, v = core(step, v)
        spikes.append(s)
    torch.stack(spikes).sum().backward()

    assert torch.equal(y, torch.stack(spikes)) and y.any()
    assert torch.equal(neuron.v, v)
    assert ours.grad is not None and theirs.grad is not None
    assert torch.equal(ours.grad.view(torch.int32), theirs.grad.view(torch.int32))
