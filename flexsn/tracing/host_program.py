"""The host program: what happens once per call in plain torch, around the kernel.

Parameter-shaped values (``sigmoid(w)``, a view, a softmax over channels) are computed before the kernel, and
what follows from a reduced gradient after it. Both are recorded torch calls, replayed as a Python function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from flexsn.ir.passes import passed
from flexsn.ir.step import Ref

__all__ = ["HostProgram"]


@dataclass(frozen=True)
class _Call:
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class HostProgram:
    """A growing list of recorded torch calls; the same call on the same values is one value."""

    def __init__(self) -> None:
        self._calls: list[_Call | None] = []  # None: a leaf
        self._index: dict[Any, int] = {}

    def leaf(self, key: Any) -> Ref:
        """A value given from outside, under ``key``: a captured tensor or a reduced gradient."""
        return self._add(("leaf", key), None)

    def call(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Ref:
        """A torch call on numbers and :class:`Ref` values."""
        key = ("call", func, _freeze(args), _freeze(kwargs))
        return self._add(key, _Call(func, tuple(args), dict(kwargs)))

    def is_zero(self, ref: Ref) -> bool:
        """Whether a value is zero everywhere."""
        call = self._calls[ref.index]
        return call is not None and call.func is torch.full and not call.args[1]

    def _add(self, key: Any, call: _Call | None) -> Ref:
        if key not in self._index:
            self._index[key] = len(self._calls)
            self._calls.append(call)
        return Ref(self._index[key])

    def program(self, wanted: Sequence[Ref], leaves: Sequence[Ref]) -> Callable[..., tuple[Tensor, ...]]:
        """A function of the leaves that computes the wanted values, each call once."""
        constants: dict[str, Any] = {}
        rows = [f"def program({', '.join(f'p{ref.index}' for ref in leaves)}):"]
        for index in self._needed(wanted):
            call = self._calls[index]
            if call is not None:
                name = f"{_name(call.func)}_{index}"
                constants[name] = call.func
                arguments = [_spell(a, constants) for a in call.args]
                arguments += [f"{key}={_spell(a, constants)}" for key, a in call.kwargs.items()]
                rows.append(f"    p{index} = {name}({', '.join(arguments)})")
        rows.append(f"    return ({''.join(f'p{ref.index}, ' for ref in wanted)})")
        text = "\n".join(rows)
        passed("host program", text)
        exec(text, constants)
        program: Callable[..., tuple[Tensor, ...]] = constants["program"]
        return program

    def _needed(self, wanted: Sequence[Ref]) -> list[int]:
        needed: set[int] = set()
        stack = [ref.index for ref in wanted]
        while stack:
            index = stack.pop()
            if index not in needed:
                needed.add(index)
                call = self._calls[index]
                if call is not None:
                    stack.extend(ref.index for ref in _refs((call.args, call.kwargs)))
        return sorted(needed)


def _name(function: Callable[..., Any]) -> str:
    packet: Any = getattr(function, "overloadpacket", function)
    return str(packet.__name__)


def _refs(value: Any) -> list[Ref]:
    return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, Ref)]


def _spell(value: Any, constants: dict[str, Any]) -> str:
    """An argument as source; what has no literal becomes a named constant."""
    if isinstance(value, Ref):
        return f"p{value.index}"
    if isinstance(value, (list, tuple)) and _refs(value):
        return f"[{', '.join(_spell(item, constants) for item in value)}]"
    if value is None or isinstance(value, (bool, int)):
        return repr(value)
    name = f"c{len(constants)}"
    constants[name] = value
    return name


def _freeze(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(item) for item in value)
    if isinstance(value, Mapping):
        return tuple((key, _freeze(item)) for key, item in value.items())
    return (type(value), repr(value)) if isinstance(value, (bool, int, float)) else value
