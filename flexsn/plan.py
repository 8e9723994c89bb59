"""ScanPlan: the loop over time, decided once for every backend.

What is loaded, carried, stored, hoisted and checkpointed is settled here; printers only spell it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

import torch

from flexsn.graph import Node, topological
from flexsn.trace import StepGraph, StepVjp

__all__ = ["BackwardPlan", "Carry", "ForwardPlan", "Role", "Slot", "Variant", "live_states", "plan_backward", "plan_forward"]


class Role(Enum):
    """How a kernel touches a tensor."""

    LOAD = "load"  # one value per lane and step, read
    STORE = "store"  # one value per lane and step, written
    LANE_LOAD = "lane_load"  # one value per lane, read once
    LANE_STORE = "lane_store"  # one value per lane, written once
    CHECKPOINT_LOAD = "checkpoint_load"  # one value per lane and K steps, read
    CHECKPOINT_STORE = "checkpoint_store"  # one value per lane and K steps, written

    @property
    def per_step(self) -> bool:
        return self in (Role.LOAD, Role.STORE)

    @property
    def writes(self) -> bool:
        return self in (Role.STORE, Role.LANE_STORE, Role.CHECKPOINT_STORE)


@dataclass(frozen=True)
class Slot:
    """A tensor the kernel touches.

    Attributes:
        name: its name in the generated source.
        role: how it is touched.
        dtype: in memory; values are cast to and from the dtype the step computes in.
        kind: what it stands for (``"input"``, ``"output"``, ``"state"``, ``"operand"``, ...).
        index: which one.
    """

    name: str
    role: Role
    dtype: torch.dtype
    kind: str
    index: int


@dataclass(frozen=True)
class Carry:
    """A value per lane that goes from step to step."""

    leaf: Node
    next: Node | None
    initial: Slot | None
    final: Slot | None


@dataclass(frozen=True)
class Program:
    """Nodes in order, split into what runs once per lane and what runs every step."""

    hoisted: tuple[Node, ...]
    body: tuple[Node, ...]


@dataclass(frozen=True)
class ForwardPlan:
    """The loop ``for t: outputs[t], states = step(inputs[t], states)``.

    Attributes:
        slots: every tensor touched, in the order the kernel takes them.
        loads: ``(slot, leaf)`` read at every step.
        lane_loads: ``(slot, leaf)`` read before the loop.
        program: what is computed.
        carries: one per state.
        stores: ``(slot, node)`` written at every step.
        checkpoints: ``(slot, state leaf)`` written before steps ``K, 2K, ...``.
        checkpoint: ``K``, or ``None`` where nothing is kept (inference).
        unroll: steps whose loads may be in flight together; divides ``K``.
    """

    slots: tuple[Slot, ...]
    loads: tuple[tuple[Slot, Node], ...]
    lane_loads: tuple[tuple[Slot, Node], ...]
    program: Program
    carries: tuple[Carry, ...]
    stores: tuple[tuple[Slot, Node], ...]
    checkpoints: tuple[tuple[Slot, Node], ...] = ()
    checkpoint: int | None = None
    unroll: int = 1

    kind = "forward"

    @property
    def bytes_per_lane_step(self) -> float:
        """Memory traffic of one step of one lane, once-per-call tensors left out."""
        return _traffic(self.slots, self.checkpoint)


@dataclass(frozen=True)
class Variant:
    """One step backward for one pattern of incoming state gradients.

    Attributes:
        program: everything this step computes, the recomputed forward values included.
        loads: ``(slot, leaf)`` read.
        stores: ``(slot, node)`` of input gradients; ``None`` stores zero.
        grad_states: the new value of each carried gradient, ``None`` where it vanishes.
        accumulate: per accumulator, what this step adds.
    """

    program: Program
    loads: tuple[tuple[Slot, Node], ...]
    stores: tuple[tuple[Slot, Node | None], ...]
    grad_states: tuple[Node | None, ...]
    accumulate: tuple[Node | None, ...]


@dataclass(frozen=True)
class BackwardPlan:
    """The loop backwards: recompute up to ``K`` states from a checkpoint, then walk back through them.

    Attributes:
        slots, lane_loads: as for :class:`ForwardPlan`.
        checkpoint: ``K``.
        states: leaves of the states that must be known at every step.
        recompute: advances those states by one step; its loads are ``recompute_loads``.
        next_states: per state, its value one step on.
        initial: per state, the slot of its value before the first step.
        checkpoints: per state, the slot of its value before steps ``K, 2K, ...``.
        variants: ``variants[age]`` for the ``age``-th step from the end; the last one for all others.
        carries: the gradients that go from step to step.
        accumulators: what is summed over time per lane.
        groups: ``(first accumulator, vjp)``: which accumulators feed the parameter gradients of which vjp.
    """

    slots: tuple[Slot, ...]
    lane_loads: tuple[tuple[Slot, Node], ...]
    checkpoint: int
    states: tuple[Node, ...]
    recompute: Program
    recompute_loads: tuple[tuple[Slot, Node], ...]
    next_states: tuple[Node, ...]
    initial: tuple[Slot, ...]
    checkpoints: tuple[Slot, ...]
    variants: tuple[Variant, ...]
    carries: tuple[Carry, ...]
    accumulators: tuple[Slot, ...]
    groups: tuple[tuple[int, StepVjp], ...]

    kind = "backward"

    @property
    def bytes_per_lane_step(self) -> float:
        """Memory traffic of one step of one lane, once-per-call tensors left out."""
        return _traffic(self.slots, self.checkpoint)


def _traffic(slots: Iterable[Slot], checkpoint: int | None) -> float:
    total = 0.0
    for slot in slots:
        if slot.role.per_step:
            total += slot.dtype.itemsize
        elif slot.role in (Role.CHECKPOINT_LOAD, Role.CHECKPOINT_STORE) and checkpoint:
            total += slot.dtype.itemsize / checkpoint
    return total


def _split(roots: Iterable[Node], known: Iterable[Node] = ()) -> Program:
    """Order what the roots need; what depends on operands alone is hoisted out of the loop over time."""
    order = topological(roots)
    varying: set[int] = set()
    for node in order:
        if node.op in ("input", "state", "cotangent", "state_cotangent") or any(id(a) in varying for a in node.args):
            varying.add(id(node))
    computed = [n for n in order if not n.is_leaf]
    return Program(
        tuple(n for n in computed if id(n) not in varying), tuple(n for n in computed if id(n) in varying)
    )


def _leaves(kind: str, roots: Iterable[Node]) -> list[Node]:
    return sorted((n for n in topological(roots) if n.op == kind), key=lambda n: n.index)


def plan_forward(
    graph: StepGraph,
    input_dtypes: Sequence[torch.dtype],
    output_dtypes: Sequence[torch.dtype],
    checkpoint: int | None = None,
    kept_states: Sequence[int] = (),
) -> ForwardPlan:
    """Plan inference (``checkpoint=None``) or the forward pass of training.

    Args:
        graph: the step.
        input_dtypes, output_dtypes: in memory.
        checkpoint: ``K``.
        kept_states: which states are checkpointed.
    """
    outputs = list(zip(output_dtypes, graph.outputs, strict=True))
    roots = [*(n for _, n in outputs), *graph.new_states]
    loads = [(_slot("x", Role.LOAD, input_dtypes[n.index], "input", n.index), n) for n in _leaves("input", roots)]
    lane_loads = [
        (_slot("p", Role.LANE_LOAD, n.dtype, "operand", n.index), n)
        for n in _leaves("operand", roots)
    ]
    stores = [(_slot("y", Role.STORE, d, "output", i), n) for i, (d, n) in enumerate(outputs)]
    carries = [
        Carry(
            leaf,
            new,
            _slot("v", Role.LANE_LOAD, leaf.dtype, "state", j),
            _slot("v_final", Role.LANE_STORE, leaf.dtype, "final", j),
        )
        for j, (leaf, new) in enumerate(zip(graph.states, graph.new_states, strict=True))
    ]
    checkpoints = (
        [(_slot("c", Role.CHECKPOINT_STORE, graph.states[j].dtype, "checkpoint", j), graph.states[j]) for j in kept_states]
        if checkpoint
        else []
    )
    slots = [s for s, _ in (*loads, *lane_loads)]
    slots += [c.initial for c in carries if c.initial] + [s for s, _ in stores]
    slots += [c.final for c in carries if c.final] + [s for s, _ in checkpoints]
    return ForwardPlan(
        tuple(slots),
        tuple(loads),
        tuple(lane_loads),
        _split(roots),
        tuple(carries),
        tuple(stores),
        tuple(checkpoints),
        checkpoint,
        max(u for u in (1, 2, 4, 8) if (checkpoint or 8) % u == 0),
    )


def live_states(graph: StepGraph, vjps: Sequence[StepVjp]) -> list[int]:
    """The states whose values the backward pass reads, and those these are computed from."""
    needed: list[int] = []
    pending = [n.index for vjp in vjps for n in _leaves("state", _roots(vjp))]
    while pending:
        j = pending.pop()
        if j not in needed:
            needed.append(j)
            pending.extend(n.index for n in _leaves("state", [graph.new_states[j]]))
    return sorted(needed)


def _roots(vjp: StepVjp) -> list[Node]:
    nodes = [*vjp.grad_inputs, *vjp.grad_states, *(r.node for r in vjp.reductions)]
    return [n for n in nodes if n is not None]


def plan_backward(
    graph: StepGraph,
    vjps: Sequence[StepVjp],
    input_dtypes: Sequence[torch.dtype],
    cotangent_dtypes: Sequence[torch.dtype],
    state_grads: Sequence[bool],
    wanted_inputs: Sequence[bool],
    wanted_states: Sequence[bool],
    checkpoint: int,
) -> BackwardPlan:
    """Plan the backward pass.

    Args:
        graph: the step.
        vjps: one per age (steps from the end), the last for all older steps; their reductions are aligned.
        input_dtypes, cotangent_dtypes: in memory.
        state_grads: which final states have an incoming gradient.
        wanted_inputs, wanted_states: which gradients to write.
        checkpoint: ``K``.
    """
    roots = [n for vjp in vjps for n in _roots(_wanted(vjp, wanted_inputs))]
    kept = live_states(graph, [_wanted(v, wanted_inputs) for v in vjps])
    states = [graph.states[j] for j in kept]
    next_states = [graph.new_states[j] for j in kept]
    everything = [*roots, *next_states]
    inputs = {
        n.index: _slot("x", Role.LOAD, input_dtypes[n.index], "input", n.index) for n in _leaves("input", everything)
    }
    cotangents = {
        n.index: _slot("gy", Role.LOAD, cotangent_dtypes[n.index], "cotangent", n.index)
        for n in _leaves("cotangent", roots)
    }
    lane_loads = [
        (_slot("p", Role.LANE_LOAD, n.dtype, "operand", n.index), n)
        for n in _leaves("operand", everything)
    ]
    grads = {
        i: _slot("gx", Role.STORE, input_dtypes[i], "grad_input", i)
        for i, wanted in enumerate(wanted_inputs)
        if wanted and any(v.grad_inputs[i] is not None for v in vjps)
    }
    carried = [
        j
        for j in range(len(graph.states))
        if state_grads[j] or any(v.grad_states[j] is not None for v in vjps)
    ]
    carries = []
    for j in carried:
        leaf = graph.states[j]
        initial = _slot("gv_final", Role.LANE_LOAD, leaf.dtype, "grad_final", j) if state_grads[j] else None
        final = _slot("gv", Role.LANE_STORE, leaf.dtype, "grad_state", j) if wanted_states[j] else None
        cotangent = next(
            (n for n in _leaves("state_cotangent", roots) if n.index == j),
            Node("state_cotangent", (), leaf.dtype, None, j),
        )
        carries.append(Carry(cotangent, None, initial, final))
    groups, group_of = _group(vjps)
    reductions = [r for _, vjp in groups for r in vjp.reductions]
    accumulators = tuple(
        _slot("acc", Role.LANE_STORE, r.node.dtype, "accumulator", i) for i, r in enumerate(reductions)
    )
    initial = tuple(_slot("v", Role.LANE_LOAD, s.dtype, "state", s.index) for s in states)
    checkpoints = tuple(_slot("c", Role.CHECKPOINT_LOAD, s.dtype, "checkpoint", s.index) for s in states)
    variants = []
    for vjp, (first, _) in zip(vjps, group_of, strict=True):
        mine = _roots(_wanted(vjp, wanted_inputs))
        loads = [(inputs[n.index], n) for n in _leaves("input", mine)]
        loads += [(cotangents[n.index], n) for n in _leaves("cotangent", mine)]
        variants.append(
            Variant(
                _split(mine),
                tuple(loads),
                tuple((slot, vjp.grad_inputs[i]) for i, slot in grads.items()),
                tuple(vjp.grad_states[j] for j in carried),
                _place(vjp, first, len(accumulators)),
            )
        )
    slots = [*inputs.values(), *cotangents.values(), *(s for s, _ in lane_loads), *initial, *checkpoints]
    slots += [c.initial for c in carries if c.initial] + list(grads.values())
    slots += [c.final for c in carries if c.final] + list(accumulators)
    return BackwardPlan(
        tuple(slots),
        tuple(lane_loads),
        checkpoint,
        tuple(states),
        _split(next_states),
        tuple((inputs[n.index], n) for n in _leaves("input", next_states)),
        tuple(next_states),
        initial,
        checkpoints,
        tuple(variants),
        tuple(carries),
        accumulators,
        groups,
    )


def _group(
    vjps: Sequence[StepVjp],
) -> tuple[tuple[tuple[int, StepVjp], ...], list[tuple[int, StepVjp]]]:
    """Share accumulators between vjps whose parameter gradients are the same function of them."""
    groups: list[tuple[int, StepVjp]] = []
    group_of = []
    size = 0
    for vjp in reversed(vjps):
        for group in groups:
            same = [(r.base, r.shape, r.node.dtype) for r in vjp.reductions]
            if vjp.grad_captured == group[1].grad_captured and same == [
                (r.base, r.shape, r.node.dtype) for r in group[1].reductions
            ]:
                break
        else:
            group = (size, vjp)
            groups.append(group)
            size += len(vjp.reductions)
        group_of.append(group)
    return tuple(groups), group_of[::-1]


def _place(vjp: StepVjp, first: int, total: int) -> tuple[Node | None, ...]:
    nodes: list[Node | None] = [None] * total
    nodes[first : first + len(vjp.reductions)] = [r.node for r in vjp.reductions]
    return tuple(nodes)


def _wanted(vjp: StepVjp, wanted_inputs: Sequence[bool]) -> StepVjp:
    grads = tuple(g if w else None for g, w in zip(vjp.grad_inputs, wanted_inputs, strict=True))
    return StepVjp(grads, vjp.grad_states, vjp.reductions, vjp.grad_captured, vjp.blocked)


def _slot(prefix: str, role: Role, dtype: torch.dtype, kind: str, index: int) -> Slot:
    return Slot(f"{prefix}{index}", role, dtype, kind, index)
