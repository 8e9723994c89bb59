"""How a Triton kernel addresses its tensors: pointers that advance with time, 64-bit lane offsets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from flexsn.ir.layout import Layout
from flexsn.ir.plan import LANE_GROUP, Plan, Role, Slot
from flexsn.kernels.triton.values import cast
from flexsn.kernels.writer import Writer

__all__ = ["Access", "Memory", "accesses"]


@dataclass(frozen=True)
class Access:
    """How the kernel addresses one tensor; part of its source.

    Attributes:
        lanes: ``"dense"`` (the lane number), ``"scalar"`` (one value for all lanes) or ``"strided"``; ``"rows"`` for a
            matrix, which no lane has a value of.
        time: ``"lanes"`` (one step further is N elements on), ``"none"`` (no time axis, or broadcast over it)
            or ``"strided"``.
        unit: for ``"strided"`` lanes, whether the innermost stride is 1.
    """

    lanes: str
    time: str
    unit: bool = False


def accesses(plan: Plan, layout: Layout) -> tuple[Access, ...]:
    """The access of every slot in a layout."""
    result = []
    for slot, tensor in zip(plan.slots, layout.tensors, strict=True):
        if slot.role is Role.MATRIX:
            result.append(Access("rows", "none"))
            continue
        lanes = "dense" if tensor.dense else "scalar" if not any(tensor.strides) else "strided"
        time = "none" if tensor.time == 0 else "lanes" if tensor.time == layout.num_lanes else "strided"
        result.append(Access(lanes, time, lanes == "strided" and tensor.strides[-1] == 1))
    return tuple(result)


class Memory:
    """Loads and stores of one kernel.

    Args:
        writer: takes the lines.
        slots: the tensors.
        access: how each is addressed.
        num_dims: of the lanes.
        scratch: names of further tensors, for what a kernel puts aside.

    Attributes:
        strides: the run-time stride arguments, as ``(slot, dimension)``; ``None`` is time.
        arguments: names of all arguments before ``T`` and ``N``.
        num_sizes: how many of them are lane sizes.
    """

    def __init__(
        self,
        writer: Writer,
        slots: Sequence[Slot],
        access: Sequence[Access],
        num_dims: int,
        scratch: Sequence[str] = (),
    ) -> None:
        self.w = writer
        self.slots = slots
        self.access = dict(zip(slots, access, strict=True))
        self.num_dims, self.scratch = num_dims, scratch
        self.strides: list[tuple[int, int | None]] = []
        self.arguments = [*(s.name for s in slots), *scratch]
        for index, slot in enumerate(slots):
            how = self.access[slot]
            if how.lanes == "strided":
                dims = range(num_dims - 1 if how.unit else num_dims)
                self.strides += [(index, d) for d in dims]
                self.arguments += [f"{slot.name}_s{d}" for d in dims]
            if how.time == "strided":
                self.strides.append((index, None))
                self.arguments.append(f"{slot.name}_time")
            if how.lanes == "rows" and "H" not in self.arguments:  # all matrices are of one size
                self.strides.append((index, None))
                self.arguments.append("H")
        self._strided = any(a.lanes == "strided" for a in access)
        self.num_sizes = num_dims - 1 if self._strided else 0
        self.arguments += [f"size{d + 1}" for d in range(self.num_sizes)]

    def prologue(self) -> None:
        """Lane numbers, pointers, and the elements from one step to the next, all of 64 bits."""
        w = self.w
        self.number_lanes()
        w("step = tl.cast(N, tl.int64)")
        if self._strided:
            rest = "lane"
            for d in range(self.num_dims - 1, 0, -1):
                w(f"index{d} = {rest} % size{d}", f"outer{d} = {rest} // size{d}")
                rest = f"outer{d}"
            w(f"index0 = {rest}")
        for slot in self.slots:
            if slot.role in (Role.GROUP_STORE, Role.MATRIX):
                continue
            w(f"{slot.name}_p = {slot.name}{self.offset(slot)}")
            if self.access[slot].time == "strided":
                w(f"{slot.name}_step = tl.cast({slot.name}_time, tl.int64)")

    def number_lanes(self) -> None:
        """Which lanes the block has, and which of them there are."""
        self.w("lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)", "mask = lane < N")

    def is_scalar(self, slot: Slot) -> bool:
        """Whether all lanes read the same element."""
        return self.access[slot].lanes == "scalar"

    def load(
        self, slot: Slot, dtype: torch.dtype, name: str, at: str = "0", lanes: str = "mask", when: str = ""
    ) -> str:
        """Load ``name``, ``at`` steps on, for ``lanes`` (a mask); a scalar ``when`` a condition holds."""
        guard = when if self.is_scalar(slot) else lanes
        mask = f", mask={guard}, other=0" if guard else ""
        self.w(f"{name} = {cast(f'tl.load({self.at(slot, at)}{mask})', slot.dtype, dtype)}")
        return name

    def store(self, slot: Slot, value: str, dtype: torch.dtype, at: str = "0") -> None:
        """Store a value, ``at`` steps on."""
        self.w(f"tl.store({self.at(slot, at)}, {cast(value, dtype, slot.dtype)}, mask=mask)")

    def store_sums(self, slot: Slot, value: str) -> None:
        """Store the sum of each group of lanes."""
        groups = f"BLOCK // {LANE_GROUP}"
        self.w(f"{slot.name}_group = tl.program_id(0).to(tl.int64) * ({groups}) + tl.arange(0, {groups})")
        self.w(f"{slot.name}_rows = tl.reshape(tl.where(mask, {value}, 0), [{groups}, {LANE_GROUP}])")
        self.w(
            f"tl.store({slot.name} + {slot.name}_group, tl.sum({slot.name}_rows, axis=1), "
            f"mask={slot.name}_group * {LANE_GROUP} < N)"
        )

    def advance(self, slots: Iterable[Slot], steps: str) -> None:
        """Move the pointers of ``slots``."""
        for slot in slots:
            stride = self._stride(slot)
            if stride != "0":
                self.w(f"{slot.name}_p += {stride if steps == '1' else f'{steps} * {stride}'}")

    def offset(self, slot: Slot) -> str:
        """What is added to the tensor's address once."""
        how = self.access[slot]
        if how.lanes == "scalar":
            return ""
        if how.lanes == "dense":
            return " + lane"
        terms = [f"index{d} * {slot.name}_s{d}" for d in range(self.num_dims - (1 if how.unit else 0))]
        if how.unit:
            terms.append(f"index{self.num_dims - 1}")
        return " + " + " + ".join(terms)

    def _stride(self, slot: Slot) -> str:
        """Elements from one step (or checkpoint) to the next."""
        how = self.access[slot]
        if how.time == "none":
            return "0"
        return "step" if how.time == "lanes" else f"{slot.name}_step"

    def at(self, slot: Slot, t: str) -> str:
        """The addresses of the block's lanes, ``t`` steps on."""
        stride = self._stride(slot)
        if stride == "0" or t == "0":
            return f"{slot.name}_p"
        return f"{slot.name}_p + {stride}" if t == "1" else f"{slot.name}_p + {t} * {stride}"
