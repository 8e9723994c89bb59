"""A scan by rules, written down by hand: one sample at a time, plain Python, no masks and no ``where``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Core = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True)
class Asked:
    """What is asked of a scan besides its steps."""

    lengths: tuple[int, ...] | None = None
    reset_mask: Tensor | None = None
    detach_every: int | None = None
    time_reduction: str | None = None
    rate: bool = False


def scan_by_hand(core: Core, inputs: Sequence[Tensor], states: Sequence[Tensor], asked: Asked) -> list[Tensor]:
    """Outputs, final states, state sequences and the rate: every sample by itself, for as long as it lasts.

    Args:
        core: a step of any shape.
        inputs: ``[T, B, ...]``.
        states: ``[B, ...]``.
        asked: of the scan.
    """
    num_steps, batch = inputs[0].shape[:2]
    samples = []
    for b in range(batch):
        length = num_steps if asked.lengths is None else asked.lengths[b]
        xs = [[x[t, b : b + 1] for x in inputs] for t in range(num_steps)]
        mask = None if asked.reset_mask is None else asked.reset_mask[:, b].tolist()
        samples.append(_sample(core, xs, [s[b : b + 1] for s in states], length, mask, asked))
    return [
        torch.cat(parts, dim)
        for parts, dim in zip(zip(*samples, strict=True), _batch_dims(samples, states, asked), strict=True)
    ]


def _batch_dims(samples: list[list[Tensor]], states: Sequence[Tensor], asked: Asked) -> list[int]:
    num_outputs = len(samples[0]) - 2 * len(states) - asked.rate
    first = 0 if asked.time_reduction else 1
    return [first] * num_outputs + [0] * len(states) + [1] * len(states) + [0] * asked.rate


def _sample(
    core: Core, xs: list[list[Tensor]], states: list[Tensor], length: int, resets: list[bool] | None, asked: Asked
) -> list[Tensor]:
    initial, carried = states, states
    outputs: list[list[Tensor]] = []
    seqs: list[list[Tensor]] = []
    for t, x in enumerate(xs):
        if asked.detach_every and t and t % asked.detach_every == 0:
            carried = [v.detach() for v in carried]
        if t < length:
            entering = initial if resets is not None and resets[t] else carried
            values = core(*x, *entering)
            split = len(values) - len(states)
            outputs.append(list(values[:split]))
            carried = list(values[split:])
        seqs.append(carried)
    zeros = [torch.zeros_like(y) for y in core(*(torch.ones_like(x) for x in xs[0]), *initial)][: -len(states) or None]
    columns = [[step[k] for step in outputs] for k in range(len(zeros))]
    rest = len(xs) - len(outputs)
    results = [
        _reduced(asked.time_reduction, c, z) if asked.time_reduction else torch.stack(c + [z] * rest)
        for c, z in zip(columns, zeros, strict=True)
    ]
    rate = [_reduced("mean", columns[0], zeros[0])] if asked.rate else []
    return [*results, *carried, *(torch.stack(list(c)) for c in zip(*seqs, strict=True)), *rate]


def _reduced(how: str, column: list[Tensor], zero: Tensor) -> Tensor:
    if not column:
        return zero
    if how == "last":
        return column[-1]
    if how == "max":
        return torch.stack(column).max(0).values
    total: Any = sum(column)
    return total if how == "sum" else total / len(column)
