"""Triton text of the values of a step: types, literals, casts and the rows of the op table."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from flexsn.ir.graph import LeafKind, Node
from flexsn.kernels.triton.spelling import spelling
from flexsn.kernels.writer import Writer

__all__ = ["Values", "cast"]

TYPES = {
    torch.float32: "tl.float32",
    torch.float64: "tl.float64",
    torch.float16: "tl.float16",
    torch.bfloat16: "tl.bfloat16",
    torch.bool: "tl.int1",
    torch.uint8: "tl.uint8",
    torch.int8: "tl.int8",
    torch.int16: "tl.int16",
    torch.int32: "tl.int32",
    torch.int64: "tl.int64",
}


class Values:
    """Names of the values of one kernel, and the lines that compute them.

    Args:
        writer: takes the lines.
        shape: of a value of all lanes of a block.
    """

    def __init__(self, writer: Writer, shape: str = "[BLOCK]") -> None:
        self.w, self.shape = writer, shape
        self.step_index = ""  # of the step at hand, as an expression
        self.fixed: dict[int, str] = {}  # leaves and hoisted values, named once
        self.names: dict[int, str] = {}  # of the step at hand
        self._scalars: set[str] = set()  # names of values that are one for the whole block
        self._count = 0

    def fix(self, node: Node, name: str, scalar: bool) -> None:
        """Name a value for the whole kernel."""
        self.fixed[id(node)] = name
        if scalar:
            self._scalars.add(name)

    def at_step(self, index: str, names: dict[int, str]) -> None:
        """Go on to a step of that index, where these values are known."""
        self.step_index, self.names = f"({index})", dict(names)

    def hoist(self, nodes: Iterable[Node]) -> None:
        """Compute what does not change with time."""
        self.names = {}
        for node in nodes:
            self.compute([node])
            self.fixed[id(node)] = self.use(node)

    def compute(self, nodes: Iterable[Node]) -> None:
        """Write a line for every node that has no name yet."""
        for node in nodes:
            if id(node) not in self.names and id(node) not in self.fixed:
                name = self.names[id(node)] = self.fresh("t")
                if all(self._is_scalar(a) for a in node.args):
                    self._scalars.add(name)
                self.w(f"{name} = {self._expression(node)}")

    def fresh(self, prefix: str) -> str:
        """A name nobody has."""
        self._count += 1
        return f"{prefix}_{self._count}"

    def use(self, node: Node) -> str:
        """The node as an argument of an expression."""
        if node.is_const:
            return _literal(node)
        if node.op is LeafKind.STEP_INDEX:
            return self.step_index
        if node.op is LeafKind.NUM_STEPS:
            return "T"
        return self.fixed.get(id(node)) or self.names[id(node)]

    def tensor(self, node: Node) -> str:
        """Like :meth:`use`, where a bare number would lack a dtype."""
        if node.op is LeafKind.NUM_STEPS:
            return "tl.cast(T, tl.int64)"
        return _typed(node) if node.is_const else self.use(node)

    def block(self, node: Node) -> str:
        """Like :meth:`tensor`, always one value per lane."""
        text = self.tensor(node)
        return f"tl.broadcast_to({text}, {self.shape})" if self._is_scalar(node) else text

    def zeros(self, dtype: torch.dtype) -> str:
        """Zero in every lane."""
        return f"tl.zeros({self.shape}, {TYPES[dtype]})"

    def _is_scalar(self, node: Node) -> bool:
        uniform = isinstance(node.op, LeafKind) and node.op.is_uniform
        return uniform or self.use(node) in self._scalars

    def _expression(self, node: Node) -> str:
        if node.op == "cast":
            return cast(self.tensor(node.args[0]), node.args[0].dtype, node.dtype)
        template = spelling(str(node.op), node.args[0].dtype)
        bare = all(a.is_const or a.op is LeafKind.NUM_STEPS for a in node.args)
        return template.format(*(self.tensor(a) if bare else self.use(a) for a in node.args))


def cast(text: str, source: torch.dtype, target: torch.dtype) -> str:
    """A value of one dtype as another."""
    if source == target:
        return text
    if target == torch.bool:
        return f"({text} != 0)"
    if source == torch.float64 and target.itemsize == 2 and target.is_floating_point:
        text = f"({text}).to(tl.float32)"  # torch rounds twice
    return f"({text}).to({TYPES[target]})"


def _literal(node: Node) -> str:
    """A bare number where Triton gives it the dtype of its partner, else a typed scalar."""
    value = node.value
    if node.dtype == torch.float32 and isinstance(value, float):
        single = torch.tensor(value, dtype=torch.float32).item()
        if single == 0 or (math.isfinite(single) and abs(single) >= 2.0**-126):
            return f"({single!r})" if math.copysign(1, single) < 0 else repr(single)
    if node.dtype in (torch.int32, torch.int64) and isinstance(value, int) and abs(value) < 2**31:
        return f"({value})" if value < 0 else str(value)
    return _typed(node)


def _typed(node: Node) -> str:
    value = node.value
    if isinstance(value, float):
        text = repr(value)
        if math.isnan(value):
            text = "NAN"
        elif math.isinf(value):
            text = "INF" if value > 0 else "-INF"
    else:
        text = repr(value)
    return f"tl.full((), {text}, {TYPES[node.dtype]})"
