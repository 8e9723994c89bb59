"""Modules over the time axis: single-step ones step by step, stateless ones on all steps at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

__all__ = ["multi_step_forward", "seq_to_ann_forward"]

Stage: TypeAlias = Callable[..., Any]


def multi_step_forward(x_seq: Tensor, *single_step_modules: Stage | Sequence[Stage]) -> Any:
    """Run single-step modules, one after the other, over the time axis.

    ``y[t] = m_k(... m_1(x[t]))`` for ``t = 0 .. T-1``, in this order, so that stateful modules see time pass.

    Args:
        x_seq: ``[T, ...]``, T ≥ 1.
        single_step_modules: modules or functions of one step, given one by one or as a list.

    Returns:
        ``[T, ...]``, the stacked results; a tuple of such if the last module returns a tuple.

    Raises:
        ValueError: no steps, what is neither module nor function, or a module in ``step_mode='m'``, which
            would take the batch for time.

    Example:
        >>> multi_step_forward(torch.arange(6.0).view(3, 2), lambda x: x + 1, torch.square)
        tensor([[ 1.,  4.],
                [ 9., 16.],
                [25., 36.]])
    """
    stages = _flatten(single_step_modules)
    for stage in stages:
        for module in (stage, *stage) if isinstance(stage, nn.Sequential) else (stage,):
            if getattr(module, "step_mode", "s") == "m":
                raise ValueError(
                    f"multi_step_forward feeds one step at a time, but {type(module).__name__} has "
                    "step_mode='m' and would take the batch for time: "
                    "set step_mode='s', or call it on the whole sequence"
                )
    if x_seq.dim() == 0 or x_seq.shape[0] == 0:
        raise ValueError(f"x_seq must be [T, ...] with T >= 1, got shape {tuple(x_seq.shape)}")
    steps = [_run(stages, (x,)) for x in x_seq.unbind(0)]
    if isinstance(steps[0], tuple):
        return tuple(torch.stack(values) for values in zip(*steps, strict=True))
    return torch.stack(steps)


def seq_to_ann_forward(x_seq: Tensor | tuple[Tensor, ...], *stateless_modules: Stage | Sequence[Stage]) -> Any:
    """Run stateless modules on all steps at once: time is folded into the batch.

    ``[T, B, ...] -> [T·B, ...] -> modules -> [T·B, ...] -> [T, B, ...]``. Much faster than a loop for
    convolutions, linear layers and the like. Batch normalisation then sees T·B samples.

    Args:
        x_seq: ``[T, B, ...]``, or a tuple of such for a first module of several inputs.
        stateless_modules: modules or functions of ``[B, ...]``, given one by one or as a list.

    Returns:
        ``[T, B, ...]``, or a tuple of such if the last module returns a tuple.

    Raises:
        ValueError: fewer than two dimensions, inputs that differ in T or B, or what is neither module nor
            function.

    Example:
        >>> seq_to_ann_forward(torch.zeros(5, 2, 3, 8, 8), nn.Conv2d(3, 4, 3), nn.Flatten()).shape
        torch.Size([5, 2, 144])
    """
    inputs = x_seq if isinstance(x_seq, tuple) else (x_seq,)
    shapes = [tuple(x.shape) for x in inputs]
    if not shapes or min(map(len, shapes)) < 2 or len({shape[:2] for shape in shapes}) > 1:
        raise ValueError(f"x_seq must be [T, B, ...], with the same T and B in every input, got shapes {shapes}")
    leading = shapes[0][:2]
    y = _run(_flatten(stateless_modules), tuple(x.flatten(0, 1) for x in inputs))
    if isinstance(y, tuple):
        return tuple(value.unflatten(0, leading) for value in y)
    return y.unflatten(0, leading)


def _flatten(stages: Sequence[Stage | Sequence[Stage]]) -> list[Stage]:
    flat: list[Stage] = []
    for stage in stages:
        flat.extend(_flatten(stage) if isinstance(stage, (list, tuple)) else [stage])  # type: ignore[list-item]
    for stage in flat:
        if not callable(stage):
            raise ValueError(f"stages must be modules or functions, got {type(stage).__name__}")
    return flat


def _run(stages: Sequence[Stage], values: tuple[Tensor, ...]) -> Any:
    result: Any = values if len(values) > 1 else values[0]
    for stage in stages:
        result = stage(*result) if isinstance(result, tuple) else stage(result)
    return result
