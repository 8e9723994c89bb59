"""The rnnbuilder preset against rnnbuilder: spikes, states and gradients."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

from flexsn import FlexSN
from flexsn.neurons import rnnbuilder as ours_module

BACKENDS = FlexSN(lambda x, v: (x, v)).supported_backends
N = 5


@pytest.fixture(scope="module")
def peer() -> Any:
    pytest.importorskip("rnnbuilder")
    return importlib.import_module("rnnbuilder.snn")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gradients(neuron: Any, x: Tensor, spikes: Tensor, states: list[Tensor]) -> dict[str, Tensor]:
    loss = (spikes * noise(*spikes.shape, seed=1)).sum()
    for seed, state in enumerate(states, start=2):
        loss = loss + (state * noise(*state.shape, seed=seed)).sum()
    torch.autograd.backward(loss)
    assert x.grad is not None
    return {"gradient of x": x.grad, "gradient of initial_mem": neuron.initial_mem.grad}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("arguments", [{}, {"tau": 2.5}])
@pytest.mark.parametrize("name", ["LIF", "NoReset", "Cooldown", "Adaptive"])
def test_same_trains(peer: Any, name: str, arguments: dict[str, float], backend: str) -> None:
    factory = getattr(peer, name)(**arguments)
    theirs = factory._make_module((N,), *factory._args)
    mine = getattr(ours_module, name)(**arguments, in_shape=N, backend=backend)
    with torch.no_grad():
        theirs.initial_mem.copy_(noise(N, seed=9))
    mine.load_state_dict(theirs.state_dict())

    source = noise(10, 3, N) + (0.6 if name != "Cooldown" else 0.0)
    x, state, rows = source.clone().requires_grad_(), theirs.get_initial_state(3), []
    for x_t in x.unbind(0):
        s, state = theirs(x_t, state)
        rows.append(s)
    spikes, states = torch.stack(rows), list(state.values())
    wanted = {**state, **gradients(theirs, x, spikes, states)}

    x = source.clone().requires_grad_()
    got_spikes = mine(x)
    got_states = list(mine.states)
    got = {**dict(zip(state, got_states, strict=True)), **gradients(mine, x, got_spikes, got_states)}
    assert list(state) == list(mine.state_names)
    assert torch.equal(got_spikes, spikes) and 0 < spikes.mean() < 1
    for key in wanted:
        torch.testing.assert_close(got[key], wanted[key], rtol=2e-5, atol=2e-6, msg=f"{key} differs")


def test_spike_function(peer: Any) -> None:
    results = []
    for module in (peer, ours_module):
        x = noise(50).requires_grad_()
        y = module.SpikeLinear(0.7)(x)
        (y * noise(50, seed=1)).sum().backward()
        results.append((y.detach(), x.grad))
    torch.testing.assert_close(results[0], results[1])
