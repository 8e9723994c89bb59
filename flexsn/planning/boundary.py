"""The last steps of a sequence, where some incoming gradients are absent, and how they join the usual step.

Autograd leaves out what does not exist instead of adding zeros, so the last steps run a smaller graph. A kernel that
chooses where the graphs part, mostly at the sums where a gradient joins, needs one graph for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from flexsn.ir.graph import Builder, LeafKind, Node, topological
from flexsn.ir.plan import BackwardPlan, BackwardStep, Program
from flexsn.ir.step import StepVjp
from flexsn.planning.request import Gradients, Vjp

__all__ = ["Unifier", "nth_from_end", "steps_from_end", "unify_last_steps"]


def steps_from_end(vjp: Vjp, gradients: Gradients) -> list[StepVjp]:
    """The vjp of the last step, of the one before, and so on until they stay the same.

    Autograd computes nothing for an absent gradient. The last step has no gradient from a step after it, and a
    state that reaches the outputs only by way of another one gets its first gradient later still.
    """
    outputs, finals = tuple(d is not None for d in gradients.outputs), gradients.finals
    for apart in (True, False):
        vjps: list[StepVjp] = []
        pattern = tuple(map(int, finals))
        for n in range(len(finals) + 2):
            vjps.append(vjp(outputs, pattern, apart, n == 0))
            following = tuple(map(len, vjps[-1].grad_states))
            if following == pattern:
                usual = vjp(outputs, pattern, apart, False)
                return vjps if vjps[-1] == usual else [*vjps, usual]
            pattern = following
    # states that swap places: the pattern never settles, so absent gradients count as zeros
    ever = tuple(int(f or any(v.grad_states[j] for v in vjps)) for j, f in enumerate(finals))
    return [vjp(outputs, ever, False, False)]


def nth_from_end(builder: Builder, n: int) -> Node:
    """The condition that a step is the last (``n = 0``), the one before (1), ..."""
    steps = builder.const(n + 1, torch.int64)
    ahead = builder.op("add", builder.coordinate(LeafKind.STEP_INDEX), steps, dtype=torch.int64)
    return builder.op("eq", ahead, builder.coordinate(LeafKind.NUM_STEPS), dtype=torch.bool)


def unify_last_steps(builder: Builder, plan: BackwardPlan) -> BackwardPlan:
    """The plan with all its branches as one step that chooses by the step index where they differ."""
    *early, usual = plan.branches
    if not early:
        return plan
    unifier = Unifier(builder, [branch.when for branch in early if branch.when is not None])

    def unify(nodes: Sequence[Node | None], absent: Node | None) -> Node | None:
        """The usual node first; ``absent`` stands for a gradient that is not there, unless none of them is."""
        if absent is None:
            return None
        first, *others = [absent if n is None else n for n in nodes]
        return unifier.unify(first, others)

    def or_zero(nodes: Sequence[Node | None]) -> Node | None:
        present = _any(nodes)
        return unify(nodes, None if present is None else builder.const(0.0, present.dtype))

    every = (usual, *early)
    columns = zip(*(branch.stores for branch in every), strict=True)
    stores = [(column[0][0], or_zero([node for _, node in column])) for column in columns]
    accumulate = [or_zero(nodes) for nodes in zip(*(branch.accumulate for branch in every), strict=True)]
    # a carried gradient that is absent is not read, so anything may stand in for it
    grad_states = [unify(nodes, _any(nodes)) for nodes in zip(*(branch.grad_states for branch in every), strict=True)]
    hoisted = dict.fromkeys(n for branch in plan.branches for n in branch.program.hoisted)
    loads = dict.fromkeys(load for branch in plan.branches for load in branch.loads)
    step = BackwardStep(None, usual.program, tuple(loads), tuple(stores), tuple(grad_states), tuple(accumulate))
    body = tuple(n for n in topological(step.results) if n not in hoisted and not n.is_leaf)
    return replace(plan, step=replace(step, program=Program(tuple(hoisted), body)))


class Unifier:
    """Unifies what one step computes at each distance from the end into one graph.

    At every step the unified graph gives bit for bit what the graph of that distance gives.

    Args:
        builder: makes the nodes.
        when: per distance, the condition that a step has it.
    """

    def __init__(self, builder: Builder, when: Sequence[Node]) -> None:
        self._builder, self._when = builder, when
        self._unified: dict[tuple[Node, ...], Node] = {}

    def unify(self, usual: Node, early: Sequence[Node]) -> Node:
        """One node that is ``early[n]`` where ``when[n]`` holds and ``usual`` at all other steps."""
        if all(e is usual for e in early):
            return usual
        key = (usual, *early)
        if key not in self._unified:
            self._unified[key] = self._unify(usual, list(early))
        return self._unified[key]

    def _unify(self, usual: Node, early: list[Node]) -> Node:
        for n, node in enumerate(early):
            if node is usual:
                continue
            rest = [usual if i == n else e for i, e in enumerate(early)]
            if node in usual.args:
                return self._choose(n, node, self.unify(usual, rest))
            if not _alike(usual, node):
                part = _part_of_sum(usual, node)
                if part is None:
                    return self._choose(n, node, self.unify(usual, rest))
                summand = usual.args[part]
                unified = self.unify(summand, [node if i == n else summand for i in range(len(early))])
                whole = self.unify(usual, rest)
                if not (whole.op == "add" and whole.args == usual.args):
                    return self._choose(n, node, whole)
                args = tuple(unified if i == part else a for i, a in enumerate(usual.args))
                return self._choose(n, unified, self._like(usual, args))
        columns = zip(usual.args, *(e.args for e in early), strict=True)
        return self._like(usual, tuple(self.unify(u, es) for u, *es in columns))

    def _choose(self, n: int, early: Node, usual: Node) -> Node:
        return self._builder.op("where", self._when[n], early, usual, dtype=usual.dtype, line=usual.line)

    def _like(self, node: Node, args: tuple[Node, ...]) -> Node:
        assert isinstance(node.op, str)
        return node if args == node.args else self._builder.op(node.op, *args, dtype=node.dtype, line=node.line)


def _part_of_sum(usual: Node, node: Node) -> int | None:
    """Which summand of ``usual`` has ``node`` for its counterpart, where the other one is absent."""
    if usual.op != "add":
        return None
    alike = [i for i, a in enumerate(usual.args) if _alike(a, node)]
    return max(
        alike, key=lambda i: sum(a is b for a, b in zip(usual.args[i].args, node.args, strict=True)), default=None
    )


def _alike(a: Node, b: Node) -> bool:
    """The same operation on arguments of the same dtypes; leaves are alike only if they are the same."""
    if a.op != b.op or a.dtype != b.dtype or a.is_leaf:
        return a is b
    return len(a.args) == len(b.args) and all(x.dtype == y.dtype for x, y in zip(a.args, b.args, strict=True))


def _any(nodes: Sequence[Node | None]) -> Node | None:
    return next((n for n in nodes if n is not None), None)
