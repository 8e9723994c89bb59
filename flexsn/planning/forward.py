"""The plan of the forward pass."""

from __future__ import annotations

from collections.abc import Sequence

from flexsn.ir.graph import LeafKind, Node
from flexsn.ir.plan import Carry, ForwardPlan, Holds, Role, Slot
from flexsn.ir.step import StepGraph, with_sources
from flexsn.planning.pieces import lane_loads, leaves, matrices, order
from flexsn.planning.request import ScanRequest

__all__ = ["plan_forward", "step_bytes"]


def plan_forward(
    step: StepGraph, request: ScanRequest, live: tuple[int, ...], interval: int | None, saved: Sequence[Node] = ()
) -> ForwardPlan:
    """Plan inference (``interval=None``) or the forward pass of training.

    Args:
        step: one step.
        request: the kind of call.
        live: which states are checkpointed.
        interval: ``K``.
        saved: values that the backward pass reads of every step.
    """
    results = [*step.outputs, *step.new_states, *saved]
    roots, program = with_sources(results, step.products), order(results, step.products)
    loads = [
        (Slot(Role.LOAD, request.input_dtypes[n.index], Holds.INPUT, n.index), n) for n in leaves(LeafKind.INPUT, roots)
    ]
    once = lane_loads(roots)
    stores = [
        (Slot(Role.STORE, dtype, Holds.OUTPUT, i), node)
        for i, (dtype, node) in enumerate(zip(request.output_dtypes, step.outputs, strict=True))
    ]
    stores += [(Slot(Role.STORE, n.dtype, Holds.SAVED, i), n) for i, n in enumerate(saved)]
    initial = [Slot(Role.LANE_LOAD, leaf.dtype, Holds.STATE, leaf.index) for leaf in step.states]
    final = [Slot(Role.LANE_STORE, leaf.dtype, Holds.FINAL_STATE, leaf.index) for leaf in step.states]
    checkpoints = [
        (Slot(Role.CHECKPOINT_STORE, step.states[j].dtype, Holds.CHECKPOINT, j), step.states[j]) for j in live
    ]
    slots = [
        *(s for s, _ in (*loads, *once)),
        *matrices([program]),
        *initial,
        *(s for s, _ in stores),
        *final,
        *(s for s, _ in checkpoints),
    ]
    return ForwardPlan(
        slots=tuple(slots),
        loads=tuple(loads),
        lane_loads=tuple(once),
        program=program,
        carries=tuple(map(Carry, step.states, step.new_states, initial, final)),
        stores=tuple(stores),
        checkpoints=tuple(checkpoints),
        interval=interval,
        unroll=1 if step.products else max(u for u in (1, 2, 4) if (interval or 4) % u == 0),
    )


def step_bytes(step: StepGraph, request: ScanRequest, live: tuple[int, ...]) -> int:
    """Bytes of checkpointed states and inputs per lane and step."""
    return sum(step.states[j].dtype.itemsize for j in live) + sum(d.itemsize for d in request.input_dtypes)
