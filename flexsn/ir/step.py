"""One step as graphs: forward, and its vector-Jacobian product."""

from __future__ import annotations

from dataclasses import dataclass, field

from flexsn.errors import SourceLine
from flexsn.ir.graph import Builder, Node

__all__ = ["Reduction", "Ref", "StepGraph", "StepVjp"]


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


@dataclass(frozen=True, eq=False)
class StepGraph:
    """One step forward: what it returns, as nodes over inputs, states and operands.

    ``builder`` made the nodes, and makes those that are added to them.
    """

    builder: Builder = field(repr=False)
    inputs: tuple[Node, ...]
    states: tuple[Node, ...]
    outputs: tuple[Node, ...]
    new_states: tuple[Node, ...]


@dataclass(frozen=True)
class StepVjp:
    """One step backward, for one pattern of cotangents that are present.

    Attributes:
        grad_inputs: gradient nodes, ``None`` where nothing flows.
        grad_states: per state what its gradient is the sum of, in this order; ``()`` where nothing flows. Several
            summands only where an output's gradient comes before them in the sum.
        reductions: what is summed over time and lanes.
        grad_captured: per captured tensor, the value of the host program that is its gradient.
        blocked: outputs whose cotangent leads nowhere, with the line that made them.
    """

    grad_inputs: tuple[Node | None, ...]
    grad_states: tuple[tuple[Node, ...], ...]
    reductions: tuple[Reduction, ...]
    grad_captured: tuple[Ref | None, ...]
    blocked: tuple[tuple[int, SourceLine | None], ...]

    @property
    def results(self) -> tuple[Node, ...]:
        """Everything that is computed for gradients."""
        every = [*self.grad_inputs, *(n for summands in self.grad_states for n in summands)]
        every += [r.node for r in self.reductions]
        return tuple(n for n in every if n is not None)
