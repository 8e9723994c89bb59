"""Graphs that other libraries wrote, and what they have to give: the files in ``graphs/``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
from nir_equations import ByHand
from torch import Tensor

from flexsn.functional import reset_net
from flexsn.nir import from_nir, to_nir

GRAPHS = Path(__file__).parent / "graphs"
SIMULATORS = ["nengo", "norse", "rockpool", "sinabs", "snntorch", "spyx"]
# time step, reset and size of the input of each graph
FILES: dict[str, tuple[float, str, tuple[int, ...]]] = {
    "lif_norse": (1e-4, "zero", (1,)),
    "lif_rockpool": (1e-4, "zero", (1,)),
    "braille_noDelay_bias_zero": (1e-4, "zero", (12,)),
    "braille_noDelay_noBias_subtract": (1e-4, "subtract", (12,)),
    "cnn_sinabs": (1.0, "zero", (2, 34, 34)),
}


def trace(name: str) -> Tensor:
    """Input, membrane and spike of each step."""
    return torch.from_numpy(np.genfromtxt(GRAPHS / f"lif_{name}.csv", delimiter=","))[:1000]


def load(name: str, **options: Any) -> tuple[Any, Tensor]:
    dt, reset, shape = FILES[name]
    draw = torch.Generator().manual_seed(0)
    x = (torch.rand(30, 3, *shape, generator=draw) < 0.3).to(torch.get_default_dtype())
    return from_nir(GRAPHS / f"{name}.nir", dt=dt, reset=reset, **options), x


def run(net: Any, x: Tensor) -> Tensor:
    """Forward, where the loop instead of a kernel is an error."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        y: Tensor = net(x)
    return y


def test_a_lif_neuron_spikes_at_the_steps_of_the_exact_solution() -> None:
    net, exact = load("lif_norse")[0], trace("exact")
    spikes = net(exact[:, :1].float())
    assert spikes.flatten().nonzero().flatten().tolist() == [460, 510, 710, 760]
    assert exact[:, 2].nonzero().flatten().tolist() == [460, 510, 710, 760]


def distances(membrane: Tensor) -> tuple[float, float]:
    apart = (membrane - trace("exact")[:, 1]).abs()
    return apart.max().item(), apart.mean().item()


def test_its_membrane_is_no_farther_from_the_exact_solution_than_the_best_simulators(in_fp64: None) -> None:
    """Each of them in the scale in which its membrane is nearest."""
    net = load("lif_norse")[0]
    net["1"].store_state_seqs = True
    net(trace("exact")[:, :1])
    farthest, mean = distances(net["1"].state_seqs[0].flatten())
    found = []
    for name in SIMULATORS:
        membrane, exact = trace(name)[:, 1], trace("exact")[:, 1]
        fitted = membrane @ exact / (membrane @ membrane)
        scales = [1.0, float(fitted), float(exact.max() / membrane.max())]
        found += [distances(scale * membrane) for scale in scales]
    assert farthest <= min(worst for worst, _ in found) + 1e-9 and mean <= min(average for _, average in found) + 1e-9


@pytest.mark.parametrize("method", ["exact", "euler"])
@pytest.mark.parametrize("name", [name for name in FILES if name != "cnn_sinabs"])
def test_spikes_are_those_of_the_equations_by_hand(name: str, method: str, in_fp64: None) -> None:
    net, x = load(name, method=method)
    graph = nir.read(GRAPHS / f"{name}.nir", type_check=False)
    (expected,) = ByHand(graph, *_how(name, method), net)(x)
    assert torch.equal(run(net, x), expected) and (expected.any() or name.startswith("lif"))


def _how(name: str, method: str) -> tuple[float, str, str]:
    dt, reset, _ = FILES[name]
    return dt, method, reset


def test_a_convolutional_network_by_hand(in_fp64: None) -> None:
    net, x = load("cnn_sinabs")
    (expected,) = ByHand(nir.read(GRAPHS / "cnn_sinabs.nir"), *_how("cnn_sinabs", "euler"), net)(x[:8])
    assert torch.equal(run(net, x[:8]), expected) and expected.any()


@pytest.mark.parametrize("name", ["braille_noDelay_bias_zero", "braille_noDelay_noBias_subtract"])
def test_a_recurrent_layer_is_one_kernel(name: str) -> None:
    net, x = load(name)
    assert net.feedback == (("lif1.lif", "lif1.w_rec"),)
    assert net.loop.explain().way.fused
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net(x).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.loop.parameters())


@pytest.mark.parametrize("name", FILES)
def test_a_round_trip(name: str, tmp_path: Path) -> None:
    net, x = load(name)
    nir.write(tmp_path / "again.nir", to_nir(net))
    dt, reset, _ = FILES[name]
    again = from_nir(tmp_path / "again.nir", dt=dt, reset=reset)
    assert list(again.state_dict()) == list(net.state_dict())
    first, second = (nir.read(path, type_check=False) for path in (GRAPHS / f"{name}.nir", tmp_path / "again.nir"))
    assert set(first.edges) == set(second.edges)
    for node, written in first.nodes.items():
        for field, value in written.to_dict().items():
            if not isinstance(written, nir.Output):  # Rockpool's is of another shape than what enters it
                assert np.all(np.isclose(value, second.nodes[node].to_dict()[field]) if _number(value) else True)
    assert torch.equal(net(x[:5]), again(x[:5]))


def _number(value: Any) -> bool:
    return np.asarray(value).dtype.kind in "fi"


def test_chunks_reset_and_copies() -> None:
    net, x = load("braille_noDelay_bias_zero")
    whole = net(x)
    reset_net(net)
    assert torch.equal(torch.cat([net(part) for part in x.split(7)]), whole)
    net.reset()
    assert torch.equal(net(x), whole)
    net.detach()
    assert not net.loop.states[0].requires_grad
