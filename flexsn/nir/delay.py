"""Delay: what enters comes out some steps later."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Delay"]


class Delay(nn.Module):
    """``y[t] = x[t − delay/dt]``, lane by lane, rounded to whole steps; 0 before there was an input.

    It holds the last steps of its input from call to call, so a sequence in chunks is delayed as a whole one is;
    ``reset()`` forgets them, ``detach()`` cuts their graph. How many steps that are is settled when it is made.

    Args:
        delay: how long each lane waits, ≥ 0, in the unit of ``dt``; broadcasts against the lanes.
        dt: duration of a step.

    Shapes:
        ``[T, *batch, *lanes]`` (``step_mode="m"``) or ``[*batch, *lanes]`` (``"s"``), output alike.

    Raises:
        ValueError: a negative delay, or one that is no number.
    """

    delay: Tensor
    held: Tensor | None

    def __init__(self, delay: Tensor, dt: float) -> None:
        super().__init__()
        if not bool(((delay >= 0) & torch.isfinite(delay)).all()):
            raise ValueError(f"delay must be finite numbers >= 0, got {delay.tolist()}")
        self.register_buffer("delay", delay)
        self.dt, self.step_mode = dt, "m"
        steps = self.steps
        self.shortest, self.longest = (int(steps.min()), int(steps.max())) if steps.numel() else (0, 0)
        self.held = None

    @property
    def steps(self) -> Tensor:
        """The delay of each lane, in steps."""
        return torch.round(self.delay / self.dt).to(torch.int64)

    def forward(self, x: Tensor) -> Tensor:
        seq = x if self.step_mode == "m" else x.unsqueeze(0)
        known = self._known(seq)
        y = known[: len(seq)] if self.shortest == self.longest else self._picked(known, len(seq))
        self.held = known[len(seq) :]
        return y if self.step_mode == "m" else y.squeeze(0)

    def _known(self, seq: Tensor) -> Tensor:
        """The steps held, then those of this call."""
        held = seq.new_zeros(self.longest, *seq.shape[1:]) if self.held is None else self.held
        if held.shape[1:] != seq.shape[1:]:
            raise ValueError(
                f"the step shape changed from {tuple(held.shape[1:])} to {tuple(seq.shape[1:])} "
                "while Delay still holds steps; call reset() before a batch of another shape"
            )
        return torch.cat([held, seq])

    def _picked(self, known: Tensor, length: int) -> Tensor:
        first = (self.longest - self.steps).expand(known.shape[1:])
        steps = torch.arange(length, device=known.device).view(-1, *[1] * first.dim())
        return known.gather(0, first + steps)

    def reset(self) -> None:
        """Forget the steps held."""
        self.held = None

    def detach(self) -> None:
        """Cut the graph at the steps held."""
        self.held = None if self.held is None else self.held.detach()

    # ---- one step, inside a loop ----------------------------------------------------------------------------

    def parameters_of_a_step(self) -> tuple[Tensor, ...]:
        """What :meth:`step` takes besides input and states."""
        return (self.delay,)

    def step(self, x: Tensor, *registers: Tensor) -> tuple[Tensor, ...]:
        """What comes out, then what the next step finds in the registers: the inputs 1, 2, ... steps ago."""
        *held, delay = registers
        taps = (x, *held)
        return self.read(taps, 0, delay), *taps[: self.longest]

    def read(self, taps: Sequence[Tensor], newest: int, delay: Tensor) -> Tensor:
        """Of inputs ``newest``, ``newest + 1``, ... steps ago, for each lane the one it waits for."""
        if self.shortest == self.longest:
            return taps[self.longest - newest]
        steps = torch.round(delay / self.dt)
        y = taps[self.longest - newest]
        for ago in range(self.shortest, self.longest):
            y = torch.where(steps == ago, taps[ago - newest], y)
        return y

    def extra_repr(self) -> str:
        return f"shape={tuple(self.delay.shape)}, steps={self.shortest}..{self.longest}, dt={self.dt!r}"
