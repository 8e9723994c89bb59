"""Stages: how products cut a step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flexsn.ir.graph import Node, topological
from flexsn.ir.step import Product, with_sources

__all__ = ["Stage", "split_stages"]


@dataclass(frozen=True, eq=False)
class Stage:
    """What is computed between two rounds of products.

    Attributes:
        nodes: what depends on the products of earlier stages alone, arguments before users.
        products: what is multiplied once they are there.
    """

    nodes: tuple[Node, ...]
    products: tuple[Product, ...]


def split_stages(roots: Iterable[Node], products: Sequence[Product]) -> tuple[Stage, ...]:
    """Split what the roots need into stages; there is one more than the longest chain of products.

    Args:
        roots: results of a step.
        products: those they may depend on, each after those its source depends on.
    """
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
    return tuple(
        Stage(
            tuple(n for n in nodes if depth[n] == stage and not n.is_leaf),
            tuple(p for p in needed if depth[p.source] == stage),
        )
        for stage in range(max(depth.values(), default=0) + 1)
    )
