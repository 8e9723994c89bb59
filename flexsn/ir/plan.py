"""ScanPlan: the loop over time, said once for every backend.

What is loaded, carried, stored, hoisted and checkpointed is settled here; printers only spell it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

import torch

from flexsn.ir.graph import Node
from flexsn.ir.step import StepVjp

__all__ = ["LANE_GROUP", "BackwardPlan", "Carry", "ForwardPlan", "Program", "Role", "Slot", "Variant"]

LANE_GROUP = 64
"""Lanes that are summed within a kernel; every block of lanes is a multiple of it."""


class Role(Enum):
    """How a kernel touches a tensor."""

    LOAD = "load"  # one value per lane and step, read
    STORE = "store"  # one value per lane and step, written
    LANE_LOAD = "lane_load"  # one value per lane, read once
    LANE_STORE = "lane_store"  # one value per lane, written once
    GROUP_STORE = "group_store"  # the sum over LANE_GROUP lanes, written once
    CHECKPOINT_LOAD = "checkpoint_load"  # one value per lane and K steps, read
    CHECKPOINT_STORE = "checkpoint_store"  # one value per lane and K steps, written

    @property
    def per_step(self) -> bool:
        return self in (Role.LOAD, Role.STORE)

    @property
    def writes(self) -> bool:
        return self in (Role.STORE, Role.LANE_STORE, Role.GROUP_STORE, Role.CHECKPOINT_STORE)


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
        grad_states: the new value of each carry, ``None`` where it vanishes.
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
        carries: the gradients that go from step to step; their ``final`` is none.
        finals: ``(slot, node)`` of initial states' gradients, computed from the carries after the loop.
        accumulators: what is summed over time per lane, and over groups of lanes where all share a parameter.
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
    finals: tuple[tuple[Slot, Node], ...]
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
