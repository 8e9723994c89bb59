"""What a neuron is run on: the tensors given, or inputs that make it fire, in several shapes and layouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flexsn.modules.flexsn import FlexSN

__all__ = ["Case", "cases_for", "made_cases", "small_case", "start_of"]

GAINS = (1.0, 2.0, 4.0, 16.0, 64.0)
LANES = 700  # more than a block of any backend, and no whole number of blocks


@dataclass(frozen=True)
class Case:
    """A call.

    Attributes:
        name: what is special about it.
        inputs: ``[T, *step]`` each.
        states: before the first step, ``[*step]`` each.
        learns_by_states: whether a gradient comes from the final states too, not from the outputs alone.
    """

    name: str
    inputs: tuple[Tensor, ...]
    states: tuple[Tensor, ...]
    learns_by_states: bool = True

    @property
    def step(self) -> tuple[int, ...]:
        """The step shape."""
        return tuple(self.inputs[0].shape[1:])

    def __str__(self) -> str:
        return f"{self.name} {list(self.inputs[0].shape)}"


def cases_for(neuron: FlexSN, inputs: tuple[Tensor, ...], states: Sequence[Tensor] | None) -> list[Case]:
    """The call with the tensors given, and what follows it: one more step, in another memory layout."""
    first = Case("the inputs given", inputs, tuple(states or start_of(neuron, inputs)))
    return [first, _continued(neuron, first)] if len(inputs[0]) else [first]


def made_cases(
    neuron: FlexSN,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    seed: int,
    device: torch.device | str,
    large: tuple[int, ...] | None = None,
) -> list[Case]:
    """Calls with inputs ``[T, *step]`` of that shape, and with many lanes, ``large``, where that is left to us."""
    gain = _gain(neuron, shape, dtype, seed, device)

    def case(name: str, make: Callable[[tuple[int, ...]], Tensor], shape: tuple[int, ...]) -> Case:
        inputs = tuple((make(shape) * gain).to(device, dtype) for _ in range(neuron.num_inputs))
        return Case(name, inputs, start_of(neuron, inputs))

    generator = torch.Generator().manual_seed(seed)

    def whole(shape: tuple[int, ...]) -> Tensor:  # multiples of 2^-6: what a core adds and multiplies is often exact
        return torch.randint(-32, 128, shape, generator=generator).double() / 64

    def real(shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64) * 2.5 - 0.5

    first = case("multiples of 2^-6", whole, shape)
    many = case("real numbers", real, large or shape)
    return [first, _continued(neuron, first), replace(many, learns_by_states=False)]


def small_case(neuron: FlexSN, case: Case, seed: int) -> Case:
    """A call of a few steps in fp64, at no point where a smooth neuron has a kink."""
    generator = torch.Generator().manual_seed(seed)

    def off(value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value
        noise = torch.rand(value.shape, generator=generator, dtype=torch.float64).to(value.device)
        return value.double() + (0.0078125 + 0.03125 * noise) * (1 + value.abs())

    few = tuple(off(x[:4]) for x in case.inputs)
    return Case("the smooth neuron in fp64", few, tuple(map(off, start_of(neuron, few))))


def start_of(neuron: FlexSN, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The states a call with these inputs starts from."""
    neuron.reset()
    neuron.backend = "torch"
    with torch.no_grad():
        FlexSN.forward(neuron, *(x[:0] for x in inputs))
    states = neuron.states or ()
    neuron.reset()
    return states


def _continued(neuron: FlexSN, case: Case) -> Case:
    """One step from where a call ended, its inputs every second element of batch-first memory."""
    neuron.backend, neuron.states = "torch", case.states
    with torch.no_grad():
        FlexSN.forward(neuron, *case.inputs)
    states = tuple(s.clone() for s in neuron.states or ())
    return Case("one more step, strided", tuple(_strided(x[-1:]) for x in case.inputs), states)


def _strided(x: Tensor) -> Tensor:
    by_sample = x.movedim(0, 1) if x.dim() > 1 else x
    spread = by_sample.repeat_interleave(2, dim=-1)
    every_second = spread[..., ::2]
    return every_second.movedim(1, 0) if x.dim() > 1 else every_second


def _gain(neuron: FlexSN, shape: tuple[int, ...], dtype: torch.dtype, seed: int, device: Any) -> float:
    """How much larger than ``[-0.5, 2]`` inputs should be for the first output to be neither silent nor constant."""
    generator = torch.Generator().manual_seed(seed)
    x = [torch.rand(shape, generator=generator).to(device, dtype) * 2.5 - 0.5 for _ in range(neuron.num_inputs)]
    for gain in GAINS:
        neuron.states = start_of(neuron, x)
        with torch.no_grad():
            outputs = FlexSN.forward(neuron, *(a * gain for a in x))
        first = outputs if isinstance(outputs, Tensor) else outputs[0]
        if 0.03 < float(first.ne(0).double().mean()) < 0.97:
            return gain
    return 1.0
