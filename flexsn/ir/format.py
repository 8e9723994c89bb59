"""Nodes as readable Python."""

from __future__ import annotations

from collections.abc import Sequence

from flexsn.errors import SourceLine
from flexsn.ir.graph import Node

__all__ = ["format_nodes"]


def format_nodes(names: dict[int, str], nodes: Sequence[Node], returns: Sequence[tuple[str, Node | None]]) -> list[str]:
    """Readable Python for ``nodes``, the user's own line above each group of nodes that came from it.

    Args:
        names: names of the leaves by ``id``; names of the other nodes are added.
        nodes: in topological order.
        returns: ``(name, node)`` of what the step gives back.
    """
    rows: list[str] = []
    last_line: SourceLine | None = None
    for node in nodes:
        if node.is_leaf:
            continue
        if node.line is not None and node.line != last_line:
            rows.append(f"# {node.line.text}  ({node.line.function}:{node.line.lineno})")
            last_line = node.line
        name = names.setdefault(id(node), f"t{len(names)}")
        args = ", ".join(_spell(names, arg) for arg in node.args)
        dtype = str(node.dtype).removeprefix("torch.")
        rows.append(f"{name} = {node.op}({args}{', ' + dtype if node.op == 'cast' else ''})  # {dtype}")
    spelled = [f"{label}={'None' if node is None else _spell(names, node)}" for label, node in returns]
    rows.append(f"return dict({', '.join(spelled)})")
    return rows


def _spell(names: dict[int, str], node: Node) -> str:
    if node.op == "const":
        return repr(node.value)
    return names.setdefault(id(node), f"{node.op}{node.index}")
