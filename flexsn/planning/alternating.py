"""The alternating way: a kernel per stage of a step, and torch's products between them.

Any step with products can be run so, of any size, on any device. A stage is planned as a scan of one step without
states: what it reads (inputs, states, products, gradients) are its inputs, and it computes anew what an earlier stage
computed of these, so that nothing else has to be handed on.

A product is dear and its value is not, so training keeps the products of every step that the way back reads: what is
recomputed there is pointwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from flexsn.ir.graph import Builder, LeafKind, Node, topological
from flexsn.ir.plan import Holds, Slot
from flexsn.ir.step import Outer, StepGraph, StepVjp, with_sources
from flexsn.ir.substitute import Substitution
from flexsn.planning import step_by_rules
from flexsn.planning.backward import share_accumulators
from flexsn.planning.boundary import Cut, branches_from_end
from flexsn.planning.forward import plan_forward, step_bytes
from flexsn.planning.liveness import leads_nowhere, live_states, prune_gradients
from flexsn.planning.request import Gradients, ScanRequest, Target, Vjp
from flexsn.planning.stages import Key, Result, StageKernel, StepPlan, as_inputs, plan_step, row_key

__all__ = [
    "AlternatingBackward",
    "AlternatingForward",
    "BackwardBranch",
    "plan_alternating",
    "plan_alternating_backward",
]


@dataclass(frozen=True, eq=False)
class AlternatingForward:
    """The forward pass.

    Attributes:
        step: one step, by the rules of the call.
        kernels: compute ``("output", k)`` and ``("next", j)``.
        live: which states are checkpointed.
        interval: every how many steps; ``None`` in inference.
        kept: the products of every step that training keeps.
    """

    step: StepGraph
    kernels: StepPlan
    live: tuple[int, ...]
    interval: int | None
    kept: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class BackwardBranch:
    """A step on the way back.

    Attributes:
        when: of which steps; ``None`` for all no other branch is for.
        vjp: what is computed.
        kernels: compute ``("input", i)``, ``("carry", c)``, the accumulators, and the factors of outer products.
        group: the branches that have the accumulators and outer products in common.
    """

    when: Node | None
    vjp: StepVjp
    kernels: StepPlan
    group: int

    @property
    def factors(self) -> tuple[Node, ...]:
        """Of its outer products, those that are computed on the way back."""
        every = dict.fromkeys(_factors(self.vjp.outers))
        own = {p.leaf for p in self.vjp.products}
        return tuple(n for n in every if n in own or n.op not in (LeafKind.STATE, LeafKind.PRODUCT))

    def hands_on(self, carry: Node) -> bool:
        """Whether it gives a carried gradient its next value."""
        return carry.part < len(self.vjp.grad_states[carry.index])


@dataclass(frozen=True, eq=False)
class AlternatingBackward:
    """The backward pass: the states of an interval again, by one kernel, then back through its steps.

    Attributes:
        step: one step forward.
        live: the states that must be known at every step.
        advance: a scan of the live states alone, whose outputs are those before every step; it starts with
            ``("first", j)`` and ends with ``("after", j)``.
        branches: what a step does.
        carries: the gradients of states that go from step to step, each state's in the order they are added up.
        accumulators: the leaf of each.
        groups: ``(first accumulator, vjp)``.
    """

    step: StepGraph
    live: tuple[int, ...]
    advance: StageKernel
    branches: tuple[BackwardBranch, ...]
    carries: tuple[Node, ...]
    accumulators: tuple[Node, ...]
    groups: tuple[tuple[int, StepVjp], ...]

    @property
    def slots(self) -> list[Slot]:
        """Every tensor its kernels touch."""
        assert self.advance.plan is not None
        return [*self.advance.plan.slots, *(slot for branch in self.branches for slot in branch.kernels.slots)]


def plan_alternating(step: StepGraph, vjp: Vjp, request: ScanRequest, target: Target) -> AlternatingForward:
    """Plan the forward pass."""
    step, vjp = step_by_rules(step, vjp, request.rules)
    live: tuple[int, ...] = ()
    kept: tuple[Node, ...] = ()
    interval = None
    if request.training:
        after, vjp = _products_known(step, vjp)
        every = vjp((True,) * len(step.outputs), (1,) * len(step.states), False, False)
        live = live_states(after, [every])
        read = {*topological(with_sources(every.results, every.products))}
        read.update(topological([step.new_states[j] for j in live]))
        kept = tuple(p.leaf for p in step.products if p.leaf in read)
        interval = request.interval or target.choose_interval(step_bytes(step, request, live))
    outputs = zip(step.outputs, request.output_dtypes, strict=True)
    results = [Result(("output", k), n, dtype, in_rows=False) for k, (n, dtype) in enumerate(outputs)]
    results += [Result(("next", j), n, n.dtype) for j, n in enumerate(step.new_states)]
    kernels = plan_step(step.builder, results, step.products, _memory_dtype(request, None), kept)
    return AlternatingForward(step, kernels, live, interval, kept)


def plan_alternating_backward(
    step: StepGraph, vjp: Vjp, request: ScanRequest, gradients: Gradients, in_rows: bool
) -> AlternatingBackward | None:
    """Plan the backward pass; ``None`` where gradients come in and lead nowhere.

    Args:
        step, vjp, request, gradients: as for :func:`~flexsn.planning.plan_scan`.
        in_rows: whether every step of an input's gradient lies in memory row by row.
    """
    num_states = len(step.states)
    step, vjp = step_by_rules(step, vjp, request.rules)
    after, vjp = _products_known(step, vjp)
    every = request.rules and request.rules.detach_every
    branches = branches_from_end(after, vjp, gradients, Cut(every, num_states) if every else None)
    if leads_nowhere([v for _, v in branches], num_states):
        return None
    vjps = prune_gradients([v for _, v in branches], gradients)
    live = live_states(after, vjps)
    dtype_of = _memory_dtype(request, gradients)
    leaf = step.builder.leaf
    carries = tuple(
        leaf(LeafKind.STATE_COTANGENT, j, state.dtype, part)
        for j, state in enumerate(step.states)
        for part in range(max(len(v.grad_states[j]) for v in vjps) or 1)
    )
    groups, group_of = share_accumulators(vjps)
    sums = [r for _, v in groups for r in v.reductions]
    accumulators = tuple(leaf(LeafKind.STATE, len(step.states) + i, r.node.dtype) for i, r in enumerate(sums))
    planned = []
    for (when, _), v, group in zip(branches, vjps, group_of, strict=True):
        results = _gradient_results(step.builder, v, request, carries, accumulators[groups[group][0] :], in_rows)
        kernels = plan_step(step.builder, results, v.products, dtype_of, _factors(v.outers))
        planned.append(BackwardBranch(when, v, kernels, group))
    advance = _plan_advance(after, live, dtype_of)
    return AlternatingBackward(step, live, advance, tuple(planned), carries, accumulators, groups)


def _products_known(step: StepGraph, vjp: Vjp) -> tuple[StepGraph, Vjp]:
    """The step and its vjps as they are on the way back, where the products of the way there are known."""

    def without_those(outputs: tuple[bool, ...], states: tuple[int, ...], apart: bool, last: bool) -> StepVjp:
        return vjp(outputs, states, apart, last).without_products_of(step)

    return replace(step, products=()), without_those


def _gradient_results(
    builder: Builder,
    vjp: StepVjp,
    request: ScanRequest,
    carries: Sequence[Node],
    accumulators: Sequence[Node],
    in_rows: bool,
) -> list[Result]:
    """What a step on the way back computes."""
    inputs = [
        Result(("input", i), n, request.input_dtypes[i], in_rows)
        for i, n in enumerate(vjp.grad_inputs)
        if n is not None
    ]
    factors = (n for n in dict.fromkeys(_factors(vjp.outers)) if n.op not in (LeafKind.STATE, LeafKind.PRODUCT))
    found = [*inputs, *(Result(row_key(n), n, n.dtype) for n in factors)]
    for c, carry in enumerate(carries):
        summands = vjp.grad_states[carry.index]
        if carry.part < len(summands):
            found.append(Result(("carry", c), summands[carry.part], carry.dtype))
    for reduction, so_far in zip(vjp.reductions, accumulators, strict=False):
        total = builder.op("add", so_far, reduction.node, dtype=so_far.dtype)
        found.append(Result(so_far, total, total.dtype))
    return found


def _factors(outers: Sequence[Outer]) -> list[Node]:
    return [n for outer in outers for n in (outer.left, outer.right)]


def _memory_dtype(request: ScanRequest, gradients: Gradients | None) -> Callable[[Node], torch.dtype]:
    def dtype(leaf: Node) -> torch.dtype:
        if leaf.op is LeafKind.INPUT:
            return request.input_dtypes[leaf.index]
        given = gradients.outputs[leaf.index] if gradients and leaf.op is LeafKind.COTANGENT else None
        return given or leaf.dtype

    return dtype


def _plan_advance(step: StepGraph, live: Sequence[int], memory_dtype: Callable[[Node], torch.dtype]) -> StageKernel:
    states, following = tuple(step.states[j] for j in live), [step.new_states[j] for j in live]
    inputs = as_inputs(step.builder, following, states)
    copy = Substitution(step.builder, inputs)
    alone = StepGraph(step.builder, tuple(inputs.values()), states, states, tuple(map(copy, following)))
    dtypes = tuple(map(memory_dtype, inputs)), tuple(s.dtype for s in states)
    plan, reads = plan_forward(alone, ScanRequest(*dtypes, training=False), (), None), tuple(inputs)
    named = {Holds.STATE: "first", Holds.FINAL_STATE: "after"}

    def key(slot: Slot) -> Key:
        if slot.holds is Holds.INPUT:
            return reads[slot.index]
        return (
            states[slot.index]
            if slot.holds is Holds.OUTPUT
            else (named.get(slot.holds, slot.holds.name.lower()), slot.index)
        )

    return StageKernel(plan, tuple(map(key, plan.slots)), ())
