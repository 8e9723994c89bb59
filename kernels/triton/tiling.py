"""The model that tiles a Triton kernel: lanes per thread, threads per block, and how often to checkpoint.

A scan is limited by memory, and memory is kept busy by bytes in flight. So the model asks what is in flight on
one multiprocessor, with no measurement and hence the same on every machine and rank:

1. *Words per lane.* All loads of a chunk, the values a backward chunk saves per step and what is carried
   through time are live together.
2. *Registers* per thread: that many words for each of its lanes, the widest point of one step's arithmetic, the
   addresses of what the loop touches, and a fixed part. What fits compiled kernels is, forward, the arithmetic
   of one lane at a time and one pointer per tensor; backward, that of all lanes at once and several addresses
   per tensor, of the steps of a chunk. See :class:`_Costs`.
3. *Threads*: as many as the registers of a multiprocessor hold, in whole blocks. Registers are dealt out to a
   warp by 256, which is by 8 per thread.
4. *Bytes in flight*: threads x lanes x bytes a chunk loads.

Lanes per thread are as many as one access of 128 bits takes, since a wide access moves the same bytes with fewer
instructions and addresses; the number is halved as long as a thread would need more than :data:`REGISTERS`,
where the assembler may spill, or as long as less than :data:`IN_FLIGHT` bytes would be under way and halving
helps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

import torch

from flexsn.ir.graph import LeafKind, Node
from flexsn.ir.layout import Layout
from flexsn.ir.plan import ForwardPlan, Plan, Role, Slot
from flexsn.kernels.triton.memory import Access
from flexsn.kernels.triton.samples import ROWS

__all__ = [
    "IN_FLIGHT",
    "LARGEST_MATRIX",
    "REGISTERS",
    "SampleTiling",
    "Tiling",
    "choose_interval",
    "choose_tiling",
    "steps_at_once",
    "tiling_of",
]

WARPS = 4
REGISTERS = 180
"""A thread may use, as modelled. ``CLIF`` backward, modelled at 186, was assembled into 168 registers, the most of
which three blocks fit on a multiprocessor, and spilled 8 to 16 bytes; what is modelled at 178 did not spill."""
IN_FLIGHT = 48 * 1024
"""Bytes under way per multiprocessor that hide memory's latency: about 54 bytes a nanosecond, the most any
target moves per multiprocessor (sm_100), for 900 nanoseconds."""
LARGEST_MATRIX = 512
"""Rows; the samples of a block have no room for wider ones in registers."""
CHUNK = 96
"""Bytes per lane that the inputs and checkpointed states of one chunk may take."""

_FILE = 64 * 1024  # registers of a multiprocessor
_THREADS = 2048


@dataclass(frozen=True)
class _Costs:
    """Registers per thread besides the words of its lanes.

    Fitted to built-in neurons in fp32, five of them in fp64 too, compiled for sm_90 by Triton 3.6 and 3.9 (96
    forward kernels, 48 backward): root mean square error 4 registers forward, 8 backward.
    ``tests/kernels/triton/test_offline.py`` compares model and compiler.

    Attributes:
        side_by_side: whether the arithmetic counts for every lane of a thread, or once.
        address: of each tensor that the loop touches.
        fixed: sizes, masks, counters.
    """

    side_by_side: bool
    address: int
    fixed: int


_FORWARD, _BACKWARD = _Costs(False, 2, 3), _Costs(True, 8, 6)
_IN_LOOP = (Role.LOAD, Role.STORE, Role.CHECKPOINT_LOAD, Role.CHECKPOINT_STORE)


@dataclass(frozen=True)
class Tiling:
    """How lanes are dealt out, and why.

    Attributes:
        elements: lanes per thread.
        warps: per block.
        words: per lane, live through a chunk.
        registers: per thread, as modelled.
        threads: that share a multiprocessor, as modelled.
        in_flight: bytes per multiprocessor, as modelled.
    """

    elements: int
    warps: int
    words: int
    registers: int
    threads: int
    in_flight: int

    def block(self, warp_size: int) -> int:
        """Lanes per block."""
        return self.elements * self.warps * warp_size

    @property
    def occupancy(self) -> float:
        """Share of the threads a multiprocessor could hold."""
        return self.threads / _THREADS


@dataclass(frozen=True)
class SampleTiling:
    """Blocks of whole samples, for kernels that multiply by matrices.

    Attributes:
        size: lanes of a sample.
        warps: per block. With fewer, the values of the widest samples do not fit into the registers of a thread.
    """

    size: int
    warps: int = 8

    def block(self, warp_size: int) -> int:
        """Values per block: one per lane, and those by which a sample is widened."""
        return ROWS * max(16, 1 << (self.size - 1).bit_length())

    @property
    def lanes(self) -> int:
        """Per block."""
        return ROWS * self.size


def choose_interval(step_bytes: int) -> int:
    """K: as many steps, a power of two up to 8, as keep their inputs and states in :data:`CHUNK` bytes per lane.

    Args:
        step_bytes: bytes per lane and step of the checkpointed states and the inputs.
    """
    return next(k for k in (8, 4, 2, 1) if k * step_bytes <= CHUNK or k == 1)


def tiling_of(plan: Plan, access: Sequence[Access], layout: Layout) -> Tiling | SampleTiling:
    """How the lanes of a call are dealt out to blocks."""
    for slot, tensor in zip(plan.slots, layout.tensors, strict=True):
        if slot.role is Role.MATRIX:
            return SampleTiling(tensor.time)
    return choose_tiling(plan, access)


def choose_tiling(plan: Plan, access: Sequence[Access] | None = None) -> Tiling:
    """The tiling of a plan's kernel, by the model above.

    Args:
        plan: of the kernel.
        access: how each slot is addressed: one value for all lanes is one word of a thread. If not given, none is.
    """
    scalars = {s for s, how in zip(plan.slots, access, strict=True) if how.lanes == "scalar"} if access else set()
    widest = max((s.dtype.itemsize for s in plan.slots), default=4)
    elements = max(1, min(4, 16 // widest))
    tiling = _tiling(plan, elements, scalars)
    while elements > 1:
        elements //= 2
        narrower = _tiling(plan, elements, scalars)
        short = tiling.in_flight < IN_FLIGHT and narrower.in_flight > tiling.in_flight
        if tiling.registers <= REGISTERS and not short:
            break
        tiling = narrower
    return tiling


def _tiling(plan: Plan, elements: int, scalars: Set[Slot]) -> Tiling:
    words, peak = _words(plan, scalars)
    shared = sum(_size(leaf.dtype) for slot, leaf in plan.lane_loads if slot in scalars)
    costs = _FORWARD if isinstance(plan, ForwardPlan) else _BACKWARD
    touched = sum(slot.role in _IN_LOOP for slot in plan.slots)
    registers = elements * words + shared + (elements if costs.side_by_side else 1) * peak
    registers += costs.address * touched + costs.fixed
    per_block = 32 * WARPS
    used = -(-registers // 8) * 8
    threads = min(_THREADS, _FILE // (used * per_block) * per_block)
    in_flight = threads * elements * _chunk_bytes(plan)
    return Tiling(elements, WARPS, words, registers, threads, in_flight)


def steps_at_once(plan: Plan) -> int:
    """How many steps a kernel loads together; a backward pass that computes nothing again walks one by one."""
    if isinstance(plan, ForwardPlan):
        return plan.unroll
    return 1 if plan.saved is None else plan.interval


def _chunk_bytes(plan: Plan) -> int:
    return steps_at_once(plan) * sum(s.dtype.itemsize for s in plan.slots if s.role is Role.LOAD)


def _words(plan: Plan, scalars: Set[Slot]) -> tuple[int, int]:
    """Registers a lane occupies through a chunk, and those of one step's arithmetic."""
    carried = sum(_size(c.leaf.dtype) for c in plan.carries)
    fixed = sum(_size(leaf.dtype) for slot, leaf in plan.lane_loads if slot not in scalars)
    if isinstance(plan, ForwardPlan):
        loaded = plan.unroll * sum(_size(leaf.dtype) for _, leaf in plan.loads)
        return carried + fixed + loaded, _peak(plan.program.body, plan.results)
    sums = sum(_size(slot.dtype) for slot in plan.accumulators)
    if plan.saved is None:  # a step at a time, and nothing waits
        there = sum(_node_size(leaf) for _, leaf in plan.step.loads)
        return carried + fixed + sums + there, _peak(plan.step.program.body, plan.step.results)
    gradients = [leaf for _, leaf in plan.chunk_loads if leaf.op is LeafKind.COTANGENT]
    recomputed = [leaf for _, leaf in plan.chunk_loads if leaf.op is not LeafKind.COTANGENT]
    waiting = max(sum(map(_node_size, plan.saved.values)), sum(map(_node_size, recomputed)))
    there = plan.interval * (sum(map(_node_size, gradients)) + waiting)
    return carried + fixed + sums + there, _peak(plan.saved.walk_back, plan.step.results)


def _peak(body: Sequence[Node], roots: Iterable[Node]) -> int:
    """The most words of computed values that are live at once when ``body`` runs in order."""
    last: dict[int, int] = {id(n): len(body) for n in roots}
    for i, node in enumerate(body):
        for arg in node.args:
            last[id(arg)] = max(last.get(id(arg), 0), i)
    live, most = 0, 0
    for i, node in enumerate(body):
        live += _node_size(node)
        most = max(most, live)
        for arg in {id(a): a for a in node.args}.values():
            if last[id(arg)] == i and any(arg is n for n in body):
                live -= _node_size(arg)
    return most


def _node_size(node: Node) -> int:
    return _size(node.dtype)


def _size(dtype: torch.dtype) -> int:
    """In registers; a bool is a predicate most of the time."""
    return 0 if dtype == torch.bool else max(1, dtype.itemsize // 4)
