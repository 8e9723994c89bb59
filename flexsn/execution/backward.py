"""BoundBackward: the backward kernel of a compiled scan, for one pattern of present and wanted gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flexsn.execution.gradient_path import no_path
from flexsn.ir.step import StepVjp
from flexsn.planning.plans import keep_wanted, plan_backward
from flexsn.tracing.tracer import Tracer

if TYPE_CHECKING:
    from flexsn.execution.forward import BoundScan

__all__ = ["BoundBackward"]

_KINDS = ("input", "state", "operand", "checkpoint", "cotangent", "grad_final")
_FRESH = len(_KINDS)


class BoundBackward:
    """Runs the backward kernel and what follows of the parameter side.

    Args:
        compiled: the forward it belongs to.
        grads: of outputs and final states; which are ``None``, and their strides and dtypes, matter.
        needs: which gradients of inputs, states and captured tensors are wanted.

    Raises:
        GradientError: gradients came in, and none of them can flow back.
    """

    def __init__(self, compiled: BoundScan, grads: Sequence[Tensor | None], needs: Sequence[bool]) -> None:
        self.compiled = compiled
        tracer, graph, geometry = compiled.tracer, compiled.tracer.graph, compiled.geometry
        split = len(graph.outputs)
        outputs = tuple(g is not None for g in grads[:split])
        finals = tuple(g is not None for g in grads[split:])
        all_vjps = vjps_by_age(tracer, outputs, finals)
        _check_path(all_vjps, compiled)
        needs_inputs, needs_states, self.needs_captured, _ = compiled.split(needs)
        vjps = keep_wanted(all_vjps, needs_inputs, needs_states, any(self.needs_captured))
        first_step = vjps[min(geometry.num_steps, len(vjps)) - 1]
        assert compiled.checkpoint is not None
        self._operands = compiled.operand_program()  # the vjps may read more than the forward step
        self.plan = plan_backward(
            graph,
            vjps,
            compiled.input_dtypes,
            tuple(d if g is None else g.dtype for g, d in zip(grads, compiled.output_dtypes, strict=False)),
            finals,
            tuple(needs_states),
            compiled.checkpoint,
        )
        position = {j: i for i, j in enumerate(compiled.kept)}
        written = [s for s in self.plan.slots if s.role.writes]
        self._fresh = [geometry.written(s) for s in written]
        self._order = [
            (_FRESH, written.index(s))
            if s.role.writes
            else (_KINDS.index(s.kind), position[s.index] if s.kind == "checkpoint" else s.index)
            for s in self.plan.slots
        ]
        found = {(s.kind, s.index): i for i, s in enumerate(written)}
        self._grad_inputs = [found.get(("grad_input", i)) for i in range(compiled.num_inputs)]
        self._grad_states = [
            found.get(("grad_state", j)) if first_step.grad_states[j] else None for j in range(compiled.num_states)
        ]
        self._accumulators = [found["accumulator", i] for i in range(len(self.plan.accumulators))]
        self._parameter_sides = [self._parameter_side(first, vjp) for first, vjp in self.plan.groups]
        self._split = split
        self._launch: Any = None

    def __call__(self, saved: Sequence[Tensor], grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Gradients of inputs, states and captured tensors; see :meth:`BoundScan.backward`."""
        compiled = self.compiled
        inputs, states, captured, checkpoints = compiled.split(saved)
        fresh = [f.make(compiled.device) for f in self._fresh]
        operands = self._operands(*captured)
        groups: tuple[Sequence[Any], ...] = (
            inputs, states, operands, checkpoints, grads[: self._split], grads[self._split :], fresh
        )  # fmt: skip
        tensors = [groups[group][index] for group, index in self._order]
        if self._launch is None:
            self._launch = compiled.bind(self.plan, tensors)
        self._launch(tensors)
        step = [None if i is None else fresh[i] for i in (*self._grad_inputs, *self._grad_states)]
        return [*step, *self._captured_gradients(captured, [fresh[i] for i in self._accumulators])]

    def _parameter_side(self, first: int, vjp: StepVjp) -> _ParameterSide:
        """Prepare the parameters' part of one vjp, whose accumulators start at ``first``."""
        tracer, dims = self.compiled.tracer, len(self.compiled.geometry.step_shape)
        wanted = [(i, r) for i, r in enumerate(vjp.grad_captured) if r is not None and self.needs_captured[i]]
        reduced = [tracer.outer.leaf(("reduced", k)) for k in range(len(vjp.reductions))]
        return _ParameterSide(
            first,
            tuple((() if r.one_for_all else r.base[max(0, len(r.base) - dims) :], r.shape) for r in vjp.reductions),
            tuple(i for i, _ in wanted),
            tracer.outer.program([r for _, r in wanted], [*tracer.captured_refs, *reduced]),
        )

    def _captured_gradients(self, captured: Sequence[Tensor], sums: Sequence[Tensor]) -> list[Tensor | None]:
        """Reduce what was accumulated over lanes, and run the rest of the parameters' backward pass."""
        totals: list[Tensor | None] = [None] * len(captured)
        for side in self._parameter_sides:
            if side.wanted:
                reduced = [
                    sums[side.first + k].sum_to_size(base).reshape(shape)
                    for k, (base, shape) in enumerate(side.reductions)
                ]
                for i, value in zip(side.wanted, side.program(*captured, *reduced), strict=True):
                    total = totals[i]
                    totals[i] = value if total is None else total + value
        return totals


@dataclass(frozen=True)
class _ParameterSide:
    """What follows of the accumulators of one vjp.

    Attributes:
        first: the first accumulator.
        reductions: per accumulator, the shape to sum it to and the shape to give it.
        wanted: the captured tensors whose gradients come out.
        program: captured tensors and reduced accumulators to those gradients.
    """

    first: int
    reductions: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    wanted: tuple[int, ...]
    program: Callable[..., tuple[Tensor, ...]]


def _check_path(vjps: Sequence[StepVjp], compiled: BoundScan) -> None:
    """A gradient that leads nowhere is the user's missing surrogate."""
    flows = any(g is not None for v in vjps for g in (*v.grad_inputs, *v.grad_captured))
    flows = flows or any(any(v.grad_states) for v in vjps)
    if not flows and vjps[0].blocked:
        tracer, step = compiled.tracer, compiled.geometry.step_shape
        dtypes = (*tracer.input_dtypes, *tracer.state_dtypes)
        raise no_path(tracer.core, [torch.ones(step, dtype=d, device=compiled.device) for d in dtypes])


def vjps_by_age(tracer: Tracer, outputs: tuple[bool, ...], finals: tuple[bool, ...]) -> list[StepVjp]:
    """The vjp of the last step, of the one before, and so on until they stay the same.

    Autograd computes nothing for an absent gradient. The last step has no gradient from a step after it, and a
    state that reaches the outputs only by way of another one gets its first gradient later still.
    """
    for apart in (True, False):
        vjps: list[StepVjp] = []
        pattern: tuple[int, ...] = finals
        for age in range(len(finals) + 2):
            vjps.append(tracer.vjp(outputs, pattern, apart, last=age == 0))
            following = tuple(map(len, vjps[-1].grad_states))
            if following == pattern:
                usual = tracer.vjp(outputs, pattern, apart)
                return vjps if vjps[-1] == usual else [*vjps, usual]
            pattern = following
    # states that swap places: the pattern never settles, so absent gradients count as zeros
    ever = tuple(f or any(v.grad_states[j] for v in vjps) for j, f in enumerate(finals))
    return [tracer.vjp(outputs, ever)]
