"""The forward kernel of a scan, bound to one kind of call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from flexsn.execution.backward import BoundBackward
from flexsn.execution.call import CallSpec
from flexsn.ir.layout import TensorSpec
from flexsn.ir.plan import Holds
from flexsn.kernels.backend import Launch

__all__ = ["BoundScan"]

_GROUPS = (
    *(Holds.INPUT, Holds.STATE, Holds.OPERAND, Holds.LANE_INDEX, Holds.LENGTH, Holds.INITIAL),
    *(Holds.MATRIX, Holds.OUTPUT, Holds.FINAL_STATE, Holds.CHECKPOINT),
)


_KEPT = (Holds.CHECKPOINT, Holds.SAVED)  # for the backward pass


class BoundScan:
    """Kernels for one kind of call.

    Args:
        spec: the kind of call.
    """

    def __init__(self, spec: CallSpec) -> None:
        self.spec = spec
        self.plan = spec.plans().forward
        self.live = tuple(leaf.index for _, leaf in self.plan.checkpoints)
        self._outputs = [spec.dense(self.plan, slot) for slot, _ in self.plan.stores if slot.holds is Holds.OUTPUT]
        self._finals = [spec.dense(self.plan, c.final) for c in self.plan.carries if c.final is not None]
        kept = [slot for slot, _ in (*self.plan.checkpoints, *self.plan.stores) if slot.holds in _KEPT]
        self.checkpoints = [spec.dense(self.plan, slot) for slot in kept]
        self.read_again = self.plan.read_again
        self._lane_index = spec.lane_index(self.plan.slots)
        self._matrices = [s.index for s in self.plan.slots if s.holds is Holds.MATRIX]
        self._order = [
            (_GROUPS.index(Holds.CHECKPOINT), kept.index(s)) if s in kept else (_GROUPS.index(s.holds), s.index)
            for s in self.plan.slots
        ]
        self._as_stored = all(o.stored is o.visible for o in spec.outputs)
        self._operands: Callable[..., tuple[Tensor, ...]]
        self._num_read = 0  # captured tensors; the backward half may read more
        self._launch: Launch | None = None
        self._backwards: dict[Any, BoundBackward] = {}

    def prepare(self, inputs: Sequence[Tensor], states: Sequence[Tensor], captured: Sequence[Tensor]) -> BoundScan:
        """Build the forward kernel, so that a backend that cannot says so before anything has run.

        Raises:
            BackendError: the kernel cannot be built here.
        """
        *once, captured = self.spec.read_once(captured)
        self._operands, self._num_read = self.spec.operands(captured), len(captured)
        operands = self._operands(*[t.detach() for t in captured])
        matrices = {i: operands[i].contiguous() for i in self._matrices}
        read = (inputs, states, operands, self._lane_index, *once)
        given: list[Any] = [[TensorSpec.of(t) for t in group] for group in read]
        given.append({i: TensorSpec.of(m) for i, m in matrices.items()})
        groups = (*given, self._outputs, self._finals, self.checkpoints)
        self._launch = self.spec.bind(self.plan, [groups[group][index] for group, index in self._order])
        return self

    def results(self) -> list[TensorSpec]:
        """Layouts of outputs, as they are visible, and final states."""
        visible = zip(self._outputs, self.spec.outputs, strict=True)
        return [*(replace(spec, dtype=o.visible) for spec, o in visible), *self._finals]

    def forward(
        self, inputs: Sequence[Tensor], states: Sequence[Tensor], captured: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        """Run the forward kernel: ``(*outputs, *final_states)``, and the checkpoints."""
        device = self.spec.device
        outputs = [fresh.make(device) for fresh in self._outputs]
        finals = [fresh.make(device) for fresh in self._finals]
        checkpoints = [fresh.make(device) for fresh in self.checkpoints]
        *once, captured = self.spec.read_once(captured)
        operands = self._operands(*captured[: self._num_read])
        matrices = {i: operands[i].contiguous() for i in self._matrices}
        groups: tuple[Any, ...] = (
            *(inputs, states, operands, self._lane_index, *once, matrices, outputs, finals, checkpoints),
        )
        assert self._launch is not None
        self._launch([groups[group][index] for group, index in self._order])
        if not self._as_stored:
            outputs = [o.wrap(y) for o, y in zip(self.spec.outputs, outputs, strict=True)]
        return (*outputs, *finals), checkpoints

    def backward(
        self, saved: Sequence[Tensor], grads: Sequence[Tensor | None], needs: Sequence[bool]
    ) -> list[Tensor | None]:
        """Gradients of inputs, states and captured tensors.

        Args:
            saved: inputs, states, captured tensors, checkpoints, and if there still are any the outputs ``read_again``.
            grads: of outputs and final states.
            needs: which gradients are wanted.
        """
        key = (tuple([None if g is None else (g.stride(), g.dtype) for g in grads]), tuple(needs))
        run = self._backwards.get(key)
        if run is None:
            run = self._backwards[key] = BoundBackward(self.spec, self.live, self.spec.split(saved)[2], grads, needs)
        *given, kept = self.spec.split(saved)
        if len(kept) == len(self.checkpoints) and run.reads_outputs:
            results, _ = self.forward(*given)
            saved = (*saved, *(results[i] for i in self.read_again))
        return run(saved, grads)
