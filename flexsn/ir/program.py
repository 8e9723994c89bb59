"""Programs: what of a step is computed when."""

from __future__ import annotations

from dataclasses import dataclass

from flexsn.ir.graph import Node
from flexsn.ir.step import Product

__all__ = ["Program", "Stage"]


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
