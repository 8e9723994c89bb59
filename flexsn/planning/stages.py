"""The kernels of the stages that products cut a step into, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from flexsn.ir.graph import Builder, LeafKind, Node, topological
from flexsn.ir.plan import ForwardPlan, Holds, Slot
from flexsn.ir.program import split_stages
from flexsn.ir.step import Product, StepGraph
from flexsn.ir.substitute import Substitution
from flexsn.planning.forward import plan_forward
from flexsn.planning.request import ScanRequest

__all__ = ["Key", "Result", "StageKernel", "StepPlan", "as_inputs", "plan_step", "row_key", "source_key"]

Key = Node | tuple[str, int | Node]
"""What a tensor of one step is: the value of a node, or ``("output", k)``, ``("next", j)``, ``("operand", i)``, ..."""

_IN_PLACE = (LeafKind.STATE, LeafKind.STATE_COTANGENT, LeafKind.PRODUCT)


@dataclass(frozen=True, eq=False)
class Result:
    """What a step computes.

    Attributes:
        key: its tensor.
        node: its value.
        dtype: in memory.
        in_rows: whether its tensor lies in memory row by row, so that torch can multiply it, or write a product to it.
    """

    key: Key
    node: Node
    dtype: torch.dtype
    in_rows: bool = True


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


@dataclass(frozen=True, eq=False)
class StepPlan:
    """One step.

    Attributes:
        stages: in order.
        same: tensors that need no memory of their own, each with the one it is.
    """

    stages: tuple[StageKernel, ...]
    same: Mapping[Key, Key]

    @property
    def slots(self) -> list[Slot]:
        """Every tensor its kernels touch."""
        return [slot for stage in self.stages if stage.plan for slot in stage.plan.slots]


def row_key(node: Node) -> Key:
    """Where a value lies row by row for longer than its step: where it is, or where it is copied to."""
    return ("copy", node) if node.is_leaf and node.op not in (LeafKind.STATE, LeafKind.PRODUCT) else node


def source_key(product: Product) -> Key:
    """Which tensor a product multiplies."""
    return product.source if product.source.op in _IN_PLACE else row_key(product.source)


def plan_step(
    builder: Builder,
    results: Sequence[Result],
    products: Sequence[Product],
    memory_dtype: Callable[[Node], torch.dtype],
    wanted: Sequence[Node] = (),
) -> StepPlan:
    """Plan one step: what a product is of and what is computed of the same in one kernel, none where nothing is left.

    Args:
        builder: of the step.
        results: what it computes.
        products: those it may compute; any other counts as one that is there already.
        memory_dtype: of a leaf's value.
        wanted: what else is read of it; products among that are kept where they are.
    """
    *early, last = split_stages([*(r.node for r in results), *wanted], products)
    computed = {p.leaf for stage in early for p in stage.products}
    in_rows = {r.node: r for r in reversed(results) if r.in_rows and r.dtype is r.node.dtype}
    same: dict[Key, Key] = {r.key: n for n, r in in_rows.items() if n in computed and n not in wanted}
    same |= {r.key: first.key for r in results if r.key == row_key(r.node) and (first := in_rows[r.node]) is not r}
    waiting = {r.key: r for r in results if r.key not in same}
    behind = {r.key: computed.intersection(topological([r.node])) for r in results}
    there, stages = set[Node](), []
    for stage in early:
        sources: dict[Key, Result] = {}
        for p in (p for p in stage.products if p.source.op not in _IN_PLACE):
            found = in_rows.get(p.source, Result(source_key(p), p.source, p.source.dtype))
            if found.key != source_key(p):
                same[source_key(p)] = found.key
            sources[found.key] = found
        if sources:  # what can be computed beside them is
            sources |= {key: r for key, r in waiting.items() if behind[key] <= there}
        waiting = {key: r for key, r in waiting.items() if key not in sources}
        there.update(p.leaf for p in stage.products)
        stages.append(_kernel(builder, tuple(sources.values()), stage.products, memory_dtype))
    return StepPlan((*stages, _kernel(builder, tuple(waiting.values()), last.products, memory_dtype)), same)


def as_inputs(builder: Builder, nodes: Sequence[Node], but: Sequence[Node] = ()) -> dict[Node, Node]:
    """What changes from step to step and the nodes read, as inputs of a step of its own."""
    reads = [n for n in topological(nodes) if isinstance(n.op, LeafKind) and n.op.varies and n not in but]
    return {n: builder.leaf(LeafKind.INPUT, i, n.dtype) for i, n in enumerate(reads)}


def _kernel(
    builder: Builder,
    results: Sequence[Result],
    products: tuple[Product, ...],
    memory_dtype: Callable[[Node], torch.dtype],
) -> StageKernel:
    if not results:
        return StageKernel(None, (), products)
    nodes = [r.node for r in results]
    inputs = as_inputs(builder, nodes)
    copy = Substitution(builder, inputs)
    step = StepGraph(builder, tuple(inputs.values()), (), tuple(map(copy, nodes)), ())
    request = ScanRequest(tuple(map(memory_dtype, inputs)), tuple(r.dtype for r in results), training=False)
    plan, reads = plan_forward(step, request, (), None), tuple(inputs)

    def key(slot: Slot) -> Key:
        if slot.holds is Holds.INPUT:
            return reads[slot.index]
        return results[slot.index].key if slot.holds is Holds.OUTPUT else (slot.holds.name.lower(), slot.index)

    return StageKernel(plan, tuple(map(key, plan.slots)), products)
