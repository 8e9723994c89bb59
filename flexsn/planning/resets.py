"""Resets: where a mask holds, states are the initial ones again before the step."""

from __future__ import annotations

from dataclasses import replace

import torch

from flexsn.ir.graph import LeafKind, Node
from flexsn.ir.step import StepGraph, StepVjp
from flexsn.ir.substitute import Substitution
from flexsn.planning.request import Vjp

__all__ = ["with_resets"]


def with_resets(step: StepGraph, vjp: Vjp, learned: tuple[int, ...]) -> tuple[StepGraph, Vjp]:
    """The step with one more input, the mask, and one more state for each initial value that is ``learned``."""
    builder, num_states = step.builder, len(step.states)
    mask = builder.leaf(LeafKind.INPUT, len(step.inputs), torch.bool)

    def choose(at_reset: Node, else_: Node) -> Node:
        return builder.op("where", mask, at_reset, else_, dtype=else_.dtype)

    def at_reset(grad: Node) -> Node:
        return choose(grad, builder.const(0, grad.dtype))

    def elsewhere(grad: Node) -> Node:
        return choose(builder.const(0, grad.dtype), grad)

    entering = {s: choose(builder.leaf(LeafKind.INITIAL, s.index, s.dtype), s) for s in step.states}
    copy = Substitution(builder, entering)
    constant = tuple(builder.leaf(LeafKind.STATE, num_states + i, step.states[j].dtype) for i, j in enumerate(learned))

    def vjp_of_reset(outputs: tuple[bool, ...], states: tuple[int, ...], apart: bool, last: bool) -> StepVjp:
        own = vjp(outputs, states[:num_states], False, last).copied(copy)

        def of_initial(state: Node, j: int, comes: bool) -> tuple[Node, ...]:
            before = [builder.leaf(LeafKind.STATE_COTANGENT, state.index, state.dtype)] if comes else []
            parts = [*before, *map(at_reset, own.grad_states[j])]
            return tuple(parts) if len(parts) < 2 else (builder.op("add", *parts, dtype=state.dtype),)

        initial = map(of_initial, constant, learned, map(bool, states[num_states:]))
        return replace(
            own,
            grad_inputs=(*own.grad_inputs, None),
            grad_states=(*(tuple(map(elsewhere, grads)) for grads in own.grad_states), *initial),
        )

    changed = replace(
        step,
        inputs=(*step.inputs, mask),
        states=(*step.states, *constant),
        outputs=tuple(map(copy, step.outputs)),
        new_states=(*map(copy, step.new_states), *constant),
        products=tuple(replace(p, source=copy(p.source)) for p in step.products),
    )
    return changed, vjp_of_reset
