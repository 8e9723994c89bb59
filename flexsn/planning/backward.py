"""The plan of the backward pass, a branch per distance from the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from flexsn.ir.graph import Builder, LeafKind, Node
from flexsn.ir.plan import BackwardPlan, BackwardStep, Carry, Holds, Role, Slot
from flexsn.ir.step import StepGraph, StepVjp, with_sources
from flexsn.planning.boundary import Branch
from flexsn.planning.fused import Column, place_outers
from flexsn.planning.liveness import live_states
from flexsn.planning.pieces import lane_loads, leaves, matrices, order
from flexsn.planning.request import Gradients, ScanRequest

__all__ = ["plan_backward", "share_accumulators"]


def plan_backward(
    step: StepGraph, branches_from_end: Sequence[Branch], request: ScanRequest, gradients: Gradients, interval: int
) -> BackwardPlan:
    """Plan the backward pass.

    Args:
        step: one step.
        branches_from_end: vjps, and of which steps; the last one is for all others.
        request: the kind of call.
        gradients: which come in and which are wanted.
        interval: ``K``.
    """
    vjps = [vjp for _, vjp in branches_from_end]
    grads = {
        i: Slot(Role.STORE, dtype, Holds.GRAD_INPUT, i)
        for i, dtype in enumerate(request.input_dtypes)
        if any(v.grad_inputs[i] is not None for v in vjps)
    }
    written: dict[Slot, Column] = {slot: tuple(v.grad_inputs[i] for v in vjps) for i, slot in grads.items()}
    groups, group_of = share_accumulators(vjps)
    outers = place_outers(step, request, groups, list(zip(vjps, group_of, strict=True)), written)
    computed = [_computed(vjp, [column[n] for column in written.values()]) for n, vjp in enumerate(vjps)]
    roots = [n for nodes in computed for n in nodes]
    live = () if step.products else live_states(step, vjps)
    states, next_states = [step.states[j] for j in live], [step.new_states[j] for j in live]
    loads = _loads([*roots, *next_states], request, gradients)
    once = lane_loads([*roots, *next_states])
    carries = _gradient_carries(step, vjps, roots, gradients)
    finals = [
        (Slot(Role.LANE_STORE, s.dtype, Holds.GRAD_STATE, s.index), _sum(step.builder, _of_state(carries, s.index)))
        for s in step.states
        if gradients.states[s.index]
    ]
    in_groups = not step.products  # whose blocks are whole samples, of any number of lanes
    accumulators = [
        Slot(
            Role.GROUP_STORE if r.one_for_all and in_groups else Role.LANE_STORE,
            *(r.node.dtype, Holds.ACCUMULATOR, i),
        )
        for i, r in enumerate(r for _, vjp in groups for r in vjp.reductions)
    ]
    initial = [Slot(Role.LANE_LOAD, s.dtype, Holds.STATE, s.index) for s in states]
    checkpoints = [Slot(Role.CHECKPOINT_LOAD, s.dtype, Holds.CHECKPOINT, s.index) for s in states]
    used_up = [leaf for leaf in leaves(LeafKind.STATE_COTANGENT, computed[-1]) if not vjps[-1].grad_states[leaf.index]]
    branches = [
        BackwardStep(
            when=when,
            program=order(nodes, vjp.products),
            loads=_read(loads, nodes),
            stores=tuple((slot, column[number]) for slot, column in written.items()),
            grad_states=_next_gradients(step.builder, vjp, carries, used_up),
            accumulate=_place(vjp, groups[group][0], len(accumulators)),
        )
        for number, ((when, vjp), group, nodes) in enumerate(zip(branches_from_end, group_of, computed, strict=True))
    ]
    slots = [*loads.values(), *(s for s, _ in once), *matrices(b.program for b in branches), *initial, *checkpoints]
    slots += [c.initial for c in carries if c.initial] + list(written)
    slots += [slot for slot, _ in finals] + accumulators
    return BackwardPlan(
        slots=tuple(slots),
        lane_loads=tuple(once),
        interval=interval,
        states=tuple(states),
        advance=order(next_states),
        advance_loads=_read(loads, next_states),
        next_states=tuple(next_states),
        initial=tuple(initial),
        checkpoints=tuple(checkpoints),
        branches=tuple(branches),
        carries=tuple(carries),
        finals=tuple(finals),
        accumulators=tuple(accumulators),
        groups=groups,
        step=branches[-1],
        outers=outers,
    )


def _loads(roots: Iterable[Node], request: ScanRequest, gradients: Gradients) -> dict[Node, Slot]:
    """The slot of every input, cotangent and saved value that is read."""
    roots = list(roots)
    found = {
        n: Slot(Role.LOAD, request.input_dtypes[n.index], Holds.INPUT, n.index) for n in leaves(LeafKind.INPUT, roots)
    }
    for n in leaves(LeafKind.COTANGENT, roots):
        found[n] = Slot(Role.LOAD, gradients.outputs[n.index] or n.dtype, Holds.COTANGENT, n.index)
    for n in leaves(LeafKind.SAVED, roots):
        found[n] = Slot(Role.LOAD, n.dtype, Holds.SAVED, n.index)
    return found


def _computed(vjp: StepVjp, written: Iterable[Node | None]) -> list[Node]:
    """What a branch computes: what it writes, sums and hands on, and the sources of its products."""
    results = [*replace(vjp, outers=()).results, *(n for n in written if n is not None)]
    return with_sources(results, vjp.products)


def _read(loads: dict[Node, Slot], roots: Iterable[Node]) -> tuple[tuple[Slot, Node], ...]:
    """Those of the loads that the roots depend on."""
    roots = list(roots)
    read = [n for kind in (LeafKind.INPUT, LeafKind.COTANGENT, LeafKind.SAVED) for n in leaves(kind, roots)]
    return tuple((loads[n], n) for n in read)


# ---- gradients of states ------------------------------------------------------------------------------------


def _gradient_carries(
    step: StepGraph, vjps: Sequence[StepVjp], roots: Sequence[Node], gradients: Gradients
) -> list[Carry]:
    """The gradients of states that go from step to step: as many for a state as a step gives it."""
    read = set(leaves(LeafKind.STATE_COTANGENT, roots))
    carries = []
    for j, state in enumerate(step.states):
        for part in range(max(len(v.grad_states[j]) for v in vjps) or 1):
            leaf = step.builder.leaf(LeafKind.STATE_COTANGENT, j, state.dtype, part)
            if leaf in read or gradients.states[j]:
                final = Slot(Role.LANE_LOAD, state.dtype, Holds.FINAL_COTANGENT, j)
                carries.append(Carry(leaf, None, final if gradients.finals[j] and part == 0 else None, None))
    return carries


def _of_state(carries: Iterable[Carry], state: int) -> list[Node]:
    """The leaves of one state's carries, in the order its gradient is added up."""
    return [c.leaf for c in carries if c.leaf.index == state]


def _sum(builder: Builder, nodes: Sequence[Node]) -> Node:
    total = nodes[0]
    for node in nodes[1:]:
        total = builder.op("add", total, node, dtype=node.dtype)
    return total


def _next_gradients(
    builder: Builder, vjp: StepVjp, carries: Sequence[Carry], used_up: Sequence[Node]
) -> tuple[Node | None, ...]:
    """What each carry becomes; -0.0 adds nothing where a state has more summands at other steps.

    Where it is ``used_up``, every step reads it, absent or not, and none hands it on: it is zero from then on.
    """
    found: list[Node | None] = []
    for carry in carries:
        summands, part = vjp.grad_states[carry.leaf.index], carry.leaf.part
        nothing = builder.const(-0.0, carry.leaf.dtype) if summands or carry.leaf in used_up else None
        found.append(summands[part] if part < len(summands) else nothing)
    return tuple(found)


# ---- gradients of parameters --------------------------------------------------------------------------------


def share_accumulators(vjps: Sequence[StepVjp]) -> tuple[tuple[tuple[int, StepVjp], ...], list[int]]:
    """Share accumulators between vjps whose parameter gradients are the same function of them.

    Returns:
        ``(first accumulator, vjp)`` per group, and which group every vjp is of.
    """

    def signature(vjp: StepVjp) -> object:
        sums = [(r.base, r.shape, r.node.dtype) for r in vjp.reductions]
        return vjp.grad_captured, sums, [outer.call for outer in vjp.outers]

    groups: list[tuple[int, StepVjp]] = []
    group_of = []
    size = 0
    for vjp in reversed(vjps):
        mine = next((i for i, (_, other) in enumerate(groups) if signature(other) == signature(vjp)), len(groups))
        if mine == len(groups):
            groups.append((size, vjp))
            size += len(vjp.reductions)
        group_of.append(mine)
    return tuple(groups), group_of[::-1]


def _place(vjp: StepVjp, first: int, total: int) -> tuple[Node | None, ...]:
    nodes: list[Node | None] = [None] * total
    nodes[first : first + len(vjp.reductions)] = [r.node for r in vjp.reductions]
    return tuple(nodes)
