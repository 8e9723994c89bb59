"""snnTorch's quantized states: the nearest level, compiled."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor

from flexsn.neurons import snntorch as snn
from flexsn.neurons.snntorch.quant import Levels, state_quant

UNEVEN = torch.tensor([-1.0, -0.5, 0.25, 1.25])
TABLES = {
    "even": torch.linspace(-1.0, 1.2, 256),
    "one": torch.tensor([0.5]),
    "uneven": UNEVEN,
    "many": torch.linspace(0.0, 1.5, 40) ** 3,
    "too many": torch.linspace(0.0, 1.5, 80) ** 3,
}


def nearest(x: Tensor, levels: Tensor) -> Tensor:
    return levels[(levels - x.unsqueeze(-1)).abs().min(-1).indices]


@pytest.mark.parametrize("case", TABLES)
def test_the_nearest_level_and_the_lower_of_two(case: str) -> None:
    levels, quantizer = TABLES[case], Levels(TABLES[case])
    middles = (levels[1:] + levels[:-1]) / 2
    around = [torch.nextafter(middles, middles + side) for side in (-1, 1)]
    infinite = torch.tensor([-torch.inf, levels[-1].item() + 3])
    x = torch.cat([torch.randn(2000) * 2, levels, middles, *around, infinite]).requires_grad_()
    got = quantizer(x)
    got.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(got, nearest(x, levels)) and bool((x.grad == 1).all())


@pytest.mark.parametrize("quantizer", [state_quant(4), Levels(UNEVEN)])
def test_it_is_compiled(quantizer: Levels) -> None:
    x = torch.randint(0, 32, (5, 7)) / 32
    results = []
    for backend in ("cpp", "torch"):
        lif = snn.Leaky(0.5, state_quant=quantizer, step_mode="m", backend=backend)
        given = x.clone().requires_grad_()
        spikes = copy.deepcopy(lif)(given)
        spikes.sum().backward()
        results.append((spikes, given.grad))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True)) and results[0][0].any()


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match=r"num_bits=0.*>= 1"):
        state_quant(0)


@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_random_slopes_are_an_input(step_mode: str) -> None:
    """SSO: drawn once a call, for all of its steps; the spike of a step is where they act."""
    x = torch.randint(0, 32, (4, 9)) / 32
    lif = snn.Leaky(0.5, threshold=0.75, spike_grad=snn.surrogate.SSO(mean=0.5, variance=0.25), step_mode=step_mode)
    for neuron in (lif, copy.deepcopy(lif), pickle.loads(pickle.dumps(lif))):
        neuron.backend = "cpp"
        given = (x[0] if step_mode == "s" else x).clone().requires_grad_()
        torch.manual_seed(1)
        u = torch.rand_like(given)
        torch.manual_seed(1)
        spk = neuron(given)[0] if step_mode == "s" else neuron(given)
        last = spk if step_mode == "s" else spk[-1]
        last.sum().backward()  # type: ignore[no-untyped-call]
        u_last = u if step_mode == "s" else u[-1]
        slope = torch.where(last > 0, 1.0, u_last * 0.25)
        assert torch.equal(given.grad if step_mode == "s" else given.grad[-1], slope) and 0 < last.mean() < 1
