"""Runs: what a core did on examples, in two parts: its form, and the numbers it handed to torch.

A number a core reads is a constant of its kernel. One that changes at every call would make a kernel for every value,
so the runs of a core are compared: where two have the same form, the kernel of one serves the other if the numbers in
which they differ are arguments. The core's own Python runs anew for every value, with that value, so whatever it makes
of it (a branch, ``1 / tau``, ``math.exp``, a surrogate) is what it makes of it in the loop.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from flexsn.errors import SourceLine
from flexsn.tracing.tape import Call, Tape, ValueRef, content_of

__all__ = ["Run", "told_apart"]


@dataclass(frozen=True, eq=False)
class Run:
    """One run of the core, and of its backward half if there were cotangents.

    Attributes:
        tape: what it reached.
        results: the values it returned, or the gradients of its arguments and of the tensors the tape captured.
        blocked: outputs, or if nothing else leads anywhere states too, whose cotangent leads nowhere; with their lines.
    """

    tape: Tape
    results: list[ValueRef | None]
    blocked: tuple[tuple[int, SourceLine | None], ...]

    @cached_property
    def form(self) -> str:
        """Equal for runs that did the same up to their numbers, and to which tensors they captured."""
        tape = self.tape
        rows = [f"{call.func} {_masked((call.args, tuple(call.kwargs.items())))}" for call in tape.calls]
        first: dict[Any, int] = {}
        for position, t in tape.captured.items():
            literal = position in tape.literals
            shared = first.setdefault(content_of(t) if literal else id(t), position)
            what = "number" if literal and _is_number(t) else content_of(t) if literal and not t.dim() else shared
            rows.append(f"{position} {literal} {what} {t.dtype} {t.shape} {t.device} {t.requires_grad}")
        return "\n".join([*rows, f"{tape.num_forward} {self.results} {tape.tensors[0].shape}"])

    @cached_property
    def numbers(self) -> tuple[float, ...]:
        """The floats among the arguments of operators, and the 0-d tensors the core made of floats."""
        found = [number for call in self.tape.calls for number in _numbers_of(call)]
        captured = self.tape.captured.items()
        return (*found, *(t.item() for p, t in captured if p in self.tape.literals and _is_number(t)))

    def same_as(self, other: Run) -> bool:
        """Whether both did the same with the same numbers and tensors."""
        if self.form != other.form or list(map(repr, self.numbers)) != list(map(repr, other.numbers)):
            return False
        pairs = [(t, other.tape.captured[p], p in self.tape.literals) for p, t in self.tape.captured.items()]
        return all(content_of(a) == content_of(b) if literal else a is b for a, b, literal in pairs)


def told_apart(runs: Sequence[Run]) -> tuple[float, ...] | None:
    """The last run's numbers that differ between runs of one form; ``None`` where its values do not tell which.

    A value that stands in two places stands for both of them from then on, so they must have agreed in every run.
    """
    places: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for column in zip(*(run.numbers for run in runs), strict=True):
        places[column[-1].hex()].add(tuple(number.hex() for number in column))
    if any(len(columns) > 1 for columns in places.values()):
        return None
    return tuple(float.fromhex(last) for last, (column,) in places.items() if len(set(column)) > 1)


def _is_number(literal: Tensor) -> bool:
    return literal.dim() == 0 and literal.is_floating_point()


def _masked(value: Any) -> str:
    """An argument as text, with the word number for every float."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_masked, value))})"
    return "number" if type(value) is float else repr(value)


def _numbers_of(call: Call) -> Iterator[float]:
    stack: list[Any] = [*call.args, *call.kwargs.values()]
    while stack:
        value = stack.pop(0)
        if type(value) is float:
            yield value
        elif isinstance(value, tuple):
            stack[:0] = value
