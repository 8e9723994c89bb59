"""Origin: whose code something is, a library's, a neuron's machinery, flexsn's or the user's."""

from __future__ import annotations

import sys
import types
from typing import Any

from torch import nn

from flexsn.errors import LIBRARIES

__all__ = ["internal_names", "is_foreign", "is_internal", "is_ours", "lookup_order", "reads_arguments_only"]

_PURE = {*LIBRARIES, "math", "cmath", "builtins", "functools", "operator", "typing", "collections", "itertools", "abc"}
_PURE |= {"enum", "dataclasses", "types", "numbers", "warnings", "contextlib", "fractions", "decimal"}
_FOREIGN = {*LIBRARIES, *sys.stdlib_module_names}
_MARK = "_flexsn_internal"


def is_foreign(thing: Any) -> bool:
    """Whether code is Python's, a library's or a neuron's machinery: its globals are not the user's constants."""
    return _package(thing) in _FOREIGN or is_internal(thing)


def reads_arguments_only(thing: Any) -> bool:
    """Whether a library's module, or the module of a function of it, computes from its arguments and nothing else."""
    return _package(thing).lstrip("_") in _PURE


def is_ours(thing: Any) -> bool:
    """Whether flexsn itself wrote a class or function."""
    return _package(thing) == "flexsn"


def is_internal(thing: Any) -> bool:
    """Whether a class, or the class a function was written in, is part of what runs a core, not of the core.

    Such a class says so itself, in an attribute of its own (a subclass of the user's would inherit the mark):
    ``_flexsn_internal``, the names of what its instances hold for themselves.
    """
    if isinstance(thing, types.FunctionType):
        thing = thing.__globals__.get(thing.__qualname__.partition(".")[0])
    return isinstance(thing, type) and _MARK in vars(thing)


def lookup_order(cls: type) -> tuple[type, ...]:
    """The classes attributes are found in: not a module class behind ``nn.Module``, which ``isinstance`` alone sees."""
    order = cls.__mro__
    if nn.Module not in order:
        return order
    last = order.index(nn.Module)
    return (*order[: last + 1], *(base for base in order[last + 1 :] if not issubclass(base, nn.Module)))


def internal_names(held: object) -> frozenset[str]:
    """What a neuron holds for itself: no core reads it. Empty for anything but a neuron."""
    marked = [base for base in type(held).__mro__ if _MARK in vars(base)]
    if not marked:
        return frozenset()
    states = frozenset(getattr(held, "state_names", ())) - vars(held).keys()  # a number of that name is one like others
    return states.union(*(vars(base)[_MARK] for base in marked))


def _package(thing: Any) -> str:
    if isinstance(thing, types.ModuleType):
        name: str | None = thing.__name__
    elif isinstance(thing, types.FunctionType):
        name = thing.__globals__.get("__name__")  # functools.wraps changes its own __module__
    else:
        name = getattr(thing, "__module__", None)
    return (name or "").partition(".")[0]
