"""The last steps of a sequence, where some incoming gradients are absent, and how they join the usual step.

Autograd leaves out what does not exist instead of adding zeros, so the last steps run a smaller graph, and so do the
steps before a cut, where no gradient of a state comes in. A kernel that chooses where the graphs part, mostly at the
sums where a gradient joins, needs one graph for all.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from flexsn.ir.graph import Builder, LeafKind, Node, topological
from flexsn.ir.plan import BackwardPlan, BackwardStep
from flexsn.ir.program import Program
from flexsn.ir.step import StepGraph, StepVjp
from flexsn.ir.substitute import Substitution
from flexsn.planning.request import Gradients, Vjp

__all__ = [
    "Cut",
    "Unifier",
    "branch_at",
    "branches_from_end",
    "holds",
    "nth_from_end",
    "steps_from_end",
    "unify_last_steps",
]

Branch = tuple[Node | None, StepVjp]
"""When, and what; ``None`` for all steps no other branch is for."""


@dataclass(frozen=True)
class Cut:
    """Where gradients of states are cut: before steps ``every, 2 every, ...``, those of the first so many states."""

    every: int
    num_states: int


def steps_from_end(vjp: Vjp, gradients: Gradients) -> list[StepVjp]:
    """The vjp of the last step, of the one before, and so on until they stay the same.

    Autograd computes nothing for an absent gradient. The last step has no gradient from a step after it, and a
    state that reaches the outputs only by way of another one gets its first gradient later still.
    """
    outputs, finals = _present(gradients)
    for apart in (True, False):
        vjps, settled = _until_settled(vjp, outputs, finals, apart, True)
        if settled:
            return vjps
    # states that swap places: the pattern never settles, so absent gradients count as zeros
    return [vjp(outputs, _ever(vjps, finals), False, False)]


def _present(gradients: Gradients) -> tuple[tuple[bool, ...], tuple[int, ...]]:
    return tuple(d is not None for d in gradients.outputs), tuple(map(int, gradients.finals))


def _until_settled(
    vjp: Vjp, outputs: tuple[bool, ...], pattern: tuple[int, ...], apart: bool, last: bool
) -> tuple[list[StepVjp], bool]:
    """The vjps from an end on where the states have gradients by ``pattern``, and whether the last one is for all."""
    vjps: list[StepVjp] = []
    for n in range(len(pattern) + 2):
        vjps.append(vjp(outputs, pattern, apart, last and n == 0))
        following = tuple(map(len, vjps[-1].grad_states))
        if following == pattern:
            usual = vjp(outputs, pattern, apart, False)
            return (vjps if vjps[-1] == usual else [*vjps, usual]), True
        pattern = following
    return vjps, False


def _ever(vjps: Sequence[StepVjp], finals: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(f or any(v.grad_states[j] for v in vjps)) for j, f in enumerate(finals))


def branches_from_end(step: StepGraph, vjp: Vjp, gradients: Gradients, cut: Cut | None) -> list[Branch]:
    """The vjps of all steps by how far they are from the end, or from a cut where that is nearer."""
    builder = step.builder
    if cut is None:
        *early, usual = steps_from_end(vjp, gradients)
        return [*((nth_from_end(builder, n), v) for n, v in enumerate(early)), (None, usual)]
    outputs, finals = _present(gradients)
    for apart in (True, False):
        ends, settled = _until_settled(vjp, outputs, finals, apart, True)
        uncut = tuple(map(len, ends[-1].grad_states[cut.num_states :]))
        cuts, settled_too = _until_settled(vjp, outputs, (0,) * cut.num_states + uncut, apart, False)
        if settled and settled_too and ends[-1] == cuts[-1]:
            return _nearest_first(builder, cut, ends[:-1], cuts[:-1], ends[-1])
    # no vjp is right far from every end, so absent gradients count as zeros
    usual = vjp(outputs, _ever([*ends, *cuts], finals), False, False)
    return _nearest_first(builder, cut, [usual], [_without_later(step, usual, cut)], usual)


def _nearest_first(
    builder: Builder, cut: Cut, ends: Sequence[StepVjp], cuts: Sequence[StepVjp], usual: StepVjp
) -> list[Branch]:
    """Branches whose conditions exclude each other: of several ends the nearest counts, of equals that of all."""
    found: list[Branch] = []
    earlier = builder.const(False, torch.bool)
    for n in range(max(len(ends), len(cuts))):
        at_end, at_cut = (vjps[n] if n < len(vjps) else usual for vjps in (ends, cuts))
        near = [(nth_from_end(builder, n), at_end)]
        if n < cut.every:
            near.append((_nth_from_cut(builder, n, cut.every), at_cut))
        if len(near) == 2 and at_end == at_cut:
            near = [(builder.op("logical_or", near[0][0], near[1][0], dtype=torch.bool), at_end)]
        for when, vjp in near:
            none_earlier = builder.op("logical_not", earlier, dtype=torch.bool)
            found.append((builder.op("logical_and", when, none_earlier, dtype=torch.bool), vjp))
            earlier = builder.op("logical_or", earlier, when, dtype=torch.bool)
    return [*found, (None, usual)]


def _without_later(step: StepGraph, vjp: StepVjp, cut: Cut) -> StepVjp:
    """The vjp with zeros for the gradients that come in from after a cut."""
    builder, cut_states = step.builder, step.states[: cut.num_states]
    zeros = {builder.leaf(LeafKind.STATE_COTANGENT, s.index, s.dtype): builder.const(0, s.dtype) for s in cut_states}
    return vjp.copied(Substitution(builder, zeros))


def nth_from_end(builder: Builder, n: int) -> Node:
    """The condition that a step is the last (``n = 0``), the one before (1), ..."""
    return builder.op("eq", _ahead(builder, n), builder.coordinate(LeafKind.NUM_STEPS), dtype=torch.bool)


def _nth_from_cut(builder: Builder, n: int, every: int) -> Node:
    """The same for the steps before a cut."""
    into = builder.op("remainder", _ahead(builder, n), builder.const(every, torch.int64), dtype=torch.int64)
    return builder.op("eq", into, builder.const(0, torch.int64), dtype=torch.bool)


def _ahead(builder: Builder, n: int) -> Node:
    steps = builder.const(n + 1, torch.int64)
    return builder.op("add", builder.coordinate(LeafKind.STEP_INDEX), steps, dtype=torch.int64)


def branch_at(plan: BackwardPlan, step_index: int, num_steps: int) -> BackwardStep:
    """The branch that a step takes."""
    return next(branch for branch in plan.branches if holds(branch.when, step_index, num_steps))


def holds(when: Node | None, step_index: int, num_steps: int) -> bool:
    """Whether a branch is for a step, if none before it is."""
    coordinates = {LeafKind.STEP_INDEX: step_index, LeafKind.NUM_STEPS: num_steps}

    def value(node: Node) -> Any:
        if isinstance(node.op, LeafKind):
            return node.value if node.is_const else coordinates[node.op]
        return _UNIFORM[node.op](*map(value, node.args))

    return when is None or bool(value(when))


_UNIFORM: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "remainder": operator.mod,
    "eq": operator.eq,
    "ne": operator.ne,
    "logical_and": lambda a, b: a and b,
    "logical_or": lambda a, b: a or b,
    "logical_not": operator.not_,
}


def unify_last_steps(builder: Builder, plan: BackwardPlan) -> BackwardPlan:
    """The plan with all its branches as one step that chooses by the step index where they differ."""
    *early, usual = plan.branches
    if not early:
        return plan
    unifier = Unifier(builder, [branch.when for branch in early if branch.when is not None])

    def unify(nodes: Sequence[Node | None], absent: Node) -> Node:
        """The usual node first."""
        first, *others = [absent if n is None else n for n in nodes]
        return unifier.unify(first, others)

    def or_zero(nodes: Sequence[Node | None]) -> Node:
        dtype = next(n.dtype for n in nodes if n is not None)
        return unify(nodes, builder.const(0.0, dtype))

    def or_any(nodes: Sequence[Node | None]) -> Node | None:
        """A carried gradient that is absent is not read, so anything may stand in for it."""
        present = [n for n in nodes if n is not None]
        return unify(nodes, present[0]) if present else None

    every = (usual, *early)
    slots = [slot for slot, _ in usual.stores]
    stored = [or_zero(nodes) for nodes in zip(*([n for _, n in branch.stores] for branch in every), strict=True)]
    accumulate = [or_zero(nodes) for nodes in zip(*(branch.accumulate for branch in every), strict=True)]
    grad_states = [or_any(nodes) for nodes in zip(*(branch.grad_states for branch in every), strict=True)]
    hoisted = dict.fromkeys(n for branch in plan.branches for n in branch.program.hoisted)
    loads = dict.fromkeys(load for branch in plan.branches for load in branch.loads)
    stores = tuple(zip(slots, stored, strict=True))
    step = BackwardStep(None, usual.program, tuple(loads), stores, tuple(grad_states), tuple(accumulate))
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
                if whole is not usual:
                    return self._choose(n, node, whole)
                args = tuple(unified if i == part else a for i, a in enumerate(usual.args))
                return self._choose(n, unified, self._like(usual, args))
        columns = zip(usual.args, *(e.args for e in early), strict=True)
        return self._like(usual, tuple(self.unify(u, es) for u, *es in columns))

    def _choose(self, n: int, early: Node, usual: Node) -> Node:
        return self._builder.op("where", self._when[n], early, usual, dtype=usual.dtype, line=usual.line)

    def _like(self, node: Node, args: tuple[Node, ...]) -> Node:
        assert isinstance(node.op, str)
        return self._builder.op(node.op, *args, dtype=node.dtype, line=node.line)


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
    if a.op != b.op or a.is_leaf:
        return a is b
    return all(x.dtype == y.dtype for x, y in zip(a.args, b.args, strict=True))
