"""The Norse preset against Norse 1.1: spikes, states and gradients."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

from flexsn import FlexSN
from flexsn.neurons import norse as ours_module

BACKENDS = FlexSN(lambda x, v: (x, v)).supported_backends


@pytest.fixture(scope="module")
def peer() -> Any:
    pytest.importorskip("norse")
    return importlib.import_module("norse.torch")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run(neuron: Any, x: Tensor, given: Any = None) -> dict[str, Any]:
    x = x.clone().requires_grad_()
    spikes, state = neuron(x, given)
    loss = (spikes * noise(*spikes.shape, seed=1)).sum()
    for seed, value in enumerate(state, start=2):
        loss = loss + (value * noise(*value.shape, seed=seed)).sum()
    torch.autograd.backward(loss)
    return {"spikes": spikes.detach(), **state._asdict(), "gradient of x": x.grad}


def same(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert torch.equal(got["spikes"], wanted["spikes"]) and 0 < got["spikes"].mean() < 1
    assert got.keys() == wanted.keys()
    for key in wanted:
        torch.testing.assert_close(got[key], wanted[key], rtol=5e-5, atol=5e-6, msg=f"{key} differs")


SETTINGS: list[dict[str, Any]] = [
    {},
    {"v_th": 0.6, "v_reset": -0.2, "tau_mem_inv": 150.0, "tau_syn_inv": 80.0},
    {"method": "triangle", "alpha": 0.4},
    {"method": "tanh", "alpha": 2.0},
    {"method": "circ", "alpha": 0.7},
    {"method": "heavi_erfc", "alpha": 1.2},
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("name", ["LIF", "LSNN", "LIFAdEx"])
def test_same_trains(peer: Any, name: str, settings: dict[str, Any], backend: str) -> None:
    as_tensors = {k: v if k in ("method", "alpha") else torch.as_tensor(v) for k, v in settings.items()}
    theirs = getattr(peer, name)(getattr(peer, f"{name}Parameters")(**as_tensors), dt=0.002)
    mine = getattr(ours_module, name)(getattr(ours_module, f"{name}Parameters")(**settings), dt=0.002, backend=backend)
    x = noise(14, 4, 3) + 1.0
    same(run(mine, x), run(theirs, x))
    own = getattr(ours_module, name)(theirs.p, dt=0.002, backend=backend)
    assert torch.equal(own(x)[0], mine(x)[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_firing_patterns(peer: Any, backend: str) -> None:
    izhikevich = importlib.import_module("norse.torch.functional.izhikevich")
    for name, behavior in ours_module.behaviors.items():
        theirs = getattr(izhikevich, name)
        assert tuple(behavior.p) == tuple(theirs.p), name
        assert all(torch.equal(a, b.detach()) for a, b in zip(behavior.s, theirs.s, strict=True)), name
        if name in ("tonic_spiking", "mixed_mode", "integrator"):
            x = noise(150, 2) * 5 + 25
            same(run(ours_module.Izhikevich(behavior, backend=backend), x), run(peer.Izhikevich(theirs), x))


def test_continuing_from_a_state(peer: Any) -> None:
    x, mine, theirs = noise(6, 3) + 2, ours_module.LIF(), peer.LIF()
    _, given = theirs(x)
    given = type(given)(*(value.detach() for value in given))
    same(run(mine, x, given), run(theirs, x, given))
