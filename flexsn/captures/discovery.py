"""Discovery: find every place a core reads, from its code and the objects that code can reach.

It is generous: any attribute whose *name* occurs in visited code counts as read on every visited object. A
constant watched in vain costs some nanoseconds a call, one that is missed would leave a stale kernel. And it is closed:
what is of no watched kind, or is reached in a way that code does not show, is the reason why what was found may not
be all.

It ends: nothing of the core's own is run to find what it holds, so the search makes no new objects; each object is
looked into once for each set of names, the names come from finite code, and there is a most of objects.
"""

from __future__ import annotations

import builtins
import functools
import importlib.util
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flexsn.captures.attributes import stores_of
from flexsn.captures.bytecode import argument_names, reads_of
from flexsn.captures.containers import content_of
from flexsn.captures.found import Found
from flexsn.captures.kinds import Kind, kind_of
from flexsn.captures.objects import ANYTHING, ObjectSearch
from flexsn.captures.origin import internal_names, is_foreign, is_ours, reads_arguments_only
from flexsn.captures.source import MISSING, Source

__all__ = ["discover"]

_MOST, _DEEPEST = 20_000, 100


def discover(core: Callable[..., Any]) -> Found:
    """Where a core reads."""
    search = _Search()
    search.visit(core, "", None, False)
    search.settle()
    return search.found


class _Search(ObjectSearch):
    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[int, Any] = {}
        self._depth = 0

    def visit(self, value: Any, path: str, source: Source | None, shared: bool) -> None:
        """Look into one value, found in ``source``."""
        kind = kind_of(value)
        if value is MISSING or kind is Kind.CONSTANT:
            return
        if kind is Kind.TENSOR:
            if source is not None:
                self._objects[id(source)] = (source, path, shared)
            return
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value  # keeps it alive, so its id stays taken
        if self._depth >= _DEEPEST or len(self._seen) > _MOST:
            self._beyond(f"it can reach more than {_MOST} objects, or one nested more than {_DEEPEST} deep")
            return
        self._depth += 1
        self._visit(kind, value, path, source, shared)
        self._depth -= 1

    def _visit(self, kind: Kind, value: Any, path: str, source: Source | None, shared: bool) -> None:
        if kind is Kind.FUNCTION:
            self._function(value, path, shared)
        elif kind is Kind.METHOD:
            self.visit(value.__func__, path, None, shared)
            self._bound_to(value.__self__, path.rpartition(".")[0], shared)
        elif kind is Kind.BUILTIN:
            self._built_in(value, path, shared)
        elif kind is Kind.PARTIAL:
            self._partial(value, path, shared)
        elif kind is Kind.TUPLE:
            self._items(value if source is None else source, path, range(len(value)), shared)
        elif kind is Kind.CONTAINER:
            if not isinstance(value, frozenset):
                self.found.containers.append((path, value))
            self._content(value, path, shared)
        elif kind is Kind.CLASS:
            self._class(value, path, shared)
        elif kind is Kind.MODULE:
            if is_foreign(value):
                self._library_module(value)
            else:
                self._objects[id(value)] = (value, path, shared)
        elif kind is Kind.CONSUMED:
            if not self._in_library:
                self.found.consumed = self.found.consumed or f"'{path}', a {type(value).__name__}"
        elif kind is Kind.OTHER:
            self.found.others.append((path, value))
            self._beyond(f"'{path}' is a {type(value).__module__}.{type(value).__qualname__}")
        if kind is Kind.OBJECT or (kind in (Kind.TUPLE, Kind.CONTAINER, Kind.OTHER) and stores_of(value)):
            self._objects[id(value)] = (value, path, shared)
            self._calls_of(value, path, shared)

    def _items(self, holder: Any, path: str, keys: Iterable[Any], shared: bool) -> None:
        value = holder.read() if isinstance(holder, Source) else holder
        names = getattr(type(value), "_fields", None)
        get = next(base for base in (dict, list, tuple) if isinstance(value, base)).__getitem__
        for key in list(keys):
            item, name = get(value, key), f"{path}.{names[key] if names else key}"
            if isinstance(holder, tuple):  # in no source: what holds it is watched as a whole
                self.visit(item, name, None, shared)
            elif kind_of(item) is not Kind.CONSTANT:  # those are watched with the container that holds them
                self._source(Source(name, holder, key, shared))

    def _content(self, value: Any, path: str, shared: bool) -> None:
        """What a container holds besides constants."""
        if isinstance(value, (list, dict)):
            self._items(
                value, path, dict.keys(value) if isinstance(value, dict) else range(list.__len__(value)), shared
            )
        items = dict.keys(value) if isinstance(value, dict) else content_of(value)
        for item in () if isinstance(value, list) else items:
            self.visit(item, f"{path}.item", None, shared)
        if getattr(getattr(value, "dtype", None), "hasobject", False):
            self._beyond(f"'{path}' is an array of Python objects")

    def _bound_to(self, held: Any, path: str, shared: bool) -> None:
        if kind_of(held) is not Kind.OBJECT:
            self.visit(held, path, None, shared)
        elif id(held) not in self._objects:
            self._objects[id(held)] = (held, path, shared)
            if not internal_names(held):
                self._calls_of(held, path, shared, called=False)

    def _built_in(self, value: Any, path: str, shared: bool) -> None:
        self.found.mentions.add(value.__name__)
        held = value.__self__
        if isinstance(held, (types.ModuleType, type(None))):
            if not reads_arguments_only(value) or value.__name__ in ANYTHING:
                self._beyond(f"'{path}' is {value.__module__}.{value.__name__}")
        elif not isinstance(held, type) and not reads_arguments_only(value):
            self.visit(held, path, None, shared)

    def _partial(self, value: functools.partial[Any], path: str, shared: bool) -> None:
        self.visit(value.func, path, None, shared)
        self._objects[id(value)] = (value, path, shared)
        names = argument_names(value.func)
        names += tuple(f"argument{i}" for i in range(len(names), len(value.args)))
        self._arguments(Source(path, value, "args", shared), names, shared)
        for key in value.keywords:
            self._source(Source(key, value.keywords, key, shared))

    def _arguments(self, holder: Source, names: Sequence[str], shared: bool) -> None:
        """The items of a tuple of arguments, under their own names."""
        values = holder.read()
        self._seen[id(holder)] = holder
        for i, (value, name) in enumerate(zip(values, names, strict=False)):
            if kind_of(value) is not Kind.CONSTANT:
                self._source(Source(name, holder, i, shared))

    # ---- code ---------------------------------------------------------------------------------------------

    def _function(self, function: types.FunctionType, path: str, shared: bool) -> None:
        self._code(function.__code__, function)
        before, self._in_library = self._in_library, is_foreign(function) and not is_ours(function)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name != "__class__":  # which super() reads
                self._source(Source(name, cell, None, shared))
        self._in_library = before
        if is_ours(function):
            return
        if is_foreign(function):
            if not reads_arguments_only(function):
                self._beyond(f"'{path}' is {function.__module__}.{function.__qualname__}")
            return
        self.found.add_fixed(function)
        self._objects[id(function)] = (function, path or function.__name__, shared)
        if function.__defaults__:
            self._seen[id(function.__defaults__)] = function.__defaults__
            self._source(Source(f"{function.__name__}.defaults", function, "__defaults__", shared))
            names = function.__code__.co_varnames[: function.__code__.co_argcount]
            defaults = self.found.sources[id(function), "__defaults__"]
            self._arguments(defaults, names[-len(function.__defaults__) :], shared)
        for key in function.__kwdefaults__ or {}:
            self._source(Source(key, function.__kwdefaults__, key, shared))
        self._globals(function)

    def _globals(self, function: types.FunctionType) -> None:
        reads = reads_of(function.__code__)
        for name in sorted(reads.globals):
            held = function.__globals__
            if name not in held and hasattr(builtins, name):
                self.found.add_fixed(held, name)  # a global of that name would come first
                self.found.add_fixed(vars(builtins), name)
                if name in ANYTHING:
                    self._beyond(f"{function.__name__} calls {name}()")
            else:
                self._source(Source(name, held, name, True), absent=name in reads.perhaps)
        for name, level in sorted(reads.imports):
            self._imported(name, level, function)

    def _imported(self, name: str, level: int, function: types.FunctionType) -> None:
        if level:
            name = importlib.util.resolve_name("." * level + name, function.__globals__.get("__package__") or name)
        for module in dict.fromkeys((name.partition(".")[0], name)):
            loaded = sys.modules.get(module, MISSING)
            if loaded is MISSING or not is_foreign(loaded):
                self.found.add_fixed(sys.modules, module)
            self.visit(loaded, module, None, True)
