"""SequenceRules: what a scan does around the core's own steps, as a change of the step and of its vjp.

Nothing of it is in a printer: a rule reads the step index and what is the same through a call, and gives another step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from flexsn.ir.dtypes import HALF

__all__ = ["REDUCTIONS", "SequenceRules", "accumulator_dtype"]

REDUCTIONS = ("sum", "mean", "last", "max")


@dataclass(frozen=True)
class SequenceRules:
    """What holds for the calls of one kind.

    The states of a scan by rules are those of the core, then the ``learned`` ones, then the accumulators.

    Attributes:
        lengths: whether samples end at a step of their own; the number of it is the leaf ``LENGTH``.
        resets: whether there is one more input, bool: where states start again from the leaves ``INITIAL``.
        learned: the states whose initial value at a reset gets a gradient: as that of a state that stays the same.
        time_reduction: how outputs are reduced over time: ``"sum"``, ``"mean"``, ``"last"`` or ``"max"``, if at all.
        rate: whether the mean of the first output is wanted too.
        detach_every: the gradient of the core's states is cut before steps ``n, 2n, ...``.
        wanted_states: the states whose sequences are the core's last outputs.
    """

    lengths: bool = False
    resets: bool = False
    learned: tuple[int, ...] = ()
    time_reduction: str | None = None
    rate: bool = False
    detach_every: int | None = None
    wanted_states: tuple[int, ...] = ()

    def accumulated(self, num_outputs: int) -> tuple[tuple[int, str], ...]:
        """``(output, how)`` of every accumulator, for so many outputs of the core; a mean is a sum until it ends."""
        how = "sum" if self.time_reduction == "mean" else self.time_reduction
        found = [] if how is None else [(k, how) for k in range(num_outputs)]
        if self.rate and (0, "sum") not in found:
            found.append((0, "sum"))
        return tuple(found)


def accumulator_dtype(how: str, output: torch.dtype) -> torch.dtype:
    """What an output is accumulated in: numbers that are no floats are added up as 64-bit integers."""
    if how == "sum" and not output.is_floating_point:
        return torch.int64
    return torch.float32 if output in HALF else output
