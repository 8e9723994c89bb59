"""The backward pass of a scan whose steps have products."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from flexsn.execution.alternating.steps import (
    BoundStep,
    add_outer,
    bind_steps,
    in_rows,
    rows,
    same_at_every_step,
    step_by_step,
)
from flexsn.execution.backward import ParameterSide, nowhere
from flexsn.execution.call import CallSpec
from flexsn.ir.graph import LeafKind, Node
from flexsn.kernels.backend import Launch
from flexsn.planning.alternating import AlternatingForward, plan_alternating_backward
from flexsn.planning.boundary import holds
from flexsn.planning.stages import Key, row_key

__all__ = ["BoundAlternatingBackward"]


class BoundAlternatingBackward:
    """Walks back, for one pattern of present and wanted gradients.

    Args:
        spec, captured, grads, needs: as for :class:`~flexsn.execution.backward.BoundBackward`.
        forward: the plan of the forward pass.

    Raises:
        GradientError: gradients came in, and none of them can flow back.
    """

    def __init__(
        self,
        spec: CallSpec,
        forward: AlternatingForward,
        captured: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        needs: Sequence[bool],
    ) -> None:
        assert forward.interval is not None
        self.spec, self.forward = spec, forward
        self.interval, self.num_outputs = min(forward.interval, spec.shape.num_steps), len(spec.outputs)
        self.wanted = spec.gradients(grads, needs)
        tracer = spec.tracer
        plan = plan_alternating_backward(tracer.graph, tracer.vjp, spec.request, self.wanted, in_rows(spec))
        if plan is None:
            raise nowhere(spec)
        self.plan = plan
        *once, read = spec.read_once(captured)
        self.num_once = sum(map(len, once))
        self.operands = spec.operands(read)
        self.lane_index = spec.lane_index(plan.slots)
        step = plan.step
        self.index = step.builder.coordinate(LeafKind.STEP_INDEX)
        self.indices = torch.arange(spec.shape.num_steps, device=spec.device)
        self.cotangents = [step.builder.leaf(LeafKind.COTANGENT, k, n.dtype) for k, n in enumerate(step.outputs)]
        per_step: list[Key] = [*step.inputs, *(step.states[j] for j in plan.live), *forward.kept, *self.cotangents]
        per_step += [*(("input", i) for i in range(spec.num_inputs)), self.index]
        self.steps = [BoundStep(spec, b.kernels, [*per_step, *map(row_key, b.factors)]) for b in plan.branches]
        self.carried = [
            [
                (c, step.place(c), step.place(("carry", n)) if b.hands_on(c) else None)
                for n, c in enumerate(plan.carries)
            ]
            for step, b in zip(self.steps, plan.branches, strict=True)
        ]
        *_, needs_captured = spec.read_once(spec.split(needs)[2])
        self.sides = [ParameterSide.of(spec, vjp, first, needs_captured) for first, vjp in plan.groups]
        every = range(spec.shape.num_steps)
        self.branch_of = [next(n for n, b in enumerate(plan.branches) if holds(b.when, t, len(every))) for t in every]
        self._advance: dict[int, Launch | None] = {}  # by number of steps

    def __call__(self, saved: Sequence[Tensor], grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Gradients of inputs, states and captured tensors."""
        with torch.no_grad(), torch.autocast(self.spec.device.type, enabled=False):
            return _WalkBack(self, saved, grads).run()

    def advance(self, num_steps: int, tensors: Sequence[Tensor]) -> None:
        """Compute the live states before each of so many steps."""
        assert self.plan.advance.plan is not None
        if num_steps not in self._advance:
            self._advance[num_steps] = bind_steps(self.spec, self.plan.advance.plan, num_steps, tensors)
        launch = self._advance[num_steps]
        if launch is not None:
            launch(tensors)


class _WalkBack:
    """The tensors of one backward pass."""

    def __init__(
        self, bound: BoundAlternatingBackward, saved: Sequence[Tensor], grads: Sequence[Tensor | None]
    ) -> None:
        self._bound, self.spec, self.plan = bound, bound.spec, bound.plan
        spec, plan = self.spec, self.plan
        inputs, self._initial, captured, kept = spec.split(saved)
        *_, self._captured = spec.read_once(captured)
        self._operands = bound.operands(*self._captured)
        self._same = same_at_every_step(spec, self._operands, bound.lane_index, captured)
        forward, states = bound.forward, [plan.step.states[j] for j in plan.live]
        self._checkpoints = dict(zip(forward.live, kept, strict=False))
        flows = {i: [b.vjp.grad_inputs[i] for b in plan.branches] for i in range(spec.num_inputs)}
        fresh = {
            i: spec.shape.sequence(d).make(spec.device)
            for i, d in enumerate(spec.request.input_dtypes)
            if any(flows[i])
        }
        self._grad_inputs = {i: g.zero_() if None in flows[i] else g for i, g in fresh.items()}
        outputs, finals = grads[: bound.num_outputs], grads[bound.num_outputs :]
        self._sequences = self._with_time_in_front(inputs, outputs) | {bound.index: bound.indices}
        self._sequences |= dict(zip(forward.kept, kept[len(forward.live) :], strict=True))
        self._chunk = {s: rows(spec, s.dtype, bound.interval) for s in states}
        self._ends: dict[Key, Tensor] = {(end, s.index): self._step(s) for s in states for end in ("first", "after")}
        self._factors: dict[Node, Tensor] = {}
        self._sums: dict[Key, Tensor] = {leaf: self._step(leaf).zero_() for leaf in plan.accumulators}
        self._outers: dict[tuple[int, int], Tensor] = {}  # by group and outer product
        self._tensors = [step.tensors(self._same | self._sums) for step in bound.steps]
        # per gradient that goes from step to step: its value, where it is there, and memory for the next one
        self._carried = {leaf: [rows(spec, leaf.dtype), rows(spec, leaf.dtype)] for leaf in plan.carries}
        self._there = set[Node]()
        for leaf in plan.carries:
            final = finals[leaf.index]
            if final is not None and leaf.part == 0:
                self._carried[leaf][0].view(spec.shape.step_shape).copy_(final)
                self._there.add(leaf)

    def run(self) -> list[Tensor | None]:
        bound, spec = self._bound, self.spec
        for start in reversed(range(0, spec.shape.num_steps, bound.interval)):
            chunk = range(start, min(start + bound.interval, spec.shape.num_steps))
            self._advance(chunk)
            for number, steps in groupby(reversed(chunk), bound.branch_of.__getitem__):
                *_, first = every = list(steps)
                self._walk(number, range(first, every[0] + 1), start)
        of_inputs = [self._grad_inputs.get(i) for i in range(spec.num_inputs)]
        of_states = [self._grad_state(j) if wanted else None for j, wanted in enumerate(bound.wanted.states)]
        totals: list[Tensor | None] = [None] * len(self._captured)
        for number, side in enumerate(bound.sides):
            outers = [self._outers.get((number, k)) for k in range(len(self.plan.groups[number][1].outers))]
            if all(o is not None for o in outers):  # a group of steps that there were
                side.add(totals, self._captured, list(self._sums.values()), [o for o in outers if o is not None])
        return [*of_inputs, *of_states, *[None] * bound.num_once, *totals]

    # ---- pieces -----------------------------------------------------------------------------------------------

    def _advance(self, chunk: range) -> None:
        """Compute the live states before every step."""
        bound, step = self._bound, self.spec.shape.step_shape
        for j in self.plan.live:
            place = chunk.start // bound.interval - 1
            first = self._checkpoints[j][place].view(step) if chunk.start else self._initial[j]
            self._ends["first", j].copy_(first)
        if self.plan.live:
            values = self._same | self._ends
            values |= {key: seq[chunk.start : chunk.stop] for key, seq in self._sequences.items()}
            values |= {state: seq[: len(chunk)] for state, seq in self._chunk.items()}
            bound.advance(len(chunk), [values[key] for key in self.plan.advance.keys])

    def _walk(self, number: int, steps: range, start: int) -> None:
        """Walk back through steps of one branch, in a chunk from ``start`` on."""
        step, tensors, branch = self._bound.steps[number], self._tensors[number], self.plan.branches[number]
        carried = self._bound.carried[number]
        own = [n for n in branch.factors if step.same(row_key(n)) == row_key(n)]
        run: dict[Key, Tensor] = {row_key(n): self._factor(n, len(steps)) for n in own}
        run |= {state: seq[steps.start - start : steps.stop - start] for state, seq in self._chunk.items()}
        run = {key: seq[steps.start : steps.stop] for key, seq in self._sequences.items()} | run
        for leaf, old, new in carried:
            tensors[old], following = self._carried[leaf]
            if leaf not in self._there:
                tensors[old].fill_(-0.0)  # adds nothing
            if new is not None:
                tensors[new] = following
        moving = [(old, new) for _, old, new in carried if new is not None]
        ending = [old for leaf, old, new in carried if new is None and step.reads(leaf)]
        at_steps = [run[key].unbind(0)[::-1] for key in step.per_step]
        for at_step in step_by_step(at_steps, len(steps)):
            tensors[: len(at_step)] = at_step
            step.run(tensors)
            for old, new in moving:
                tensors[old], tensors[new] = tensors[new], tensors[old]
            for old in ending:
                tensors[old].fill_(-0.0)
        self._carried |= {leaf: [tensors[old], tensors[new]] for leaf, old, new in carried if new is not None}
        self._there = {leaf for leaf, _, new in carried if new is not None}
        for k, outer in enumerate(branch.vjp.outers):
            factors = [run[step.same(row_key(n))] for n in (outer.left, outer.right)]
            so_far = self._outers.get((branch.group, k))
            self._outers[branch.group, k] = add_outer(self.spec, outer, factors, self._operands, so_far)

    # ---- tensors ----------------------------------------------------------------------------------------------

    def _with_time_in_front(self, inputs: Sequence[Tensor], grads: Sequence[Tensor | None]) -> dict[Key, Tensor]:
        """Inputs, gradients of outputs, and gradients of inputs, of which the first and last have those."""
        axis = self.spec.shape.time_dim
        named: dict[Key, Tensor] = dict(zip(self.plan.step.inputs, inputs, strict=True))
        named |= {leaf: g for leaf, g in zip(self._bound.cotangents, grads, strict=True) if g is not None}
        found = {key: seq.movedim(axis, 0) for key, seq in named.items()}
        if in_rows(self.spec):
            like = self.spec.shape.rows(torch.float32, self.spec.shape.num_steps).shape
            return found | {("input", i): g.view(like) for i, g in self._grad_inputs.items()}
        return found | {("input", i): g.movedim(axis, 0) for i, g in self._grad_inputs.items()}

    def _step(self, leaf: Node) -> Tensor:
        return rows(self.spec, leaf.dtype).view(self.spec.shape.step_shape)

    def _factor(self, node: Node, num_steps: int) -> Tensor:
        """Memory for a factor of an outer product, of so many steps."""
        held = self._factors.get(node)
        if held is None or len(held) < num_steps:
            held = self._factors[node] = rows(self.spec, node.dtype, num_steps)
        return held[:num_steps]

    def _grad_state(self, j: int) -> Tensor | None:
        parts = [self._carried[leaf][0] for leaf in self.plan.carries if leaf.index == j and leaf in self._there]
        return sum(parts[1:], start=parts[0]).view(self.spec.shape.step_shape) if parts else None
