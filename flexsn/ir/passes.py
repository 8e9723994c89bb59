"""Passes: every form a core takes on its way to a kernel can be watched, printed and checked.

``FLEXSN_PRINT_PASSES=1`` prints each of them to stderr as readable Python.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import singledispatch

__all__ = ["describe", "passed", "watching"]

Watcher = Callable[[str, object], None]
_watchers: list[Watcher] = []


def passed(name: str, form: object) -> None:
    """Say that a pass has made ``form``."""
    for watcher in _watchers:
        watcher(name, form)
    if os.environ.get("FLEXSN_PRINT_PASSES", "0") not in ("", "0"):
        print(f"# ---- {name} ----\n{describe(form)}\n", file=sys.stderr, flush=True)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Call ``watcher(name, form)`` for every pass meanwhile."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


@singledispatch
def describe(form: object) -> str:
    """A form as readable Python; each class of forms registers how."""
    return str(form).rstrip()
