"""MemoryModule: a neuron's states under the names that SpikingJelly's tools and users know them by."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor

from flexsn import FlexSN
from flexsn.neurons.peer_class import PeerClass

__all__ = ["Memories", "MemoryModule"]


class Memories(MutableMapping[str, Any]):
    """The states of a neuron by name, to read and to set; a copy is a dictionary."""

    def __init__(self, neuron: FlexSN) -> None:
        self._neuron = neuron

    def __getitem__(self, name: str) -> Any:
        if name not in self._neuron.state_names:
            raise KeyError(name)
        return getattr(self._neuron, name)

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self._neuron, name, value)

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"the state {name} is part of the step")

    def __iter__(self) -> Iterator[str]:
        return iter(self._neuron.state_names)

    def __len__(self) -> int:
        return self._neuron.num_states

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return copy.deepcopy(dict(self), memo)


class MemoryModule(FlexSN, metaclass=PeerClass):
    """What SpikingJelly's ``MemoryModule`` has: its states as memories, and forward passes with explicit states.

    Explicit states are tuples in the order of ``state_names``; those of the neuron are neither read nor changed.
    A state given as a number, or in another shape than the step's, is where the neuron starts.
    """

    def supported_step_mode(self) -> tuple[str, ...]:
        """``("s", "m")``."""
        return "s", "m"

    @property
    def _memories(self) -> MutableMapping[str, Any]:
        return Memories(self)

    @_memories.setter
    def _memories(self, memories: Mapping[str, Any]) -> None:
        for name, value in memories.items():
            setattr(self, name, value)

    def memories(self) -> Iterator[Any]:
        """The states, or what they start from."""
        yield from self._memories.values()

    def named_memories(self) -> Iterator[tuple[str, Any]]:
        """``(name, state)`` of every state."""
        yield from self._memories.items()

    def materialize_states(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], step_mode: str
    ) -> tuple[Any, ...]:
        """The states as tensors in the shape of a step of these inputs."""
        x = inputs[0][0] if step_mode == "m" else inputs[0]
        starts = [start.contiguous() for start in self.init_states(self.num_states, "s", x)]
        return tuple(
            (state.to(start) if state.shape == start.shape else start)
            if isinstance(state, Tensor)
            else (start if state is None else torch.full_like(start, state))
            for state, start in zip(states, starts, strict=True)
        )

    def single_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], **options: Any
    ) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        """``(outputs, new states)`` of one step from these states."""
        outputs, states = self.multi_step_functional_forward(tuple(x.unsqueeze(0) for x in inputs), states, **options)
        return tuple(y.squeeze(0) for y in outputs), states

    def multi_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], **options: Any
    ) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        """``(outputs, last states)`` of all steps from these states."""
        outputs, finals, _ = self._scan(tuple(inputs), tuple(states), self._flexsn.options)
        return outputs, finals

    def functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], **options: Any
    ) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        """``(outputs, states)`` of a call in the present step mode from these states."""
        states = self.materialize_states(inputs, states, self.step_mode)
        if self.step_mode == "m":
            return self.multi_step_functional_forward(inputs, states, **options)
        return self.single_step_functional_forward(inputs, states, **options)
