"""Source: one place outside a core that the core reads, to look into and to write to."""

from __future__ import annotations

import functools
import threading
from types import CellType
from typing import Any

from torch import Tensor

from flexsn.captures.containers import as_built_in

__all__ = ["MISSING", "WRITING", "Attribute", "Source"]

# A source written for the length of one call shows a foreign value to every other core that reads it.
WRITING = threading.RLock()


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Any = _Missing()


class Source:
    """``mapping[key]``, ``list[key]``, a closure cell, an attribute, or an item or attribute of what a source holds.

    Args:
        name: as the user knows it, e.g. ``tau`` or ``config.tau``.
        holder: the mapping, list, cell or object; for an item of a tuple or an attribute of a tensor, the source that
            holds the tuple or tensor.
        key: key, index or attribute; ``None`` for a cell.
        shared: whether it was reached through a global name, which other code reads too.
    """

    __slots__ = ("holder", "key", "name", "shared")

    def __init__(self, name: str, holder: Any, key: Any, shared: bool) -> None:
        self.name, self.holder, self.key, self.shared = name, holder, key, shared

    def __repr__(self) -> str:
        return f"Source({self.name})"

    def read(self) -> Any:
        """The value now; ``MISSING`` where it is gone."""
        holder = self.holder
        try:
            if isinstance(holder, CellType):
                return holder.cell_contents
            if isinstance(holder, (dict, list)):
                return as_built_in(holder).__getitem__(holder, self.key)
            if isinstance(holder, Source):
                held = holder.read()
                return vars(held)[self.key] if isinstance(held, Tensor) else tuple.__getitem__(held, self.key)
            return getattr(holder, self.key)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError):
            return MISSING

    def write(self, value: Any) -> None:
        """Put another value there; ``MISSING`` removes it."""
        holder = self.holder
        if isinstance(holder, CellType):
            if value is MISSING:
                del holder.cell_contents
            else:
                holder.cell_contents = value
        elif isinstance(holder, (dict, list)):
            if value is MISSING:
                as_built_in(holder).__delitem__(holder, self.key)
            else:
                as_built_in(holder).__setitem__(holder, self.key, value)
        elif isinstance(holder, Source):
            old = holder.read()
            if isinstance(old, Tensor):
                return Source(self.name, vars(old), self.key, self.shared).write(value)
            items = [value if i == self.key else item for i, item in enumerate(old)]
            holder.write(type(old)(*items) if hasattr(old, "_fields") else tuple(items))
        elif isinstance(holder, functools.partial):
            state = (holder.func, value, holder.keywords, vars(holder))
            holder.__setstate__(state)  # type: ignore[attr-defined]  # its args cannot be assigned
        elif isinstance(holder, type):
            type.__setattr__(holder, self.key, value)
        else:
            if self.key in getattr(holder, "__dict__", {}):
                del holder.__dict__[self.key]  # the class may have the value already
            if value is MISSING and self.read() is not MISSING:
                object.__delattr__(holder, self.key)
            elif self.read() is not value:
                object.__setattr__(holder, self.key, value)  # frozen dataclasses forbid the plain way


class Attribute(Source):
    """An attribute of an object that is a dict or a list itself."""

    __slots__ = ()

    def read(self) -> Any:
        return getattr(self.holder, self.key, MISSING)

    def write(self, value: Any) -> None:
        if value is MISSING:
            object.__delattr__(self.holder, self.key)
        else:
            object.__setattr__(self.holder, self.key, value)
