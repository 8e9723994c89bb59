"""Programs: what of a step is computed when, and how products cut it into stages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flexsn.ir.graph import LeafKind, Node, topological
from flexsn.ir.step import Product, with_sources

__all__ = ["Program", "Stage", "split_stages"]

_NOT_IN_ARRAYS = (
    *(LeafKind.INPUT, LeafKind.COTANGENT, LeafKind.SAVED),
    *(LeafKind.CONST, LeafKind.STEP_INDEX, LeafKind.NUM_STEPS),
)
"""Read from memory at every step, or the same for all lanes; any other leaf is in an array over the lanes."""


@dataclass(frozen=True, eq=False)
class Stage:
    """What is computed between two rounds of products.

    Attributes:
        nodes: what depends on the products of earlier stages alone, arguments before users.
        products: what is multiplied once they are there.
        held: what waits in arrays over the lanes: values that a later stage reads or that are results, and the sources
            of the products that are not in such arrays anyway.
    """

    nodes: tuple[Node, ...]
    products: tuple[Product, ...] = ()
    held: tuple[Node, ...] = ()


@dataclass(frozen=True, eq=False)
class Program:
    """Nodes in order, split into what runs once per lane and what runs every step.

    Attributes:
        hoisted, body: the two.
        stages: how products cut the body; none where there are no products. What comes of a step (stores, sums,
            carries) is taken from the last one.
    """

    hoisted: tuple[Node, ...]
    body: tuple[Node, ...]
    stages: tuple[Stage, ...] = ()

    @property
    def products(self) -> tuple[Product, ...]:
        """All products of a step."""
        return tuple(product for stage in self.stages for product in stage.products)


def split_stages(roots: Iterable[Node], products: Sequence[Product]) -> tuple[Stage, ...]:
    """Split what the roots need into stages; there is one more than the longest chain of products.

    Args:
        roots: results of a step.
        products: those they may depend on, each after those its source depends on.
    """
    roots = list(roots)
    nodes = topological(with_sources(roots, products))
    present = set(nodes)
    needed = [p for p in products if p.leaf in present]
    depth: dict[Node, int] = {}

    def measure(order: Iterable[Node]) -> None:
        for node in order:
            depth.setdefault(node, max((depth[arg] for arg in node.args), default=0))

    for product in needed:
        measure(topological([product.source]))
        depth[product.leaf] = depth[product.source] + 1
    measure(nodes)
    last = max(depth.values(), default=0)
    read: dict[Node, int] = dict.fromkeys(roots, last)  # by the latest stage that does
    for node in nodes:
        for arg in node.args:
            read[arg] = max(read.get(arg, 0), depth[node])
    sources = {p.source for p in needed}

    def is_held(node: Node) -> bool:
        if node.is_leaf:
            return node in sources and node.op in _NOT_IN_ARRAYS
        return node in sources or read.get(node, 0) > depth[node]

    return tuple(
        Stage(
            tuple(n for n in nodes if depth[n] == stage and not n.is_leaf),
            tuple(p for p in needed if depth[p.source] == stage),
            tuple(n for n in nodes if depth[n] == stage and is_held(n)),
        )
        for stage in range(last + 1)
    )
