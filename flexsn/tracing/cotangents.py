"""Cotangents: which gradients a step's backward half starts from, and in which order they are added up.

Sums keep the order of the loop under autograd, since floats added in another order have other bits. There a value
receives its gradients from the youngest use on. So the gradient of a new state comes first from the use of the final
state, if the step is the last, then from the outputs' stacks, the last output first, then from the next step, summand
by summand. Within one step autograd itself adds in that order, if the cotangents enter in it.

Across steps it cannot: where a new state is an output too, the loop adds the output's gradient first and then each of
the next step's summands, and (a + b) + c is not a + (b + c). The summands of the next step are therefore carried apart,
and which ones these are is found by recording the backward half once more with a mark: a cotangent that is there before
any other, so that every summand of the step itself is an addition to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flexsn.errors import UnsupportedOpError
from flexsn.ir.graph import Builder, LeafKind, Node, leaf_name

__all__ = [
    "Cotangent",
    "autograd_clock",
    "cotangents",
    "hooks_set_aside",
    "mark",
    "pullback",
    "summands",
    "unread_parameters",
]

_MARK = -1  # the part of a state's gradient that a mark is


@dataclass(frozen=True)
class Cotangent:
    """A gradient that comes in.

    Attributes:
        kind, index, part: of its leaf.
        value: which of the values the core returns, or for a mark which state, it is the gradient of.
    """

    kind: LeafKind
    index: int
    part: int
    value: int

    @property
    def name(self) -> str:
        """What its leaf is called."""
        if self.part == _MARK:
            return f"mark{self.index}"
        return leaf_name(self.kind, self.index, self.part)


def cotangents(outputs: Sequence[bool], states: Sequence[int], last: bool) -> list[Cotangent]:
    """The cotangents of a step in the order autograd adds them up.

    Args:
        outputs: which of them have one.
        states: how many each new state has.
        last: this is the last step, and those of its states are the final states'.
    """
    of_outputs = [Cotangent(LeafKind.COTANGENT, k, 0, k) for k in reversed(range(len(outputs))) if outputs[k]]
    of_states = [
        Cotangent(LeafKind.STATE_COTANGENT, j, part, len(outputs) + j)
        for j, count in enumerate(states)
        for part in range(count)
    ]
    return of_states + of_outputs if last else of_outputs + of_states


def mark(state: int) -> Cotangent:
    """The cotangent of a state before the step that comes in before all others."""
    return Cotangent(LeafKind.STATE_COTANGENT, state, _MARK, state)


def summands(builder: Builder, marked: Node, total: Node | None) -> tuple[Node, ...]:
    """What autograd added up to ``total``, told from sums within a term by the mark that was there first."""
    found: list[Node] = []
    while marked.op == "add":
        marked, term = marked.args
        found.insert(0, term)
    again = found[0] if found else None
    for term in found[1:]:
        assert again is not None
        again = builder.op("add", again, term, dtype=term.dtype)
    assert total is not None
    return tuple(found) if marked.part == _MARK and again is total else (total,)


def pullback(
    values: Sequence[Tensor], cotangents: Sequence[Tensor], sources: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """What ``torch.autograd.grad(values, sources, cotangents)`` gives, which would import sympy to compare shapes."""
    if not values or not sources:
        return (None,) * len(sources)
    root: Tensor = _Seed.apply(tuple(cotangents), *values)  # type: ignore[no-untyped-call]
    # past torch.autograd.grad, which would turn function modes off for the backward functions it runs
    engine: Any = torch.autograd.Variable._execution_engine
    found: tuple[Tensor | None, ...] = engine.run_backward(
        (root,), (torch.ones(()),), False, False, tuple(sources), allow_unreachable=True, accumulate_grad=False
    )
    return found


@contextmanager
def hooks_set_aside(tensors: Sequence[Tensor]) -> Iterator[None]:
    """The user's hooks are for the gradients of a call: traced, they would be in its kernel as well."""
    held = [(hooks, dict(hooks)) for tensor in tensors if (hooks := tensor._backward_hooks)]
    for hooks, _ in held:
        hooks.clear()
    try:
        yield
    finally:
        for hooks, content in held:
            hooks.update(content)


def autograd_clock() -> int:
    """The number that autograd gives the next operation of this thread."""
    with torch.enable_grad():
        root: Any = torch.ones((), requires_grad=True).clone().grad_fn
    return int(root._sequence_nr())


def unread_parameters(values: Sequence[Tensor], read: Sequence[Tensor], since: int) -> list[Tensor]:
    """Parameters that a run handed to autograd and read no value of: a surrogate's slope, say.

    Args:
        values: what the run returned.
        read: its arguments, and the tensors from outside whose values it read.
        since: the clock when it began.

    Raises:
        UnsupportedOpError: what it handed over is itself computed, outside.
    """
    known = {id(tensor) for tensor in read}
    seen: set[Any] = {None, *(tensor.grad_fn for tensor in read)}
    found: list[Tensor] = []
    pending: list[Any] = [value.grad_fn for value in values]
    while pending:
        operation = pending.pop()
        if operation in seen:
            continue
        seen.add(operation)
        leaf: Tensor | None = getattr(operation, "variable", None)
        if leaf is not None:
            found += [leaf] if id(leaf) not in known else []
        elif operation._sequence_nr() < since:
            raise UnsupportedOpError(
                f"the core hands autograd the result of {operation.name()} without reading its value",
                why="it was computed outside the core, and which tensor it is does not show",
                hint="compute it inside the core, or make it a parameter",
            )
        else:
            pending += [following for following, _ in operation.next_functions]
    return found


class _Seed(torch.autograd.Function):
    """A number whose gradient in each of ``values`` is the cotangent given for it."""

    @staticmethod
    def forward(ctx: Any, cotangents: tuple[Tensor, ...], *values: Tensor) -> Tensor:
        ctx.cotangents = cotangents
        return torch.zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        return (None, *ctx.cotangents)
