"""The tape: every torch operator a core reached, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from flexsn.errors import SourceLine
from flexsn.ir.passes import describe

__all__ = ["Call", "Tape", "ValueRef", "refs_in"]


@dataclass(frozen=True)
class ValueRef:
    """The ``index``-th tensor of a :class:`Tape`."""

    index: int

    def __repr__(self) -> str:
        return f"v{self.index}"


@dataclass(frozen=True, eq=False)
class Call:
    """One operator: ``func(*args, **kwargs)`` with tensors replaced by :class:`ValueRef`.

    ``origin`` is the operator the user called, where ``func`` came out of its decomposition.
    """

    func: Any
    origin: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[ValueRef, ...]
    line: SourceLine | None


@dataclass
class Tape:
    """What was recorded.

    Attributes:
        tensors: the example value of every :class:`ValueRef`.
        arguments: names of the first of them, which are the core's own arguments and gradients that come in.
        calls: in the order they ran.
        live: indices of the values that depend on an argument.
        captured: tensors read from outside, by the index of their value.
        literals: indices of captured tensors that the function made itself (``torch.tensor(2.0)``).
        num_forward: how many of the calls ran before the backward half began.
    """

    tensors: list[Tensor] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    live: set[int] = field(default_factory=set)
    captured: dict[int, Tensor] = field(default_factory=dict)
    literals: set[int] = field(default_factory=set)
    num_forward: int | None = None


def refs_in(args: Iterable[Any]) -> Iterator[ValueRef]:
    """The recorded values among an operator's arguments, which are values or lists of them."""
    for arg in args:
        if isinstance(arg, ValueRef):
            yield arg
        elif isinstance(arg, tuple):
            yield from (item for item in arg if isinstance(item, ValueRef))


@describe.register
def _tape(tape: Tape) -> str:
    rows = [f"def recorded({', '.join(f'v{i}' for i in range(len(tape.arguments)))}):"]
    rows += [f"    # v{i} is {name}" for i, name in enumerate(tape.arguments)]
    rows += [f"    # v{i} is captured, of shape {tuple(t.shape)}" for i, t in sorted(tape.captured.items())]
    line = None
    for number, call in enumerate(tape.calls):
        if number == tape.num_forward:
            rows.append("    # from here on, the backward half")
        if call.line is not None and call.line != line:
            rows.append(f"    # {call.line.text}  ({call.line.function}:{call.line.lineno})")
            line = call.line
        arguments = [repr(a) for a in call.args] + [f"{key}={value!r}" for key, value in call.kwargs.items()]
        results = ", ".join(map(repr, call.results)) or "_"
        shapes = ", ".join(str(tuple(tape.tensors[r.index].shape)) for r in call.results)
        rows.append(f"    {results} = {call.name}({', '.join(arguments)})  # {shapes}")
    return "\n".join(rows if tape.calls else [*rows, "    pass"])
