"""Norse's recurrent layers, cells and steps in the preset: spikes, states and gradients are those of Norse 1.1."""

from __future__ import annotations

import copy
import importlib
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from flexsn.neurons import norse as ours

pytest.importorskip("norse")
theirs: Any = importlib.import_module("norse.torch")

X = torch.rand(12, 3, 4, generator=torch.Generator().manual_seed(0)) * 3
NAMES = {"LIF": "lif_step", "LIFEx": "lif_ex_step", "LIFAdEx": "lif_adex_step", "LSNN": "lsnn_step"}
NAMES |= {"LIFRefrac": "lif_refrac_step"}
OTHERS = ("LIFAdExRefrac", "Izhikevich")


def built(module: Any, name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    behavior = (module.tonic_spiking,) if name.startswith("Izhikevich") else ()
    layer = getattr(module, name)(4, 5, *behavior, **options)
    with torch.no_grad():
        layer.input_weights.abs_()
    return layer


def results(layer: Any, x: Tensor, steps: bool) -> tuple[Any, ...]:
    x = x.clone().requires_grad_()
    if steps:
        state, spikes = None, []
        for step in x:
            z, state = layer(step, state)
            spikes.append(z)
        z = torch.stack(spikes)
    else:
        z, state = layer(x)
    loss = (z * torch.linspace(-1.0, 2.0, z.numel()).view_as(z)).sum()
    torch.autograd.backward(loss + sum((i * s).sum() for i, s in enumerate(tree_leaves(state), 1)))
    return z, tree_leaves(state), x.grad, {n: p.grad for n, p in layer.named_parameters()}, type(state).__name__


@pytest.mark.parametrize("autapses", [False, True])
@pytest.mark.parametrize("name", [*NAMES, *OTHERS])
def test_layers_and_cells(name: str, autapses: bool) -> None:
    x = X * 20 if name == "Izhikevich" else X
    for kind in ("Recurrent", "RecurrentCell"):
        peer = built(theirs, name + kind, autapses=autapses)
        mine = built(ours, name + kind, autapses=autapses)
        assert mine.state_dict().keys() == peer.state_dict().keys()
        mine.load_state_dict(peer.state_dict())
        want, got = (results(layer, x, "Cell" in kind) for layer in (peer, mine))
        assert 0 < want[0].mean() < 1 and got[-1] == want[-1]
        near = 1e-2 if name == "Izhikevich" else 5e-6  # its membranes are of tens, and their gradients add up
        torch.testing.assert_close(got[:-1], want[:-1], rtol=5e-5, atol=near)


@pytest.mark.parametrize("name", ["LIFMC", "LIFMCRefrac"])
def test_compartments(name: str) -> None:
    peer, mine = (built(module, f"{name}RecurrentCell") for module in (theirs, ours))
    mine.load_state_dict(peer.state_dict())
    want, got = (results(cell, X, True) for cell in (peer, mine))
    assert 0 < want[0].mean() < 1 and got[-1] == want[-1]
    torch.testing.assert_close(got[:-1], want[:-1], rtol=5e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["lif_mc", "lif_mc_refrac"])
def test_steps_of_compartments(name: str) -> None:
    cell = built(theirs, {"lif_mc": "LIFMCRecurrentCell", "lif_mc_refrac": "LIFMCRefracRecurrentCell"}[name])
    _, state = cell(X[0])
    given = X[1], state, cell.input_weights, cell.recurrent_weights, cell.g_coupling, cell.p
    want, got = (getattr(module, f"{name}_step")(*given) for module in (theirs, ours))
    torch.testing.assert_close(tree_leaves(got), tree_leaves(want))
    layer = theirs.LIFCell() if name == "lif_mc" else theirs.LIFRefracCell()
    drive = X[1] @ cell.input_weights.t()
    _, state = layer(drive)
    given = drive, state, cell.g_coupling, cell.p
    want, got = (getattr(module, f"{name}_feed_forward_step")(*given) for module in (theirs, ours))
    torch.testing.assert_close(tree_leaves(got), tree_leaves(want))


def test_step_of_an_integrate_and_fire_neuron_that_is_fed_its_spikes() -> None:
    cell = built(theirs, "LIFRecurrentCell")
    state = theirs.IAFState(z=torch.ones(3, 5), v=torch.rand(3, 5))
    given = X[1], state, cell.input_weights, cell.recurrent_weights
    want, got = (module.iaf_step(*given) for module in (theirs, ours))
    assert type(got[1]).__name__ == "IAFState"
    torch.testing.assert_close(tree_leaves(got), tree_leaves(want))


@pytest.mark.parametrize("name", NAMES)
def test_steps(name: str) -> None:
    cell, called = built(theirs, f"{name}RecurrentCell"), NAMES[name]
    _, state = cell(X[0])
    given = X[1], state, cell.input_weights, cell.recurrent_weights, cell.p
    want, *got = (step(*given) for step in (getattr(theirs, called), getattr(ours, called)))
    got.append(getattr(ours, called)(*given[:-1]))  # where theirs asks for parameters
    for each in got:
        torch.testing.assert_close(tree_leaves(each), tree_leaves(want))


def test_weights_of_ones_own_and_copies() -> None:
    """A copy of Norse's layer loses the hook that keeps the diagonal out of the gradient."""
    weights = torch.nn.Parameter(torch.rand(5, 5)), torch.rand(5, 5)
    mine = ours.LIFRecurrent(4, 5, input_weights=torch.rand(5, 4), recurrent_weights=weights[0])
    assert list(mine.state_dict()) == ["recurrent_weights"] and mine.recurrent_weights is weights[0]
    assert not weights[0].diagonal().any()
    copied = copy.deepcopy(mine)
    copied(X)[0].sum().backward()
    assert copied.recurrent_weights.grad.any() and not copied.recurrent_weights.grad.diagonal().any()
    plain = ours.LIFRecurrent(4, 5, recurrent_weights=weights[1])
    plain(X)[0].sum().backward()
    assert list(plain.state_dict()) == ["input_weights"] and weights[1].grad is not None


def test_sparse_input_and_containers() -> None:
    spikes = (X > 1.5).float()
    mine, peer = built(ours, "LIFRecurrentCell"), built(theirs, "LIFRecurrentCell")
    (z, state), (want, _) = (layer(spikes[0].to_sparse()) for layer in (mine, peer))
    assert z.is_sparse == want.is_sparse and torch.equal(z.to_dense(), want.to_dense())
    assert torch.equal(mine(spikes[1].to_sparse(), state)[0].to_dense(), mine(spikes[1], state)[0])
    torch.manual_seed(0)
    nets = [
        module.SequentialState(built(module, "LIFRecurrentCell"), module.RecurrentSequential(module.LICell()))
        for module in (theirs, ours)
    ]
    states: list[Any] = [None, None]
    for x in X:
        outputs = []
        for i, net in enumerate(nets):
            y, states[i] = net(x, states[i])
            outputs.append(y)
        torch.testing.assert_close(outputs[1], outputs[0])
