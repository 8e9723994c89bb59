"""Attributes: where an object and its class have one, found without running any of the object's own code."""

from __future__ import annotations

import enum
import functools
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn

from flexsn.captures.kinds import Kind, kind_of
from flexsn.captures.origin import is_foreign, is_internal, is_ours, lookup_order
from flexsn.captures.source import MISSING

__all__ = ["called_unnamed", "definers", "function_of", "is_data", "is_librarys", "names_on", "static", "stores_of"]

_NOT_CALLED = {"__init__", "__new__", "__init_subclass__", "__setstate__", "__reduce__", "__repr__", "__del__"}
_MODULE_OWN = frozenset(vars(nn.Module()))
_FIELD = type(vars(NamedTuple("_", [("field", int)]))["field"])


def stores_of(held: Any) -> list[dict[str, Any]]:
    """The dicts an object keeps its attributes in."""
    try:
        own = object.__getattribute__(held, "__dict__")
    except AttributeError:
        return []
    if not isinstance(own, dict):  # a class
        return []
    more = ("_parameters", "_buffers", "_modules") if issubclass(type(held), nn.Module) else ()
    return [own, *(own[name] for name in more if name in own)]


def names_on(held: Any, stores: list[dict[str, Any]], reflects: bool) -> set[Any]:
    """The names an object may be asked for without being mentioned.

    Args:
        held: the object, class or module.
        stores: of it.
        reflects: whether some code asks for attributes by string.
    """
    if isinstance(held, types.ModuleType):
        simple = (Kind.CONSTANT, Kind.TENSOR)
        return {n for n, v in vars(held).items() if reflects and not n.startswith("__") and kind_of(v) in simple}
    cls = held if isinstance(held, type) else type(held)
    names: set[Any] = set()
    if reflects:
        names.update(*stores, *(vars(b) for b in lookup_order(cls) if not is_foreign(b) and not is_ours(b)))
        names = {name for name in names if not str(name).startswith("__")}
    if issubclass(cls, nn.Module):
        if is_internal(cls):
            names.update(*(store.keys() for store in stores[1:]))
        elif is_librarys(cls):
            names.update(*(store.keys() for store in stores))  # whatever it holds, it uses
        names -= _MODULE_OWN
    if issubclass(cls, enum.Enum):
        names |= {"_value_", "_name_"}
    return names


def is_librarys(cls: type) -> bool:
    """Whether objects of a class run a library's code on what they hold: Sequential, Linear."""
    return issubclass(cls, nn.Module) and any(
        is_foreign(base) and not is_ours(base) for base in cls.__mro__[: cls.__mro__.index(nn.Module)]
    )


def called_unnamed(cls: type) -> Iterator[tuple[type, str, Any]]:
    """The methods an object is used through without naming them, with the class each is written in."""
    for base in lookup_order(cls):
        for name, attribute in list(vars(base).items()):
            if name == "forward" or (name.startswith("__") and name not in _NOT_CALLED):
                yield base, name, attribute


def static(cls: type, name: str) -> Any:
    """A class attribute as it is kept, not as a descriptor would show it; ``MISSING`` if there is none."""
    for base in cls.__mro__:
        if name in vars(base):
            return vars(base)[name]
    return MISSING


def definers(cls: type, name: str) -> list[type]:
    """The classes an attribute is written in, the one that counts first."""
    return [base for base in lookup_order(cls) if name in vars(base)]


def is_data(attribute: Any) -> bool:
    """Whether a class attribute is a value or one of ``__slots__``, not a method or another descriptor."""
    return not hasattr(type(attribute), "__get__") or isinstance(attribute, (types.MemberDescriptorType, _FIELD))


def function_of(attribute: Any) -> types.FunctionType | None:
    """The Python function behind a method, property or cached property."""
    if isinstance(attribute, property):
        attribute = attribute.fget
    elif isinstance(attribute, functools.cached_property):
        attribute = attribute.func
    elif isinstance(attribute, (staticmethod, classmethod)):
        attribute = attribute.__func__
    return attribute if isinstance(attribute, types.FunctionType) else None
