"""Products: what of a core reads across lanes and is compiled nevertheless.

Torch multiplies by a matrix in two dimensions, so around every product the step is viewed in another shape and back.
What a view does is not looked up by name: it is done to the numbers of the lanes, and they tell what it did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flexsn.ir.graph import Builder, LeafKind, Node, topological
from flexsn.ir.step import Outer, Place, Product, Reduction, Ref, TorchCall, with_sources
from flexsn.tracing.host_program import HostProgram
from flexsn.tracing.lowering import is_known
from flexsn.tracing.tape import Call, Tape, ValueRef

__all__ = ["PRODUCTS", "AcrossLanes", "Products", "Viewed", "is_across", "is_kept"]

PRODUCTS = {"mm", "bmm", "addmm", "convolution", "convolution_backward"}
_VIEWS = {
    *("view", "_unsafe_view", "reshape", "_reshape_alias", "squeeze", "unsqueeze", "expand", "clone"),
    *("t", "transpose", "permute"),
}


def is_across(name: str) -> bool:
    """Whether an operator multiplies step values, or views them in another shape."""
    return name in PRODUCTS or (name in _VIEWS and name not in ("expand", "clone"))


def is_kept(name: str) -> bool:
    """Whether an operator on step values needs no decomposition."""
    return is_known(name) or is_across(name)


@dataclass(frozen=True, eq=False)
class Viewed:
    """A step value in another shape.

    Attributes:
        node: the value.
        lanes: of that shape: the number of the lane of every element.
        call: the first that gave it another shape.
    """

    node: Node
    lanes: Tensor
    call: Call

    @property
    def in_order(self) -> bool:
        """Whether its elements are the lanes in their order."""
        return torch.equal(self.lanes.flatten(), torch.arange(self.lanes.numel()))

    def seen(self, func: Callable[..., Tensor], *args: Any) -> Viewed:
        """What a view makes of it."""
        return replace(self, lanes=func(self.lanes, *args))


@dataclass(frozen=True, eq=False)
class _Host:
    """A value from outside, and its shape."""

    ref: Ref
    shape: torch.Size


class Products:
    """The products of a core and of its gradients, each counted once.

    Args:
        builder: makes their leaves.
    """

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._made: dict[tuple[Any, ...], Product] = {}

    def leaf(self, source: Node, operands: tuple[int, ...], call: TorchCall | None = None) -> Node:
        """What stands in the graph for a product."""
        key = (source, operands, call)
        if key not in self._made:
            leaf = self._builder.leaf(LeafKind.PRODUCT, len(self._made), source.dtype)
            self._made[key] = Product(leaf, source, operands, call)
        return self._made[key].leaf

    def behind(self, roots: Iterable[Node]) -> tuple[Product, ...]:
        """Those that some nodes depend on, each after those its source depends on."""
        every = tuple(self._made.values())
        present = set(topological(with_sources(roots, every)))
        return tuple(p for p in every if p.leaf in present)


class AcrossLanes:
    """Gives a place to the calls that multiply step values, and to the views around them.

    Args:
        step_shape: of the recording.
        products: grows by the products.
        builder, host: of the trace.
        operand: the leaf of a value of the host program.

    Attributes:
        outers: the gradients of matrices found so far.
    """

    def __init__(
        self,
        step_shape: torch.Size,
        products: Products,
        builder: Builder,
        host: HostProgram,
        operand: Callable[[Ref, torch.dtype], Node],
    ) -> None:
        self._shape, self._products = step_shape, products
        self._builder, self._host, self._operand = builder, host, operand
        self.outers: list[Outer] = []

    def sort(self, call: Call, args: Sequence[Any], tape: Tape) -> list[Any] | None:
        """What the results of a call are; ``None`` where it has no place here.

        A node, a :class:`Viewed`, a :class:`Reduction`, or a :class:`Ref` that follows of a gradient.
        """
        if call.name not in PRODUCTS | _VIEWS | {"sum"}:
            return None
        given = [self._given(a, ref, call, tape) for a, ref in zip(args, call.args, strict=True)]
        if not any(isinstance(a, Viewed) for a in given) or (
            call.kwargs and call.name not in ("clone", "_unsafe_view")
        ):
            return None
        if call.name in _VIEWS:
            found: list[Any] = [self._view(call, given)]
        elif call.name == "sum" and isinstance(args[0], Viewed):
            found = [self._sum(given[0], call, tape.tensors[call.results[0].index].shape)]
        elif call.name == "mm":
            found = [self._mm(given[0], given[1])]
        elif call.name == "bmm":
            found = [self._bmm(given[0], given[1])]
        elif call.name == "addmm":
            found = [self._plus(self._mm(given[1], given[2]), given[0], call)]
        elif call.name == "convolution":
            found = [self._convolution(given, call)]
        elif call.name == "convolution_backward":
            found = self._convolution_backward(given, call)
        else:
            return None
        settled = [self._settled(value) for value in found]
        return None if any(value is None for value in settled) else settled

    def _given(self, value: Any, ref: Any, call: Call, tape: Tape) -> Any:
        """An argument: a step value as it is seen, a host value with its shape, anything else as it is."""
        shape = tape.tensors[ref.index].shape if isinstance(ref, ValueRef) else None
        if isinstance(value, Node) and shape == self._shape:
            return Viewed(value, torch.arange(self._shape.numel()).view(self._shape), call)
        return _Host(value, shape) if isinstance(value, Ref) and shape is not None else value

    def _settled(self, value: Any) -> Any:
        """The node, where a value has the shape of the step again."""
        if isinstance(value, Viewed) and value.lanes.shape == self._shape:
            return value.node if value.in_order else None
        return value

    def _is_rows(self, value: Any) -> bool:
        """Whether it is a matrix of samples, one a row."""
        return isinstance(value, Viewed) and value.lanes.shape[-1] == self._shape[-1] and value.in_order

    def _view(self, call: Call, given: Sequence[Any]) -> Viewed | None:
        seen = given[0].seen(call.func, *call.args[1:]) if isinstance(given[0], Viewed) else None
        return seen if seen and seen.lanes.numel() == self._shape.numel() else None

    def _sum(self, value: Any, call: Call, shape: torch.Size) -> Reduction | None:
        """The sum of a matrix of samples over the samples."""
        if not self._is_rows(value) or {d % value.lanes.dim() for d in call.args[1]} != {*range(value.lanes.dim() - 1)}:
            return None
        return Reduction(value.node, (1,) * (len(self._shape) - 1) + self._shape[-1:], tuple(shape))

    # ---- matrices ---------------------------------------------------------------------------------------------

    def _mm(self, left: Any, right: Any) -> Any:
        if isinstance(right, _Host) and self._is_rows(left):
            return self._by_matrix(left, right)
        if isinstance(left, _Host) and isinstance(right, Viewed) and self._is_rows(right.seen(torch.t)):
            turned = _Host(self._host.call(torch.t, (left.ref,), {}), left.shape[::-1])
            product = self._by_matrix(right.seen(torch.t), turned)
            return product and product.seen(torch.t)
        if isinstance(left, Viewed) and self._is_rows(left.seen(torch.t)) and self._is_rows(right):
            return self._outer(Outer(left.node, right.node))
        return None

    def _by_matrix(self, rows: Viewed, matrix: _Host) -> Viewed | None:
        if matrix.shape != (self._shape[-1], self._shape[-1]):
            return None
        number = self._operand(matrix.ref, rows.node.dtype).index
        return replace(rows, node=self._products.leaf(rows.node, (number,)))

    def _bmm(self, left: Any, right: Any) -> Any:
        """A batch of one product."""

        def first(value: Any) -> Any:
            if isinstance(value, _Host):
                return _Host(self._host.call(torch.select, (value.ref, 0, 0), {}), value.shape[1:])
            return value.seen(torch.select, 0, 0) if value.lanes.shape[0] == 1 else None

        product = self._mm(first(left), first(right))
        if isinstance(product, Viewed):
            return product.seen(torch.unsqueeze, 0)
        return product and self._host.call(torch.unsqueeze, (product, 0), {})

    def _plus(self, product: Any, bias: Any, call: Call) -> Viewed | None:
        """The second half of ``addmm``."""
        if not isinstance(product, Viewed):
            return None
        size, node = self._shape[-1], None
        if isinstance(bias, Viewed) and torch.equal(bias.lanes, product.lanes):
            node = bias.node
        elif isinstance(bias, _Host) and bias.shape in ((), (1,), (size,), (1, size)) and self._is_rows(product):
            node = self._operand(bias.ref, product.node.dtype)
        if node is None:
            return None
        total = self._builder.op("add", product.node, node, dtype=product.node.dtype, line=call.line)
        return replace(product, node=total)

    def _outer(self, outer: Outer) -> Ref:
        if outer not in self.outers:
            self.outers.append(outer)
        return self._host.leaf(("outer", self.outers.index(outer)))

    # ---- convolutions -----------------------------------------------------------------------------------------

    def _convolution(self, given: Sequence[Any], call: Call) -> Node | None:
        source, weight, bias, *rest = given
        if not (self._is_step(source) and isinstance(weight, _Host)) or isinstance(bias, Viewed):
            return None
        number = self._operand(weight.ref, source.node.dtype).index
        leaf = self._products.leaf(source.node, (number,), TorchCall(call.func, (Place(0), Place(1), None, *rest)))
        if bias is None:
            return leaf
        shape = (-1,) + (1,) * (len(self._shape) - 2)
        added = self._operand(self._host.call(torch.reshape, (bias.ref, shape), {}), leaf.dtype)
        return self._builder.op("add", leaf, added, dtype=leaf.dtype, line=call.line)

    def _convolution_backward(self, given: Sequence[Any], call: Call) -> list[Any]:
        """Gradients of input, weight and bias, as many as were asked for."""
        grad, source, weight, _, *rest, mask = given
        if not self._is_step(grad) or not self._is_step(source) or not isinstance(weight, _Host):
            return [None]
        number = self._operand(weight.ref, grad.node.dtype).index

        def part(index: int, *places: int) -> TorchCall:
            wanted = tuple(i == index for i in range(3))
            return TorchCall(call.func, (*map(Place, places), None, *rest, wanted), index)

        found: list[Any] = []
        if mask[0]:  # of the source it reads the shape alone, which is the gradient's too
            found.append(self._products.leaf(grad.node, (number,), part(0, 0, 0, 1)))
        if mask[1]:
            found.append(self._outer(Outer(grad.node, source.node, (number,), part(1, 0, 1, 2))))
        if mask[2]:
            base = (1, self._shape[1]) + (1,) * (len(self._shape) - 2)
            found.append(Reduction(grad.node, base, self._shape[1:2]))
        return found

    def _is_step(self, value: Any) -> bool:
        return isinstance(value, Viewed) and value.lanes.shape == self._shape
