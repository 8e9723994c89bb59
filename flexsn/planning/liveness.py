"""Liveness: which states and gradients anything depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from flexsn.ir.graph import LeafKind, Node
from flexsn.ir.step import StepGraph, StepVjp, with_sources
from flexsn.planning.pieces import leaves
from flexsn.planning.request import Gradients, Vjp

__all__ = ["leads_nowhere", "live_states", "prune_gradients", "states_to_checkpoint"]


def states_to_checkpoint(step: StepGraph, vjp: Vjp) -> tuple[int, ...]:
    """The states that a backward pass with every gradient reads; any other reads no more."""
    every = vjp((True,) * len(step.outputs), (1,) * len(step.states), False, False)
    return live_states(step, [every])


def live_states(step: StepGraph, vjps: Sequence[StepVjp]) -> tuple[int, ...]:
    """The states whose values the backward pass reads, and those these are computed from."""
    read = [n.index for vjp in vjps for n in leaves(LeafKind.STATE, with_sources(vjp.results, vjp.products))]

    def before(j: int) -> list[int]:
        return [n.index for n in leaves(LeafKind.STATE, with_sources([step.new_states[j]], step.products))]

    return _closure(read, before)


def leads_nowhere(vjps: Sequence[StepVjp], num_states: int | None = None) -> bool:
    """Whether gradients come in, and none of them can flow back: the user's missing surrogate.

    Args:
        vjps: one per distance from the end.
        num_states: how many of the states are the core's own; all if not given.
    """
    own = [replace(vjp, grad_states=vjp.grad_states[:num_states]) for vjp in vjps]
    flows = any(vjp.results or any(g is not None for g in vjp.grad_captured) for vjp in own)
    return not flows and bool(vjps[0].blocked)


def prune_gradients(vjps: Sequence[StepVjp], gradients: Gradients) -> tuple[StepVjp, ...]:
    """Drop what no wanted gradient needs: absent gradients cost nothing, nor do state gradients nobody reads.

    Args:
        vjps: one per distance from the end.
        gradients: which are wanted.
    """
    wanted = [
        replace(
            vjp,
            grad_inputs=tuple(g if w else None for g, w in zip(vjp.grad_inputs, gradients.inputs, strict=True)),
            reductions=vjp.reductions if gradients.parameters else (),
            outers=vjp.outers if gradients.parameters else (),
            grad_captured=vjp.grad_captured if gradients.parameters else (None,) * len(vjp.grad_captured),
        )
        for vjp in vjps
    ]
    read = [j for j, w in enumerate(gradients.states) if w]
    read += [j for v in wanted for j in _cotangents(v, replace(v, grad_states=()).results)]
    needed = _closure(read, lambda j: [i for v in wanted for i in _cotangents(v, v.grad_states[j])])
    return tuple(
        replace(v, grad_states=tuple(g if j in needed else () for j, g in enumerate(v.grad_states))) for v in wanted
    )


def _cotangents(vjp: StepVjp, nodes: Iterable[Node]) -> list[int]:
    """The states whose new values' gradients the nodes depend on."""
    return [n.index for n in leaves(LeafKind.STATE_COTANGENT, with_sources(nodes, vjp.products))]


def _closure(start: Iterable[int], follow: Callable[[int], Iterable[int]]) -> tuple[int, ...]:
    found: set[int] = set()
    pending = list(start)
    while pending:
        j = pending.pop()
        if j not in found:
            found.add(j)
            pending.extend(follow(j))
    return tuple(sorted(found))
