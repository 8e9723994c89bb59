"""Lowering: the tools a rule has to turn one torch operator into nodes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from flexsn.errors import SourceLine
from flexsn.ir.dtypes import compute_dtype
from flexsn.ir.graph import Builder, Node

__all__ = ["Arg", "Lowering", "Unlowerable"]

Arg = Node | bool | int | float | None


class Unlowerable(Exception):
    """This use of an operator has no rule; the message says why."""


class Lowering:
    """The context of one operator.

    Args:
        builder: where nodes are made.
        dtype: of the operator's result in torch.
        common: the dtype torch compares the arguments in.
        on_gpu: whether torch would run it on a GPU, since a few eager kernels differ in their last bit.
        line: the user's line.
        numbers: nodes among the arguments that stand for Python numbers.
    """

    def __init__(
        self,
        builder: Builder,
        dtype: torch.dtype,
        common: torch.dtype,
        on_gpu: bool,
        line: SourceLine | None,
        numbers: Sequence[Node] = (),
    ) -> None:
        self.builder, self.dtype, self.common, self.line = builder, dtype, common, line
        self.on_gpu, self._numbers = on_gpu, numbers

    def is_number(self, arg: Arg) -> bool:
        """Whether torch is given a Python number there."""
        return arg in self._numbers if isinstance(arg, Node) else arg is not None

    def value(self, arg: Arg, dtype: torch.dtype) -> Node:
        """``arg`` as a node of ``dtype``."""
        if isinstance(arg, Node):
            return self.builder.cast(arg, dtype, self.line)
        if isinstance(arg, (bool, int, float)):
            return self.builder.const(arg, dtype)
        raise Unlowerable(f"argument {arg!r} is neither a tensor nor a number")

    def op(self, name: str, *args: Arg, dtype: torch.dtype | None = None) -> Node:
        """A row of the table computed in ``dtype`` (by default the result's); 16-bit floats compute in fp32."""
        dtype = dtype or self.dtype
        compute = compute_dtype(dtype)
        node = self.builder.op(name, *(self.value(a, compute) for a in args), dtype=compute, line=self.line)
        return self.builder.cast(node, dtype, self.line)

    def compare(self, name: str, *args: Arg) -> Node:
        """A row whose arguments are brought to their common dtype and whose result is bool."""
        return self.test(name, *(self.value(a, self.common) for a in args))

    def test(self, name: str, *nodes: Node) -> Node:
        """A row on nodes as they are, whose result is bool."""
        return self.builder.op(name, *nodes, dtype=torch.bool, line=self.line)

    def logical(self, name: str, *args: Arg) -> Node:
        """A row on the truth of its arguments."""
        return self.test(name, *(self.value(a, torch.bool) for a in args))

    def where(self, condition: Arg, a: Arg, b: Arg, dtype: torch.dtype | None = None) -> Node:
        """``a`` where the condition holds, else ``b``; of ``dtype``, by default the result's."""
        dtype = dtype or self.dtype
        nodes = (self.value(condition, torch.bool), self.value(a, dtype), self.value(b, dtype))
        return self.builder.op("where", *nodes, dtype=dtype, line=self.line)
