"""Which values of a recomputed step wait in registers until the walk back reaches it.

A chunk of K steps is recomputed first and walked back through after, so whatever crosses from one to the other
occupies K registers. Of all sets of values from which the rest of a step can be computed again, the smallest is a
minimum cut of the step graph: for a LIF neuron with a fixed time constant it is the charged membrane alone, not the
input and the state it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch

from flexsn.ir.graph import LeafKind, Node, reached_from, topological
from flexsn.ir.plan import BackwardPlan, Saved
from flexsn.ir.step import Product, with_sources

__all__ = ["choose_saved", "left_to_compute", "values_to_save"]


def choose_saved(plan: BackwardPlan) -> BackwardPlan:
    """The plan with its step divided between recomputation and walk back."""
    values = values_to_save(plan.step.results)
    recompute = left_to_compute(values, plan.hoisted)
    advance = left_to_compute(plan.next_states, (*plan.hoisted, *recompute))
    walk_back = left_to_compute(plan.step.results, (*plan.hoisted, *values))
    return replace(plan, saved=Saved(values, recompute, advance, walk_back))


def values_to_save(
    roots: Iterable[Node], of_gradients: Sequence[Product] = (), cost: Callable[[Node], int] | None = None
) -> tuple[Node, ...]:
    """The cheapest values to save for computing ``roots`` later; among equals what leaves least to recompute.

    What depends on inputs and states alone can be saved or computed again from what is saved; loop-invariant values
    and coordinates are there anyway, and gradients exist only on the way back. A product of the forward step can be
    saved, but not computed again.

    Args:
        roots: what is computed later.
        of_gradients: the products among it that are computed later too.
        cost: of saving a value; that of a register if not given.
    """
    import networkx  # a tenth of a second that the CPU backend need not spend

    cost = cost or _in_a_register
    roots = with_sources(roots, of_gradients)
    order = topological(roots)
    later = {p.leaf for p in of_gradients}
    gradient = reached_from(order, lambda n: n in later or (isinstance(n.op, LeafKind) and n.op.is_gradient))
    varying = reached_from(order, lambda n: n.op in (LeafKind.INPUT, LeafKind.STATE, LeafKind.PRODUCT))
    forward = [n for n in order if id(n) in varying and id(n) not in gradient]
    read = {a for n in order if id(n) in gradient for a in n.args}.union(roots)
    known = set(forward)
    flow = networkx.DiGraph()  # only the edge through a node can be cut, at the cost of saving it
    flow.add_nodes_from(("source", "sink"))
    for node in forward:
        flow.add_edge((node, "in"), (node, "out"), capacity=cost(node))
        if node.is_leaf:
            flow.add_edge("source", (node, "in"))
        if node in read:
            flow.add_edge((node, "out"), "sink")
        for arg in known.intersection(node.args):
            flow.add_edge((arg, "out"), (node, "in"))
    _, (_, late) = networkx.minimum_cut(flow, "source", "sink")  # of all, the cut nearest to the sink
    return tuple(n for n in forward if (n, "in") not in late and (n, "out") in late)


def left_to_compute(roots: Iterable[Node], known: Iterable[Node]) -> tuple[Node, ...]:
    """What is left to compute for ``roots`` once ``known`` is there, in order."""
    done = set(known)
    order: list[Node] = []

    def visit(node: Node) -> None:
        if node in done or node.is_leaf:
            return
        done.add(node)
        for arg in node.args:
            visit(arg)
        order.append(node)

    for root in roots:
        visit(root)
    return tuple(order)


def _in_a_register(node: Node) -> int:
    """The cost of saving a value: its bytes; a bool is a predicate, of which there are few but which cost less."""
    return 3 if node.dtype == torch.bool else max(node.dtype.itemsize, 4)
