"""The alternating way: a kernel per stage of a step, and torch's products between them.

Any step with products can be run so, of any size, on any device. A stage is planned as a scan of one step without
states: what it reads (inputs, states, products, gradients) are its inputs, and it computes anew what an earlier stage
computed of these, so that nothing else has to be handed on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from flexsn.ir.graph import Builder, LeafKind, Node, topological
from flexsn.ir.plan import ForwardPlan, Holds, Slot
from flexsn.ir.program import split_stages
from flexsn.ir.step import Product, StepGraph, StepVjp, with_sources
from flexsn.ir.substitute import Substitution
from flexsn.planning.backward import share_accumulators
from flexsn.planning.boundary import steps_from_end
from flexsn.planning.forward import plan_forward, step_bytes
from flexsn.planning.liveness import leads_nowhere, live_states, prune_gradients, states_to_checkpoint
from flexsn.planning.request import Gradients, ScanRequest, Target, Vjp

__all__ = [
    "AlternatingBackward",
    "AlternatingForward",
    "BackwardBranch",
    "Key",
    "StageKernel",
    "in_place",
    "plan_alternating",
    "plan_alternating_backward",
    "plan_stages",
    "source_key",
]

Key = Node | tuple[str, int]
"""What a tensor of one step is: a leaf's value, or ``("root", i)``, ``("source", product)``, ``("operand", i)``, ..."""


@dataclass(frozen=True, eq=False)
class StageKernel:
    """One stage of a step.

    Attributes:
        plan: its kernel; none where there is nothing to compute.
        keys: what the plan's slots are, in their order.
        products: what is multiplied next.
    """

    plan: ForwardPlan | None
    keys: tuple[Key, ...]
    products: tuple[Product, ...]


def in_place(source: Node) -> bool:
    """Whether a product can read its source where it is: a value that nothing computes, dense and of its own dtype."""
    return source.op in (LeafKind.STATE, LeafKind.STATE_COTANGENT, LeafKind.PRODUCT)


def source_key(product: Product) -> Key:
    """Which tensor a product multiplies."""
    return product.source if in_place(product.source) else ("source", product.leaf.index)


def plan_stages(
    builder: Builder,
    roots: Sequence[tuple[Node, torch.dtype]],
    products: Sequence[Product],
    memory_dtype: Callable[[Node], torch.dtype],
    wanted: Sequence[Node] = (),
) -> tuple[StageKernel, ...]:
    """Plan one step.

    Args:
        builder: of the step.
        roots: what it computes, and the dtypes these are stored in.
        products: those it may compute; any other counts as one that is there already.
        memory_dtype: of a leaf's value.
        wanted: products that are wanted for themselves.
    """
    *early, last = split_stages([*(node for node, _ in roots), *wanted], products)
    kernels = []
    for stage in early:
        written = {source_key(p): p.source for p in stage.products if not in_place(p.source)}
        kernels.append(
            _kernel(builder, [(key, n, n.dtype) for key, n in written.items()], stage.products, memory_dtype)
        )
    final: list[tuple[Key, Node, torch.dtype]] = [(("root", i), n, dtype) for i, (n, dtype) in enumerate(roots)]
    return (*kernels, _kernel(builder, final, last.products, memory_dtype))


@dataclass(frozen=True, eq=False)
class AlternatingForward:
    """The forward pass.

    Attributes:
        stages: of a step, whose roots are outputs, then new states.
        products: of a step.
        live: which states are checkpointed.
        interval: every how many steps; ``None`` in inference.
    """

    stages: tuple[StageKernel, ...]
    products: tuple[Product, ...]
    live: tuple[int, ...]
    interval: int | None


@dataclass(frozen=True, eq=False)
class BackwardBranch:
    """A step on the way back, at one distance from the end.

    Attributes:
        vjp: what is computed.
        stages, products: how.
        results: what the roots are: ``("input", i, 0)``, ``("state", j, part)``, ``("sum", accumulator, 0)`` or
            ``("factor", outer, side)``.
        group: the branches that have the accumulators and outer products in common.
    """

    vjp: StepVjp
    stages: tuple[StageKernel, ...]
    products: tuple[Product, ...]
    results: tuple[tuple[str, int, int], ...]
    group: int


@dataclass(frozen=True, eq=False)
class AlternatingBackward:
    """The backward pass: the steps of an interval again, with their products kept, then back through them.

    Attributes:
        live: the states that must be known at every step.
        kept: the products of the forward step that are read on the way back.
        advance, products: computes the next live states and the kept products.
        branches: by distance from the end, the last for all others.
        accumulators: the leaf of each.
        groups: ``(first accumulator, vjp)``.
    """

    live: tuple[int, ...]
    kept: tuple[Node, ...]
    advance: tuple[StageKernel, ...]
    products: tuple[Product, ...]
    branches: tuple[BackwardBranch, ...]
    accumulators: tuple[Node, ...]
    groups: tuple[tuple[int, StepVjp], ...]


def plan_alternating(step: StepGraph, vjp: Vjp, request: ScanRequest, target: Target) -> AlternatingForward:
    """Plan the forward pass."""
    live: tuple[int, ...] = ()
    interval = None
    if request.training:
        live = states_to_checkpoint(step, vjp)
        interval = request.interval or target.choose_interval(step_bytes(step, request, live))
    roots = [*zip(step.outputs, request.output_dtypes, strict=True), *((n, n.dtype) for n in step.new_states)]
    stages = plan_stages(step.builder, roots, step.products, _memory_dtype(request, None))
    return AlternatingForward(stages, step.products, live, interval)


def plan_alternating_backward(
    step: StepGraph, vjp: Vjp, request: ScanRequest, gradients: Gradients
) -> AlternatingBackward | None:
    """Plan the backward pass; ``None`` where gradients come in and lead nowhere."""
    vjps = steps_from_end(vjp, gradients)
    if leads_nowhere(vjps):
        return None
    vjps = list(prune_gradients(vjps, gradients))
    live = live_states(step, vjps)
    read = {n for v in vjps for n in topological(with_sources(v.results, _own(v, step)))}
    kept = tuple(p.leaf for p in step.products if p.leaf in read)
    dtype_of = _memory_dtype(request, gradients)
    following = [(step.new_states[j], step.states[j].dtype) for j in live]
    groups, group_of = share_accumulators(vjps)
    sums = [r for _, v in groups for r in v.reductions]
    leaf = step.builder.leaf
    accumulators = tuple(leaf(LeafKind.STATE, len(step.states) + i, r.node.dtype) for i, r in enumerate(sums))
    branches = []
    for v, group in zip(vjps, group_of, strict=True):
        first = groups[group][0]
        results, roots = _roots(step, v, request, accumulators[first:])
        stages = plan_stages(step.builder, roots, _own(v, step), dtype_of)
        named = tuple((what, i + first * (what == "sum"), part) for what, i, part in results)
        branches.append(BackwardBranch(v, stages, _own(v, step), named, group))
    advance = plan_stages(step.builder, following, step.products, dtype_of, kept)
    return AlternatingBackward(live, kept, advance, step.products, tuple(branches), accumulators, groups)


def _own(vjp: StepVjp, step: StepGraph) -> tuple[Product, ...]:
    """The products that are computed on the way back; the others are there."""
    return tuple(p for p in vjp.products if p not in step.products)


def _roots(
    step: StepGraph, vjp: StepVjp, request: ScanRequest, accumulators: Sequence[Node]
) -> tuple[list[tuple[str, int, int]], list[tuple[Node, torch.dtype]]]:
    """What a step on the way back computes: what it is, and the node with its dtype in memory."""
    found = [(("input", i, 0), n, request.input_dtypes[i]) for i, n in enumerate(vjp.grad_inputs) if n is not None]
    for j, summands in enumerate(vjp.grad_states):
        found += [(("state", j, part), n, n.dtype) for part, n in enumerate(summands)]
    for i, (reduction, so_far) in enumerate(zip(vjp.reductions, accumulators, strict=False)):
        total = step.builder.op("add", so_far, reduction.node, dtype=so_far.dtype)
        found.append((("sum", i, 0), total, total.dtype))
    for k, outer in enumerate(vjp.outers):
        factors = enumerate((outer.left, outer.right))
        found += [(("factor", k, side), n, n.dtype) for side, n in factors if n.op is not LeafKind.STATE]
    return [what for what, *_ in found], [(node, dtype) for _, node, dtype in found]


def _memory_dtype(request: ScanRequest, gradients: Gradients | None) -> Callable[[Node], torch.dtype]:
    def dtype(leaf: Node) -> torch.dtype:
        if leaf.op is LeafKind.INPUT:
            return request.input_dtypes[leaf.index]
        given = gradients.outputs[leaf.index] if gradients and leaf.op is LeafKind.COTANGENT else None
        return given or leaf.dtype

    return dtype


def _kernel(
    builder: Builder,
    written: Sequence[tuple[Key, Node, torch.dtype]],
    products: tuple[Product, ...],
    memory_dtype: Callable[[Node], torch.dtype],
) -> StageKernel:
    if not written:
        return StageKernel(None, (), products)
    nodes = [node for _, node, _ in written]
    reads = [n for n in topological(nodes) if isinstance(n.op, LeafKind) and n.op.varies]
    inputs = {n: builder.leaf(LeafKind.INPUT, i, n.dtype) for i, n in enumerate(reads)}
    copy = Substitution(builder, inputs)
    step = StepGraph(builder, tuple(inputs.values()), (), tuple(map(copy, nodes)), ())
    request = ScanRequest(tuple(map(memory_dtype, reads)), tuple(dtype for *_, dtype in written), training=False)
    plan = plan_forward(step, request, (), None)

    def key(slot: Slot) -> Key:
        if slot.holds is Holds.INPUT:
            return reads[slot.index]
        return written[slot.index][0] if slot.holds is Holds.OUTPUT else (slot.holds.name.lower(), slot.index)

    return StageKernel(plan, tuple(map(key, plan.slots)), products)
