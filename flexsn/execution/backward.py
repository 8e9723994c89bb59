"""The backward kernel of a scan, bound to one pattern of present and wanted gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flexsn.execution.call import CallSpec
from flexsn.execution.outer_sums import OuterSums
from flexsn.ir.layout import TensorSpec
from flexsn.ir.plan import BackwardPlan, Holds
from flexsn.ir.step import StepVjp
from flexsn.kernels.backend import Launch
from flexsn.planning.boundary import branch_at
from flexsn.tracing.gradient_path import no_gradient_path

__all__ = ["BoundBackward", "ParameterSide", "nowhere"]

_GIVEN = (
    *(Holds.INPUT, Holds.STATE, Holds.OPERAND, Holds.LANE_INDEX, Holds.LENGTH, Holds.INITIAL, Holds.MATRIX),
    *(Holds.CHECKPOINT, Holds.SAVED),
    *(Holds.COTANGENT, Holds.FINAL_COTANGENT),
)
_WRITTEN = len(_GIVEN)


class BoundBackward:
    """Runs the backward kernel and what follows of the parameter side.

    Args:
        spec: the kind of call.
        live: the states the forward pass checkpointed, in order.
        captured: the captured tensors of the call.
        grads: of outputs and final states; which are ``None``, and their strides and dtypes, matter.
        needs: which gradients of inputs, states and captured tensors are wanted.

    Raises:
        GradientError: gradients came in, and none of them can flow back.
    """

    def __init__(
        self,
        spec: CallSpec,
        live: Sequence[int],
        captured: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        needs: Sequence[bool],
    ) -> None:
        self.spec = spec
        self._split = len(spec.outputs)
        self._num_checkpoints = len(live)
        *_, self._needs_captured = spec.read_once(spec.split(needs)[2])
        *_, captured = spec.read_once(captured)
        plan = spec.plans(spec.gradients(grads, needs)).backward
        if plan is None:
            raise nowhere(spec)
        self.plan = plan
        self._operands = spec.operands(captured)  # the vjps may read more than the forward step
        self._lane_index = spec.lane_index(plan.slots)
        self._matrices = [s.index for s in plan.slots if s.holds is Holds.MATRIX]
        written = [s for s in plan.slots if s.role.writes]
        self._written = [spec.dense(plan, s) for s in written]
        self._order = [
            (_WRITTEN, written.index(s))
            if s.role.writes
            else (_GIVEN.index(s.holds), live.index(s.index) if s.holds is Holds.CHECKPOINT else s.index)
            for s in plan.slots
        ]
        place = {(s.holds, s.index): i for i, s in enumerate(written)}
        reached = _states_reached(plan, spec.shape.num_steps)
        self._grad_inputs = [place.get((Holds.GRAD_INPUT, i)) for i in range(spec.num_inputs)]
        self._grad_states = [place.get((Holds.GRAD_STATE, j)) if j in reached else None for j in range(spec.num_states)]
        self._accumulators = [place[Holds.ACCUMULATOR, i] for i in range(len(plan.accumulators))]
        self._sides = [ParameterSide.of(spec, vjp, first, self._needs_captured) for first, vjp in plan.groups]
        self._outers = OuterSums(spec, plan, spec.plans().forward, place)
        self.reads_outputs = self._outers.read_outputs
        self._launch: Launch | None = None

    def __call__(self, saved: Sequence[Tensor], grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Gradients of inputs, states and captured tensors; see :meth:`BoundScan.backward`."""
        spec = self.spec
        inputs, states, captured, kept = spec.split(saved)
        *once, captured = spec.read_once(captured)
        written = [fresh.make(spec.device) for fresh in self._written]
        operands = self._operands(*captured)
        matrices = {i: operands[i].contiguous() for i in self._matrices}
        groups: tuple[Any, ...] = (
            *(inputs, states, operands, self._lane_index, *once, matrices, kept, kept[self._num_checkpoints :]),
            *(grads[: self._split], grads[self._split :], written),
        )
        tensors = [groups[group][index] for group, index in self._order]
        if self._launch is None:
            self._launch = spec.bind(self.plan, [TensorSpec.of(t) for t in tensors])
        self._launch(tensors)
        step = [None if i is None else written[i] for i in (*self._grad_inputs, *self._grad_states)]
        of_captured: list[Tensor | None] = [None] * len(captured)
        sums = [written[i] for i in self._accumulators]
        outers = self._outers(inputs, states, kept, written) if self.plan.outers else ()
        for number, side in enumerate(self._sides):
            side.add(of_captured, captured, sums, [found for group, found in outers if group == number])
        return [*step, *([None] * sum(map(len, once))), *of_captured]


@dataclass(frozen=True, eq=False)
class ParameterSide:
    """What follows of the accumulators of one vjp.

    Attributes:
        first: the first accumulator.
        reductions: per accumulator, the shape to sum it to and the shape to give it.
        wanted: the captured tensors whose gradients come out.
        program: captured tensors, reduced accumulators and outer products to those gradients.
    """

    first: int
    reductions: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    wanted: tuple[int, ...]
    program: Callable[..., tuple[Tensor, ...]]

    @staticmethod
    def of(spec: CallSpec, vjp: StepVjp, first: int, needs: Sequence[bool]) -> ParameterSide:
        """Of one vjp, whose accumulators start at ``first``; ``needs`` says which captured tensors want a gradient."""
        tracer, dims = spec.tracer, len(spec.shape.step_shape)
        wanted = [(i, r) for i, r in enumerate(vjp.grad_captured) if r is not None and needs[i]]
        leaves = [tracer.host.leaf(("reduced", k)) for k in range(len(vjp.reductions))]
        leaves += [tracer.host.leaf(("outer", k)) for k in range(len(vjp.outers))]
        return ParameterSide(
            first,
            tuple((() if r.one_for_all else r.base[max(0, len(r.base) - dims) :], r.shape) for r in vjp.reductions),
            tuple(i for i, _ in wanted),
            tracer.host.program([r for _, r in wanted], [*tracer.captured_refs, *leaves]),
        )

    def add(
        self,
        totals: list[Tensor | None],
        captured: Sequence[Tensor],
        sums: Sequence[Tensor],
        outers: Sequence[Tensor] = (),
    ) -> None:
        """Reduce what was accumulated over lanes, run the rest of the parameters' backward pass, and add it."""
        if not self.wanted:
            return
        reduced = [sums[self.first + k].sum_to_size(base) for k, (base, _) in enumerate(self.reductions)]
        shaped = zip(reduced, self.reductions, strict=True)
        reduced = [total if total.shape == shape else total.reshape(shape) for total, (_, shape) in shaped]
        for i, value in zip(self.wanted, self.program(*captured, *reduced, *outers), strict=True):
            total = totals[i]
            totals[i] = value if total is None else total + value


def _states_reached(plan: BackwardPlan, num_steps: int) -> set[int]:
    """The states whose initial values get a gradient after so many steps."""
    first = branch_at(plan, 0, num_steps)
    return {c.leaf.index for c, node in zip(plan.carries, first.grad_states, strict=True) if node is not None}


def nowhere(spec: CallSpec) -> Exception:
    """The user's missing surrogate."""
    dtypes = (*spec.tracer.input_dtypes, *spec.tracer.state_dtypes)
    examples = [torch.ones(spec.shape.step_shape, dtype=d, device=spec.device) for d in dtypes]
    return no_gradient_path(spec.tracer.core, examples)
