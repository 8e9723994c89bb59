"""GraphCall: what a graph knows of the calls of one scan in it, whatever the core reads when it runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from flexsn.execution.masks import Masks, RuledCall
from flexsn.execution.options import ScanOptions
from flexsn.execution.output_dtype import OutputDtype
from flexsn.ir.layout import CallShape, TensorSpec, without_axis

__all__ = ["GraphCall", "GraphOutput"]


@dataclass(frozen=True)
class GraphOutput:
    """An output, the rate, or the sequence of a wanted state.

    Attributes:
        dtype: stored and visible.
        over_time: whether it has a value per step.
    """

    dtype: OutputDtype
    over_time: bool

    @property
    def packed(self) -> bool:
        """Whether it is stored in another dtype than it has."""
        return self.dtype.stored is not self.dtype.visible


@dataclass(frozen=True)
class GraphCall:
    """Calls of one scan in a graph: an argument of the operators, as text.

    All that the shapes of the results follow from, so that nobody needs the core for them.

    Attributes:
        options: of the scan.
        parameters: names of the sources whose tensors the graph hands in.
        masks: which masks it hands in: ``"lengths"``, ``"reset_mask"`` with the initial states behind it, both.
        outputs: outputs, then sequences of wanted states.
        states: dtypes of the final states.
        parameter_shape: what the tensors that the core reads broadcast to.
        training: whether the forward pass keeps what the backward pass starts from.
        interval: steps between checkpoints.
        checkpoints: their dtypes.
        learned: the states whose value after a reset has a gradient.
        products: of a core that has products, dtypes of what is kept of every step besides.
        fused: whether these products are computed inside of its kernels.
        read_again: the outputs that the backward pass starts from too.
    """

    options: ScanOptions
    parameters: tuple[str, ...]
    masks: tuple[str, ...]
    outputs: tuple[GraphOutput, ...]
    states: tuple[torch.dtype, ...]
    parameter_shape: tuple[int, ...]
    training: bool
    interval: int
    checkpoints: tuple[torch.dtype, ...]
    learned: tuple[int, ...] = ()
    products: tuple[torch.dtype, ...] | None = None
    fused: bool = False
    read_again: tuple[int, ...] = ()

    def text(self) -> str:
        """The same as text."""
        return json.dumps(_written(self))

    @staticmethod
    @lru_cache
    def of(text: str) -> GraphCall:
        """The inverse of :meth:`text`."""
        options, parameters, masks, outputs, *rest = _read(json.loads(text))
        made = tuple(GraphOutput(OutputDtype(*dtype), over_time) for dtype, over_time in outputs)
        return GraphCall(ScanOptions(*options), parameters, masks, made, *rest)

    @property
    def packed(self) -> tuple[int, ...]:
        """The outputs that are stored in another dtype than they have."""
        return tuple(i for i, output in enumerate(self.outputs) if output.packed)

    @property
    def num_results(self) -> int:
        """Outputs, sequences of wanted states and final states."""
        return len(self.outputs) + len(self.states)

    @property
    def by_rules(self) -> bool:
        """Whether more happens than the core's own steps."""
        return bool(self.masks) or self.options.has_rules

    def masked(self, tensors: Sequence[Tensor]) -> Masks | None:
        """Masks of the tensors the graph hands in for them."""
        if not self.masks:
            return None
        named = dict(zip(self.masks, tensors, strict=False))
        return Masks(named.get("lengths"), named.get("reset_mask"), tuple(tensors[len(self.masks) :]))

    def ruled(self, inputs: Sequence[Tensor], states: Sequence[Tensor], masks: Sequence[Tensor]) -> RuledCall | None:
        """The call by rules, of tensors the graph hands in; ``None`` without rules."""
        if not self.by_rules:
            return None
        given = self.masked(masks) or Masks()
        initial = tuple(_needing(i, j in self.learned) for j, i in enumerate(given.initial))
        with torch.enable_grad():  # learned is what would be without a graph
            return RuledCall.of(inputs, states, self.options, replace(given, initial=initial))

    def shape(self, inputs: Sequence[Tensor], states: Sequence[Tensor]) -> CallShape:
        """Shapes of a call, in the memory order of the first input where that has them all."""
        axis = self.options.time_dim
        steps = [without_axis(x.shape, axis) for x in inputs]
        shapes = (*steps, *(s.shape for s in states), self.parameter_shape)
        step = tuple(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]
        first = inputs[0]
        if axis < 0:
            axis = len(step) + 1 + axis
        if len(step) + 1 == first.dim() and all(a == b for a, b in zip(steps[0], step, strict=True)):
            shape = CallShape.of(first, axis)
        else:
            shape = CallShape(first.shape[self.options.time_dim], step, axis, tuple(range(len(step) + 1)))
        return shape.of_rows() if self.fused else shape

    def results(self, shape: CallShape) -> list[TensorSpec]:
        """Layouts of outputs, sequences and final states."""
        outputs = [(shape.sequence if o.over_time else shape.step)(o.dtype.stored) for o in self.outputs]
        return [*outputs, *map(shape.step, self.states)]

    def kept(self, shape: CallShape) -> list[TensorSpec]:
        """Layouts of the checkpoints, and of what is kept of every step."""
        count = max((shape.num_steps - 1) // self.interval, 0)
        if self.products is None:
            return [shape.steps(count, dtype) for dtype in self.checkpoints]
        if self.fused:
            return [shape.sequence(dtype) for dtype in self.products]
        kept = [(dtype, count) for dtype in self.checkpoints] + [(dtype, shape.num_steps) for dtype in self.products]
        return [shape.rows(*sequence) for sequence in kept]


def _needing(tensor: Tensor, gradient: bool) -> Tensor:
    return tensor if tensor.requires_grad is gradient else tensor.detach().requires_grad_(gradient)


def _written(value: Any) -> Any:
    if isinstance(value, (GraphCall, GraphOutput, OutputDtype, ScanOptions)):
        return [_written(getattr(value, field.name)) for field in fields(value) if field.init]
    if isinstance(value, tuple):
        return [_written(item) for item in value]
    return str(value) if isinstance(value, torch.dtype) else value


def _read(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_read(item) for item in value)
    if isinstance(value, str) and value.startswith("torch."):
        return getattr(torch, value.removeprefix("torch."))
    return value
