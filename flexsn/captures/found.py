"""Found: where a core reads, what must stay for that to be all, and why it may not be all."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, NamedTuple

from flexsn.captures.source import MISSING, Source

__all__ = ["Fixed", "Found"]


class Fixed(NamedTuple):
    """What is no number, but decides which numbers are read: the code behind a name, or that nothing is there.

    Attributes:
        holder: a dict, or a class; with no key a dict, a function or another object.
        key: a name. ``None`` for the number of items, a function's code, an object's class.
        value: what is there, or ``MISSING``.
    """

    holder: Any
    key: str | None
    value: Any

    @classmethod
    def of(cls, holder: Any, key: str | None) -> Fixed:
        """What is there now."""
        if key is not None:
            return cls(holder, key, (vars(holder) if isinstance(holder, type) else holder).get(key, MISSING))
        if isinstance(holder, dict):
            return cls(holder, None, len(holder))
        return cls(holder, None, holder.__code__ if isinstance(holder, FunctionType) else type(holder))


@dataclass
class Found:
    """Where a core reads.

    Attributes:
        sources: every place by the identity of holder and key, under a name that is unique and the same for a copy.
        containers: mutable ones, whose content is read as a whole, with their names.
        fixed: what must stay for the sources to be all.
        unwatched: why they may not be all; ``None`` if they are.
        others: what is of no watched kind, with names.
        consumed: what the core can reach that changes when it is looked at, such as an iterator.
        mentions: every global and attribute the user's code names.
    """

    sources: dict[tuple[int, Any], Source] = field(default_factory=dict)
    containers: list[tuple[str, Any]] = field(default_factory=list)
    fixed: dict[tuple[int, str | None], Fixed] = field(default_factory=dict)
    unwatched: str | None = None
    others: list[tuple[str, Any]] = field(default_factory=list)
    consumed: str | None = None
    mentions: set[str] = field(default_factory=set)
    _taken: dict[str, int] = field(default_factory=dict)  # how often a name was given

    def add_source(self, source: Source, identity: tuple[int, Any]) -> None:
        """Enter a source under a name of its own."""
        count = self._taken[source.name] = self._taken.get(source.name, 0) + 1
        if count > 1:
            source.name = f"{source.name}.{count}"
        self.sources[identity] = source

    def add_fixed(self, holder: Any, key: str | None = None) -> None:
        """Enter what is there now."""
        if (id(holder), key) not in self.fixed:
            self.fixed[id(holder), key] = Fixed.of(holder, key)
