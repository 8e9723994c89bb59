"""Keep: which values of a recomputed step wait in registers until the walk back reaches it.

A chunk of K steps is recomputed first and walked back through after, so whatever crosses from one to the
other occupies K registers. Of all sets of values from which the rest of a step can be computed again, the
smallest is a minimum cut of the step graph: for a LIF neuron with a fixed time constant it is the charged
membrane alone, not the input and the state it came from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import torch

from flexsn.ir.graph import Node, topological

__all__ = ["kept_values", "remaining"]

_ENDLESS = 1 << 30
_GRADIENTS = ("cotangent", "state_cotangent", "age")


def kept_values(roots: Iterable[Node]) -> tuple[Node, ...]:
    """The cheapest values to keep for computing ``roots`` later; among equals what leaves least to recompute.

    What depends on inputs and states alone can be kept or computed again from what is kept; loop-invariant
    values are there anyway, and gradients exist only on the way back.
    """
    roots = list(roots)
    order = topological(roots)
    gradient = _reached(order, _GRADIENTS)
    varying = _reached(order, ("input", "state"))
    forward = [n for n in order if id(n) in varying and id(n) not in gradient]
    read = {id(a) for n in order if id(n) in gradient for a in n.args} | set(map(id, roots))
    number = {id(n): i for i, n in enumerate(forward)}
    flow = _Flow(2 * len(forward) + 2)  # node i is the edge 2i -> 2i + 1
    source, sink = flow.size - 2, flow.size - 1
    for i, node in enumerate(forward):
        flow.edge(2 * i, 2 * i + 1, _cost(node.dtype))
        if node.is_leaf:
            flow.edge(source, 2 * i, _ENDLESS)
        if id(node) in read:
            flow.edge(2 * i + 1, sink, _ENDLESS)
        for arg in node.args:
            if id(arg) in number:
                flow.edge(2 * number[id(arg)] + 1, 2 * i, _ENDLESS)
    flow.saturate(source, sink)
    late = flow.reaching(sink)
    return tuple(n for i, n in enumerate(forward) if 2 * i not in late and 2 * i + 1 in late)


def remaining(roots: Iterable[Node], known: Iterable[Node]) -> list[Node]:
    """What is left to compute for ``roots`` once ``known`` is there, in order."""
    seen = set(map(id, known))
    order: list[Node] = []

    def visit(node: Node) -> None:
        if id(node) in seen:
            return
        seen.add(id(node))
        for arg in node.args:
            visit(arg)
        if not node.is_leaf and node.op != "age":
            order.append(node)

    for root in roots:
        visit(root)
    return order


def _reached(order: Sequence[Node], kinds: Sequence[str]) -> set[int]:
    reached: set[int] = set()
    for node in order:
        if node.op in kinds or any(id(a) in reached for a in node.args):
            reached.add(id(node))
    return reached


def _cost(dtype: torch.dtype) -> int:
    return 3 if dtype == torch.bool else max(dtype.itemsize, 4)


class _Flow:
    """Maximum flow by shortest augmenting paths."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free: list[dict[int, int]] = [{} for _ in range(size)]

    def edge(self, a: int, b: int, capacity: int) -> None:
        self._free[a][b] = self._free[a].get(b, 0) + capacity
        self._free[b].setdefault(a, 0)

    def saturate(self, source: int, sink: int) -> None:
        while (came := self._path(source, sink)) is not None:
            path = []
            node = sink
            while node != source:
                path.append((came[node], node))
                node = came[node]
            amount = min(self._free[a][b] for a, b in path)
            for a, b in path:
                self._free[a][b] -= amount
                self._free[b][a] += amount

    def reaching(self, sink: int) -> set[int]:
        """The nodes from which more could still flow to the sink."""
        found, queue = {sink}, deque([sink])
        while queue:
            b = queue.popleft()
            for a in self._free[b]:
                if a not in found and self._free[a][b] > 0:
                    found.add(a)
                    queue.append(a)
        return found

    def _path(self, source: int, sink: int) -> dict[int, int] | None:
        came, queue = {source: source}, deque([source])
        while queue:
            a = queue.popleft()
            for b, capacity in self._free[a].items():
                if capacity > 0 and b not in came:
                    came[b] = a
                    if b == sink:
                        return came
                    queue.append(b)
        return None
