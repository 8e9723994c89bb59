"""Loop: all nodes that cycles tie together, as one recurrent layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flexsn import FlexSN
from flexsn.nir.delay import Delay
from flexsn.nir.dynamics import Neuron
from flexsn.nir.layers import MatrixStack, Scale, Threshold
from flexsn.nir.matrices import matrix_of, padded
from flexsn.nir.wiring import Edge, Part

__all__ = ["Loop"]

POINTWISE = (Neuron, Delay, Scale, Threshold)


class _Place(NamedTuple):
    """Where a node of the loop finds its input and its states."""

    entering: tuple[int, ...]  # which input of the layer, if any
    now: tuple[int, ...]  # nodes whose value of this step it reads
    before: tuple[int, ...]  # states that hold values of the step before
    start: int  # of its own states
    stop: int


class Loop(FlexSN):
    """A recurrent layer of nodes with a cycle, compiled as one step.

    Values on the edges of ``feedback`` are those of the step before, 0 before the first.

    Where all values have one shape that every layer keeps, the step has that shape. Otherwise values are flattened and
    filled up to the largest, and layers become square matrices over as many lanes.

    Args:
        part: the nodes in the order of a step, and which edges are late.
        nodes: their modules.
        edges: of the whole graph.
        shapes: of the value that enters each node, and of the one that leaves it.
    """

    def __init__(
        self,
        part: Part,
        nodes: Mapping[str, nn.Module],
        edges: Sequence[Edge],
        shapes: Mapping[str, tuple[torch.Size, torch.Size]],
    ) -> None:
        names = part.nodes
        sources = {name: [source for source, target in edges if target == name] for name in names}
        inputs = [name for name in names if not set(sources[name]) <= set(names)]
        outputs = [name for name in names if any(s == name and t not in names for s, t in edges)] or [names[-1]]
        fed = sorted({source for source, _ in part.feedback})
        own = [_states_of(nodes[name]) for name in names]
        state_names = [f"{name}.{state}" for name, states in zip(names, own, strict=True) for state in states]
        super().__init__(num_inputs=len(inputs), num_states=len(state_names) + len(fed), num_outputs=len(outputs))
        self.state_names = tuple(name.replace(".", "_") for name in (*state_names, *(f"{name}.y" for name in fed)))
        self.nodes = nn.ModuleList(nodes[name] for name in names)
        self.node_names, self.input_names, self.output_names = names, tuple(inputs), tuple(outputs)
        self.shapes = tuple(shapes[name] for name in names)
        self.lanes = None if _fits(self.nodes, self.shapes) else max(s.numel() for pair in self.shapes for s in pair)
        self.convolves = any(isinstance(node, (nn.Conv1d, nn.Conv2d)) for node in self.nodes)
        self.returned = tuple(names.index(name) for name in outputs)
        self.fed = tuple(names.index(name) for name in fed)
        self.places = tuple(self._places(part, sources, own, fed))

    def _places(self, part: Part, sources: Any, own: Sequence[Sequence[str]], fed: Sequence[str]) -> list[_Place]:
        places, start, total = [], 0, sum(map(len, own))
        for name, states in zip(part.nodes, own, strict=True):
            inner = [source for source in sources[name] if source in part.nodes]
            before = [source for source in inner if (source, name) in part.feedback]
            places.append(
                _Place(
                    entering=tuple(n for n, entered in enumerate(self.input_names) if entered == name),
                    now=tuple(part.nodes.index(source) for source in inner if source not in before),
                    before=tuple(total + fed.index(source) for source in before),
                    start=start,
                    stop=start + len(states),
                )
            )
            start += len(states)
        return places

    # ---- a step ---------------------------------------------------------------------------------------------

    def core(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """All nodes once, in their order."""
        given, states = arguments[: len(self.input_names)], arguments[len(self.input_names) :]
        values: list[Tensor] = []
        new = list(states)
        for number, place in enumerate(self.places):
            held = states[place.start : place.stop]
            if self._is_late(number):
                values.append(self._read(number, held))
                continue
            x = _entering(place, given, values, states)
            y, *new[place.start : place.stop] = self._step(number, x, held)
            values.append(y)
        for number, place in enumerate(self.places):
            if self._is_late(number):
                x = _entering(place, given, values, states)
                new[place.start : place.stop] = (x, *states[place.start : place.stop - 1])
        new[len(states) - len(self.fed) :] = [values[number] for number in self.fed]
        return (*(values[number] for number in self.returned), *new)

    def _is_late(self, number: int) -> bool:
        node = self.nodes[number]
        return isinstance(node, Delay) and node.shortest > 0

    def _read(self, number: int, held: Sequence[Tensor]) -> Tensor:
        node: Any = self.nodes[number]
        y: Tensor = node.read(held, 1, *self._constants(number))
        return y

    def _step(self, number: int, x: Tensor, held: Sequence[Tensor]) -> tuple[Tensor, ...]:
        node: Any = self.nodes[number]
        if isinstance(node, POINTWISE):
            returned: tuple[Tensor, ...] = node.step(x, *held, *self._constants(number))
            return returned
        if isinstance(node, (nn.Identity, nn.Flatten)):
            return (x,)
        if self.lanes is None:
            return (node._conv_forward(x, node.weight, node.bias) if self.convolves else node(x),)
        matrix, offset = matrix_of(node, self.shapes[number][0], x)
        rows, columns = matrix.shape
        square = F.pad(matrix, (0, self.lanes - columns, 0, self.lanes - rows))
        return (F.linear(x, square, None if offset is None else F.pad(offset, (0, self.lanes - rows))),)

    def _constants(self, number: int) -> tuple[Tensor, ...]:
        node: Any = self.nodes[number]
        parameters: tuple[Tensor, ...] = node.parameters_of_a_step()
        if self.lanes is None:
            return parameters
        return tuple(padded(p, self.shapes[number][0], self.lanes) for p in parameters)

    # ---- around the scan ------------------------------------------------------------------------------------

    def over_lanes(self, *entering: Tensor) -> dict[str, Tensor]:
        """Run what enters the nodes of ``input_names``, each in its own shape; the values of ``output_names`` alike."""
        before = {name: shape for name, (shape, _) in zip(self.node_names, self.shapes, strict=True)}
        after = {name: shape for name, (_, shape) in zip(self.node_names, self.shapes, strict=True)}
        leading = entering[0].shape[: entering[0].dim() - len(before[self.input_names[0]])]
        spread = [self._spread(x, before[name], leading) for name, x in zip(self.input_names, entering, strict=True)]
        returned = self(*spread)
        ys = returned if isinstance(returned, tuple) else (returned,)
        return {
            name: (y if self.lanes is None else y[..., : after[name].numel()]).reshape(*leading, *after[name])
            for name, y in zip(self.output_names, ys, strict=True)
        }

    def _spread(self, x: Tensor, shape: torch.Size, leading: torch.Size) -> Tensor:
        if self.lanes is not None:
            return F.pad(x.reshape(*leading, -1), (0, self.lanes - shape.numel()))
        if self.convolves:  # which takes one batch dimension
            return x.reshape(*leading[: self.step_mode == "m"], -1, *shape)
        return x


def _entering(place: _Place, given: Sequence[Tensor], values: Sequence[Tensor], states: Sequence[Tensor]) -> Tensor:
    first, *others = (
        *(given[n] for n in place.entering),
        *(values[n] for n in place.now),
        *(states[n] for n in place.before),
    )
    for other in others:
        first = first + other
    return first


def _states_of(node: nn.Module) -> Sequence[str]:
    if isinstance(node, Neuron):
        return node.state_names
    return [f"x{ago}" for ago in range(1, node.longest + 1)] if isinstance(node, Delay) else ()


def _fits(nodes: nn.ModuleList, shapes: Sequence[tuple[torch.Size, torch.Size]]) -> bool:
    """Whether every value has one shape, and every layer is one that a core may hold."""
    one = len({shape for pair in shapes for shape in pair}) == 1
    return one and not any(isinstance(node, (MatrixStack, nn.AvgPool2d)) for node in nodes)
