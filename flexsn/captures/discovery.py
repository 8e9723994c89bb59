"""Discovery: find every place a core reads, from its code and the objects that code can reach.

It is generous: any attribute whose *name* occurs in visited code counts as read on every visited object. A
constant watched in vain costs some nanoseconds a call, one that is missed would leave a stale kernel.
"""

from __future__ import annotations

import builtins
import functools
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flexsn.captures.bytecode import argument_names, reads_of
from flexsn.captures.containers import CONTAINERS
from flexsn.captures.origin import internal_names, is_foreign, is_internal, is_ours
from flexsn.captures.source import MISSING, Source

__all__ = ["discover"]

_CONSTANTS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, types.BuiltinFunctionType)
_NOT_CALLED = {"__init__", "__new__", "__init_subclass__", "__setstate__", "__reduce__", "__repr__", "__del__"}
_MODULE_OWN = frozenset(vars(nn.Module()))


def discover(core: Callable[..., Any]) -> tuple[list[Source], list[tuple[str, Any]]]:
    """Where a core reads.

    Returns:
        Every place, under a name that is unique and the same for a copy of the core; and the mutable containers,
        whose content is read as a whole, with their names.
    """
    search = _Search(core)
    return list(search.sources.values()), search.containers


class _Search:
    """What was found so far.

    Attributes:
        sources: by the identity of holder and key.
        containers: as they were met.
    """

    def __init__(self, core: Callable[..., Any]) -> None:
        self.sources: dict[tuple[int, Any], Source] = {}
        self.containers: list[tuple[str, Any]] = []
        self._taken: dict[str, int] = {}  # how often a name was given
        self._attributes: set[str] = set()  # mentioned by visited code
        self._perhaps: set[str] = set()  # the same, but the attribute may be absent
        self._reflecting: set[type] = set()  # classes one of whose methods asks for attributes by string
        self._reflects = False  # some other code does
        self._objects: dict[int, tuple[Any, str, bool]] = {}
        self._seen: dict[int, Any] = {}
        self._visit(core, "", None, False)
        self._settle()

    def _settle(self) -> None:
        """Revisit objects until no new name, object or source turns up."""
        before = None
        while before != (before := (len(self._attributes), len(self._objects), len(self.sources), self._reflects)):
            for held, path, shared in list(self._objects.values()):
                self._object(held, path, shared)

    def _source(self, path: str, holder: Any, key: Any, shared: bool, *, absent: bool = False) -> None:
        identity = (id(holder), key)
        if identity in self.sources:
            return
        source = Source(path, holder, key, shared)
        value = source.read()
        if (value is MISSING and not absent) or (isinstance(value, types.ModuleType) and is_foreign(value)):
            return
        count = self._taken[path] = self._taken.get(path, 0) + 1
        if count > 1:
            source.name = f"{path}.{count}"
        self.sources[identity] = source
        self._visit(value, path, source, shared)

    # ---- values -------------------------------------------------------------------------------------------

    def _visit(self, value: Any, path: str, source: Source | None, shared: bool) -> None:
        """Look into one value, found in ``source``."""
        if value is MISSING or isinstance(value, (Tensor, *_CONSTANTS)) or id(value) in self._seen:
            return
        self._seen[id(value)] = value  # keeps it alive, so its id stays taken
        if isinstance(value, types.FunctionType):
            self._function(value, shared)
        elif isinstance(value, types.MethodType):
            self._visit(value.__func__, path, None, shared)
            self._objects.setdefault(id(value.__self__), (value.__self__, path.rpartition(".")[0], shared))
        elif isinstance(value, functools.partial):
            self._partial(value, path, shared)
        elif isinstance(value, tuple):
            if source is not None:
                self._items(source, path, range(len(value)), shared)
        elif isinstance(value, CONTAINERS):
            self.containers.append((path, value))
            if isinstance(value, (list, dict)):
                self._items(value, path, value if isinstance(value, dict) else range(len(value)), shared)
        elif isinstance(value, type):
            if not is_foreign(value):
                self._objects[id(value)] = (value, path, shared)
                for attribute in vars(value).values():
                    self._method(attribute, value, path, shared)
        elif isinstance(value, types.ModuleType):
            if not is_foreign(value):
                self._objects[id(value)] = (value, path, shared)
        else:
            self._objects[id(value)] = (value, path, shared)
            self._calls_of(value, path, shared)

    def _items(self, holder: Any, path: str, keys: Iterable[Any], shared: bool) -> None:
        value = holder.read() if isinstance(holder, Source) else holder
        names = getattr(type(value), "_fields", None)
        for key in list(keys):
            if not isinstance(value[key], _CONSTANTS):  # those are watched with the container that holds them
                self._source(f"{path}.{names[key] if names else key}", holder, key, shared)

    def _partial(self, value: functools.partial[Any], path: str, shared: bool) -> None:
        self._visit(value.func, path, None, shared)
        names = argument_names(value.func)
        names += tuple(f"argument{i}" for i in range(len(names), len(value.args)))
        self._arguments(Source(path, value, "args", shared), names, shared)
        for key in value.keywords:
            self._source(key, value.keywords, key, shared)

    def _arguments(self, holder: Source, names: Sequence[str], shared: bool) -> None:
        """The items of a tuple of arguments, under their own names."""
        values = holder.read()
        self._seen[id(holder)] = holder
        for i, (value, name) in enumerate(zip(values, names, strict=False)):
            if not isinstance(value, _CONSTANTS):
                self._source(name, holder, i, shared)

    def _function(self, function: types.FunctionType, shared: bool) -> None:
        self._code(function.__code__, function)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name != "__class__":  # which super() reads
                self._source(name, cell, None, shared)
        if is_foreign(function) or is_ours(function):
            return
        if function.__defaults__:
            self._seen[id(function.__defaults__)] = function.__defaults__
            self._source(f"{function.__name__}.defaults", function, "__defaults__", shared)
            names = function.__code__.co_varnames[: function.__code__.co_argcount]
            self._arguments(self.sources[id(function), "__defaults__"], names[-len(function.__defaults__) :], shared)
        for key in function.__kwdefaults__ or {}:
            self._source(key, function.__kwdefaults__, key, shared)
        reads = reads_of(function.__code__)
        for name in sorted(reads.globals):
            absent = name in reads.perhaps and not hasattr(builtins, name)
            self._source(name, function.__globals__, name, True, absent=absent)

    def _code(self, code: types.CodeType, owner: Any) -> None:
        reads = reads_of(code)
        self._attributes |= reads.attributes
        if not is_foreign(owner):
            self._perhaps |= reads.perhaps
            self._reflects |= reads.reflects and not is_ours(owner)

    # ---- objects and their classes ------------------------------------------------------------------------

    def _calls_of(self, value: Any, path: str, shared: bool) -> None:
        """The methods an object is used through without naming them: its call, its forward, its operators."""
        for base in type(value).__mro__:
            for name, attribute in vars(base).items():
                if name != "forward" and (not name.startswith("__") or name in _NOT_CALLED):
                    continue
                if not is_foreign(base):
                    self._method(attribute, type(value), path, shared)
                elif name == "forward" and isinstance(attribute, types.FunctionType) and not is_internal(base):
                    self._code(attribute.__code__, base)

    def _method(self, attribute: Any, owner: type, path: str, shared: bool) -> None:
        function = _function_of(attribute)
        if function is None:
            return
        if reads_of(function.__code__).reflects:
            self._reflecting.add(owner)
        self._visit(function, path, None, shared)

    def _object(self, held: Any, path: str, shared: bool) -> None:
        """Watch the attributes of an object that visited code mentions by name."""
        prefix = f"{path}." if path else ""
        if isinstance(held, type):
            for name in sorted(self._attributes | (_class_names(held) if self._reflects else set())):
                if _is_constant(_static(held, name)):
                    self._source(f"{prefix}{name}", held, name, shared)
            return
        own = getattr(held, "__dict__", {})
        stores = [own]
        if isinstance(held, nn.Module):
            stores += [own["_parameters"], own["_buffers"], own["_modules"]]
        for name in sorted(self._names_on(held, stores) - internal_names(held)):
            attribute = _static(type(held), name)
            if not isinstance(attribute, property):
                store = next((s for s in stores if name in s), None)
                if store is not None:
                    self._source(f"{prefix}{name}", store, name, shared)
                    continue
            self._class_attribute(held, prefix, name, attribute, stores, shared)

    def _names_on(self, held: Any, stores: list[dict[str, Any]]) -> set[str]:
        """The names that visited code may ask of an object."""
        names = set(self._attributes) | self._perhaps
        if isinstance(held, nn.Module) and is_foreign(type(held)):
            names.update(*(store.keys() for store in stores[1:]))  # Sequential, Linear: whatever they hold, they use
        elif not isinstance(held, types.ModuleType) and (
            self._reflects or not self._reflecting.isdisjoint(type(held).__mro__)
        ):
            names.update(*stores, _class_names(type(held)))
            names -= _MODULE_OWN if isinstance(held, nn.Module) else set()
        if isinstance(held, nn.Module):
            names.add("parametrizations")
        return {name for name in names if isinstance(name, str)}

    def _class_attribute(
        self, held: Any, prefix: str, name: str, attribute: Any, stores: list[dict[str, Any]], shared: bool
    ) -> None:
        if attribute is MISSING:
            if name in self._perhaps and isinstance(stores[0], dict) and not isinstance(held, types.ModuleType):
                for store in stores:
                    self._source(f"{prefix}{name}", store, name, shared, absent=True)
        elif _is_constant(attribute) or isinstance(attribute, types.MemberDescriptorType):  # or one of __slots__
            if not any(name in vars(base) and is_ours(base) for base in type(held).__mro__):
                self._source(f"{prefix}{name}", held, name, shared)
        else:
            for base in type(held).__mro__:  # super() reaches the overridden ones
                if name in vars(base) and not is_foreign(base):
                    self._method(vars(base)[name], type(held), name, shared)
            if is_foreign(type(attribute)):
                return
            getter = vars(type(attribute)).get("__get__")
            if isinstance(getter, types.FunctionType):  # a descriptor of the user's
                self._method(getter, type(held), name, shared)
                self._visit(attribute, f"{prefix}{name}", None, shared)


def _static(cls: type, name: str) -> Any:
    for base in cls.__mro__:
        if name in vars(base):
            return vars(base)[name]
    return MISSING


def _class_names(cls: type) -> set[str]:
    bases = [base for base in cls.__mro__ if not is_foreign(base) and not is_ours(base)]
    return {name for base in bases for name in vars(base) if not name.startswith("__")}


def _is_constant(attribute: Any) -> bool:
    """Whether a class attribute is a value, not a method or another descriptor."""
    return attribute is not MISSING and not hasattr(type(attribute), "__get__")


def _function_of(attribute: Any) -> types.FunctionType | None:
    """The Python function behind a method, property or cached property."""
    if isinstance(attribute, property):
        attribute = attribute.fget
    elif isinstance(attribute, functools.cached_property):
        attribute = attribute.func
    elif isinstance(attribute, (staticmethod, classmethod)):
        attribute = attribute.__func__
    return attribute if isinstance(attribute, types.FunctionType) else None
