"""Spikes that differ: which of them rounding can turn, and which it cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from flexsn.checking.cases import Case
from flexsn.checking.run import run
from flexsn.modules.flexsn import FlexSN

__all__ = ["ULPS", "Flips", "find_flips"]

ULPS = 8
"""How far every operand of the loop is moved to see whether a spike turns: by as many units in the last place."""
_DRAWS = 24
_SHOWN = 3


@dataclass(frozen=True)
class Flips:
    """Where spikes of a backend differ from the loop's.

    What follows a flip in its lane (in its sample, where the step reads across lanes) differs by right, so of every
    lane the first flip counts.

    Attributes:
        first: ``[*step]``, the step of the first flip; ``T`` where there is none.
        turned: ``[*step]``, whether rounding turns it.
        outputs: which outputs are spikes.
        shown: the first few of those that rounding does not turn, in words.
    """

    first: Tensor
    turned: Tensor
    outputs: tuple[int, ...]
    shown: tuple[str, ...]

    @property
    def same(self) -> Tensor:
        """``[*step]``, the lanes without flips."""
        return self.first == self._steps

    _steps: int = 0

    @property
    def by_rounding(self) -> int:
        """How many lanes flip first where rounding turns a spike."""
        return int((~self.same & self.turned).sum())

    @property
    def others(self) -> int:
        """How many lanes flip first where rounding does not."""
        return int((~self.same & ~self.turned).sum())


def find_flips(
    neuron: FlexSN, case: Case, loop: Sequence[Tensor], got: Sequence[Tensor], by_sample: bool, seed: int
) -> Flips:
    """Compare outputs that are whole numbers: spikes, spike counts.

    Args:
        neuron, case: that gave them.
        loop: the outputs of the loop, and
        got: of a backend.
        by_sample: whether lanes of a sample depend on each other.
        seed: of the roundings.
    """
    spikes = tuple(i for i, (a, b) in enumerate(zip(loop, got, strict=True)) if _whole(a) and _whole(b))
    steps = len(case.inputs[0])
    differ = torch.zeros((steps, *case.step), dtype=torch.bool, device=case.inputs[0].device)
    for i in spikes:
        differ = differ | (loop[i] != got[i])
    first = _first(differ, by_sample)
    turned = torch.zeros_like(first, dtype=torch.bool)
    if not differ.any():
        return Flips(first, turned, spikes, (), steps)
    for draw in range(_DRAWS):
        with torch.no_grad(), _Rounded(seed + draw):
            rounded = [y.detach() for y in run(neuron, "torch", case, False).outputs]
        moved = torch.zeros_like(differ)
        for i in spikes:
            moved = moved | (rounded[i].round() != loop[i])
        turned = turned | (_first(moved, by_sample) == first)
    return Flips(first, turned, spikes, _in_words(first, turned, loop, got, spikes), steps)


def _whole(y: Tensor) -> bool:
    return bool((y == y.round()).all()) if y.is_floating_point() else True


def _first(differ: Tensor, by_sample: bool) -> Tensor:
    steps = len(differ)
    if by_sample and differ.dim() > 2:
        differ = differ.flatten(2).any(2).view(*differ.shape[:2], *[1] * (differ.dim() - 2)).expand_as(differ)
    counted = torch.arange(steps, device=differ.device).view(-1, *[1] * (differ.dim() - 1))
    return torch.where(differ, counted, steps).amin(0)


def _in_words(
    first: Tensor, turned: Tensor, loop: Sequence[Tensor], got: Sequence[Tensor], spikes: Sequence[int]
) -> tuple[str, ...]:
    rows: list[str] = []
    for lane in ((first < len(loop[0])) & ~turned).nonzero().tolist():
        t = int(first[tuple(lane)])
        for i in spikes:
            a, b = loop[i][(t, *lane)], got[i][(t, *lane)]
            if a != b and len(rows) < _SHOWN:
                rows.append(f"output {i}, step {t}, lane {tuple(lane)}: {float(b):g}, the loop {float(a):g}")
    return tuple(rows)


class _Rounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Moves every operand of every operation by up to :data:`ULPS`, at random; whole numbers stay, as spikes are."""

    def __init__(self, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seed, self._generators = seed, dict[torch.device, torch.Generator]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func._schema.is_mutable:
            return func(*args, **(kwargs or {}))
        return func(*map(self._moved, args), **(kwargs or {}))

    def _moved(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(map(self._moved, value))
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        if value.device not in self._generators:
            self._generators[value.device] = torch.Generator(value.device).manual_seed(self._seed)
        drawn = torch.rand(value.shape, generator=self._generators[value.device], device=value.device) * 2 - 1
        moved = value * (1 + drawn.to(value.dtype) * (ULPS * torch.finfo(value.dtype).eps))
        return torch.where(value == value.round(), value, moved)
