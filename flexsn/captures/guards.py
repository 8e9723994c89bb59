"""Captures: what a core reads from outside, found once and watched cheaply.

Numbers a core reads are constants of its kernels and tensors are its parameters. Both are checked at every call,
so changing ``neuron.tau``, a closure cell or a global takes effect at the next one.
"""

from __future__ import annotations

import numbers
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import CellType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from flexsn.captures.containers import content_of, same_content
from flexsn.captures.discovery import discover
from flexsn.captures.found import Fixed
from flexsn.captures.source import MISSING, Source

__all__ = ["Captures"]

_IN_ONE = 250  # the time to compile grows with the square of it
_VALUES = (numbers.Number, str, bytes, type(None), torch.dtype, torch.device)


class Captures:
    """What one core reads.

    Args:
        core: the one-step function.

    Attributes:
        core: the core.
        sources: every place it reads.
        tensors: the sources that hold tensors, the core's parameters.
        containers: named mutable containers, whose content is read as a whole.
        others: what it can reach that is not watched, with names.
        unwatched: why a change of what it reads may stay unseen here; ``None`` if none can.
        consumed: what the core can reach that changes when it is looked at, such as an iterator, if it can.
        mentions: every global and attribute the user's code names.
        key: equal keys mean equal constants (-0.0 differs from 0.0, 1 from 1.0), as long as both captures live.
        code: equal, of the same core, means that it runs the same code, as long as both captures live.
    """

    def __init__(self, core: Callable[..., Any]) -> None:
        self.core = core
        found = discover(core)
        self.sources, self.containers = list(found.sources.values()), found.containers
        self.others = found.others
        self.unwatched, self.consumed, self.mentions = found.unwatched, found.consumed, frozenset(found.mentions)
        self._fixed = list(found.fixed.values())
        values = [source.read() for source in self.sources]
        pairs = list(zip(self.sources, values, strict=True))
        self.tensors = [s for s, v in pairs if isinstance(v, Tensor)]
        self._contents = [content_of(held) for _, held in self.containers]
        flat = [v for v in values if not isinstance(v, Tensor)] + [v for content in self._contents for v in content]
        self.key: tuple[Any, ...] = (
            tuple((type(v), v if isinstance(v, _VALUES) else id(v)) for v in flat),
            repr([v for v in flat if isinstance(v, (float, complex))]),
            tuple(source.name for source in self.tensors),
        )
        self.code = tuple(f.value if isinstance(f.value, int) else id(f.value) for f in self._fixed)
        self._guard = _guard(pairs, self._fixed)

    def read(self) -> tuple[Tensor, ...] | None:
        """What :attr:`tensors` hold, if what the core reads is what it was, ``None`` if not.

        Every constant the very same object, every container of the same content; tensors may be replaced by
        tensors, but two sources that held the same one still do, and no two others.
        """
        try:
            read = self._guard()
        except (KeyError, ValueError):  # a key or a cell's content is gone
            return None
        if self.containers and read is not None:
            now = [content_of(held) for _, held in self.containers]
            return read if all(map(same_content, now, self._contents)) else None
        return read

    def unchanged(self) -> bool:
        """Whether what the core reads is what it was; see :meth:`read`."""
        return self.read() is not None

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The ``nn.Parameter`` objects the core can reach, each with the name of the first source that holds it."""
        found: dict[int, tuple[str, nn.Parameter]] = {}
        for source in self.tensors:
            value = source.read()
            if isinstance(value, nn.Parameter):
                found.setdefault(id(value), (source.name, value))
        yield from found.values()


_Guard = Callable[[], tuple[Tensor, ...] | None]


def _guard(pairs: list[tuple[Source, Any]], fixed: list[Fixed]) -> _Guard:
    """What reads every source and compares, in expressions of a size that Python compiles fast."""
    if len(pairs) + len(fixed) <= _IN_ONE:
        return _expression(pairs, fixed)
    tensors = [pair for pair in pairs if isinstance(pair[1], Tensor)]  # are compared with one another
    others = [pair for pair in pairs if not isinstance(pair[1], Tensor)]
    parts = [_expression(others[i : i + _IN_ONE], []) for i in range(0, len(others), _IN_ONE)]
    parts += [_expression([], fixed[i : i + _IN_ONE]) for i in range(0, len(fixed), _IN_ONE)]
    read = _expression(tensors, [])
    return lambda: read() if all(part() is not None for part in parts) else None


def _expression(pairs: list[tuple[Source, Any]], fixed: list[Fixed]) -> _Guard:
    """One expression that reads every source and compares: the tensors, or ``None`` if something is another.

    ``KeyError`` or ``ValueError`` if something is gone.
    """
    names: dict[str, Any] = {"Tensor": Tensor}
    checks: list[str] = []
    first: dict[int, str] = {}  # which tensors are the same
    tensors: list[str] = []

    def name(value: Any) -> str:
        names[called := f"n{len(names)}"] = value
        return called

    for holder, key, value in fixed:
        if key is None:
            checks.append(_WHOLE.get(type(holder), "{}.__class__ is {}").format(name(holder), name(value)))
            continue
        place = name(vars(holder) if isinstance(holder, type) else holder)
        checks.append(f"{key!r} not in {place}" if value is MISSING else f"{place}[{key!r}] is {name(value)}")
    for source, value in pairs:
        if type(source.holder) is dict and type(source.key) is str:
            if value is MISSING:
                checks.append(f"{source.key!r} not in {name(source.holder)}")
                continue
            read = f"{name(source.holder)}[{source.key!r}]"
        elif type(source.holder) is dict and value is not MISSING:
            read = f"{name(source.holder)}[{name(source.key)}]"
        elif type(source.holder) is CellType:
            read = f"{name(source.holder)}.cell_contents"
        else:
            read = f"{name(source.read)}()"
        if not isinstance(value, Tensor):
            checks.append(f"{read} is {name(value)}")
            continue
        if id(value) in first:
            checks.append(f"{read} is {first[id(value)]}")
        else:
            tensor = first[id(value)] = f"t{len(first)}"
            checks.append(f"isinstance({tensor} := {read}, Tensor)")
        tensors.append(first[id(value)])
    if len(first) > 1:
        checks.append(f"len({{{', '.join(f'id({tensor})' for tensor in first.values())}}}) == {len(first)}")
    held = f"({''.join(f'{tensor}, ' for tensor in tensors)})"
    guard: _Guard = _compiled(tuple(names), f"{held} if {' and '.join(checks) or True} else None")(**names)
    return guard


_WHOLE = {dict: "len({}) == {}", OrderedDict: "len({}) == {}", FunctionType: "{}.__code__ is {}"}


@lru_cache(maxsize=1024)
def _compiled(names: tuple[str, ...], expression: str) -> Callable[..., Any]:
    """Cores of the same structure share the code."""
    made: Callable[..., Any] = eval(f"lambda {', '.join(names)}: lambda: {expression}")
    return made
