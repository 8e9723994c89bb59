"""The forward pass of a scan whose steps have products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from flexsn.execution.alternating.backward import BoundAlternatingBackward
from flexsn.execution.alternating.steps import BoundStep, rows, same_at_every_step, step_by_step, step_indices
from flexsn.execution.call import CallSpec
from flexsn.ir.graph import LeafKind
from flexsn.ir.layout import TensorSpec
from flexsn.planning.alternating import plan_alternating
from flexsn.planning.stages import Key

__all__ = ["AlternatingScan"]


class AlternatingScan:
    """Kernels and products for one kind of call; as :class:`~flexsn.execution.forward.BoundScan`.

    Args:
        spec: the kind of call.
    """

    _back: ClassVar[type[BoundAlternatingBackward]] = BoundAlternatingBackward

    def __init__(self, spec: CallSpec) -> None:
        self.spec = spec
        self.plan = plan = plan_alternating(spec.tracer.graph, spec.tracer.vjp, spec.request, spec.backend)
        self.checkpoints = self._kept()
        self.read_again: tuple[int, ...] = ()
        step = plan.step
        outputs = [("output", k) for k in range(len(step.outputs))]
        index = step.builder.coordinate(LeafKind.STEP_INDEX)
        self._per_step: list[Key] = [*step.inputs, *outputs, *plan.kept, index]
        self._step = BoundStep(spec, plan.kernels, self._per_step)
        self._index = step_indices(spec) if self._step.reads(index) else ()
        self._states = [(self._step.place(s), self._step.place(("next", s.index))) for s in step.states]
        self._lane_index = spec.lane_index(plan.kernels.slots)
        self._as_stored = all(o.stored is o.visible for o in spec.outputs)
        self._operands: Callable[..., tuple[Tensor, ...]]
        self._num_read = 0  # captured tensors; the backward half may read more
        self._backwards: dict[Any, BoundAlternatingBackward] = {}

    def prepare(
        self, inputs: Sequence[Tensor], states: Sequence[Tensor], captured: Sequence[Tensor]
    ) -> AlternatingScan:
        """Build the kernels; see :meth:`BoundScan.prepare`."""
        captured = [t.detach() for t in captured]
        *_, read = self.spec.read_once(captured)
        self._operands, self._num_read = self.spec.operands(read), len(read)
        with torch.no_grad():
            tensors = self._tensors(states, captured)
            sequences = self._sequences(inputs, self._outputs(), self._fresh()[len(self.plan.live) :])
            tensors[: len(sequences)] = [seq[0] for seq in sequences]
            self._step.bind(tensors)
        return self

    def results(self) -> list[TensorSpec]:
        """Layouts of outputs, as they are visible, and final states."""
        shape, visible = self.spec.shape, self.spec.outputs
        outputs = [replace(shape.sequence(o.stored), dtype=o.visible) for o in visible]
        return [*outputs, *(shape.step(s.dtype) for s in self.plan.step.states)]

    def forward(
        self, inputs: Sequence[Tensor], states: Sequence[Tensor], captured: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        """Run: ``(*outputs, *final_states)``, and what is kept: checkpoints, and products of every step."""
        spec, plan, step, pairs = self.spec, self.plan, self._step, self._states
        every, count = plan.interval, len(step.per_step)
        with torch.no_grad(), torch.autocast(spec.device.type, enabled=False):
            outputs, kept = self._outputs(), self._fresh()
            checkpoints, products = kept[: len(plan.live)], kept[len(plan.live) :]
            tensors = self._tensors(states, captured)
            sequences = self._sequences(inputs, outputs, products)
            for t, at_step in enumerate(step_by_step(sequences, spec.shape.num_steps)):
                if every and t and t % every == 0:
                    for checkpoint, j in zip(checkpoints, plan.live, strict=True):
                        checkpoint[t // every - 1] = tensors[pairs[j][0]]
                tensors[:count] = at_step
                step.run(tensors)
                for old, new in pairs:
                    tensors[old], tensors[new] = tensors[new], tensors[old]
            finals = [tensors[old].view(spec.shape.step_shape) for old, _ in pairs]
        if not self._as_stored:
            outputs = [o.wrap(y) for o, y in zip(spec.outputs, outputs, strict=True)]
        return (*outputs, *finals), kept

    def backward(
        self, saved: Sequence[Tensor], grads: Sequence[Tensor | None], needs: Sequence[bool]
    ) -> list[Tensor | None]:
        """Gradients of inputs, states and captured tensors; see :meth:`BoundScan.backward`."""
        key = (tuple([None if g is None else (g.stride(), g.dtype) for g in grads]), tuple(needs))
        run = self._backwards.get(key)
        if run is None:
            captured = self.spec.split(saved)[2]
            run = self._backwards[key] = self._back(self.spec, self.plan, captured, grads, needs)
        return run(saved, grads)

    # ---- tensors ------------------------------------------------------------------------------------------------

    def _kept(self) -> list[TensorSpec]:
        """What training keeps, row by row."""
        plan, shape = self.plan, self.spec.shape
        count = max(0, (shape.num_steps - 1) // plan.interval) if plan.interval else 0
        kept = [(count, plan.step.states[j].dtype) for j in plan.live]
        kept += [(shape.num_steps, leaf.dtype) for leaf in plan.kept]
        return [shape.rows(dtype, count) for count, dtype in kept]

    def _fresh(self) -> list[Tensor]:
        return [spec.make(self.spec.device) for spec in self.checkpoints]

    def _outputs(self) -> list[Tensor]:
        return [self.spec.shape.sequence(o.stored).make(self.spec.device) for o in self.spec.outputs]

    def _tensors(self, states: Sequence[Tensor], captured: Sequence[Tensor]) -> list[Tensor]:
        """Those that stay the same, the states in memory of their own, and memory for the next ones."""
        *_, read = self.spec.read_once(captured)
        operands = self._operands(*read[: self._num_read])
        tensors = self._step.tensors(same_at_every_step(self.spec, operands, self._lane_index, captured))
        for state, (old, new) in zip(states, self._states, strict=True):
            tensors[old], tensors[new] = (rows(self.spec, state.dtype) for _ in range(2))
            tensors[old].view(state.shape).copy_(state)
        return tensors

    def _sequences(
        self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], products: Sequence[Tensor]
    ) -> list[Sequence[Tensor]]:
        """Step by step, what the step has a use for."""
        axis = self.spec.shape.time_dim
        found = [*(seq.unbind(axis) for seq in (*inputs, *outputs)), *(seq.unbind(0) for seq in products), self._index]
        return [seq for key, seq in zip(self._per_step, found, strict=True) if key in self._step.per_step]
