"""A single step in the alternating way: nothing goes from step to step, so tensors are used where they are.

A call is a handful of launches and products, so what is looked up once is: which of a call's tensors, listed in an
order of their own, stands where.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from flexsn.execution.alternating.backward import BoundAlternatingBackward
from flexsn.execution.alternating.forward import AlternatingScan
from flexsn.execution.alternating.steps import add_outer, in_rows, numbered
from flexsn.execution.call import CallSpec
from flexsn.ir.graph import LeafKind
from flexsn.ir.layout import TensorSpec
from flexsn.planning.alternating import AlternatingForward
from flexsn.planning.stages import Key, row_key

__all__ = ["OneStep"]

_AS_IT_IS = nullcontext()


class OneStepBack(BoundAlternatingBackward):
    """The backward pass."""

    def __init__(
        self,
        spec: CallSpec,
        forward: AlternatingForward,
        captured: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        needs: Sequence[bool],
    ) -> None:
        super().__init__(spec, forward, captured, grads, needs)
        (number,), self._sequence = self.branch_of, spec.shape.sequence(torch.float32).shape
        self._step, self._branch = self.steps[number], self.plan.branches[number]
        self._as_rows, self._as_step = _shaping(spec)
        self._first = self.indices[0]
        finals = grads[self.num_outputs :]
        self._finals = [c for c in self.plan.carries if c.part == 0 and finals[c.index] is not None]
        self._absent = [c for c in self.plan.carries if c not in self._finals]
        self._present = [k for k, g in enumerate(grads[: self.num_outputs]) if g is not None]
        self._nothing = [spec.shape.rows(c.dtype).make(spec.device).fill_(-0.0) for c in self._absent]  # adds nothing
        self._sums = [spec.shape.step(leaf.dtype) for leaf in self.plan.accumulators]
        fresh = self._written()
        written = list(fresh)
        carries = [(("carry", c), leaf.index) for c, leaf in enumerate(self.plan.carries)]
        self._of_inputs = [
            written.index(key) if (key := ("input", i)) in fresh else None for i in range(spec.num_inputs)
        ]
        self._of_states = [
            [written.index(key) for key, of in carries if of == j and key in fresh] for j in range(spec.num_states)
        ]
        keys = self._keys(captured)
        fresh |= self._step.lacking([*keys, *fresh])
        self._fresh, keys = list(fresh.values()), [*keys, *fresh]
        self._order = self._step.order(keys)
        places = [self._step.same(key) for key in keys]
        outers = self._branch.vjp.outers
        self._factors = [[places.index(self._step.same(row_key(n))) for n in (o.left, o.right)] for o in outers]

    def _written(self) -> dict[Key, TensorSpec]:
        """What the step writes for others."""
        spec, step = self.spec, self._step
        shape, rows = spec.shape, spec.shape.rows
        fresh: dict[Key, TensorSpec] = {}
        for i, (dtype, gradient) in enumerate(
            zip(spec.request.input_dtypes, self._branch.vjp.grad_inputs, strict=True)
        ):
            if gradient is not None:
                fresh["input", i] = rows(dtype) if in_rows(spec) else shape.sequence(dtype)
        fresh |= {("carry", n): rows(c.dtype) for n, c in enumerate(self.plan.carries) if self._branch.hands_on(c)}
        own = [n for n in self._branch.factors if step.same(row_key(n)) == row_key(n)]
        return fresh | {row_key(n): rows(n.dtype) for n in own}

    def _keys(self, captured: Sequence[Tensor]) -> list[Key]:
        """Of what a call is given, as :meth:`__call__` lists it."""
        step, (lengths, initial, read) = self.plan.step, self.spec.read_once(captured)
        return [
            *(*step.inputs, *self.forward.kept, *(step.states[j] for j in self.plan.live)),
            *(*(self.cotangents[k] for k in self._present), *self._finals, *self._absent, self.index),
            *numbered(lane_index=self.lane_index, length=lengths, initial=initial, operand=self.operands(*read)),
            *self.plan.accumulators,
        ]

    def __call__(self, saved: Sequence[Tensor], grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Gradients of inputs, states and captured tensors."""
        spec, as_rows = self.spec, self._as_rows
        inputs, states, captured, kept = spec.split(saved)
        lengths, initial, read = spec.read_once(captured)
        with _exactly(spec):
            operands = self.operands(*read)
            sums = [fresh.make(spec.device).zero_() for fresh in self._sums]
            fresh = [fresh.make(spec.device) for fresh in self._fresh]
            given: tuple[Tensor, ...] = (
                *(*inputs, *[p[0] for p in kept], *[as_rows(states[j]) for j in self.plan.live]),
                *[g for k in self._present if (g := grads[k]) is not None],
                *[as_rows(g) for c in self._finals if (g := grads[self.num_outputs + c.index]) is not None],
                *(*self._nothing, self._first, *self.lane_index, *lengths, *initial, *operands, *sums, *fresh),
            )
            self._step.run([given[i] for i in self._order])
            totals: list[Tensor | None] = [None] * len(read)
            pairs = zip(self._branch.vjp.outers, self._factors, strict=True)
            outers = [add_outer(spec, outer, [given[i] for i in pair], operands, None) for outer, pair in pairs]
            self.sides[self._branch.group].add(totals, read, sums, outers)
        of_inputs = [None if i is None else fresh[i].view(self._sequence) for i in self._of_inputs]
        of_states = [
            self._as_step(sum([fresh[i] for i in parts[1:]], start=fresh[parts[0]])) if parts and wanted else None
            for parts, wanted in zip(self._of_states, self.wanted.states, strict=True)
        ]
        return [*of_inputs, *of_states, *[None] * self.num_once, *totals]


class OneStep(AlternatingScan):
    """The forward pass; see :class:`~flexsn.execution.alternating.forward.AlternatingScan`."""

    _back = OneStepBack

    def __init__(self, spec: CallSpec) -> None:
        super().__init__(spec)
        shape, self._as_rows, self._as_step = spec.shape, *_shaping(spec)
        self._results = [shape.sequence(o.stored) for o in spec.outputs]
        self._results += [shape.rows(s.dtype) for s in self.plan.step.states]

    def prepare(self, inputs: Sequence[Tensor], states: Sequence[Tensor], captured: Sequence[Tensor]) -> OneStep:
        """Build the kernels; see :meth:`BoundScan.prepare`."""
        super().prepare(inputs, states, captured)
        self.checkpoints, step = self.checkpoints[len(self.plan.live) :], self.plan.step
        lengths, initial, read = self.spec.read_once(captured)
        operands = self._operands(*[t.detach() for t in read[: self._num_read]])
        outputs: list[Key] = [("output", k) for k in range(len(step.outputs))]
        nexts: list[Key] = [("next", s.index) for s in step.states]
        given: list[Key] = [*step.inputs, *step.states, *outputs, *nexts, *self.plan.kept]
        memory = self._step.lacking(given)
        keys = [*given, *memory, *[step.builder.coordinate(LeafKind.STEP_INDEX)] * len(self._index)]
        keys += numbered(lane_index=self._lane_index, length=lengths, initial=initial, operand=operands)
        self._memory, self._order = list(memory.values()), self._step.order(keys)
        return self

    def forward(
        self, inputs: Sequence[Tensor], states: Sequence[Tensor], captured: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        """Run: ``(*outputs, *final_states)``, and the products that are kept."""
        spec, num_outputs, as_step = self.spec, len(self.spec.outputs), self._as_step
        lengths, initial, read = spec.read_once(captured)
        with _exactly(spec):
            results = [fresh.make(spec.device) for fresh in self._results]
            kept = [fresh.make(spec.device) for fresh in self.checkpoints]
            memory = [fresh.make(spec.device) for fresh in self._memory]
            given: tuple[Tensor, ...] = (
                *(*inputs, *[self._as_rows(s) for s in states], *results, *[p[0] for p in kept], *memory),
                *(*self._index, *self._lane_index, *lengths, *initial, *self._operands(*read[: self._num_read])),
            )
            self._step.run([given[i] for i in self._order])
        outputs = results[:num_outputs]
        if not self._as_stored:
            outputs = [o.wrap(y) for o, y in zip(spec.outputs, outputs, strict=True)]
        return (*outputs, *[as_step(s) for s in results[num_outputs:]]), kept


def _shaping(spec: CallSpec) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """From a step to its rows in memory, and back; a look at the shape costs as much as an allocation."""
    step, rows = spec.shape.step_shape, spec.shape.rows(torch.float32).shape
    if step == rows:
        return Tensor.contiguous, lambda value: value
    return lambda value: value.contiguous().view(rows), lambda value: value.view(step)


def _exactly(spec: CallSpec) -> AbstractContextManager[None]:
    """Without autocast."""
    device = spec.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else _AS_IT_IS
