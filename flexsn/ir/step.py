"""One step as graphs: forward, and its vector-Jacobian product."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from flexsn.errors import SourceLine
from flexsn.ir.graph import Builder, Node, topological

__all__ = ["Outer", "Place", "Product", "Reduction", "Ref", "StepGraph", "StepVjp", "TorchCall", "with_sources"]


@dataclass(frozen=True)
class Ref:
    """The ``index``-th value of the host program: what torch computes once per call, around the kernel."""

    index: int


@dataclass(frozen=True)
class Reduction:
    """A step value summed over time and over the lanes a parameter was broadcast to.

    Attributes:
        node: summed over time per lane inside the kernel.
        base: the sum over lanes, as a right-aligned shape that broadcasts to the step shape.
        shape: ``base`` after reshaping.
    """

    node: Node
    base: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def one_for_all(self) -> bool:
        """Whether all lanes share the parameter."""
        return all(size == 1 for size in self.base)


@dataclass(frozen=True)
class Place:
    """The ``index``-th tensor that a :class:`TorchCall` is given."""

    index: int


@dataclass(frozen=True)
class TorchCall:
    """A recorded call of torch whose tensors are given anew each time.

    Attributes:
        func: the operator.
        args: its arguments, a :class:`Place` for every tensor.
        part: which of its results, where it has several.
    """

    func: Callable[..., Any]
    args: tuple[Any, ...]
    part: int | None = None

    @property
    def name(self) -> str:
        """Of the operator."""
        packet: Any = getattr(self.func, "overloadpacket", self.func)
        return str(packet.__name__)

    def __call__(self, tensors: Sequence[Tensor]) -> Tensor:
        result = self.func(*[tensors[a.index] if isinstance(a, Place) else a for a in self.args])
        found: Tensor = result if self.part is None else result[self.part]
        return found


@dataclass(frozen=True)
class Product:
    """A step value that reads across lanes: ``leaf[b, :] = sum_j source[b, j] * matrix[j, :]``.

    ``j`` runs over the last dimension of the step, ``b`` over all others; the matrix is square. It cuts the step: what
    depends on the leaf is computed once the whole source is there.

    Attributes:
        leaf: stands for it in the graph.
        source: what is multiplied.
        operands: the values of the host program it reads, numbered as operand leaves are; the matrix alone unless
            there is a call.
        call: another linear map, such as a convolution: of the source, then the operands.
    """

    leaf: Node
    source: Node
    operands: tuple[int, ...]
    call: TorchCall | None = None

    @property
    def matrix(self) -> int | None:
        """Which operand is the matrix, if it is the product with one."""
        return self.operands[0] if self.call is None else None


@dataclass(frozen=True)
class Outer:
    """The gradient of a matrix: the sum over steps and samples of ``left[b, i] * right[b, j]``, of shape ``(i, j)``.

    It is bilinear, so it is computed once, of all steps, after the scan.

    Attributes:
        left, right: the factors at one step.
        operands: as for :class:`Product`.
        call: another bilinear map: of the factors, whose samples may be those of all steps, then the operands.
    """

    left: Node
    right: Node
    operands: tuple[int, ...] = ()
    call: TorchCall | None = None


@dataclass(frozen=True, eq=False)
class StepGraph:
    """One step forward: what it returns, as nodes over inputs, states, operands and products.

    ``builder`` made the nodes, and makes those that are added to them. ``products`` are those it depends on, each after
    those its source depends on.
    """

    builder: Builder = field(repr=False)
    inputs: tuple[Node, ...]
    states: tuple[Node, ...]
    outputs: tuple[Node, ...]
    new_states: tuple[Node, ...]
    products: tuple[Product, ...] = ()


@dataclass(frozen=True)
class StepVjp:
    """One step backward, for one pattern of cotangents that are present.

    Attributes:
        grad_inputs: gradient nodes, ``None`` where nothing flows.
        grad_states: per state what its gradient is the sum of, in this order; ``()`` where nothing flows. Several
            summands only where an output's gradient comes before them in the sum.
        reductions: what is summed over time and lanes.
        grad_captured: per captured tensor, the value of the host program that is its gradient.
        blocked: outputs, or if nothing else leads anywhere states too, whose cotangent leads nowhere; with their lines.
        outers: what is summed over time and samples as gradients of matrices.
        products: those of both halves that it depends on, each after those its source depends on.
    """

    grad_inputs: tuple[Node | None, ...]
    grad_states: tuple[tuple[Node, ...], ...]
    reductions: tuple[Reduction, ...]
    grad_captured: tuple[Ref | None, ...]
    blocked: tuple[tuple[int, SourceLine | None], ...]
    outers: tuple[Outer, ...] = ()
    products: tuple[Product, ...] = ()

    @property
    def results(self) -> tuple[Node, ...]:
        """Everything that is computed for gradients."""
        every = [*self.grad_inputs, *(n for summands in self.grad_states for n in summands)]
        every += [r.node for r in self.reductions]
        every += [factor for outer in self.outers for factor in (outer.left, outer.right)]
        return tuple(n for n in every if n is not None)

    def without_products_of(self, step: StepGraph) -> StepVjp:
        """The same where the products of the step are known."""
        return replace(self, products=tuple(p for p in self.products if p not in step.products))

    def copied(self, copy: Callable[[Node], Node]) -> StepVjp:
        """The same of other values: every node is what ``copy`` makes of it."""
        return replace(
            self,
            grad_inputs=tuple(None if g is None else copy(g) for g in self.grad_inputs),
            grad_states=tuple(tuple(map(copy, summands)) for summands in self.grad_states),
            reductions=tuple(replace(r, node=copy(r.node)) for r in self.reductions),
            outers=tuple(replace(o, left=copy(o.left), right=copy(o.right)) for o in self.outers),
            products=tuple(replace(p, source=copy(p.source)) for p in self.products),
        )


def with_sources(roots: Iterable[Node], products: Sequence[Product]) -> list[Node]:
    """The roots, and the sources of all products they depend on."""
    found = list(roots)
    if not products:
        return found
    by_leaf = {p.leaf: p for p in products}
    seen: set[Node] = set()
    for root in found:  # grows
        for node in topological([root]):
            if node in by_leaf and node not in seen:
                seen.add(node)
                found.append(by_leaf[node].source)
    return found
