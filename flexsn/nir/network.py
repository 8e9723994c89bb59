"""Network: a graph of layers, run node by node over whole sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from flexsn.nir.loop import Loop
from flexsn.nir.wiring import Edge, Flat, Part

__all__ = ["Network"]


class Network(nn.Module):
    """What :func:`flexsn.nir.from_nir` makes of a graph: every node a layer, every knot of cycles one recurrent layer.

    A layer is a child of the network under its node's name, with ``_`` for what Python does not take in one, and
    ``network["the.node"]`` by the node's own name. The nodes of a cycle are children of its :class:`Loop`.

    Attributes:
        inputs, outputs: names of the nodes ``Input`` and ``Output``, in the order of arguments and results.
        feedback: the edges that carry the value of the step before.
        edges: of the graph; a node of an inner graph is called ``graph.node``.
        homes, doors: which graph each node stands in, and where edges enter and leave the inner ones.
        shapes: of what enters each node and of what leaves it, without time and batch.

    Shapes:
        inputs ``[T, *batch, *shape of the Input]``, any batch dimensions; outputs alike, a tensor or a tuple of them.
        In step mode ``"s"`` (:func:`flexsn.functional.set_step_mode`) without ``T``.
    """

    def __init__(
        self,
        flat: Flat,
        layers: Mapping[str, nn.Module],
        shapes: Mapping[str, tuple[torch.Size, torch.Size]],
        parts: Sequence[Part],
        loops: Mapping[Part, Loop],
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> None:
        super().__init__()
        self.edges, self.inputs, self.outputs = tuple(flat.edges), tuple(inputs), tuple(outputs)
        self.homes, self.doors, self.shapes = dict(flat.homes), dict(flat.doors), dict(shapes)
        self.feedback = tuple(edge for part in parts for edge in part.feedback)
        self._sources = {name: tuple(s for s, target in flat.edges if target == name) for name in layers}
        self._parts = tuple(parts)
        self._children: list[str] = []
        for part in parts:
            layer = loops[part] if part in loops else layers[part.nodes[0]]
            self._children.append(self._add("loop" if part in loops else part.nodes[0], layer))
        self._over = _over(self._parts, flat.edges, outputs)

    def _add(self, name: str, layer: nn.Module) -> str:
        child = name.replace(".", "_")
        while hasattr(self, child):
            child += "_"
        self.add_module(child, layer)
        return child

    def __getitem__(self, name: str) -> nn.Module:
        """The layer of a node."""
        for part, child in zip(self._parts, self._children, strict=True):
            if name in part.nodes:
                layer = self.get_submodule(child)
                return layer.nodes[layer.node_names.index(name)] if isinstance(layer, Loop) else layer
        raise KeyError(name)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run all steps, continuing from the last states.

        Args:
            inputs: one per ``Input``, in the order of ``inputs``.

        Raises:
            ValueError: another number of inputs, or shapes that do not fit.
        """
        if len(inputs) != len(self.inputs):
            raise ValueError(f"expected {len(self.inputs)} input(s) {self.inputs}, got {len(inputs)}")
        values = dict(zip(self.inputs, inputs, strict=True))
        for part, child, over in zip(self._parts, self._children, self._over, strict=True):
            layer = self._modules[child]
            if isinstance(layer, Loop):
                values |= self._looped(layer, part, values)
            elif layer is not None and part.nodes[0] not in values:
                (name,) = part.nodes
                values[name] = layer(_summed([values[source] for source in self._sources[name]]))
            for name in over:
                del values[name]
        outputs = tuple(values[name] for name in self.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def _looped(self, layer: Loop, part: Part, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return layer.over_lanes(
            *(_summed([values[s] for s in self._sources[name] if s not in part.nodes]) for name in layer.input_names)
        )

    def reset(self) -> None:
        """Forget the states of all layers."""
        for layer in self.children():
            if callable(getattr(layer, "reset", None)):
                layer.reset()  # type: ignore[operator]

    def detach(self) -> None:
        """Cut the graph at the states of all layers (truncated BPTT)."""
        for layer in self.children():
            if callable(getattr(layer, "detach", None)):
                layer.detach()  # type: ignore[operator]


def _over(parts: Sequence[Part], edges: Sequence[Edge], outputs: Sequence[str]) -> list[list[str]]:
    """Behind each part, the values that nobody will read any more."""
    runs = {name: number for number, part in enumerate(parts) for name in part.nodes}
    last: dict[str, int] = {}
    for source, target in edges:
        if runs[source] != runs[target]:  # a loop keeps what only it reads for itself
            last[source] = max(last.get(source, 0), runs[target])
    over: list[list[str]] = [[] for _ in parts]
    for name, number in last.items():
        if name not in outputs:
            over[number].append(name)
    return over


def _summed(values: Sequence[Tensor]) -> Tensor:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total
