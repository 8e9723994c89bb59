"""The gradients of matrices: one product each, of the sequences that a backward kernel read or wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from flexsn.execution.call import CallSpec
from flexsn.ir.plan import BackwardPlan, ForwardPlan, Holds, Slot

__all__ = ["OuterSums"]


class OuterSums:
    """Sums outer products over time and samples.

    Args:
        spec: the kind of call.
        plan: of the backward pass.
        forward: of the forward pass, which says what was kept.
        written: which of the tensors that the kernel writes a slot is, by what it holds and its number.
    """

    def __init__(
        self, spec: CallSpec, plan: BackwardPlan, forward: ForwardPlan, written: Mapping[tuple[Holds, int], int]
    ) -> None:
        self._axis, self._size = spec.options.time_dim, (1, *spec.shape.step_shape)[-1]
        self._outers, self._written = plan.outers, written
        self._first_saved = len(forward.checkpoints)
        self._first_output = self._first_saved + sum(slot.holds is Holds.SAVED for slot, _ in forward.stores)
        self._outputs = forward.read_again
        self._device, self._product = spec.device.type, spec.backend.outer_product
        self.read_outputs = any(f.state is not None for outer in plan.outers for f in (outer.left, outer.right))

    def __call__(
        self, inputs: Sequence[Tensor], states: Sequence[Tensor], kept: Sequence[Tensor], written: Sequence[Tensor]
    ) -> list[tuple[int, Tensor]]:
        """``(group, sum)`` of each, by its group and number.

        Args:
            inputs, states: of the call.
            kept: checkpoints, saved values, and the outputs that are read again.
            written: by the kernel.
        """
        axis, found = self._axis, []
        with torch.no_grad(), torch.autocast(self._device, enabled=False):
            for outer in self._outers:
                sides = [(f, self._sequence(f.slot, inputs, kept, written)) for f in (outer.left, outer.right)]
                if all(factor.state is None for factor, _ in sides):
                    left, right = (self._rows(values) for _, values in sides)
                    found.append((outer.group, self._product(left, right)))
                    continue
                left, right = (self._rows(v.select(axis, 0) if f.state is None else states[f.state]) for f, v in sides)
                later_left, later_right = (
                    self._rows(v.narrow(axis, int(f.state is None), v.shape[axis] - 1)) for f, v in sides
                )
                found.append((outer.group, self._product(later_left, later_right).addmm_(left.t(), right)))
        return found

    def _sequence(
        self, slot: Slot, inputs: Sequence[Tensor], kept: Sequence[Tensor], written: Sequence[Tensor]
    ) -> Tensor:
        if slot.role.writes:
            return written[self._written[slot.holds, slot.index]]
        if slot.holds is Holds.INPUT:
            return inputs[slot.index]
        if slot.holds is Holds.SAVED:
            return kept[self._first_saved + slot.index]
        return kept[self._first_output + self._outputs.index(slot.index)]

    def _rows(self, values: Tensor) -> Tensor:
        return values.reshape(-1, self._size)
