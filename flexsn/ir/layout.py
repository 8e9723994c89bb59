"""Layout: how lanes are numbered so that dense tensors are walked in memory order, whatever their permutation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flexsn.errors import UnsupportedOpError
from flexsn.ir.plan import LANE_GROUP, Role, Slot

__all__ = [
    "CallShape",
    "Layout",
    "TensorLayout",
    "TensorSpec",
    "dense_strides",
    "enlarges",
    "lane_order",
    "make_layout",
    "without_axis",
]


@dataclass(frozen=True)
class TensorLayout:
    """How one tensor is addressed: ``t * time + sum(index[d] * strides[d])``, in elements.

    ``dense`` means that the lane part is simply the lane number.
    """

    time: int
    strides: tuple[int, ...]
    dense: bool


@dataclass(frozen=True)
class Layout:
    """The lanes of one call.

    Attributes:
        num_steps: T.
        num_lanes: N.
        sizes: the lane dimensions, outer to inner, merged as far as all tensors allow; their product is N.
        tensors: in the order of the plan's slots.
    """

    num_steps: int
    num_lanes: int
    sizes: tuple[int, ...]
    tensors: tuple[TensorLayout, ...]


def without_axis(sizes: Sequence[int], axis: int) -> tuple[int, ...]:
    """A shape, or strides, without one axis, counted from the front or from the back."""
    rest = list(sizes)
    del rest[axis]
    return tuple(rest)


def lane_order(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """The dimensions of a tensor from outermost to innermost in memory (ties and broadcasts keep their order)."""
    order = sorted(range(len(shape)), key=lambda d: -strides[d])
    broadcast = any(strides[d] == 0 and shape[d] > 1 for d in order)
    return tuple(range(len(shape))) if broadcast else tuple(order)


def dense_strides(shape: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Strides of a dense tensor whose dimensions lie in memory in ``order``, outer to inner."""
    strides = [0] * len(shape)
    step = 1
    for d in reversed(order):
        strides[d] = step
        step *= max(shape[d], 1)
    return tuple(strides)


def enlarges(shape: Sequence[int], step_shape: Sequence[int]) -> UnsupportedOpError:
    """The error for what would make a step larger than inputs and states are."""
    return UnsupportedOpError(
        f"parameters of shape {tuple(shape)} enlarge the step {tuple(step_shape)}",
        why="a step has the shape of inputs and states",
        hint="expand the input to the full shape",
    )


def step_strides(tensor: TensorSpec, step_shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a tensor without time axis, broadcast to the step shape.

    Raises:
        UnsupportedOpError: it has more dimensions.
    """
    missing = len(step_shape) - len(tensor.shape)
    if missing < 0:
        raise enlarges(tensor.shape, step_shape)
    own = zip(tensor.shape, tensor.strides, step_shape[missing:], strict=True)
    return (0,) * missing + tuple(0 if size == 1 and full != 1 else stride for size, stride, full in own)


@dataclass(frozen=True)
class CallShape:
    """Shapes and memory order of one call.

    Attributes:
        num_steps: T, at least 1.
        step_shape: of one step.
        time_dim: where inputs and outputs have their time axis.
        order: dimensions of a *sequence*, outermost to innermost in memory.
    """

    num_steps: int
    step_shape: tuple[int, ...]
    time_dim: int
    order: tuple[int, ...]

    @staticmethod
    def of(x: Tensor, time_dim: int) -> CallShape:
        """The geometry of calls whose first input is like ``x``."""
        order = lane_order(x.shape, x.stride())
        return CallShape(x.shape[time_dim], without_axis(x.shape, time_dim), time_dim, order)

    def of_rows(self) -> CallShape:
        """The same with the last dimension of a step innermost: the lanes of a sample are numbered one by one."""
        last = len(self.step_shape) - 1
        d = last + (last >= self.time_dim)
        return replace(self, order=(*(other for other in self.order if other != d), d))

    @property
    def lanes(self) -> tuple[int, ...]:
        """Dimensions of a step, outermost to innermost in memory."""
        k = self.time_dim
        return tuple(d - (d > k) for d in self.order if d != k)

    def sequence(self, dtype: torch.dtype) -> TensorSpec:
        """A sequence in the memory order of the inputs."""
        k = self.time_dim
        shape = (*self.step_shape[:k], self.num_steps, *self.step_shape[k:])
        return TensorSpec(shape, dense_strides(shape, self.order), dtype)

    def step(self, dtype: torch.dtype) -> TensorSpec:
        """A tensor of one step, in the same order."""
        return TensorSpec(self.step_shape, dense_strides(self.step_shape, self.lanes), dtype)

    def steps(self, count: int, dtype: torch.dtype) -> TensorSpec:
        """``count`` tensors of one step, one behind the other."""
        strides = dense_strides(self.step_shape, self.lanes)
        lanes = math.prod(self.step_shape)
        return TensorSpec((count, *self.step_shape), (lanes, *strides), dtype)

    def rows(self, dtype: torch.dtype, *count: int) -> TensorSpec:
        """A tensor of one step, or of so many, as torch multiplies it: a row per sample, whatever the memory order."""
        shape = (*count, math.prod(self.step_shape[:-1]), *self.step_shape[-1:])
        return TensorSpec(shape, dense_strides(shape, range(len(shape))), dtype)

    def groups(self, dtype: torch.dtype) -> TensorSpec:
        """One value per group of lanes."""
        return TensorSpec((-(-math.prod(self.step_shape) // LANE_GROUP),), (1,), dtype)

    def dense(self, slot: Slot, checkpoints: int = 0) -> TensorSpec:
        """The tensor of a slot as a kernel is given a fresh one, of so many checkpoints."""
        if slot.role in (Role.CHECKPOINT_LOAD, Role.CHECKPOINT_STORE):
            return self.steps(checkpoints, slot.dtype)
        if slot.role is Role.GROUP_STORE:
            return self.groups(slot.dtype)
        return self.sequence(slot.dtype) if slot.role.per_step else self.step(slot.dtype)

    def layout(self, slots: Sequence[Slot], tensors: Sequence[TensorSpec]) -> Layout:
        """Number the lanes for these tensors."""
        addresses = [self._address(s.role, t) for s, t in zip(slots, tensors, strict=True)]
        return make_layout(self.num_steps, self.step_shape, self.lanes, addresses)

    def _address(self, role: Role, tensor: TensorSpec) -> tuple[int, tuple[int, ...]]:
        """Time stride and step strides of a tensor in that role."""
        if role in (Role.CHECKPOINT_LOAD, Role.CHECKPOINT_STORE):
            return tensor.strides[0], tensor.strides[1:]
        if role.per_step:
            strides = tensor.strides
            return strides[self.time_dim], without_axis(strides, self.time_dim)
        if role is Role.MATRIX:  # of contiguous rows
            return tensor.shape[-1], (0,) * len(self.step_shape)
        if role is Role.GROUP_STORE:  # has no lanes of its own to address
            return 0, dense_strides(self.step_shape, self.lanes)
        return 0, step_strides(tensor, self.step_shape)


@dataclass(frozen=True)
class TensorSpec:
    """Shape, strides and dtype of a tensor that is there, or is to be allocated."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    @staticmethod
    def of(tensor: Tensor) -> TensorSpec:
        return TensorSpec(tuple(tensor.shape), tensor.stride(), tensor.dtype)

    def make(self, device: torch.device) -> Tensor:
        return torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device=device)


def make_layout(
    num_steps: int, step_shape: Sequence[int], order: Sequence[int], tensors: Sequence[tuple[int, Sequence[int]]]
) -> Layout:
    """Number the lanes of ``step_shape`` in ``order``.

    Args:
        num_steps: T.
        step_shape: of one step.
        order: the dimensions from outermost to innermost.
        tensors: per tensor its time stride and its strides over the step dimensions.
    """
    sizes: list[int] = []
    columns: list[tuple[int, ...]] = []  # per kept dimension the stride of every tensor
    for d in order:
        if step_shape[d] == 1:
            continue
        strides = tuple(t[1][d] for t in tensors)
        if columns and all(outer == inner * step_shape[d] for outer, inner in zip(columns[-1], strides, strict=True)):
            sizes[-1] *= step_shape[d]
            columns[-1] = strides
        else:
            sizes.append(step_shape[d])
            columns.append(strides)
    if not sizes:
        sizes, columns = [1], [(1,) * len(tensors)]
    natural = dense_strides(sizes, range(len(sizes)))
    layouts = []
    for i, (time, _) in enumerate(tensors):
        strides = tuple(column[i] for column in columns)
        layouts.append(TensorLayout(time, strides, strides == natural))
    return Layout(num_steps, math.prod(step_shape), tuple(sizes), tuple(layouts))
