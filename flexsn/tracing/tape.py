"""The tape: every torch operator a core reached, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from flexsn.errors import SourceLine
from flexsn.ir.passes import describe

__all__ = ["Call", "Tape", "ValueRef", "content_of", "first_difference", "refs_in"]


@dataclass(frozen=True)
class ValueRef:
    """The ``index``-th tensor of a :class:`Tape`."""

    index: int

    def __repr__(self) -> str:
        return f"v{self.index}"


@dataclass(frozen=True, eq=False)
class Call:
    """One operator: ``func(*args, **kwargs)`` with tensors replaced by :class:`ValueRef`.

    ``origin`` is the operator the user called, where ``func`` came out of its decomposition. ``places`` says where the
    results stand in what it returns, if that is a tuple: not all of it need be tensors.
    """

    func: Any
    origin: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[ValueRef, ...]
    line: SourceLine | None
    places: tuple[int, ...] | None = None


@dataclass
class Tape:
    """What was recorded.

    Attributes:
        tensors: the example value of every :class:`ValueRef`.
        arguments: names of the first of them, which are the core's own arguments and gradients that come in.
        calls: in the order they ran.
        live: indices of the values that depend on an argument.
        shaped: indices of the others that have an argument's shape, or come from one that has.
        captured: tensors read from outside, by the index of their value.
        literals: indices of captured tensors that the function made itself (``torch.tensor(2.0)``).
        num_forward: how many of the calls ran before the backward half began.
    """

    tensors: list[Tensor] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    live: set[int] = field(default_factory=set)
    shaped: set[int] = field(default_factory=set)
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


def content_of(tensor: Tensor) -> tuple[object, ...]:
    """Equal for tensors of the same dtype, shape and bits."""
    plain = tensor.detach().cpu().reshape(-1)
    return (tensor.dtype, tuple(tensor.shape), plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b"")


def first_difference(first: Tape, again: Tape) -> tuple[bool, SourceLine | None]:
    """Whether another run of the core did something else, and the first line that did.

    Args:
        first: of the forward half, or of both.
        again: of another run; if ``first`` ends with the forward half, it may have more arguments and go on.
    """
    shift = len(again.arguments) - len(first.arguments)
    split = len(first.arguments)

    def text(args: Any, shifted: bool) -> str:
        """Arguments as text; a NaN is the same as another."""

        def at_first(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(at_first, value))
            moved = shifted and isinstance(value, ValueRef) and value.index >= split
            return ValueRef(value.index - shift) if moved else value

        return repr([at_first(arg) for arg in args])

    both = first.num_forward is not None
    mine, theirs = first.calls, again.calls if both else again.calls[: again.num_forward]
    for one, other in zip(mine, theirs, strict=False):
        given = (*one.args, *one.kwargs.values())
        if one.func is not other.func or text(given, False) != text((*other.args, *other.kwargs.values()), True):
            return True, other.line
        for ref in refs_in(given):
            if ref.index in first.captured and not _same_captured(first, again, ref.index, ref.index + shift):
                return True, other.line
    longer = mine if len(mine) > len(theirs) else theirs
    return len(mine) != len(theirs), longer[-1].line if longer else None


def _same_captured(first: Tape, again: Tape, position: int, other: int) -> bool:
    """Whether two runs read the same tensor there, or made one of the same content."""
    if other not in again.captured or (position in first.literals) != (other in again.literals):
        return False
    a, b = first.captured[position], again.captured[other]
    return content_of(a) == content_of(b) if position in first.literals else a is b
