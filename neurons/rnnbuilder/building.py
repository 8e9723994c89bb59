"""What lets these neurons be layers of a network that rnnbuilder builds."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from flexsn.neurons.peer_class import PeerClass

__all__ = ["Factory"]


class Factory(nn.Module, metaclass=PeerClass):
    """A neuron as rnnbuilder's builder takes it: a recipe for a layer, made anew in every network.

    ``rb.Sequential(rb.nn.Linear(8), LIF())`` and ``rb.Layer(..., LIF())`` copy the neuron; the copy flattens its
    input, and its states go in and out of every call.
    """

    def _shape_change(self, in_shape: Sequence[int]) -> Sequence[int]:
        return in_shape

    def _assemble_module(self, in_shape: Sequence[int], unrolled: bool) -> nn.Module:
        lazy = {id(t): type(t)() for t in (*self.parameters(), *self.buffers()) if is_lazy(t)}
        return BuiltNeuron(copy.deepcopy(self, lazy), (math.prod(in_shape),))

    def initial_output(self) -> Tensor:
        """What comes before the first step, where a network feeds the output back."""
        raise NotImplementedError


class BuiltNeuron(nn.Module):
    """A neuron in a built network: ``(x [T, B, ...], states) -> (spikes [T, B, N], states)``."""

    def __init__(self, neuron: Any, in_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.inner = neuron
        self.in_shape = self.out_shape = in_shape
        self._full_state = False
        neuron.step_mode = "m"
        if neuron.num_states:
            neuron.initialize_parameters(torch.empty(1, 1, *in_shape))

    def forward(self, x: Tensor, h: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """All steps from these states; the states after the last one, or after each where the network asks for it."""
        neuron = self.inner
        neuron.states = [h[name] for name in neuron.state_names]
        neuron.store_state_seqs = self._full_state
        spikes = neuron(x.flatten(2))
        states = neuron.state_seqs if self._full_state else neuron.states
        return spikes, dict(zip(neuron.state_names, states or (), strict=True))

    def get_initial_state(self, batch_size: int) -> dict[str, Tensor]:
        """The states of a batch before the first step."""
        neuron = self.inner
        if not neuron.num_states:
            return {}
        x = neuron.initial_mem.new_zeros(1, batch_size, *self.in_shape)
        starts = neuron.init_states(neuron.num_states, "m", x)
        return {name: s.expand_as(x[0]) for name, s in zip(neuron.state_names, starts, strict=True)}

    def get_initial_output(self, batch_size: int) -> Tensor:
        """What the network feeds back before the first step."""
        spikes: Tensor = self.inner.initial_output()
        return spikes.expand(batch_size, *self.out_shape)
