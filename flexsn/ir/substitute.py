"""Substitution: graphs again, with other nodes in the place of some leaves."""

from __future__ import annotations

from collections.abc import Mapping

from flexsn.ir.graph import Builder, Node, topological

__all__ = ["Substitution"]


class Substitution:
    """Copies nodes, leaves replaced; what reads none of these stays the very node.

    Args:
        builder: makes the nodes.
        leaves: what stands for each leaf that is replaced; it may read that leaf itself.
    """

    def __init__(self, builder: Builder, leaves: Mapping[Node, Node]) -> None:
        self._builder = builder
        self._copies = dict(leaves)

    def __call__(self, node: Node) -> Node:
        copies = self._copies
        for old in topological([node]):
            if old not in copies:
                args = tuple(copies[a] for a in old.args)
                assert isinstance(old.op, str) or not args
                copies[old] = (
                    old if args == old.args else self._builder.op(str(old.op), *args, dtype=old.dtype, line=old.line)
                )
        return copies[node]
