"""StepGraph: one time step as a small typed pointwise SSA graph, shared by every backend."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from flexsn.errors import SourceLine

__all__ = ["LEAVES", "Builder", "Node", "topological"]

LEAVES = ("input", "state", "operand", "cotangent", "state_cotangent", "const")
"""Nodes that are not computed: step inputs, carried states, loop-invariant tensors, gradients of the outputs
and of the new states, literals."""


@dataclass(frozen=True, eq=False)
class Node:
    """One value of the step; equal nodes are the same object (see :class:`Builder`).

    Attributes:
        op: a row of the op table, or one of :data:`LEAVES`.
        args: the nodes it reads, already of the dtype the op computes in.
        dtype: of the value.
        value: the number of a ``const``.
        index: which input, state, operand or cotangent a leaf stands for.
        line: where in the user's code it came from.
    """

    op: str
    args: tuple[Node, ...]
    dtype: torch.dtype
    value: bool | int | float | None = None
    index: int = 0
    line: SourceLine | None = field(default=None, compare=False)

    @property
    def is_leaf(self) -> bool:
        return self.op in LEAVES

    def __repr__(self) -> str:
        what = repr(self.value) if self.op == "const" else f"{self.op}{self.index if self.is_leaf else ''}"
        return f"<{what} {str(self.dtype).removeprefix('torch.')}>"


Simplify = Callable[["Builder", str, "tuple[Node, ...]", torch.dtype], "Node | None"]


class Builder:
    """Makes nodes; the same op on the same arguments gives the same node (common subexpressions are one).

    Args:
        simplify: asked for a simpler node before one is made.
    """

    def __init__(self, simplify: Simplify | None = None) -> None:
        self._simplify = simplify
        self._nodes: dict[tuple[Any, ...], Node] = {}
        self._line: SourceLine | None = None

    def leaf(self, kind: str, index: int, dtype: torch.dtype) -> Node:
        return self._intern(kind, (), dtype, None, index, None)

    def const(self, value: bool | int | float, dtype: torch.dtype) -> Node:
        """A literal, rounded to what ``dtype`` can hold."""
        return self._intern("const", (), dtype, _rounded(value, dtype), 0, None)

    def op(self, op: str, *args: Node, dtype: torch.dtype, line: SourceLine | None = None) -> Node:
        line = line or self._line
        if self._simplify is not None:
            outer, self._line = self._line, line  # what a rule makes comes from the same line
            simpler = self._simplify(self, op, args, dtype)
            self._line = outer
            if simpler is not None:
                return simpler
        return self._intern(op, args, dtype, None, 0, line)

    def cast(self, node: Node, dtype: torch.dtype, line: SourceLine | None = None) -> Node:
        if node.dtype == dtype:
            return node
        if node.op == "const" and node.value is not None and _fits(node.value, dtype):
            return self.const(node.value, dtype)
        return self.op("cast", node, dtype=dtype, line=line)

    def _intern(
        self,
        op: str,
        args: tuple[Node, ...],
        dtype: torch.dtype,
        value: bool | int | float | None,
        index: int,
        line: SourceLine | None,
    ) -> Node:
        # repr tells -0.0 from 0.0 and keeps nan equal to itself
        key = (op, tuple(map(id, args)), dtype, repr(value), index)
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = Node(op, args, dtype, value, index, line)
        return node


def _rounded(value: bool | int | float, dtype: torch.dtype) -> bool | int | float:
    if dtype == torch.bool:
        return bool(value)
    if not dtype.is_floating_point:
        return int(value)
    if dtype == torch.float64:
        return float(value)
    if dtype == torch.float32:
        return ctypes.c_float(value).value  # infinite where too large, as in torch
    return float(torch.tensor(value, dtype=torch.float64).to(dtype).item())


def _fits(value: bool | int | float, dtype: torch.dtype) -> bool:
    """Whether the literal is a value of ``dtype``, or rounds to one; if not, the machine decides what becomes of it."""
    if dtype == torch.bool or dtype.is_floating_point:
        return value == value or dtype.is_floating_point
    info = torch.iinfo(dtype)
    return float(value).is_integer() and info.min <= value <= info.max


def topological(roots: Iterable[Node]) -> list[Node]:
    """All nodes the roots depend on, arguments before users, in a stable order."""
    order: list[Node] = []
    seen: set[int] = set()

    def walk(root: Node) -> None:
        stack: list[tuple[Node, Iterator[Node]]] = [(root, iter(root.args))]
        seen.add(id(root))
        while stack:
            node, rest = stack[-1]
            for arg in rest:
                if id(arg) not in seen:
                    seen.add(id(arg))
                    stack.append((arg, iter(arg.args)))
                    break
            else:
                order.append(node)
                stack.pop()

    for root in roots:
        if id(root) not in seen:
            walk(root)
    return order
