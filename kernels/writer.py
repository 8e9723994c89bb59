"""An indented line writer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Writer"]


class Writer:
    """Collects lines; ``with writer.indent():`` nests them.

    Args:
        unit: one level of indentation.
    """

    def __init__(self, unit: str = "    ") -> None:
        self._unit, self._depth = unit, 0
        self._lines: list[str] = []

    def __call__(self, *lines: str) -> None:
        """Write lines at the current depth; an empty one stays empty."""
        self._lines.extend(self._unit * self._depth + line if line else "" for line in lines)

    @contextmanager
    def indent(self, opening: str = "", closing: str = "") -> Iterator[None]:
        """One level deeper, between an opening and a closing line."""
        if opening:
            self(opening)
        self._depth += 1
        yield
        self._depth -= 1
        if closing:
            self(closing)

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"
