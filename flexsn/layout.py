"""Layout: how lanes are numbered so that dense tensors are walked in memory order, whatever their permutation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Layout", "TensorLayout", "dense_strides", "lane_order", "make_layout"]


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


def step_strides(tensor: Tensor, step_shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a tensor without time axis, broadcast to the step shape."""
    missing = len(step_shape) - tensor.dim()
    own = zip(tensor.shape, tensor.stride(), step_shape[missing:], strict=True)
    return (0,) * missing + tuple(0 if size == 1 and full != 1 else stride for size, stride, full in own)


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
    num_lanes = 1
    for size in step_shape:
        num_lanes *= size
    if not sizes:
        sizes, columns = [1], [(1,) * len(tensors)]
    natural = dense_strides(sizes, range(len(sizes)))
    layouts = []
    for i, (time, _) in enumerate(tensors):
        strides = tuple(column[i] for column in columns)
        layouts.append(TensorLayout(time, strides, strides == natural))
    return Layout(num_steps, num_lanes, tuple(sizes), tuple(layouts))
