"""Merge: the last steps of a sequence, where some incoming gradients are absent, folded into the usual step.

Autograd leaves out what does not exist instead of adding zeros, so the last steps run a smaller graph. A
kernel that chooses where the graphs part, mostly at the sums where a gradient joins, needs one graph for all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from flexsn.ir.graph import Node, topological
from flexsn.ir.plan import BackwardPlan, Program, Variant

__all__ = ["Merger", "merged_step"]


class Merger:
    """Merges what one step computes at each age (steps from the end) into one graph.

    The merged graph reads ``age`` leaves: ``age i`` holds at the ``i``-th step from the end. At every step it
    gives bit for bit what the graph of that age gives.
    """

    def __init__(self) -> None:
        self._merged: dict[tuple[int, ...], Node] = {}
        self._made: dict[tuple[str, tuple[int, ...], torch.dtype], Node] = {}
        self._ages: dict[int, Node] = {}

    def merge(self, usual: Node, early: Sequence[Node]) -> Node:
        """One node that is ``early[i]`` at age ``i`` and ``usual`` at all others."""
        if all(e is usual for e in early):
            return usual
        key = (id(usual), *map(id, early))
        if key not in self._merged:
            self._merged[key] = self._merge(usual, list(early))
        return self._merged[key]

    def _merge(self, usual: Node, early: list[Node]) -> Node:
        for age, node in enumerate(early):
            if node is usual:
                continue
            rest = [usual if i == age else e for i, e in enumerate(early)]
            if usual.op == "add" and any(node is a for a in usual.args):
                return self._choose(age, node, self.merge(usual, rest))
            if not _alike(usual, node):
                part = self._part_of_sum(usual, node)
                if part is None:
                    return self._choose(age, node, self.merge(usual, rest))
                summand = usual.args[part]
                merged = self.merge(summand, [node if i == age else summand for i in range(len(early))])
                whole = self.merge(usual, rest)
                if not (whole.op == "add" and whole.args == usual.args):
                    return self._choose(age, node, whole)
                args = tuple(merged if i == part else a for i, a in enumerate(usual.args))
                return self._choose(age, merged, self._make(usual, args))
        columns = zip(usual.args, *(e.args for e in early), strict=True)
        return self._make(usual, tuple(self.merge(u, es) for u, *es in columns))

    @staticmethod
    def _part_of_sum(usual: Node, node: Node) -> int | None:
        """Which summand of ``usual`` has ``node`` for its counterpart, where the other one is absent."""
        if usual.op != "add":
            return None
        alike = [i for i, a in enumerate(usual.args) if _alike(a, node)]
        return max(alike, key=lambda i: sum(map(_same, usual.args[i].args, node.args)), default=None)

    def _choose(self, age: int, early: Node, usual: Node) -> Node:
        leaf = self._ages.setdefault(age, Node("age", (), torch.bool, None, age))
        return self._intern(Node("where", (leaf, early, usual), usual.dtype, line=usual.line))

    def _make(self, like: Node, args: tuple[Node, ...]) -> Node:
        if all(a is b for a, b in zip(args, like.args, strict=True)):
            return like
        return self._intern(Node(like.op, args, like.dtype, line=like.line))

    def _intern(self, node: Node) -> Node:
        return self._made.setdefault((node.op, tuple(map(id, node.args)), node.dtype), node)


def _same(a: Node, b: Node) -> bool:
    return a is b


def _alike(a: Node, b: Node) -> bool:
    """The same operation on arguments of the same dtypes; leaves are alike only if they are the same."""
    if a.op != b.op or a.dtype != b.dtype or a.is_leaf:
        return a is b
    return len(a.args) == len(b.args) and all(x.dtype == y.dtype for x, y in zip(a.args, b.args, strict=True))


def merged_step(plan: BackwardPlan) -> Variant:
    """One step backward for all steps: the plan's variants, chosen by ``age`` leaves where they differ."""
    *early, usual = plan.variants
    if not early:
        return usual
    merger = Merger()

    def merge(nodes: Sequence[Node | None], absent: Node | None) -> Node | None:
        """The usual node first; ``absent`` stands for a gradient that is not there."""
        first, *others = [absent if n is None else n for n in nodes]
        if first is None:
            return None
        return merger.merge(first, [first if o is None else o for o in others])

    every = (usual, *early)
    stores = []
    for i, (slot, _) in enumerate(usual.stores):
        nodes = [v.stores[i][1] for v in every]
        stores.append((slot, merge(nodes, _zero(nodes))))
    accumulate = [merge(nodes, _zero(nodes)) for nodes in zip(*(v.accumulate for v in every), strict=True)]
    # a carried gradient that is absent is not read, so anything may stand in for it
    grad_states = [merge(nodes, _any(nodes)) for nodes in zip(*(v.grad_states for v in every), strict=True)]
    hoisted = {id(n): n for v in plan.variants for n in v.program.hoisted}
    loads = {(slot, leaf): None for v in plan.variants for slot, leaf in v.loads}
    roots = [n for n in (*(n for _, n in stores), *accumulate, *grad_states) if n is not None]
    body = tuple(n for n in topological(roots) if id(n) not in hoisted and not n.is_leaf and n.op != "age")
    program = Program(tuple(hoisted.values()), body)
    return Variant(program, tuple(loads), tuple(stores), tuple(grad_states), tuple(accumulate))


def _any(nodes: Sequence[Node | None]) -> Node | None:
    return next((n for n in nodes if n is not None), None)


def _zero(nodes: Sequence[Node | None]) -> Node | None:
    node = _any(nodes)
    return None if node is None else Node("const", (), node.dtype, 0.0)
