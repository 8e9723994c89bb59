"""Every built-in neuron takes lengths, resets, cuts and reductions."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from flexsn import FlexSN, neurons
from flexsn.neurons import norse, rnnbuilder, snntorch, spikingjelly

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "flexsn.neurons.Refractory": (neurons.IF(), 1),
    "flexsn.neurons.LIAF": (torch.relu, False),
    "flexsn.neurons.spikingjelly.LIAFNode": (torch.relu, False),
    "flexsn.neurons.spikingjelly.SimpleLIFNode": (2.0, True),
    "flexsn.neurons.norse.LILinearCell": (3, 3),
    "flexsn.neurons.snntorch.Leaky": (0.5,),
    "flexsn.neurons.snntorch.Synaptic": (0.5, 0.25),
    "flexsn.neurons.snntorch.Alpha": (0.5, 0.25),
    "flexsn.neurons.snntorch.Lapicque": (0.5,),
    "flexsn.neurons.snntorch.RLeaky": (0.5, 1.0, True, 3),
    "flexsn.neurons.snntorch.RSynaptic": (0.5, 0.25, 1.0, True, 3),
    "flexsn.neurons.snntorch.SLSTM": (3, 3, True, 0.1),
}


def built_in() -> dict[str, type[FlexSN]]:
    """The neurons that are no bases for others' steps."""
    rooms = (neurons, spikingjelly, snntorch, norse, rnnbuilder)
    found = {f"{r.__name__}.{n}": getattr(r, n) for r in rooms for n in r.__all__}
    return {n: c for n, c in found.items() if inspect.isclass(c) and issubclass(c, FlexSN) and "Base" not in n}


# bases, those whose steps are numbered or whose input is an image, and snnTorch's that take whole sequences alone
WITHOUT = (neurons.Neuron, neurons.SpikingNeuron, snntorch.SpikingNeuron, spikingjelly.FlexSN)
WITHOUT += (spikingjelly.GatedLIFNode, snntorch.SConv2dLSTM)
SEQUENCES = (snntorch.StateLeaky, snntorch.LeakyParallel)
NEURONS = {n: c for n, c in built_in().items() if c not in WITHOUT and not issubclass(c, SEQUENCES)}


def made(name: str, **options: Any) -> FlexSN:
    options = {"backend": "torch"} | options
    arguments = ARGUMENTS.get(name, ())
    if "Recurrent" in name:
        arguments = (3, 3)
    if "Izhikevich" in name and "norse" in name:
        arguments += (norse.tonic_spiking,)
    if name.startswith("flexsn.neurons.spikingjelly.NonSpiking"):  # as in SpikingJelly
        del options["backend"]
    torch.manual_seed(0)  # some have weights
    neuron: FlexSN = NEURONS[name](*arguments, **options)
    neuron.step_mode = "m"
    return neuron


def first(returned: Any) -> Tensor:
    value: Tensor = returned[0] if isinstance(returned, tuple | list) else returned
    return value


@pytest.mark.parametrize("name", NEURONS)
def test_every_built_in_neuron(name: str) -> None:
    x = torch.rand(6, 2, 3, generator=torch.Generator().manual_seed(0)) * 4
    lengths, mask = torch.tensor([6, 4]), torch.zeros(6, 2, dtype=torch.bool)
    mask[3, 0] = True
    y_seq = first(made(name)(x, lengths=lengths, reset_mask=mask))
    assert torch.equal(y_seq[:4, 1], first(made(name)(x[:4]))[:, 1]) and not y_seq[4:, 1].any()
    assert torch.equal(y_seq[3:, 0], first(made(name)(x[3:]))[:, 0])
    neuron = made(name, time_reduction="sum", rate=True, detach_every=2)
    assert torch.equal(first(neuron(x, lengths=lengths, reset_mask=mask)), sum(y_seq.unbind(0)))
    assert torch.allclose(neuron.rate, y_seq.sum(0) / torch.tensor([[6.0], [4.0]]))


def test_options_come_by_name_only() -> None:
    wanted = ("detach_every", "time_reduction", "rate")
    for cls in NEURONS.values():
        parameters = inspect.signature(cls).parameters
        assert all(parameters[n].kind is inspect.Parameter.KEYWORD_ONLY for n in wanted if n in parameters)
