"""The forward pass of a scan whose steps have products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from flexsn.execution.alternating.backward import BoundAlternatingBackward
from flexsn.execution.alternating.stages import BoundStages, step_tensor
from flexsn.execution.call import CallSpec
from flexsn.planning.alternating import Key, in_place, plan_alternating, source_key

__all__ = ["AlternatingScan"]


class AlternatingScan:
    """Kernels and products for one kind of call.

    Args:
        spec: the kind of call.
    """

    def __init__(self, spec: CallSpec) -> None:
        self.spec = spec
        self._graph = spec.tracer.graph
        self.plan = plan = plan_alternating(self._graph, spec.tracer.vjp, spec.request, spec.backend)
        self.live, self._interval = plan.live, plan.interval
        self.read_again: tuple[int, ...] = ()
        self._lane_index = spec.lane_index([s for stage in plan.stages if stage.plan for s in stage.plan.slots])
        self._as_stored = all(o.stored is o.visible for o in spec.outputs)
        self._operands: Callable[..., tuple[Tensor, ...]]
        self._num_read = 0
        self._run: BoundStages
        self._backwards: dict[Any, BoundAlternatingBackward] = {}

    def prepare(
        self, inputs: Sequence[Tensor], states: Sequence[Tensor], captured: Sequence[Tensor]
    ) -> AlternatingScan:
        """Build the kernels, so that a backend that cannot says so before anything has run.

        Raises:
            BackendError: a kernel cannot be built here.
        """
        self._operands, self._num_read = self.spec.operands(captured), len(captured)
        with torch.no_grad():
            values = self._once(captured)
            axis = self.spec.options.time_dim
            xs, ys = ([x.select(axis, 0) for x in seqs] for seqs in (inputs, self._sequences()))
            values |= self._of_step(xs, ys)
            values |= self._states([step_tensor(self.spec, s.dtype) for s in states], self._fresh_states())
            self._run = BoundStages(self.spec, self.plan.stages, values)
        return self

    def forward(
        self, inputs: Sequence[Tensor], states: Sequence[Tensor], captured: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        """Run: ``(*outputs, *final_states)``, and the checkpoints."""
        spec, axis, every = self.spec, self.spec.options.time_dim, self._interval
        num_steps = spec.shape.num_steps
        with torch.no_grad(), torch.autocast(spec.device.type, enabled=False):
            sequences = self._sequences()
            checkpoints = [
                step_tensor(spec, states[j].dtype, max(0, (num_steps - 1) // every if every else 0)) for j in self.live
            ]
            values = self._once(captured)
            present, spare = self._fresh_states(), self._fresh_states()
            for copy, state in zip(present, states, strict=True):
                copy.copy_(state)
            at_steps = zip(*(x.unbind(axis) for x in inputs), strict=True)
            written = zip(*(y.unbind(axis) for y in sequences), strict=True) if sequences else [()] * num_steps
            for t, (xs, ys) in enumerate(zip(at_steps, written, strict=True)):
                if every and t and t % every == 0:
                    for checkpoint, j in zip(checkpoints, self.live, strict=True):
                        checkpoint[t // every - 1].copy_(present[j])
                values |= self._of_step(xs, ys)
                values |= self._states(present, spare)
                self._run(values)
                present, spare = spare, present
        outputs = sequences if self._as_stored else [o.wrap(y) for o, y in zip(spec.outputs, sequences, strict=True)]
        return (*outputs, *present), checkpoints

    def backward(
        self, saved: Sequence[Tensor], grads: Sequence[Tensor | None], needs: Sequence[bool]
    ) -> list[Tensor | None]:
        """Gradients of inputs, states and captured tensors; see :meth:`BoundScan.backward`."""
        key = (tuple([None if g is None else (g.stride(), g.dtype) for g in grads]), tuple(needs))
        run = self._backwards.get(key)
        if run is None:
            captured = self.spec.split(saved)[2]
            assert self._interval is not None
            run = BoundAlternatingBackward(self.spec, self.live, self._interval, captured, grads, needs)
            self._backwards[key] = run
        return run(saved, grads)

    # ---- the tensors of a step --------------------------------------------------------------------------------

    def _once(self, captured: Sequence[Tensor]) -> dict[Key, Tensor]:
        """What stays the same at every step, and memory for what no one else needs."""
        values: dict[Key, Tensor] = {
            ("operand", i): value for i, value in enumerate(self._operands(*captured[: self._num_read]))
        }
        values |= {("lane_index", i): lanes for i, lanes in enumerate(self._lane_index)}
        for product in self._graph.products:
            values[product.leaf] = step_tensor(self.spec, product.leaf.dtype)
            if not in_place(product.source):
                values[source_key(product)] = step_tensor(self.spec, product.source.dtype)
        return values

    def _fresh_states(self) -> list[Tensor]:
        return [step_tensor(self.spec, s.dtype) for s in self._graph.states]

    def _sequences(self) -> list[Tensor]:
        return [self.spec.shape.sequence(o.stored).make(self.spec.device) for o in self.spec.outputs]

    def _of_step(self, xs: Sequence[Tensor], ys: Sequence[Tensor]) -> dict[Key, Tensor]:
        values: dict[Key, Tensor] = dict(zip(self._graph.inputs, xs, strict=True))
        return values | {("root", i): y for i, y in enumerate(ys)}

    def _states(self, present: Sequence[Tensor], following: Sequence[Tensor]) -> dict[Key, Tensor]:
        values: dict[Key, Tensor] = dict(zip(self._graph.states, present, strict=True))
        return values | {("root", len(self.spec.outputs) + j): s for j, s in enumerate(following)}
