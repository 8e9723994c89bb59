"""Graph: one time step as a small typed pointwise SSA graph, shared by every backend."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch

from flexsn.errors import SourceLine

__all__ = ["Builder", "LeafKind", "Node", "leaf_name", "reached_from", "topological"]


class LeafKind(Enum):
    """What a node stands for that is not computed.

    Attributes:
        varies: whether its value changes from step to step.
        is_gradient: whether it exists only on the way back.
    """

    INPUT = "input", True, False  # of the step
    STATE = "state", True, False  # before the step
    OPERAND = "operand", False, False  # a tensor that stays the same through a call
    COTANGENT = "grad_output", True, True  # gradient of an output
    STATE_COTANGENT = "grad_state", True, True  # gradient of a new state
    PRODUCT = "product", True, False  # of a value of the step and a matrix: it cuts the step into stages
    SAVED = "saved", True, False  # a value of the step, kept by the forward pass
    CONST = "const", False, False  # a literal
    STEP_INDEX = "t", True, False
    NUM_STEPS = "T", False, False
    LANE_INDEX = "lane", False, False  # the lane's number in the step shape, row by row
    LENGTH = "length", False, False  # the number of steps of the lane's sample
    INITIAL = "initial", False, False  # what a state is after a reset

    def __init__(self, label: str, varies: bool, is_gradient: bool) -> None:
        self.label, self.varies, self.is_gradient = label, varies, is_gradient

    @property
    def is_uniform(self) -> bool:
        """Whether it is the same for all lanes, wherever tensors lie, so that no kernel has to load it."""
        return self in (LeafKind.CONST, LeafKind.STEP_INDEX, LeafKind.NUM_STEPS)

    @property
    def is_coordinate(self) -> bool:
        """Whether it says where in the scan a value is: one per scan, not numbered."""
        return self in (LeafKind.STEP_INDEX, LeafKind.NUM_STEPS, LeafKind.LANE_INDEX)


def leaf_name(kind: LeafKind, index: int, part: int = 0) -> str:
    """What a leaf is called."""
    return kind.label + ("" if kind.is_coordinate else str(index)) + (f"_part{part}" if part else "")


@dataclass(frozen=True, eq=False)
class Node:
    """One value of the step; equal nodes are the same object (see :class:`Builder`).

    Attributes:
        op: a row of the op table, or what a leaf stands for.
        args: the nodes it reads, already of the dtype the op computes in.
        dtype: of the value.
        value: the number of a literal.
        index: which input, state, operand or output a leaf belongs to.
        part: which summand of a state's gradient a state cotangent is, where it is carried in several.
        line: where in the user's code it came from.
    """

    op: str | LeafKind
    args: tuple[Node, ...]
    dtype: torch.dtype
    value: bool | int | float | None = None
    index: int = 0
    part: int = 0
    line: SourceLine | None = field(default=None, compare=False)

    @property
    def is_leaf(self) -> bool:
        return isinstance(self.op, LeafKind)

    @property
    def is_const(self) -> bool:
        return self.op is LeafKind.CONST

    @property
    def label(self) -> str:
        """A leaf's name."""
        assert isinstance(self.op, LeafKind)
        return leaf_name(self.op, self.index, self.part)

    def __repr__(self) -> str:
        what = repr(self.value) if self.is_const else self.label if self.is_leaf else self.op
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

    def leaf(self, kind: LeafKind, index: int, dtype: torch.dtype, part: int = 0) -> Node:
        return self._intern(Node(kind, (), dtype, None, index, part))

    def coordinate(self, kind: LeafKind) -> Node:
        """The step index, the number of steps or the lane index, of 64 bits."""
        return self.leaf(kind, 0, torch.int64)

    def const(self, value: bool | int | float, dtype: torch.dtype) -> Node:
        """A literal, rounded to what ``dtype`` can hold."""
        return self._intern(Node(LeafKind.CONST, (), dtype, _rounded(value, dtype)))

    def op(self, op: str, *args: Node, dtype: torch.dtype, line: SourceLine | None = None) -> Node:
        line = line or self._line
        if self._simplify is not None:
            before, self._line = self._line, line  # what a rule makes comes from the same line
            simpler = self._simplify(self, op, args, dtype)
            self._line = before
            if simpler is not None:
                return simpler
        return self._intern(Node(op, args, dtype, line=line))

    def cast(self, node: Node, dtype: torch.dtype, line: SourceLine | None = None) -> Node:
        if node.dtype == dtype:
            return node
        if node.value is not None and _fits(node.value, dtype):
            return self.const(node.value, dtype)
        return self.op("cast", node, dtype=dtype, line=line)

    def _intern(self, node: Node) -> Node:
        # repr tells -0.0 from 0.0 and keeps nan equal to itself
        key = (node.op, tuple(map(id, node.args)), node.dtype, repr(node.value), node.index, node.part)
        return self._nodes.setdefault(key, node)


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
                    if arg.args:
                        stack.append((arg, iter(arg.args)))
                        break
                    order.append(arg)
            else:
                order.append(node)
                stack.pop()

    for root in roots:
        if id(root) not in seen:
            walk(root)
    return order


def reached_from(order: Iterable[Node], starts: Callable[[Node], bool]) -> set[int]:
    """The ids of those nodes, in topological order, that are a start or depend on one."""
    reached: set[int] = set()
    for node in order:
        if starts(node) or any(id(arg) in reached for arg in node.args):
            reached.add(id(node))
    return reached
