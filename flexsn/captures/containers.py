"""The content of what holds other things: taken down, compared item by item, put back."""

from __future__ import annotations

from array import array
from collections import Counter, OrderedDict, deque
from contextvars import ContextVar
from threading import local
from typing import Any

import numpy as np

__all__ = ["CONTAINERS", "HOLDERS", "as_built_in", "content_of", "refill", "same_content"]

CONTAINERS = (list, OrderedDict, Counter, dict, set, frozenset, deque, array, bytearray, np.ndarray)
HOLDERS = (*CONTAINERS, ContextVar, local)
"""Whose content can be put back: these, and what is derived from them."""
_BUILT_IN = frozenset(CONTAINERS)
_NOTHING: Any = object()


def as_built_in(container: Any) -> Any:
    """The class whose methods tell what a container holds: a subclass may have redefined them."""
    kind = type(container)
    return kind if kind in _BUILT_IN else next(base for base in CONTAINERS if isinstance(container, base))


def content_of(container: Any) -> list[Any]:
    """What a holder holds as a flat list."""
    if isinstance(container, local):
        container = vars(container)
    if isinstance(container, ContextVar):
        return [container.get(_NOTHING)]
    if isinstance(container, np.ndarray):
        return [repr(container.shape).encode(), container.tobytes()]
    if isinstance(container, (array, bytearray)):
        return [bytes(memoryview(container).cast("B"))]
    base = as_built_in(container)
    if isinstance(container, dict):  # an OrderedDict keeps an order of its own
        return [*base.keys(container), *base.values(container)]
    return list(base.__iter__(container))


def same_content(now: list[Any], before: list[Any]) -> bool:
    """Whether two contents hold the very same objects; numbers of an array are compared by their bytes."""
    pairs = zip(now, before, strict=False)
    return len(now) == len(before) and all(a is b or (type(a) is bytes and a == b) for a, b in pairs)


def refill(container: Any, content: list[Any]) -> None:
    """Make ``content`` what the holder holds."""
    if isinstance(container, local):
        container = vars(container)
    if isinstance(container, ContextVar):
        if content[0] is not _NOTHING:
            container.set(content[0])
        return
    if isinstance(container, np.ndarray):
        container[...] = np.frombuffer(content[1], container.dtype).reshape(container.shape)
        return
    if isinstance(container, (array, bytearray)):
        container[:] = array(container.typecode, content[0]) if isinstance(container, array) else content[0]
        return
    base = as_built_in(container)
    base.clear(container)
    if isinstance(container, dict):
        half = len(content) // 2
        for key, value in zip(content[:half], content[half:], strict=True):
            base.__setitem__(container, key, value)
    elif isinstance(container, set):
        base.update(container, content)
    else:
        base.extend(container, content)
