"""The search through objects: which attributes of an object or class the visited code can ask for, and what those are.

Nothing of an object's own is run: a method, property or descriptor is followed by its code.
"""

from __future__ import annotations

import itertools
import types
from typing import Any

from torch import nn

from flexsn.captures.attributes import (
    called_unnamed,
    definers,
    function_of,
    is_data,
    is_librarys,
    names_on,
    static,
    stores_of,
)
from flexsn.captures.bytecode import reads_of
from flexsn.captures.found import Found
from flexsn.captures.kinds import Kind, kind_of
from flexsn.captures.origin import internal_names, is_foreign, is_internal, is_ours, lookup_order, reads_arguments_only
from flexsn.captures.source import MISSING, Attribute, Source

__all__ = ["ANYTHING", "ObjectSearch"]

ANYTHING = {"eval", "exec", "globals", "locals", "open", "__import__", "import_module"}
ANYTHING |= {"__globals__", "__builtins__", "__closure__", "__subclasses__"}
"""Names that reach what no code shows."""
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_GLOBAL_HOOKS = (nn.modules.module._global_forward_pre_hooks, nn.modules.module._global_forward_hooks)


class ObjectSearch:
    """What was found so far, and what is known of what code asks for.

    Attributes:
        found: the places.
    """

    def __init__(self) -> None:
        self.found = Found()
        self._attributes: set[str] = set()  # mentioned by visited code
        self._perhaps: set[str] = set()  # the same, but the attribute may be absent
        self._reflecting: set[type] = set()  # classes one of whose methods asks for attributes by string
        self._reflects = False  # some other code does
        self._objects: dict[int, tuple[Any, str, bool]] = {}
        self._in_library = False  # what is met was put there by a library's own code

    def settle(self) -> None:
        """Look into objects until every one was looked into with all the names."""
        done, known = 0, self._known()
        while done < len(self._objects):
            for identity in list(itertools.islice(self._objects, done, None)):
                self._object(*self._objects[identity])
                done += 1
            if known != self._known():
                done, known = 0, self._known()

    def _known(self) -> tuple[int, ...]:
        return len(self._attributes), len(self._perhaps), len(self._reflecting), self._reflects

    def _beyond(self, reason: str) -> None:
        if not self._in_library:
            self.found.unwatched = self.found.unwatched or reason

    def _source(self, source: Source, *, absent: bool = False) -> None:
        identity = (id(source.holder), source.key)
        if identity in self.found.sources:
            return
        value = source.read()
        if value is MISSING and not absent:
            return
        if isinstance(value, types.ModuleType) and is_foreign(value):
            self._library_module(value)
            return
        path = source.name
        self.found.add_source(source, identity)
        self.visit(value, path, source, source.shared)

    def visit(self, value: Any, path: str, source: Source | None, shared: bool) -> None:
        """Look into one value, found in ``source``."""
        raise NotImplementedError

    def _library_module(self, module: types.ModuleType) -> None:
        if is_ours(module):
            return
        self._objects[id(module)] = (module, module.__name__, True)
        if not reads_arguments_only(module):
            self._beyond(f"it can use Python's module '{module.__name__}'")

    def _of_library(self, module: types.ModuleType) -> None:
        """What the code names of a library may be replaced, in a test for one."""
        for name in sorted(self._attributes & vars(module).keys()):
            self.found.add_fixed(vars(module), name)
            inner = vars(module)[name]
            if isinstance(inner, types.ModuleType) and is_foreign(inner):
                self._objects.setdefault(id(inner), (inner, inner.__name__, True))

    def _code(self, code: types.CodeType, owner: Any) -> None:
        reads = reads_of(code)
        self._attributes |= reads.attributes
        if is_foreign(owner):
            return
        self._perhaps |= reads.perhaps
        if not is_ours(owner):
            self._reflects |= reads.reflects
            self.found.mentions |= reads.globals | reads.attributes
            for name in reads.attributes & ANYTHING:
                self._beyond(f"{code.co_name} uses {name}")

    def _class(self, value: type, path: str, shared: bool) -> None:
        if is_foreign(value):
            if not is_ours(value) and not reads_arguments_only(value):
                self._beyond(f"'{path}' is {value.__module__}.{value.__qualname__}")
            return
        self._objects[id(value)] = (value, path, shared)
        for base in value.__mro__:
            for name, attribute in () if is_foreign(base) else vars(base).items():
                self._method(base, name, attribute, value, path, shared)
        self.visit(vars(value).get("_member_map_", MISSING), path, None, shared)  # of an enum

    def _calls_of(self, value: Any, path: str, shared: bool, called: bool = True) -> None:
        """The methods an object is used through without naming them: operators, and its forward if it is called."""
        if not is_ours(type(value)) and not isinstance(value, dict):
            self.found.add_fixed(value)
        for base, name, attribute in called_unnamed(type(value)):
            if name == "forward" and not called:
                continue
            if not is_foreign(base):
                self._method(base, name, attribute, type(value), path, shared)
            elif name == "forward" and isinstance(attribute, types.FunctionType) and not is_internal(base):
                self._code(attribute.__code__, base)
        if called and issubclass(type(value), nn.Module) and not internal_names(value):
            for hooks in (*(vars(value).get(name, {}) for name in _HOOKS), *_GLOBAL_HOOKS):
                self.found.add_fixed(hooks)
                for key in hooks:
                    self._source(Source(f"{path}.hooks.{key}", hooks, key, shared))

    def _method(self, base: type, name: str, attribute: Any, owner: type, path: str, shared: bool) -> None:
        function = function_of(attribute)
        if function is None:
            return
        if not is_ours(base):
            self.found.add_fixed(base, name)
        if reads_of(function.__code__).reflects:
            self._reflecting.add(owner)
        self.visit(function, path, None, shared)

    def _object(self, held: Any, path: str, shared: bool) -> None:
        """Watch the attributes of an object that visited code mentions by name."""
        prefix = f"{path}." if path else ""
        if isinstance(held, Source):
            self._of_tensor(held, prefix, shared)
            return
        if isinstance(held, types.ModuleType) and is_foreign(held):
            self._of_library(held)
            return
        stores = stores_of(held)
        cls = held if isinstance(held, type) else type(held)
        reflects = self._reflects or not self._reflecting.isdisjoint(cls.__mro__)
        names = names_on(held, stores, reflects) | self._attributes
        if not isinstance(held, type):
            names |= self._perhaps
            if (reflects and not is_ours(cls) and cls is not types.ModuleType) or is_librarys(cls):
                for store in stores:
                    self.found.add_fixed(store)
        own = internal_names(held)
        for name in sorted(name for name in names if isinstance(name, str)):
            if name in own:
                if name in self._attributes and name not in stores[0]:
                    self.found.add_fixed(stores[0], name)  # a number of a state's name would come first
            else:
                self._attribute(held, f"{prefix}{name}", name, stores, shared)

    def _of_tensor(self, source: Source, prefix: str, shared: bool) -> None:
        tensor = source.read()
        for name in sorted(self._attributes | self._perhaps):
            if name in vars(tensor) or (name in self._perhaps and static(type(tensor), name) is MISSING):
                self._source(Source(f"{prefix}{name}", source, name, shared), absent=True)

    def _attribute(self, held: Any, path: str, name: str, stores: list[dict[str, Any]], shared: bool) -> None:
        cls = held if isinstance(held, type) else type(held)
        attribute = static(cls, name)
        store = next((s for s in stores if name in s), None)
        if store is not None and not isinstance(attribute, property):
            self._source(Source(path, store, name, shared))
        elif attribute is MISSING:
            if name not in self._perhaps:
                return
            if isinstance(held, (type, types.ModuleType, types.FunctionType)):
                self.found.add_fixed(held if isinstance(held, type) else vars(held), name)
                return
            for store in stores:
                self._source(Source(path, store, name, shared), absent=True)
        elif not is_data(attribute):
            self._descriptor(held, cls, path, name, attribute, shared)
        elif not any(is_ours(base) or (name.startswith("__") and is_foreign(base)) for base in definers(cls, name)):
            self._source((Attribute if isinstance(held, (dict, list)) else Source)(path, held, name, shared))

    def _descriptor(self, held: Any, cls: type, path: str, name: str, attribute: Any, shared: bool) -> None:
        """What is behind a method, a property or another descriptor, and what could come to stand before it."""
        written = [base for base in definers(cls, name) if not is_foreign(base)]  # super() reaches the overridden ones
        if not written:
            return
        if not all(map(is_ours, written)):
            for holder in (
                *stores_of(held)[:1],
                *(b for b in lookup_order(cls) if not is_foreign(b) and not is_ours(b)),
            ):
                self.found.add_fixed(holder, name)
        for base in written:
            self._method(base, name, vars(base)[name], cls, name, shared)
        if is_foreign(type(attribute)):
            if function_of(attribute) is None and kind_of(attribute) is not Kind.CONSTANT:
                self._beyond(f"'{path}' is a {type(attribute).__qualname__}")
            return
        getter = vars(type(attribute)).get("__get__")
        if isinstance(getter, types.FunctionType):  # a descriptor of the user's
            self._method(type(attribute), "__get__", getter, cls, name, shared)
            self.visit(attribute, path, None, shared)
