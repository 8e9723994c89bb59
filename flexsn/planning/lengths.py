"""Samples of different lengths: from its own last step on, a sample gives zeros and keeps its states.

A step past the end is computed, and nothing of it is used: values and gradients are chosen by ``where``, never
multiplied by zero, so that padding may be NaN.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from flexsn.ir.graph import Builder, LeafKind, Node
from flexsn.ir.step import StepGraph, StepVjp
from flexsn.ir.substitute import Substitution
from flexsn.planning.request import Vjp

__all__ = ["with_lengths"]


def with_lengths(step: StepGraph, vjp: Vjp, wanted: tuple[int, ...]) -> tuple[StepGraph, Vjp]:
    """The step that samples of different lengths take.

    Args:
        step, vjp: of a sample that goes on.
        wanted: the states whose sequences are the step's last outputs: they stay as they are, too.
    """
    builder = step.builder
    alive = _alive(builder)
    num_outputs = len(step.outputs) - len(wanted)

    def choose(live: Node, ended: Node | None) -> Node:
        other = builder.const(0, live.dtype) if ended is None else ended
        return builder.op("where", alive, live, other, dtype=live.dtype)

    new_states = tuple(map(choose, step.new_states, step.states))
    outputs = (*(choose(y, None) for y in step.outputs[:num_outputs]), *(new_states[j] for j in wanted))

    def vjp_of_ended(outputs: tuple[bool, ...], states: tuple[int, ...], apart: bool, last: bool) -> StepVjp:
        totals = [_total(step, j, bool(n), num_outputs, outputs, wanted) for j, n in enumerate(states)]
        # the loop gives zeros for outputs once it is through, so their gradients are there before the states'
        patterns = (*outputs[:num_outputs], *(False for _ in wanted)), tuple(int(t is not None) for t in totals)
        incoming = {_cotangent(step, j): total for j, total in enumerate(totals) if total is not None}
        live = vjp(*patterns, False, False).copied(Substitution(builder, incoming))

        def state(summands: tuple[Node, ...], total: Node | None) -> tuple[Node, ...]:
            if total is not None and not summands:
                summands = (builder.const(0, total.dtype),)
            return tuple(choose(s, total) for s in summands)

        return replace(
            live,
            grad_inputs=tuple(None if g is None else choose(g, None) for g in live.grad_inputs),
            grad_states=tuple(map(state, live.grad_states, totals)),
            reductions=tuple(replace(r, node=choose(r.node, None)) for r in live.reductions),
            outers=tuple(replace(o, left=choose(o.left, None), right=choose(o.right, None)) for o in live.outers),
        )

    return replace(step, outputs=outputs, new_states=new_states), vjp_of_ended


def _alive(builder: Builder) -> Node:
    """The condition that a step is one of the sample's own, of 32 bits as the usual state is."""
    index = builder.cast(builder.coordinate(LeafKind.STEP_INDEX), torch.int32)
    return builder.op("lt", index, builder.leaf(LeafKind.LENGTH, 0, torch.int32), dtype=torch.bool)


def _cotangent(step: StepGraph, j: int) -> Node:
    return step.builder.leaf(LeafKind.STATE_COTANGENT, j, step.states[j].dtype)


def _total(
    step: StepGraph, j: int, comes: bool, num_outputs: int, outputs: tuple[bool, ...], wanted: tuple[int, ...]
) -> Node | None:
    """The gradient of a new state: of its sequence, if that is wanted, and of what comes after."""
    dtype = step.states[j].dtype
    place = num_outputs + wanted.index(j) if j in wanted else None
    sequence = None
    if place is not None and outputs[place]:
        sequence = step.builder.leaf(LeafKind.COTANGENT, place, dtype)
    if sequence is None or not comes:
        return _cotangent(step, j) if comes else sequence
    return step.builder.op("add", sequence, _cotangent(step, j), dtype=dtype)
