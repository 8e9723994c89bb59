"""Outer: what happens once per call in plain torch, around the kernel.

Parameter-shaped values (``sigmoid(w)``, a view, a softmax over channels) are computed before the kernel, and
what follows from a reduced gradient after it. Both are recorded torch calls, replayed in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Outer", "Ref"]


@dataclass(frozen=True)
class Ref:
    """The ``index``-th value of an :class:`Outer`."""

    index: int


class Outer:
    """A growing list of recorded torch calls; the same call on the same values is one value."""

    def __init__(self) -> None:
        self._calls: list[tuple[Callable[..., Any], Any, Any] | None] = []
        self._index: dict[Any, int] = {}
        self._order: dict[tuple[Ref, ...], list[int]] = {}

    def leaf(self, key: Any) -> Ref:
        """A value given from outside, under ``key``: a captured tensor or a reduced gradient."""
        return self._add(("leaf", key), None)

    def call(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Ref:
        """A torch call on numbers and :class:`Ref` values."""
        key = ("call", func, _freeze(args), _freeze(kwargs))
        return self._add(key, (func, tuple(args), dict(kwargs)))

    def _add(self, key: Any, call: tuple[Callable[..., Any], Any, Any] | None) -> Ref:
        if key not in self._index:
            self._index[key] = len(self._calls)
            self._calls.append(call)
        return Ref(self._index[key])

    def run(self, wanted: Sequence[Ref], leaves: Mapping[Ref, Tensor]) -> list[Tensor]:
        """Compute the wanted values from the leaves, each call at most once, without autograd."""
        values: dict[int, Any] = {ref.index: tensor for ref, tensor in leaves.items()}
        order = self._needed(tuple(wanted))
        if any(self._calls[index] is not None for index in order):
            with torch.no_grad():
                for index in order:
                    call = self._calls[index]
                    if call is not None:
                        func, args, kwargs = call
                        values[index] = func(*_fill(args, values), **_fill(kwargs, values))
        return [values[ref.index] for ref in wanted]

    def leaves_of(self, wanted: Sequence[Ref]) -> set[Ref]:
        """The leaves the wanted values depend on."""
        return {Ref(i) for i in self._needed(tuple(wanted)) if self._calls[i] is None}

    def describe(self, wanted: Sequence[Ref]) -> list[str]:
        """One readable line per call."""
        rows = []
        for index in self._needed(tuple(wanted)):
            call = self._calls[index]
            if call is not None:
                args = ", ".join(f"p{a.index}" if isinstance(a, Ref) else repr(a) for a in call[1])
                rows.append(f"p{index} = {call[0]}({args})")
        return rows

    def _needed(self, wanted: tuple[Ref, ...]) -> list[int]:
        if wanted not in self._order:
            needed: set[int] = set()
            stack = [ref.index for ref in wanted]
            while stack:
                index = stack.pop()
                if index not in needed:
                    needed.add(index)
                    call = self._calls[index]
                    if call is not None:
                        stack.extend(ref.index for ref in _refs((call[1], call[2])))
            self._order[wanted] = sorted(needed)
        return self._order[wanted]


def _refs(value: Any) -> list[Ref]:
    if isinstance(value, Ref):
        return [value]
    if isinstance(value, (list, tuple)):
        return [ref for item in value for ref in _refs(item)]
    if isinstance(value, dict):
        return [ref for item in value.values() for ref in _refs(item)]
    return []


def _fill(value: Any, values: Mapping[int, Any]) -> Any:
    if isinstance(value, Ref):
        return values[value.index]
    if isinstance(value, (list, tuple)):
        return type(value)(_fill(item, values) for item in value)
    if isinstance(value, dict):
        return {key: _fill(item, values) for key, item in value.items()}
    return value


def _freeze(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(item) for item in value)
    if isinstance(value, Mapping):
        return tuple((key, _freeze(item)) for key, item in value.items())
    return (type(value), repr(value)) if isinstance(value, (bool, int, float)) else value
