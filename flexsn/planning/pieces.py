"""What both directions are planned with: which leaves a program reads, what it loads once, in which order it runs."""

from __future__ import annotations

from collections.abc import Iterable

from flexsn.ir.graph import LeafKind, Node, reached_from, topological
from flexsn.ir.plan import Holds, Program, Role, Slot

__all__ = ["lane_loads", "leaves", "order"]

_LOADED_ONCE = {
    LeafKind.OPERAND: Holds.OPERAND,
    LeafKind.LANE_INDEX: Holds.LANE_INDEX,
    LeafKind.LENGTH: Holds.LENGTH,
    LeafKind.INITIAL: Holds.INITIAL,
}


def leaves(kind: LeafKind, roots: Iterable[Node]) -> list[Node]:
    """The leaves of a kind that the roots depend on, by number."""
    return sorted((n for n in topological(roots) if n.op is kind), key=lambda n: (n.part, n.index))


def lane_loads(roots: Iterable[Node]) -> list[tuple[Slot, Node]]:
    """What is read once per lane: operands, and what belongs to the lane: its number, length, initial states."""
    roots = list(roots)
    return [
        (Slot(Role.LANE_LOAD, n.dtype, holds, n.index), n)
        for kind, holds in _LOADED_ONCE.items()
        for n in leaves(kind, roots)
    ]


def order(roots: Iterable[Node]) -> Program:
    """Order what the roots need; what does not change with time is hoisted out of the loop."""
    nodes = topological(roots)
    varying = reached_from(nodes, lambda n: isinstance(n.op, LeafKind) and n.op.varies)
    computed = [n for n in nodes if not n.is_leaf]
    return Program(tuple(n for n in computed if id(n) not in varying), tuple(n for n in computed if id(n) in varying))
