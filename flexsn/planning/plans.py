"""Plan: a step graph and its vjps become a scan plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache, lru_cache

import torch

from flexsn.ir.graph import Node, topological
from flexsn.ir.plan import BackwardPlan, Carry, ForwardPlan, Program, Role, Slot, Variant
from flexsn.ir.step import StepGraph, StepVjp

__all__ = [
    "BackwardPlan",
    "Carry",
    "ForwardPlan",
    "Program",
    "Role",
    "Slot",
    "Variant",
    "keep_wanted",
    "live_states",
    "plan_backward",
    "plan_forward",
]


@lru_cache(maxsize=1024)
def plan_forward(
    graph: StepGraph,
    input_dtypes: tuple[torch.dtype, ...],
    output_dtypes: tuple[torch.dtype, ...],
    checkpoint: int | None = None,
    kept_states: tuple[int, ...] = (),
) -> ForwardPlan:
    """Plan inference (``checkpoint=None``) or the forward pass of training.

    Args:
        graph: the step.
        input_dtypes, output_dtypes: in memory.
        checkpoint: ``K``.
        kept_states: which states are checkpointed.
    """
    roots = [*graph.outputs, *graph.new_states]
    loads = [(_slot("x", Role.LOAD, input_dtypes[n.index], "input", n.index), n) for n in _leaves("input", roots)]
    lane_loads = _operands(roots)
    stores = [
        (_slot("y", Role.STORE, dtype, "output", i), node)
        for i, (dtype, node) in enumerate(zip(output_dtypes, graph.outputs, strict=True))
    ]
    carries = [
        Carry(
            leaf,
            new,
            _slot("v", Role.LANE_LOAD, leaf.dtype, "state", leaf.index),
            _slot("v_final", Role.LANE_STORE, leaf.dtype, "final", leaf.index),
        )
        for leaf, new in zip(graph.states, graph.new_states, strict=True)
    ]
    kept = [graph.states[j] for j in kept_states if checkpoint]
    checkpoints = [(_slot("c", Role.CHECKPOINT_STORE, s.dtype, "checkpoint", s.index), s) for s in kept]
    slots = [s for s, _ in (*loads, *lane_loads)] + [c.initial for c in carries if c.initial]
    slots += [s for s, _ in stores] + [c.final for c in carries if c.final] + [s for s, _ in checkpoints]
    return ForwardPlan(
        tuple(slots),
        tuple(loads),
        tuple(lane_loads),
        _program(roots),
        tuple(carries),
        tuple(stores),
        tuple(checkpoints),
        checkpoint,
        max(u for u in (1, 2, 4) if (checkpoint or 4) % u == 0),
    )


@lru_cache(maxsize=1024)
def plan_backward(
    graph: StepGraph,
    vjps: tuple[StepVjp, ...],
    input_dtypes: tuple[torch.dtype, ...],
    cotangent_dtypes: tuple[torch.dtype, ...],
    state_grads: tuple[bool, ...],
    wanted_states: tuple[bool, ...],
    checkpoint: int,
) -> BackwardPlan:
    """Plan the backward pass.

    Args:
        graph: the step.
        vjps: one per age (steps from the end), the last for all older steps; see :func:`keep_wanted`.
        input_dtypes, cotangent_dtypes: in memory.
        state_grads: which final states have an incoming gradient.
        wanted_states: which initial states' gradients to write.
        checkpoint: ``K``.
    """
    roots = [n for vjp in vjps for n in _roots(vjp)]
    kept = live_states(graph, vjps)
    states, next_states = [graph.states[j] for j in kept], [graph.new_states[j] for j in kept]
    everything = [*roots, *next_states]
    inputs = {
        n.index: _slot("x", Role.LOAD, input_dtypes[n.index], "input", n.index) for n in _leaves("input", everything)
    }
    cotangents = {
        n.index: _slot("gy", Role.LOAD, cotangent_dtypes[n.index], "cotangent", n.index)
        for n in _leaves("cotangent", roots)
    }
    lane_loads = _operands(everything)
    grads = {
        i: _slot("gx", Role.STORE, dtype, "grad_input", i)
        for i, dtype in enumerate(input_dtypes)
        if any(v.grad_inputs[i] is not None for v in vjps)
    }
    carries = _gradient_carries(graph, vjps, state_grads, wanted_states)
    finals = [
        (_slot("gv", Role.LANE_STORE, s.dtype, "grad_state", s.index), _sum(_of_state(graph, carries, s.index)))
        for s in graph.states
        if wanted_states[s.index]
    ]
    groups, group_of = _group(vjps)
    accumulators = [
        _slot("acc", Role.GROUP_STORE if r.one_for_all else Role.LANE_STORE, r.node.dtype, "accumulator", i)
        for i, r in enumerate(r for _, vjp in groups for r in vjp.reductions)
    ]
    initial = [_slot("v", Role.LANE_LOAD, s.dtype, "state", s.index) for s in states]
    checkpoints = [_slot("c", Role.CHECKPOINT_LOAD, s.dtype, "checkpoint", s.index) for s in states]
    variants = [
        Variant(
            _program(mine := _roots(vjp)),
            tuple(
                [(inputs[n.index], n) for n in _leaves("input", mine)]
                + [(cotangents[n.index], n) for n in _leaves("cotangent", mine)]
            ),
            tuple((slot, vjp.grad_inputs[i]) for i, slot in grads.items()),
            _next_gradients(graph, vjp, carries),
            _place(vjp, first, len(accumulators)),
        )
        for vjp, (first, _) in zip(vjps, group_of, strict=True)
    ]
    slots = [*inputs.values(), *cotangents.values(), *(s for s, _ in lane_loads), *initial, *checkpoints]
    slots += [c.initial for c in carries if c.initial] + list(grads.values())
    slots += [slot for slot, _ in finals] + accumulators
    return BackwardPlan(
        tuple(slots),
        tuple(lane_loads),
        checkpoint,
        tuple(states),
        _program(next_states),
        tuple((inputs[n.index], n) for n in _leaves("input", next_states)),
        tuple(next_states),
        tuple(initial),
        tuple(checkpoints),
        tuple(variants),
        tuple(carries),
        tuple(finals),
        tuple(accumulators),
        groups,
    )


def live_states(graph: StepGraph, vjps: Sequence[StepVjp]) -> list[int]:
    """The states whose values the backward pass reads, and those these are computed from."""
    read = [n.index for vjp in vjps for n in _leaves("state", _roots(vjp))]
    return _closure(read, lambda j: [n.index for n in _leaves("state", [graph.new_states[j]])])


def keep_wanted(
    vjps: Sequence[StepVjp], inputs: Sequence[bool], states: Sequence[bool], captured: bool
) -> tuple[StepVjp, ...]:
    """Drop what no wanted gradient needs: absent gradients cost nothing, nor do state gradients nobody reads.

    Args:
        vjps: one per age.
        inputs, states: which gradients of inputs and initial states are wanted.
        captured: whether any gradient of a captured tensor is.
    """
    trimmed = [
        replace(
            vjp,
            grad_inputs=tuple(g if wanted else None for g, wanted in zip(vjp.grad_inputs, inputs, strict=True)),
            reductions=vjp.reductions if captured else (),
            grad_captured=vjp.grad_captured if captured else (None,) * len(vjp.grad_captured),
        )
        for vjp in vjps
    ]

    def cotangents(nodes: Iterable[Node | None]) -> list[int]:
        found = _leaves("state_cotangent", [n for n in nodes if n is not None])
        return [n.index % len(states) for n in found]

    read = [j for j, wanted in enumerate(states) if wanted]
    read += [j for v in trimmed for j in cotangents([*v.grad_inputs, *(r.node for r in v.reductions)])]
    needed = _closure(read, lambda j: cotangents(n for v in trimmed for n in v.grad_states[j]))
    return tuple(
        replace(v, grad_states=tuple(g if j in needed else () for j, g in enumerate(v.grad_states))) for v in trimmed
    )


# ---- pieces --------------------------------------------------------------------------------------------------


def _program(roots: Iterable[Node]) -> Program:
    """Order what the roots need; what depends on operands alone is hoisted out of the loop over time."""
    order = topological(roots)
    varying: set[int] = set()
    for node in order:
        if node.op in ("input", "state", "cotangent", "state_cotangent") or any(id(a) in varying for a in node.args):
            varying.add(id(node))
    computed = [n for n in order if not n.is_leaf]
    return Program(tuple(n for n in computed if id(n) not in varying), tuple(n for n in computed if id(n) in varying))


def _gradient_carries(
    graph: StepGraph, vjps: Sequence[StepVjp], state_grads: Sequence[bool], wanted_states: Sequence[bool]
) -> list[Carry]:
    """The gradients of states that go from step to step: as many for a state as a step gives it."""
    read = {n.index: n for vjp in vjps for n in _leaves("state_cotangent", _roots(vjp))}
    carries = []
    for j, state in enumerate(graph.states):
        for i in range(max(len(v.grad_states[j]) for v in vjps) or 1):
            index = j + i * len(graph.states)
            if index in read or wanted_states[j]:
                leaf = read.get(index) or Node("state_cotangent", (), state.dtype, None, index)
                given = state_grads[j] and i == 0
                initial = _slot("gv_final", Role.LANE_LOAD, state.dtype, "grad_final", j) if given else None
                carries.append(Carry(leaf, None, initial, None))
    return carries


def _of_state(graph: StepGraph, carries: Iterable[Carry], state: int) -> list[Node]:
    """The leaves of one state's carries, in the order its gradient is added up."""
    return [c.leaf for c in carries if c.leaf.index % len(graph.states) == state]


def _sum(nodes: Sequence[Node]) -> Node:
    total = nodes[0]
    for node in nodes[1:]:
        total = Node("add", (total, node), node.dtype)
    return total


def _next_gradients(graph: StepGraph, vjp: StepVjp, carries: Sequence[Carry]) -> tuple[Node | None, ...]:
    """What each carry becomes; -0.0 adds nothing where others of the state have more summands."""
    found = []
    for carry in carries:
        i, j = divmod(carry.leaf.index, len(graph.states))
        summands = vjp.grad_states[j]
        alone = len(_of_state(graph, carries, j)) == 1
        found.append(summands[i] if i < len(summands) else None if alone else _nothing(carry.leaf.dtype))
    return tuple(found)


@cache
def _nothing(dtype: torch.dtype) -> Node:
    return Node("const", (), dtype, -0.0)


def _group(vjps: Sequence[StepVjp]) -> tuple[tuple[tuple[int, StepVjp], ...], list[tuple[int, StepVjp]]]:
    """Share accumulators between vjps whose parameter gradients are the same function of them."""

    def signature(vjp: StepVjp) -> object:
        return vjp.grad_captured, [(r.base, r.shape, r.node.dtype) for r in vjp.reductions]

    groups: list[tuple[int, StepVjp]] = []
    group_of = []
    size = 0
    for vjp in reversed(vjps):
        mine = next((g for g in groups if signature(g[1]) == signature(vjp)), None)
        if mine is None:
            mine = (size, vjp)
            groups.append(mine)
            size += len(vjp.reductions)
        group_of.append(mine)
    return tuple(groups), group_of[::-1]


def _place(vjp: StepVjp, first: int, total: int) -> tuple[Node | None, ...]:
    nodes: list[Node | None] = [None] * total
    nodes[first : first + len(vjp.reductions)] = [r.node for r in vjp.reductions]
    return tuple(nodes)


def _roots(vjp: StepVjp) -> list[Node]:
    nodes = [*vjp.grad_inputs, *(n for g in vjp.grad_states for n in g), *(r.node for r in vjp.reductions)]
    return [n for n in nodes if n is not None]


def _leaves(kind: str, roots: Iterable[Node]) -> list[Node]:
    return sorted((n for n in topological(roots) if n.op == kind), key=lambda n: n.index)


def _operands(roots: Iterable[Node]) -> list[tuple[Slot, Node]]:
    return [(_slot("p", Role.LANE_LOAD, n.dtype, "operand", n.index), n) for n in _leaves("operand", roots)]


def _closure(start: Iterable[int], follow: Callable[[int], Iterable[int]]) -> list[int]:
    found: set[int] = set()
    pending = list(start)
    while pending:
        j = pending.pop()
        if j not in found:
            found.add(j)
            pending.extend(follow(j))
    return sorted(found)


def _slot(prefix: str, role: Role, dtype: torch.dtype, kind: str, index: int) -> Slot:
    return Slot(f"{prefix}{index}", role, dtype, kind, index)
