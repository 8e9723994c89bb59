"""Environment: what a core reads from outside, found by walking it, watched cheaply.

Numbers a core reads are constants of its kernels and tensors are its parameters. Both are read anew at every
call, so changing ``neuron.tau``, a closure cell or a global takes effect at the next one.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Environment", "Slot"]

_MISSING = object()
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
_FOREIGN = ("torch", "numpy", "math", "builtins", "functools", "operator", "typing", "scipy")
_MAX_ITEMS = 256


@dataclass(frozen=True)
class Slot:
    """A place outside the core that it reads: ``mapping[key]``, a closure cell, or an attribute.

    Attributes:
        name: as the user knows it, e.g. ``tau`` or ``self.tau``.
        holder: the mapping, cell or object.
        key: the key or attribute; ``None`` for a cell.
    """

    name: str
    holder: Any
    key: Any

    def read(self) -> Any:
        """The value now; a sentinel where it is gone."""
        try:
            if isinstance(self.holder, types.CellType):
                return self.holder.cell_contents
            if isinstance(self.holder, (dict, list, tuple)):
                return self.holder[self.key]
            return getattr(self.holder, self.key)
        except (AttributeError, KeyError, IndexError, ValueError):
            return _MISSING

    def write(self, value: Any) -> None:
        """Put another value there."""
        if isinstance(self.holder, types.CellType):
            self.holder.cell_contents = value
        elif isinstance(self.holder, (dict, list)):
            self.holder[self.key] = value
        else:
            setattr(self.holder, self.key, value)


class Environment:
    """The slots of one core.

    Args:
        core: the one-step function.

    Attributes:
        slots: everything watched.
        tensors: the slots that hold tensors.
    """

    def __init__(self, core: Callable[..., Any]) -> None:
        walk = _Walk()
        walk.visit(core, "")
        walk.settle()
        self.slots: list[Slot] = list(walk.slots.values())
        values = [slot.read() for slot in self.slots]
        self.tensors = [s for s, v in zip(self.slots, values, strict=True) if isinstance(v, Tensor)]
        watched = [(s, v) for s, v in zip(self.slots, values, strict=True) if not isinstance(v, Tensor)]
        self._dicts = [(s.holder, s.key) for s, _ in watched if type(s.holder) is dict]
        self._others = [s for s, _ in watched if type(s.holder) is not dict]
        self._values = [v for s, v in watched if type(s.holder) is dict]
        self._values += [v for s, v in watched if type(s.holder) is not dict]
        self.constants = tuple((type(v), v if isinstance(v, _PLAIN) else id(v)) for _, v in watched)
        self._bits = repr([v for _, v in watched if isinstance(v, (float, complex))])

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal keys mean equal constants (-0.0 differs from 0.0, 1 from 1.0)."""
        return (self.constants, self._bits)

    def unchanged(self) -> bool:
        """Whether every watched value is still the object it was; meant to cost a microsecond or two."""
        try:
            now = [mapping[key] for mapping, key in self._dicts]
        except KeyError:
            return False
        if self._others:
            now += [slot.read() for slot in self._others]
        return all(a is b for a, b in zip(now, self._values, strict=True))

    def parameters(self) -> Iterator[tuple[str, Slot, nn.Parameter]]:
        """The ``nn.Parameter`` objects the core can reach, with a name and their slot."""
        seen: set[int] = set()
        for slot in self.tensors:
            value = slot.read()
            if isinstance(value, nn.Parameter) and id(value) not in seen:
                seen.add(id(value))
                yield slot.name, slot, value


class _Walk:
    """Collects slots from a core, its code, and the objects it mentions by name."""

    def __init__(self) -> None:
        self.slots: dict[tuple[int, Any], Slot] = {}
        self._names: set[str] = set()
        self._objects: dict[int, tuple[Any, str]] = {}
        self._codes: set[int] = set()
        self._seen: set[int] = set()
        self._alive: list[Any] = []

    def settle(self) -> None:
        """Revisit objects until no new name or object turns up."""
        while True:
            before = (len(self._names), len(self._objects), len(self.slots))
            for obj, name in list(self._objects.values()):
                self._attributes(obj, name)
            if before == (len(self._names), len(self._objects), len(self.slots)):
                return

    def visit(self, value: Any, name: str) -> None:
        """Look into one value."""
        if isinstance(value, (Tensor, *_PLAIN)) or id(value) in self._seen:
            return
        self._seen.add(id(value))
        self._alive.append(value)
        if isinstance(value, functools.partial):
            self.visit(value.func, name)
            for i, item in enumerate(value.args):
                self._slot(f"{name}arg{i}", value.args, i)
            for key in value.keywords:
                self._slot(key, value.keywords, key)
        elif isinstance(value, types.MethodType):
            self.visit(value.__func__, name)
            self.visit(value.__self__, name)
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, (list, tuple, dict)):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            for key, _ in list(items)[:_MAX_ITEMS]:
                self._slot(f"{name}[{key!r}]", value, key)
        elif isinstance(value, type):
            if not _is_foreign(value):
                for attribute in vars(value).values():
                    self.visit(_unwrap(attribute), name)
        elif isinstance(value, types.ModuleType):
            if not _is_foreign(value):
                self._objects[id(value)] = (value, f"{name}.")
        elif not isinstance(value, (types.BuiltinFunctionType, types.CodeType)):
            self._objects[id(value)] = (value, f"{name}." if name else "")
            self._class_code(type(value))

    def _slot(self, name: str, holder: Any, key: Any) -> None:
        identity = (id(holder), key)
        if identity in self.slots:
            return
        slot = Slot(name, holder, key)
        value = slot.read()
        if value is _MISSING:
            return
        self.slots[identity] = slot
        self.visit(value, name)

    def _function(self, function: types.FunctionType) -> None:
        self._code(function.__code__)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            self._slot(name, cell, None)
        for i, _ in enumerate(function.__defaults__ or ()):
            self._slot(f"default{i}", function.__defaults__, i)
        for key in function.__kwdefaults__ or {}:
            self._slot(key, function.__kwdefaults__, key)
        if not _is_foreign(function):
            for name in _global_names(function.__code__):
                if name in function.__globals__:
                    self._slot(name, function.__globals__, name)

    def _code(self, code: types.CodeType) -> None:
        if id(code) in self._codes:
            return
        self._codes.add(id(code))
        self._names.update(code.co_names)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._code(constant)
            elif isinstance(constant, str) and constant.isidentifier():
                self._names.add(constant)  # getattr(self, "tau")

    def _class_code(self, cls: type) -> None:
        """The methods an object is used through: its call, its forward."""
        for base in cls.__mro__:
            for name in ("forward", "__call__"):
                method = vars(base).get(name)
                if isinstance(method, types.FunctionType) and base is not nn.Module:
                    if _is_foreign(base):
                        self._code(method.__code__)
                    else:
                        self.visit(method, name)

    def _attributes(self, obj: Any, prefix: str) -> None:
        """Watch the attributes of an object that any visited code mentions by name."""
        own = getattr(obj, "__dict__", {})
        stores = [own]
        if isinstance(obj, nn.Module):
            stores += [own["_parameters"], own["_buffers"], own["_modules"]]
            for child in own["_modules"]:
                self._names.add(child)
            if _is_foreign(type(obj)):
                self._names.update(own["_parameters"])
        hidden = set(own.get("state_names", ())) | {"_states", "_scanner_cache", "state_seqs"}
        for name in sorted(self._names):
            if name in hidden:
                continue
            for store in stores:
                if name in store:
                    self._slot(f"{prefix}{name}", store, name)
                    break
            else:
                self._class_attribute(obj, prefix, name)

    def _class_attribute(self, obj: Any, prefix: str, name: str) -> None:
        for base in type(obj).__mro__:
            if name not in vars(base):
                continue
            attribute = _unwrap(vars(base)[name])
            if isinstance(attribute, types.FunctionType):
                if not _is_foreign(base):
                    self.visit(attribute, name)
            elif isinstance(attribute, _PLAIN):
                self._slot(f"{prefix}{name}", obj, name)
            return
        for slots_of in type(obj).__mro__:
            if name in getattr(slots_of, "__slots__", ()):
                self._slot(f"{prefix}{name}", obj, name)
                return


def _unwrap(attribute: Any) -> Any:
    if isinstance(attribute, (staticmethod, classmethod)):
        return attribute.__func__
    if isinstance(attribute, property):
        return attribute.fget
    return attribute


def _is_foreign(thing: Any) -> bool:
    """Whether code belongs to a library whose globals are not the user's constants."""
    name = thing.__name__ if isinstance(thing, types.ModuleType) else getattr(thing, "__module__", None)
    return (name or "").split(".")[0] in _FOREIGN


def _global_names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _global_names(constant)
    return names
