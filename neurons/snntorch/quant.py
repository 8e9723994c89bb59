"""snnTorch's quantized states: rounding to the nearest of a few levels, in a form that compiles.

.. code-block:: python

    from snntorch.functional import quant              # before
    from flexsn.neurons.snntorch import quant          # after; snnTorch's own quantizers are understood as well
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flexsn.neurons.arguments import check_flag, check_number, check_size

__all__ = ["Levels", "state_quant", "understood"]

_MULTIPLIERS = {1: 0.05, 2: 0.1, 3: 0.3, 4: 0.5, 5: 0.7, 6: 0.9, 7: 0.925}


class Levels:
    """The nearest of these levels, the lower one of two as near; the gradient passes through unchanged.

    Levels at equal distances are computed. Others are tried one after the other, two operations each, up to 64 of them;
    more would keep the compiler busy for long, so they are looked up in a table: the torch loop. Of states so far
    away that all distances are rounded to the same number snnTorch takes the lowest level, here it is the last.

    Args:
        levels: ascending, ``[n]``.

    Example:
        >>> x = torch.tensor([-3.0, 0.25, 0.75], requires_grad=True)
        >>> Levels(torch.tensor([-1.0, 0.0, 0.5, 1.0]))(x).tolist()
        [-1.0, 0.0, 0.5]
    """

    def __init__(self, levels: Tensor) -> None:
        levels = levels.detach().float().cpu()
        self.count, self.lowest, self.highest = len(levels), levels[0].item(), levels[-1].item()
        self.step = ((levels[-1] - levels[0]) / max(self.count - 1, 1)).item()
        even = self.count > 1 and torch.equal(self._at(torch.arange(self.count)), levels)
        lasts = _last_of_each(levels)
        self._table = (levels, lasts)
        self.steps = () if even else tuple(zip(lasts.tolist(), levels[1:].tolist(), strict=True))
        self._nearest = self._computed if even else self._tried if self.count <= 64 else self._looked_up

    def __call__(self, x: Tensor) -> Tensor:
        nearest: Tensor = _StraightThrough.apply(x, self._nearest)  # type: ignore[no-untyped-call]
        return nearest

    def _at(self, index: Tensor) -> Tensor:
        """The level of this number, rounded once as by ``torch.linspace``."""
        i = index.double()
        rising, falling = self.lowest + self.step * i, self.highest - self.step * (self.count - 1 - i)
        return torch.where(i < self.count // 2, rising, falling).to(torch.float32)

    def _computed(self, x: Tensor) -> Tensor:
        guess = torch.floor((x - self.lowest) / self.step).clamp(0, self.count - 1)
        lower, upper = self._at(guess), self._at((guess + 1).clamp(max=self.count - 1))
        return torch.where((upper - x).abs() < (lower - x).abs(), upper, lower)

    def _tried(self, x: Tensor) -> Tensor:
        nearest = torch.full_like(x, self.lowest)
        for last, level in self.steps:
            nearest = torch.where(x > last, level, nearest)
        return nearest

    def _looked_up(self, x: Tensor) -> Tensor:
        levels, lasts = (table.to(x.device) for table in self._table)
        return levels[torch.bucketize(x, lasts)]


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return function(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        return grad_outputs[0], None


def _last_of_each(levels: Tensor) -> Tensor:
    """The largest number that is as near to a level as to the next one, or nearer, for all but the last."""
    lower, upper = levels[:-1], levels[1:]
    low, high = lower.clone(), upper.clone()
    for _ in range(64):  # bisection, until no float lies between
        middle = low + (high - low) / 2
        stays = (middle - lower).abs() <= (upper - middle).abs()
        low, high = torch.where(stays, middle, low), torch.where(stays, high, middle)
    return low


def state_quant(
    num_bits: int = 8,
    uniform: bool = True,
    thr_centered: bool = True,
    threshold: float = 1,
    lower_limit: float = 0,
    upper_limit: float = 0.2,
    multiplier: float | None = None,
) -> Levels:
    """A quantizer of states to ``2**num_bits`` levels, for ``state_quant=`` of a neuron.

    They reach from ``−threshold·(1 + lower_limit)`` to ``threshold·(1 + upper_limit)``.

    Args:
        num_bits: of a level's number.
        uniform: levels at equal distances.
        thr_centered: otherwise, dense around the threshold; ``False``: around 0.
        threshold, lower_limit, upper_limit: the range.
        multiplier: ratio of neighbouring distances; by default one that suits ``num_bits``.

    Raises:
        ValueError: an argument outside its range.

    Example:
        >>> from flexsn.neurons import snntorch as snn
        >>> lif = snn.Leaky(0.5, state_quant=state_quant(num_bits=2, upper_limit=0.0), step_mode="m")
        >>> lif(torch.tensor([0.25, 0.5])).tolist(), round(lif.mem.item(), 4)
        ([0.0, 0.0], 0.3333)
    """
    owner = type("state_quant", (), {})()  # for the words of errors
    check_size(owner, num_bits=num_bits)
    check_flag(owner, uniform=uniform, thr_centered=thr_centered)
    check_number(owner, threshold=threshold, lower_limit=lower_limit, upper_limit=upper_limit)
    count, lowest, highest = 2**num_bits, -threshold * (1 + lower_limit), threshold * (1 + upper_limit)
    if uniform:
        return Levels(torch.linspace(lowest, highest, count))
    ratio = _MULTIPLIERS.get(num_bits, 0.95) if multiplier is None else multiplier
    center = threshold if thr_centered else 0
    below = math.floor(count * ((center - lowest) / (highest - lowest)))
    shrinking, growing = _distances(ratio, below, center - lowest), _distances(ratio, count - below, highest - center)
    levels = [lowest + sum(shrinking[:k]) for k in range(below)]
    levels += [center + sum(growing[::-1][: k + 1]) for k in range(count - below)]
    return Levels(torch.tensor(levels))


def _distances(ratio: float, count: int, total: float) -> list[float]:
    """So many distances, each ``ratio`` times the one before, that add up to ``total``."""
    powers = [ratio**k for k in range(count)]
    return [power * total / sum(powers) for power in powers]


def understood(quantizer: Any) -> Any:
    """A quantizer of snnTorch's own as :class:`Levels`, any other as it is."""
    if getattr(quantizer, "__module__", None) == "snntorch.functional.quant":
        levels = inspect.getclosurevars(quantizer).nonlocals.get("levels")
        if isinstance(levels, Tensor) and bool((levels.diff() > 0).all()):
            return Levels(levels)
    return quantizer
