"""Wiring: nested graphs as one, in which order nodes run, and what is read a step late."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx

__all__ = ["Edge", "Flat", "Part", "flattened", "parts_of"]

Edge = tuple[str, str]


@dataclass(frozen=True)
class Part:
    """Nodes that run together: one that no cycle passes through, or all that cycles tie together.

    Args:
        nodes: in the order of a step.
        feedback: the edges between them that carry the value of the step before.
        cyclic: whether there is a cycle.
    """

    nodes: tuple[str, ...]
    feedback: tuple[Edge, ...] = ()
    cyclic: bool = False


@dataclass(frozen=True)
class Flat:
    """A graph and all graphs in it as one; a node of an inner one is called ``graph.node``.

    Args:
        nodes: by their whole name.
        edges: between them.
        homes: the graph that each node, and each inner graph, stands in; ``""`` for the outermost.
        doors: of each inner graph the nodes where edges enter and leave it.
    """

    nodes: dict[str, Any]
    edges: list[Edge]
    homes: dict[str, str]
    doors: dict[str, Edge]


def flattened(graph: Any, home: str = "") -> Flat:
    """Nodes and edges of a graph and all graphs in it."""
    flat = Flat({}, [], {}, {})
    within = f"{home}." if home else ""
    for name, node in graph.nodes.items():
        whole, is_graph = within + name, type(node).__name__ == "NIRGraph"
        inner = flattened(node, whole) if is_graph else Flat({whole: node}, [], {}, {})
        inner.homes[whole] = home
        twice = flat.homes.keys() & inner.homes.keys()
        if twice:
            raise ValueError(f"two nodes are called {min(twice)!r}, one of them in a graph within the graph")
        for mine, its in ((flat.nodes, inner.nodes), (flat.homes, inner.homes), (flat.doors, inner.doors)):
            mine.update(its)  # type: ignore[arg-type]
        flat.edges.extend(inner.edges)
        if is_graph:
            flat.doors[whole] = _only(node, "Input", whole), _only(node, "Output", whole)
    for source, target in dict.fromkeys((source, target) for source, target in graph.edges):  # it is there or not
        for end in (source, target):
            if end not in graph.nodes:
                raise ValueError(f"edge {(source, target)} names the node {end!r}, of which there is none")
        leaves, enters = within + source, within + target
        flat.edges.append((flat.doors.get(leaves, ("", leaves))[1], flat.doors.get(enters, (enters, ""))[0]))
    return flat


def _only(graph: Any, kind: str, whole: str) -> str:
    """The one node of a graph within another where edges enter or leave it."""
    found = [name for name, node in graph.nodes.items() if type(node).__name__ == kind]
    if len(found) != 1:
        raise ValueError(f"the graph {whole!r} within the graph has {len(found)} {kind} nodes, edges need exactly one")
    return f"{whole}.{found[0]}"


def parts_of(
    nodes: Iterable[str], edges: Sequence[Edge], inputs: Sequence[str], *, late: set[str], held: set[str]
) -> list[Part]:
    """What runs one after the other, from the inputs on.

    In a cycle some value has to be that of the step before. It is one on an edge that leads back on a walk from where
    the inputs enter; where that edge leaves a layer that holds nothing, such as the matrix of a recurrent layer, what
    enters the layer is late instead, so that spikes are kept and not their products.

    Args:
        nodes, edges: of one flat graph.
        inputs: nodes where the inputs enter.
        late: nodes that give, at every step, what entered at earlier ones.
        held: nodes whose value is worth keeping: neurons.
    """
    graph = nx.DiGraph()
    graph.add_nodes_from(sorted(nodes))
    graph.add_edges_from(sorted(edges))
    far = nx.DiGraph(graph)
    far.add_edges_from(("", name) for name in inputs)
    distance = nx.single_source_shortest_path_length(far, "")
    whole = nx.condensation(graph)
    members = whole.nodes.data("members")
    order = nx.lexicographical_topological_sort(whole, key=lambda part: min(members[part]))
    found = []
    for names in (members[part] for part in order):
        if len(names) == 1 and not graph.has_edge(*names, *names):
            found.append(Part(tuple(names)))
        else:
            found.append(_cycle(graph, sorted(names, key=lambda name: (distance[name], name)), late, held))
    return found


def _cycle(graph: Any, names: list[str], late: set[str], held: set[str]) -> Part:
    inner = nx.DiGraph()
    inner.add_nodes_from(names)
    inner.add_edges_from(edge for edge in graph.edges if set(edge) <= set(names) and edge[1] not in late)
    entries = [name for name in names if not set(graph.pred[name]) <= set(names)]
    walk = nx.DiGraph(inner)
    walk.add_edges_from(("", name) for name in [*entries, *names])
    finished = {name: place for place, name in enumerate(nx.dfs_postorder_nodes(walk, ""))}
    feedback = {edge for edge in inner.edges if finished[edge[0]] <= finished[edge[1]]}
    _moved_to_what_holds(graph, inner, feedback, held | late)
    ahead = nx.DiGraph(inner)
    ahead.remove_edges_from(feedback)
    order = nx.lexicographical_topological_sort(ahead, key=names.index)
    return Part(tuple(order), tuple(sorted(feedback)), cyclic=True)


def _moved_to_what_holds(graph: Any, inner: Any, feedback: set[Edge], held: set[str]) -> None:
    """Where all that leaves a layer without states is late, let all that enters it be late instead."""
    moved: set[str] = set()
    while True:
        for name in sorted({source for source, _ in feedback} - held - moved):
            enters, leaves = set(inner.in_edges(name)), set(inner.out_edges(name))
            only_late = leaves == set(graph.out_edges(name)) and leaves <= feedback
            if only_late and enters == set(graph.in_edges(name)) and not enters & feedback:
                feedback -= leaves
                feedback |= enters
                moved.add(name)
                break
        else:
            return
