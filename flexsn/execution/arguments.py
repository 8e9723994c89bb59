"""The arguments of a scan: do inputs and states fit together, and brought to one step shape and into memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from flexsn.execution.entrance import refuse, written_out
from flexsn.ir.dtypes import HALF
from flexsn.ir.layout import without_axis

__all__ = ["as_floats", "check", "fit"]

Tensors = tuple[Tensor, ...]


def fit(inputs: Sequence[Tensor], states: Sequence[Tensor], time_dim: int) -> tuple[Tensors, Tensors, int]:
    """Check that everything fits together; broadcast to the step shape, bring 16-bit states to fp32.

    Returns:
        Inputs, states, and the time axis counted from the front.

    Raises:
        ValueError: T, devices or shapes do not fit, something is no tensor, or of a kind that cannot be scanned.
    """
    check(inputs, states, time_dim)
    inputs, states = tuple(map(written_out, inputs)), tuple(map(written_out, states))
    inputs, states, axis = _broadcast(inputs, states, time_dim)
    return inputs, tuple(s if s.dtype not in HALF else s.float() for s in states), axis


def as_floats(inputs: Tensors) -> Tensors:
    """Integers and bools as floats of the default dtype, everything else as it is."""
    if all(x.is_floating_point() or x.is_complex() for x in inputs):
        return inputs
    default = torch.get_default_dtype()
    return tuple([x if x.is_floating_point() or x.is_complex() else x.to(default) for x in inputs])


def check(inputs: Sequence[Tensor], states: Sequence[Tensor], time_dim: int) -> None:
    """Check everything but the step shapes; raises as :func:`fit`."""
    if not inputs:
        raise ValueError("a scan needs at least one input, which says how many steps there are")
    for what, tensors in (("input", inputs), ("state", states)):
        for i, value in enumerate(tensors):
            if not isinstance(value, Tensor):
                raise ValueError(f"{what} {i} must be a tensor, got {type(value).__name__}")
            refuse(f"{what} {i}", value)
    for i, x in enumerate(inputs):
        if not -x.dim() <= time_dim < x.dim():
            raise ValueError(f"input {i} of shape {tuple(x.shape)} has no time axis {time_dim}")
    if len({x.shape[time_dim] for x in inputs}) > 1:
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
        raise ValueError(f"inputs differ in their number of steps T: shapes {shapes}, time axis {time_dim}")
    devices = {t.device for t in (*inputs, *states)}
    if len(devices) > 1:
        raise ValueError(f"inputs and states are on different devices: {', '.join(sorted(map(str, devices)))}")


def _broadcast(inputs: Sequence[Tensor], states: Sequence[Tensor], time_dim: int) -> tuple[Tensors, Tensors, int]:
    steps = [without_axis(x.shape, time_dim) for x in inputs]
    shapes = [*steps, *(s.shape for s in states)]
    axis = time_dim % inputs[0].dim()
    if all(shape == shapes[0] for shape in shapes[1:]):
        return tuple(inputs), tuple(states), axis
    try:
        step = np.broadcast_shapes(*shapes)  # torch's own imports sympy
    except ValueError:
        listed = [", ".join(str(tuple(s)) for s in part) for part in (steps, shapes[len(steps) :])]
        raise ValueError(f"step shapes do not broadcast: inputs {listed[0]}; states {listed[1]}") from None
    if time_dim < 0:
        axis = len(step) + 1 + time_dim
    num_steps = inputs[0].shape[time_dim]
    padded = [(1,) * (len(step) - len(shape)) for shape in steps]
    wide = [
        x.movedim(time_dim, 0).reshape(num_steps, *ones, *shape).expand(num_steps, *step).movedim(0, axis)
        for x, ones, shape in zip(inputs, padded, steps, strict=True)
    ]
    return tuple(wide), tuple(s.expand(step) for s in states), axis
