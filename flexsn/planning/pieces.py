"""What both directions are planned with: which leaves a program reads, what it loads once, in which order it runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from flexsn.ir.graph import LeafKind, Node, reached_from, topological
from flexsn.ir.plan import Holds, Role, Slot
from flexsn.ir.program import Program, split_stages
from flexsn.ir.step import Product, with_sources

__all__ = ["lane_loads", "leaves", "matrices", "order"]

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


def matrices(programs: Iterable[Program]) -> list[Slot]:
    """The slots of the matrices that their products multiply by."""
    read = {p.operands[0]: p.leaf.dtype for program in programs for p in program.products}
    return [Slot(Role.MATRIX, read[number], Holds.MATRIX, number) for number in sorted(read)]


def order(roots: Iterable[Node], products: Sequence[Product] = ()) -> Program:
    """Order what the roots need; what does not change with time is hoisted out of the loop.

    Args:
        roots: results of a step.
        products: those they may depend on.
    """
    roots = list(roots)
    nodes = topological(with_sources(roots, products))
    varying = reached_from(nodes, lambda n: isinstance(n.op, LeafKind) and n.op.varies)
    computed = [n for n in nodes if not n.is_leaf]
    hoisted = tuple(n for n in computed if id(n) not in varying)
    if not products:
        return Program(hoisted, tuple(n for n in computed if id(n) in varying))
    stages = tuple(
        replace(
            stage,
            nodes=tuple(n for n in stage.nodes if id(n) in varying),
            held=tuple(n for n in stage.held if id(n) in varying or n.is_leaf),
        )
        for stage in split_stages(roots, products)
    )
    return Program(hoisted, tuple(n for stage in stages for n in stage.nodes), stages)
