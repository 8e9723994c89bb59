"""The fused way: one kernel for all steps of a core with products, each computed inside it.

A product is infinitely dear on the way back: the forward pass writes what a step is read for there (of all sets from
which the rest follows again, the cheapest: for a recurrent LIF neuron the charged membrane), so that no step is
computed twice, and states need no checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import torch

from flexsn.ir.graph import LeafKind, Node
from flexsn.ir.plan import Factor, Holds, OuterSum, Role, Slot
from flexsn.ir.step import StepGraph, StepVjp
from flexsn.ir.substitute import Substitution
from flexsn.planning.rematerialize import values_to_save
from flexsn.planning.request import ScanRequest, Target, Vjp

__all__ = ["Way", "place_outers", "reading_saved", "values_of_steps", "way_of"]

_FLOATS = (torch.float32, torch.float64)
_SIDES = (attrgetter("left"), attrgetter("right"))
_READ_AGAIN, _WRITTEN_AND_READ = 1, 2  # times that a value moves


@dataclass(frozen=True)
class Way:
    """How a step with products runs.

    Attributes:
        fused: in one kernel; else in the alternating way.
        why: for people.
    """

    fused: bool
    why: str


def way_of(step: StepGraph, size: int, target: Target, single_step: bool = False) -> Way:
    """The way of calls whose steps have ``size`` lanes in their last dimension; of a single step, if it says so."""
    most = target.largest_matrix
    others = [p.call.name for p in step.products if p.call is not None]
    if others:
        return Way(False, f"{others[0]} is no product with a matrix")
    if any(p.leaf.dtype not in _FLOATS for p in step.products):
        return Way(False, "kernels multiply matrices in fp32 and fp64")
    if single_step:
        return Way(False, "a matrix that is read for one step alone is not worth turning")
    if not most:
        return Way(False, f"{target.name} kernels multiply no matrices")
    if size > most:
        return Way(False, f"a kernel of {target.name} multiplies by matrices of up to {most} rows, not {size}")
    return Way(True, f"a matrix of {size} rows stays in cache")


# ---- what the forward pass saves ------------------------------------------------------------------------------


def values_of_steps(step: StepGraph, vjp: Vjp, request: ScanRequest) -> tuple[tuple[Node, ...], tuple[int, ...]]:
    """The values that the forward pass saves of every step, and the outputs that the backward pass reads.

    A backward pass with fewer gradients reads no more.
    """
    every = vjp((True,) * len(step.outputs), (1,) * len(step.states), False, False)
    factors = [n for outer in every.outers for n in (outer.left, outer.right)]
    elsewhere = {n: there.slot for n in factors if (there := _there_anyway(step, request, n)) is not None}
    roots = [*replace(every, outers=()).results, *(n for n in factors if n not in elsewhere)]

    def cost(node: Node) -> int:
        return node.dtype.itemsize * (_READ_AGAIN if node.op is LeafKind.INPUT else _WRITTEN_AND_READ)

    found = values_to_save(roots, every.without_products_of(step).products, cost)
    outputs = sorted({slot.index for slot in elsewhere.values() if slot.holds is Holds.OUTPUT})
    return tuple(n for n in found if n.op is not LeafKind.INPUT), tuple(outputs)


def reading_saved(step: StepGraph, vjp: Vjp, saved: Sequence[Node]) -> Vjp:
    """The vjp that reads saved values instead of computing them."""
    leaves = {n: step.builder.leaf(LeafKind.SAVED, i, n.dtype) for i, n in enumerate(saved)}

    def vjp_of_saved(outputs: tuple[bool, ...], states: tuple[int, ...], apart: bool, last: bool) -> StepVjp:
        own = vjp(outputs, states, apart, last).without_products_of(step)
        return own.copied(Substitution(step.builder, leaves))

    return vjp_of_saved


# ---- gradients of matrices ------------------------------------------------------------------------------------

Column = tuple[Node | None, ...]
"""A factor in each branch; ``None`` in those of other groups."""


def place_outers(
    step: StepGraph,
    request: ScanRequest,
    groups: Sequence[tuple[int, StepVjp]],
    branches: Sequence[tuple[StepVjp, int]],
    written: dict[Slot, Column],
) -> tuple[OuterSum, ...]:
    """Where the factors of all outer products are: in sequences that are there anyway, or in new ones.

    Args:
        step, request: of the scan.
        groups: those of :class:`~flexsn.ir.plan.BackwardPlan`.
        branches: the vjps, and the group of each.
        written: what each branch writes; grows by the new ones.
    """

    def anyway(column: Column) -> Factor | None:
        nodes = {n for n in column if n is not None}
        return _there_anyway(step, request, nodes.pop()) if len(nodes) == 1 else None

    def place(column: Column) -> Factor:
        dtype = next(n.dtype for n in column if n is not None)
        for slot, other in written.items():
            if other == column and slot.dtype == dtype:
                return Factor(slot)
        slot = Slot(Role.STORE, dtype, Holds.FACTOR, sum(slot.holds is Holds.FACTOR for slot in written))
        written[slot] = column
        return Factor(slot)

    found = []
    for group, (_, of_group) in enumerate(groups):
        for k in range(len(of_group.outers)):
            own = [vjp.outers[k] if mine == group else None for vjp, mine in branches]
            columns = [tuple(None if o is None else side(o) for o in own) for side in _SIDES]
            left, right = map(anyway, columns)
            if None in own and left and right:  # one of them has to be zero at the steps of other groups
                left, right = (left, None) if right.state is None else (None, right)
            found.append(OuterSum(group, k, left or place(columns[0]), right or place(columns[1])))
    return tuple(found)


def _there_anyway(step: StepGraph, request: ScanRequest, node: Node) -> Factor | None:
    """A value of every step where nothing has to be written for it."""
    if node.op is LeafKind.SAVED:
        return Factor(Slot(Role.LOAD, node.dtype, Holds.SAVED, node.index))
    if node.op is LeafKind.INPUT and request.input_dtypes[node.index] == node.dtype:
        return Factor(Slot(Role.LOAD, node.dtype, Holds.INPUT, node.index))
    if node.op is LeafKind.STATE:
        for i, (output, dtype) in enumerate(zip(step.outputs, request.output_dtypes, strict=True)):
            if output is step.new_states[node.index] and dtype == node.dtype:
                return Factor(Slot(Role.LOAD, dtype, Holds.OUTPUT, i), node.index)
    return None
