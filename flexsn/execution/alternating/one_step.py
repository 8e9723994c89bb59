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
from flexsn.execution.alternating.steps import add_outer, in_rows
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
        plan, shape, (number,) = self.plan, spec.shape, self.branch_of
        self._step, self._branch = self.steps[number], plan.branches[number]
        vjp, rows = self._branch.vjp, shape.rows
        fresh: dict[Key, TensorSpec] = {}
        for i, dtype in enumerate(spec.request.input_dtypes):
            if vjp.grad_inputs[i] is not None:
                fresh["input", i] = rows(dtype) if in_rows(spec) else shape.sequence(dtype)
        fresh |= {("carry", c): rows(leaf.dtype) for c, leaf in enumerate(plan.carries) if self._branch.hands_on(leaf)}
        own = [n for n in self._branch.factors if self._step.same(row_key(n)) == row_key(n)]
        fresh |= {row_key(n): rows(n.dtype) for n in own}
        self._of_inputs = [_place(fresh, ("input", i)) for i in range(spec.num_inputs)]
        self._of_states = [
            [
                _place(fresh, ("carry", c))
                for c, leaf in enumerate(plan.carries)
                if leaf.index == j and ("carry", c) in fresh
            ]
            for j in range(spec.num_states)
        ]
        fresh |= {key: found for key, found in self._step.memory.items() if key not in map(self._step.same, fresh)}
        self._fresh = list(fresh.values())
        self._sums = [shape.step(leaf.dtype) for leaf in plan.accumulators]
        self._live = plan.live
        present = [k for k, g in enumerate(grads[: self.num_outputs]) if g is not None]
        finals = [leaf for leaf in plan.carries if leaf.part == 0 and grads[self.num_outputs + leaf.index] is not None]
        nothing = [leaf for leaf in plan.carries if leaf not in finals]
        self._present, self._finals = present, [self.num_outputs + leaf.index for leaf in finals]
        self._always = [rows(leaf.dtype).make(spec.device).fill_(-0.0) for leaf in nothing]  # adds nothing
        self._always += [self.indices[0], *self.lane_index]
        lengths, initial, read = spec.read_once(captured)
        keys: list[Key] = [*plan.step.inputs, *forward.kept, *(plan.step.states[j] for j in plan.live)]
        keys += [*(self.cotangents[k] for k in present), *finals, *plan.accumulators, *fresh, *nothing, self.index]
        keys += [("lane_index", i) for i in range(len(self.lane_index))] + [("length", i) for i in range(len(lengths))]
        keys += [("initial", i) for i in range(len(initial))]
        keys += [("operand", i) for i in range(len(self.operands(*read)))]
        self._order = self._step.order(keys)
        named = {self._step.same(key): i for i, key in enumerate(keys)}
        self._factors = [[named[self._step.same(row_key(n))] for n in (o.left, o.right)] for o in vjp.outers]
        self._as_rows, self._as_step = _shaping(spec)
        self._sequence = shape.sequence(torch.float32).shape

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
                *(*inputs, *[p[0] for p in kept], *[as_rows(states[j]) for j in self._live]),
                *[g for k in self._present if (g := grads[k]) is not None],
                *[as_rows(g) for k in self._finals if (g := grads[k]) is not None],
                *(*sums, *fresh, *self._always, *lengths, *initial, *operands),
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
        keys: list[Key] = [*step.inputs, *step.states, *(("output", k) for k in range(len(step.outputs)))]
        keys += [*(("next", s.index) for s in step.states), *self.plan.kept]
        there = {self._step.same(key) for key in keys}
        memory = {key: found for key, found in self._step.memory.items() if key not in there}
        keys += memory
        keys += [("lane_index", i) for i in range(len(self._lane_index))]
        keys += [step.builder.coordinate(LeafKind.STEP_INDEX)] * len(self._index)
        keys += [("length", i) for i in range(len(lengths))] + [("initial", i) for i in range(len(initial))]
        keys += [("operand", i) for i in range(len(operands))]
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
                *(*self._lane_index, *self._index, *lengths, *initial, *self._operands(*read[: self._num_read])),
            )
            self._step.run([given[i] for i in self._order])
        outputs = results[:num_outputs]
        if not self._as_stored:
            outputs = [o.wrap(y) for o, y in zip(spec.outputs, outputs, strict=True)]
        return (*outputs, *[as_step(s) for s in results[num_outputs:]]), kept


def _place(fresh: dict[Key, TensorSpec], key: Key) -> int | None:
    return list(fresh).index(key) if key in fresh else None


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
