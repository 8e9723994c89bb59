"""A small step and its vjp made by hand, and what is made of them as expressions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce

import torch

from flexsn.ir.graph import Builder, LeafKind, Node
from flexsn.ir.step import Outer, Product, Reduction, StepGraph, StepVjp

F32 = torch.float32
Pattern = tuple[tuple[bool, ...], tuple[int, ...], bool, bool]


def incoming(builder: Builder, outputs: Iterable[bool], states: Iterable[int]) -> Node:
    """The sum of the cotangents that are there."""
    leaves = [builder.leaf(LeafKind.COTANGENT, k, F32) for k, there in enumerate(outputs) if there]
    leaves += [builder.leaf(LeafKind.STATE_COTANGENT, j, F32) for j, there in enumerate(states) if there]
    return reduce(lambda total, node: builder.op("add", total, node, dtype=F32), leaves)


@dataclass
class Small:
    """``y = x + v``, ``v = v @ matrix * v``, ``w = w - u``; gradients read all that come in, and ``w`` gets none."""

    builder: Builder = field(default_factory=Builder)
    asked: list[Pattern] = field(default_factory=list)

    def __post_init__(self) -> None:
        leaf = self.builder.leaf
        self.x, self.u = (leaf(LeafKind.INPUT, i, F32) for i in range(2))
        self.v, self.w = (leaf(LeafKind.STATE, j, F32) for j in range(2))
        self.product = leaf(LeafKind.PRODUCT, 0, F32)
        self.y = self.op("add", self.x, self.v)

    def op(self, name: str, *args: Node) -> Node:
        return self.builder.op(name, *args, dtype=F32)

    @property
    def step(self) -> StepGraph:
        following = self.op("mul", self.product, self.v), self.op("sub", self.w, self.u)
        products = (Product(self.product, self.v, (0,)),)
        return StepGraph(self.builder, (self.x, self.u), (self.v, self.w), (self.y,), following, products)

    def with_sequences(self, *states: int) -> StepGraph:
        """The same where the sequences of some states are outputs."""
        step = self.step
        return replace(step, outputs=(*step.outputs, *(step.new_states[j] for j in states)))

    def vjp(self, outputs: tuple[bool, ...], states: tuple[int, ...], apart: bool, last: bool) -> StepVjp:
        self.asked.append((outputs, states, apart, last))
        total = incoming(self.builder, outputs, states)
        scaled = self.op("mul", total, self.v)
        return StepVjp(
            grad_inputs=(total, None),
            grad_states=((scaled,), ()),
            reductions=(Reduction(scaled, (1,), ()),),
            grad_captured=(),
            blocked=(),
            outers=(Outer(self.v, total),),
        )


def told(node: Node, names: Mapping[Node, str] | None = None) -> str:
    """What is computed, as an expression; a cast is called by what it casts to.

    Args:
        node: what is told.
        names: of what need not be told.
    """
    if names and node in names:
        return names[node]
    if node.is_leaf:
        return repr(node.value) if node.is_const else node.label
    name = str(node.dtype).removeprefix("torch.") if node.op == "cast" else node.op
    return f"{name}({', '.join(told(a, names) for a in node.args)})"


def told_all(nodes: Iterable[Node | None], names: Mapping[Node, str] | None = None) -> list[str]:
    """The same of several; nothing is ``-``."""
    return ["-" if n is None else told(n, names) for n in nodes]
