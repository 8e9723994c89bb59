"""The scan plan: the loop over time, said once for every backend.

What is loaded, carried, stored, hoisted, checkpointed, saved and recomputed is settled here; printers only spell it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

import torch

from flexsn.ir.graph import Node
from flexsn.ir.program import Program
from flexsn.ir.step import StepVjp

__all__ = [
    "LANE_GROUP",
    "BackwardPlan",
    "BackwardStep",
    "Carry",
    "Factor",
    "ForwardPlan",
    "Holds",
    "OuterSum",
    "Plan",
    "Role",
    "Saved",
    "Slot",
]

LANE_GROUP = 64
"""Lanes that are summed within a kernel; every block of lanes is a multiple of it."""


class Role(Enum):
    """How a kernel touches a tensor."""

    LOAD = "load"  # one value per lane and step, read
    STORE = "store"  # one value per lane and step, written
    LANE_LOAD = "lane_load"  # one value per lane, read once
    LANE_STORE = "lane_store"  # one value per lane, written once
    GROUP_STORE = "group_store"  # the sum over LANE_GROUP lanes, written once
    CHECKPOINT_LOAD = "checkpoint_load"  # one value per lane and interval, read
    CHECKPOINT_STORE = "checkpoint_store"  # one value per lane and interval, written
    MATRIX = "matrix"  # a whole matrix, row by row, for products

    @property
    def per_step(self) -> bool:
        return self in (Role.LOAD, Role.STORE)

    @property
    def writes(self) -> bool:
        return self in (Role.STORE, Role.LANE_STORE, Role.GROUP_STORE, Role.CHECKPOINT_STORE)


class Holds(Enum):
    """What the tensor of a slot is; the value begins the slot's name in generated source."""

    INPUT = "x"
    STATE = "v"  # an initial state
    OPERAND = "p"
    MATRIX = "m"  # an operand that a product multiplies by
    LANE_INDEX = "lane"  # the number of every lane
    LENGTH = "len"  # the number of steps of every sample
    INITIAL = "v_initial"  # what a state is after a reset
    OUTPUT = "y"
    FINAL_STATE = "v_final"
    CHECKPOINT = "c"  # a state before steps K, 2K, ...
    SAVED = "s"  # a value of every step, from the forward pass for the backward pass
    COTANGENT = "gy"  # gradient of an output
    FINAL_COTANGENT = "gv_final"  # gradient of a final state
    GRAD_INPUT = "gx"
    GRAD_STATE = "gv"  # gradient of an initial state
    ACCUMULATOR = "acc"  # a sum over time, for a parameter
    FACTOR = "f"  # one side of an outer product at every step, for the gradient of a matrix


@dataclass(frozen=True)
class Slot:
    """A tensor the kernel touches.

    Attributes:
        role: how it is touched.
        dtype: in memory; values are cast to and from the dtype the step computes in.
        holds: what it is.
        index: which one of these.
    """

    role: Role
    dtype: torch.dtype
    holds: Holds
    index: int

    @property
    def name(self) -> str:
        """Its name in the generated source."""
        return f"{self.holds.value}{self.index}"


@dataclass(frozen=True, eq=False)
class Carry:
    """A value per lane that goes from step to step."""

    leaf: Node
    next: Node | None
    initial: Slot | None
    final: Slot | None


@dataclass(frozen=True, eq=False)
class ForwardPlan:
    """The loop ``for t: outputs[t], states = step(inputs[t], states)``.

    Attributes:
        slots: every tensor touched, in the order the kernel takes them.
        loads: ``(slot, leaf)`` read at every step.
        lane_loads: ``(slot, leaf)`` read before the loop.
        program: what is computed.
        carries: one per state.
        stores: ``(slot, node)`` written at every step; behind the outputs what the backward pass of a step with
            products reads instead of computing it again.
        checkpoints: ``(slot, state leaf)`` written before steps ``K, 2K, ...``.
        interval: ``K``, or ``None`` where nothing is checkpointed (inference).
        unroll: steps whose loads may be in flight together; divides ``K``.
        read_again: the outputs that the backward pass reads, as factors of outer products.
    """

    slots: tuple[Slot, ...]
    loads: tuple[tuple[Slot, Node], ...]
    lane_loads: tuple[tuple[Slot, Node], ...]
    program: Program
    carries: tuple[Carry, ...]
    stores: tuple[tuple[Slot, Node], ...]
    checkpoints: tuple[tuple[Slot, Node], ...]
    interval: int | None
    unroll: int
    read_again: tuple[int, ...] = ()

    @property
    def bytes_per_lane_step(self) -> float:
        """Memory traffic of one step of one lane, once-per-call tensors left out."""
        return _traffic(self.slots, self.interval)

    @property
    def results(self) -> tuple[Node, ...]:
        """What a step computes its values for."""
        return (*(n for _, n in self.stores), *(c.next for c in self.carries if c.next is not None))


@dataclass(frozen=True, eq=False)
class BackwardStep:
    """One step backward for one pattern of incoming state gradients.

    Attributes:
        when: a condition on step index and number of steps; ``None`` at all steps no other one is for.
        program: everything this step computes, the recomputed forward values included.
        loads: ``(slot, leaf)`` read.
        stores: ``(slot, node)`` of input gradients and of factors; ``None`` stores zero.
        grad_states: the new value of each carry, ``None`` where it vanishes.
        accumulate: per accumulator, what this step adds.
    """

    when: Node | None
    program: Program
    loads: tuple[tuple[Slot, Node], ...]
    stores: tuple[tuple[Slot, Node | None], ...]
    grad_states: tuple[Node | None, ...]
    accumulate: tuple[Node | None, ...]

    @property
    def results(self) -> tuple[Node, ...]:
        """What the step computes its values for."""
        every = (*(n for _, n in self.stores), *self.accumulate, *self.grad_states)
        return tuple(n for n in every if n is not None)


@dataclass(frozen=True, eq=False)
class Saved:
    """What of a recomputed step waits in registers until the walk back reaches it, and what is computed when.

    Attributes:
        values: the nodes that wait.
        recompute: computes them from inputs and states.
        advance: computes the next states, once ``recompute`` has run.
        walk_back: computes the rest of the step from them, the gradients included.
    """

    values: tuple[Node, ...]
    recompute: tuple[Node, ...]
    advance: tuple[Node, ...]
    walk_back: tuple[Node, ...]


@dataclass(frozen=True)
class Factor:
    """Where one side of an outer product is, of all steps.

    Attributes:
        slot: a sequence the backward pass reads or writes.
        state: for a state that is an output too, which one: at a step it is the output of the step before, and at the
            first its initial value.
    """

    slot: Slot
    state: int | None = None


@dataclass(frozen=True, eq=False)
class OuterSum:
    """An outer product that is summed over time and samples after the loop.

    Attributes:
        group, number: it is that one of the vjp of that group.
        left, right: its factors.
    """

    group: int
    number: int
    left: Factor
    right: Factor


@dataclass(frozen=True, eq=False)
class BackwardPlan:
    """The loop backwards: recompute up to ``K`` states from a checkpoint, then walk back through them.

    Attributes:
        slots, lane_loads: as for :class:`ForwardPlan`.
        interval: ``K``.
        states: leaves of the states that must be known at every step.
        advance: computes those states one step on; its loads are ``advance_loads``.
        next_states: per state, its value one step on.
        initial: per state, the slot of its value before the first step.
        checkpoints: per state, the slot of its value before steps ``K, 2K, ...``.
        branches: what a step does, by how far it is from the end: the last step, the one before, ..., all others.
        carries: the gradients that go from step to step; their ``final`` is none.
        finals: ``(slot, node)`` of initial states' gradients, computed from the carries after the loop.
        accumulators: what is summed over time per lane, and over groups of lanes where all share a parameter.
        groups: ``(first accumulator, vjp)``: which accumulators feed the parameter gradients of which vjp.
        step: all branches as one graph that chooses by the step index.
        saved: for targets that recompute in registers, how ``step`` is divided between recomputation and walk back.
        outers: what is summed over time and samples after the loop; their ``number`` counts within a group.

    With products there are no ``states``: what a step reads of the forward pass was saved. Each branch has products of
    its own, so ``step`` is the last branch, not all of them.
    """

    slots: tuple[Slot, ...]
    lane_loads: tuple[tuple[Slot, Node], ...]
    interval: int
    states: tuple[Node, ...]
    advance: Program
    advance_loads: tuple[tuple[Slot, Node], ...]
    next_states: tuple[Node, ...]
    initial: tuple[Slot, ...]
    checkpoints: tuple[Slot, ...]
    branches: tuple[BackwardStep, ...]
    carries: tuple[Carry, ...]
    finals: tuple[tuple[Slot, Node], ...]
    accumulators: tuple[Slot, ...]
    groups: tuple[tuple[int, StepVjp], ...]
    step: BackwardStep
    saved: Saved | None = None
    outers: tuple[OuterSum, ...] = ()

    @property
    def bytes_per_lane_step(self) -> float:
        """Memory traffic of one step of one lane, once-per-call tensors left out."""
        return _traffic(self.slots, self.interval)

    @property
    def chunk_loads(self) -> tuple[tuple[Slot, Node], ...]:
        """``(slot, leaf)`` read at every step of a chunk, on the way there or back."""
        return tuple(sorted({*self.step.loads, *self.advance_loads}, key=lambda load: self.slots.index(load[0])))

    @property
    def walk_back_loads(self) -> tuple[Slot, ...]:
        """What only the walk back reads."""
        ahead = {slot for slot, _ in self.advance_loads}
        return tuple(slot for slot in self.slots if slot not in ahead and slot in dict(self.step.loads))

    @property
    def hoisted(self) -> tuple[Node, ...]:
        """What is computed once per lane, before the loop."""
        steps = self.branches if any(b.program.stages for b in self.branches) else (self.step,)
        return tuple(dict.fromkeys((*self.advance.hoisted, *(n for step in steps for n in step.program.hoisted))))


Plan = ForwardPlan | BackwardPlan


def programs(plan: Plan) -> Iterator[Program]:
    """Everything a kernel of the plan computes in its loop over time."""
    if isinstance(plan, ForwardPlan):
        yield plan.program
    else:
        yield plan.advance
        for branch in plan.branches:
            yield branch.program


def _traffic(slots: Iterable[Slot], interval: int | None) -> float:
    total = 0.0
    for slot in slots:
        if slot.role.per_step:
            total += slot.dtype.itemsize
        elif slot.role in (Role.CHECKPOINT_LOAD, Role.CHECKPOINT_STORE) and interval:
            total += slot.dtype.itemsize / interval
    return total
