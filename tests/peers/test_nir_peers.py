"""Graphs that Norse and snnTorch wrote spike as they do there, and Norse reads ours."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flexsn import neurons
from flexsn.nir import from_nir, to_nir

DT = 1e-3


def inputs(batch: int = 2) -> Tensor:
    return 3 * torch.rand(50, batch, 5, generator=torch.Generator().manual_seed(0))


def filled(size: int, value: float) -> Tensor:
    return torch.full((size,), value)


@pytest.fixture
def norse() -> Any:
    pytest.importorskip("norse")
    return importlib.import_module("norse.torch")


def stepped(net: Any, x: Tensor) -> Tensor:
    """Norse's way: a state in, a state out."""
    state, outputs = None, []
    for step in x:
        y, state = net(step, state)
        outputs.append(y)
    return torch.stack(outputs)


def test_norse_writes_and_reads(norse: Any) -> None:
    """``dt=1`` where it writes: it multiplies time constants by it, and its sample's batch is no part of a step."""
    torch.manual_seed(0)

    def cell(size: int, rate: float, threshold: float) -> Any:
        module = importlib.import_module("norse.torch.functional.lif_box")
        options = {"v_th": filled(size, threshold), "v_leak": torch.zeros(size)}
        return norse.LIFBoxCell(module.LIFBoxParameters(tau_mem_inv=filled(size, rate), **options), dt=DT)

    net = norse.SequentialState(nn.Linear(5, 8), cell(8, 100.0, 0.5), nn.Linear(8, 3), cell(3, 200.0, 0.1))
    graph = norse.to_nir(net, torch.rand(2, 5), dt=1.0)
    spikes = stepped(net, inputs(4))
    assert spikes.any() and torch.equal(from_nir(graph, DT, method="euler")(inputs(4)), spikes)

    ours = nn.Sequential(nn.Linear(5, 8), neurons.LIF(4.0, v_threshold=0.5, step_mode="m"))
    theirs = norse.from_nir(to_nir(ours, DT, method="euler"), dt=DT)
    spikes = ours(inputs())
    assert spikes.any() and torch.equal(stepped(theirs, inputs()), spikes)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("kind", ["Leaky", "Synaptic", "RLeaky"])
def test_snntorch_writes(kind: str, reset: str) -> None:
    """It writes steps of 1e-4 s, and resets at once where ``reset_delay=False``; what it writes is the same.

    Its RSynaptic, of which the braille graphs are, then takes the spikes of the step before for the new ones.
    """
    peer = pytest.importorskip("snntorch")
    export = importlib.import_module("snntorch.export_nir").export_to_nir
    torch.manual_seed(0)
    options: dict[str, Any] = {"beta": filled(8, 0.8), "threshold": filled(8, 1.0), "reset_mechanism": reset}
    if "Synaptic" in kind:
        options["alpha"] = filled(8, 0.5)
    if kind.startswith("R"):
        options |= {"all_to_all": True, "linear_features": 8}
    linear, cell = nn.Linear(5, 8), getattr(peer, kind)(**options, init_hidden=True)
    at_once = getattr(peer, kind)(**options, reset_delay=False)
    with torch.no_grad():
        for p in (*linear.parameters(), *cell.parameters()):
            p.mul_(0.3)
    at_once.load_state_dict(cell.state_dict())
    graph = export(nn.Sequential(linear, cell), torch.rand(2, 5), ignore_dims=[0])
    state = at_once.reset_mem()
    states, outputs = state if isinstance(state, tuple) else (state,), []
    for step in inputs():
        spike, *others = at_once(linear(step), *states)
        states = (spike, *others) if kind.startswith("R") else tuple(others)
        outputs.append(spike)
    spikes = torch.stack(outputs)
    net = from_nir(graph, 1e-4, method="euler", reset=reset)
    assert spikes.any() and torch.equal(net(inputs()), spikes)
