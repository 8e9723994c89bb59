"""The cores that graphs name: by a key as long as the process lasts, by what they are in an exported program.

A key is a name, which says what the core is, and a number, which tells cores apart that are the same now and may not
stay so. A name alone stands in exported programs; there the core that is found must still be what it was.
"""

from __future__ import annotations

import gc
import hashlib
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from types import CodeType, FunctionType, MethodType
from typing import Any, ClassVar, Protocol
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import Tensor

from flexsn.captures.containers import content_of
from flexsn.captures.guards import Captures
from flexsn.errors import FlexSNError
from flexsn.execution.dispatch import ScanDispatcher

__all__ = ["GivenCore", "Scanned", "is_one", "key_of", "number_of", "scanned"]

_KEYS: WeakKeyDictionary[Scanned, str] = WeakKeyDictionary()
_SCANNED: WeakValueDictionary[str, Scanned] = WeakValueDictionary()
_KEPT: dict[str, Scanned] = {}  # what exported programs scan
_NUMBERS: Counter[str] = Counter()  # how many keys were given to cores of a name


class Scanned(Protocol):
    """Something whose core graphs scan."""

    def _scanned(self) -> AbstractContextManager[ScanDispatcher]:
        """Its dispatcher, for the length of a call, in which the core reads what is registered."""

    def _bound_anew(self, handed: Mapping[str, Tensor]) -> str | None:
        """The name of a variable that is bound to another parameter than a graph hands in for it."""


class GivenCore:
    """A core without a neuron, as ``scan`` is given it.

    Args:
        dispatcher: of the core.
    """

    _in_graphs: ClassVar[dict[int, GivenCore]] = {}  # kept: a graph does not keep the core it names

    def __init__(self, dispatcher: ScanDispatcher) -> None:
        self.dispatcher = dispatcher

    @classmethod
    def of(cls, dispatcher: ScanDispatcher) -> GivenCore:
        """The one with that dispatcher."""
        return cls._in_graphs.setdefault(id(dispatcher), cls(dispatcher))

    def _scanned(self) -> AbstractContextManager[ScanDispatcher]:
        return nullcontext(self.dispatcher)

    def _bound_anew(self, handed: Mapping[str, Tensor]) -> str | None:
        read = {source.name: source.read() for source in self.dispatcher.captures().tensors}
        return next((n for n, t in handed.items() if n in read and not is_one(t, read[n])), None)


def is_one(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same memory; a graph may hand in another view of it."""
    same = a.untyped_storage()._cdata == b.untyped_storage()._cdata
    return same and (a.shape, a.storage_offset()) == (b.shape, b.storage_offset())


def key_of(of: Scanned) -> str:
    """What graphs call it by: alive as long as it lives; in an export, wherever its core is the same."""
    with of._scanned() as dispatcher:
        name = _name(dispatcher.captures(), dispatcher.num_states)
    if torch.compiler.is_exporting():
        return name
    if of not in _KEYS:
        _KEYS[of] = key = f"{name}#{_NUMBERS[name]}"
        _SCANNED[key] = of
        _NUMBERS[name] += 1
    return _KEYS[of]


def scanned(key: str, num_states: int) -> Scanned:
    """What goes by that key, or has a core of that name.

    Raises:
        FlexSNError: nothing does.
    """
    found: Scanned | None = _SCANNED.get(key)
    if "#" in key:
        if found is None:
            raise FlexSNError(
                f"a compiled graph scans a core that is gone: {key}",
                why="a graph names its cores; they live as long as their neurons",
                hint="keep the neuron as long as what was compiled of it",
            )
        return found
    if found is None or not _is(found, key):
        _SCANNED[key] = found = _search(key, num_states)
        _KEPT[key] = found
    return found


def _search(name: str, num_states: int) -> Scanned:
    path = name.partition("/")[0]
    module, _, qualname = path.partition(":")
    try:
        core: Any = reduce(getattr, qualname.split("."), sys.modules[module])
    except (AttributeError, KeyError):  # made inside a function, or not imported
        core = None
    if callable(core) and not isinstance(core, type):
        given = GivenCore(ScanDispatcher(core, num_states))
        if _is(given, name):
            return given
    for alive in gc.get_objects():
        if hasattr(type(alive), "_scanned") and not isinstance(alive, GivenCore) and _is(alive, name):
            return alive  # type: ignore[no-any-return]
    problem = "is not imported" if module not in sys.modules else "is not there, or not what it was at the export"
    raise FlexSNError(
        f"an exported program scans the core {qualname} of {module}, which {problem}",
        why="a program names its cores and holds its parameters; numbers and code are the core's own",
        hint=f"import {module}; a core that is an object or a method, such as a built-in neuron's, also has to be made "
        "again with the same arguments, and kept",
    )


def _is(of: Scanned, name: str) -> bool:
    with of._scanned() as dispatcher:
        return _name(dispatcher.captures(), dispatcher.num_states) == name


def _name(captures: Captures, num_states: int) -> str:
    """``module:qualname/digest`` of a core: equal where code and constants are."""
    core = captures.core
    code = core if isinstance(core, (FunctionType, MethodType)) else type(core)
    return f"{code.__module__}:{code.__qualname__}/{num_states}{number_of(captures):015x}"


def number_of(captures: Captures) -> int:
    """Equal where code and constants of a core are."""
    content = hashlib.sha256(repr(_content(captures.core)).encode())
    for source in captures.sources:
        content.update(repr((source.name, _content(source.read()))).encode())
    for name, held in captures.containers:
        content.update(repr((name, *map(_content, content_of(held)))).encode())
    return int(content.hexdigest()[:15], 16)


def _content(value: Any) -> Any:
    """What makes a value what it is in any process."""
    if isinstance(value, (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)):
        return repr(value)
    if isinstance(value, Tensor):
        return "Tensor"
    if isinstance(value, MethodType):
        return _content(value.__func__)
    if isinstance(value, FunctionType):
        return value.__qualname__, _content(value.__code__)
    if isinstance(value, CodeType):
        return value.co_code.hex(), value.co_names, tuple(map(_content, value.co_consts))
    if isinstance(value, (tuple, frozenset)):
        return tuple(map(_content, value))
    return type(value).__module__, type(value).__qualname__
