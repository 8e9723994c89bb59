"""Memo: what was made once per key, and failures with it; the least recently wanted is forgotten first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from flexsn.errors import BackendError, FlexSNError, UnsupportedOpError

__all__ = ["REMEMBERED", "once", "remember"]

REMEMBERED = 64
"""How many are remembered."""
Made = TypeVar("Made")


def once(made: dict[Any, Made | FlexSNError], key: Any, make: Callable[[], Made]) -> Made:
    """``make()`` once per key; a failure is remembered too, and raised again."""
    found = made.pop(key, None)
    if found is None:
        try:
            found = make()
        except (UnsupportedOpError, BackendError) as error:
            found = error
    remember(made, key, found, REMEMBERED)
    if isinstance(found, FlexSNError):
        raise found.with_traceback(None)
    return found


def remember(made: dict[Any, Any], key: Any, value: Any, most: int) -> None:
    """Enter ``value`` as the newest; forget the oldest beyond ``most``."""
    made[key] = value
    if len(made) > most:
        made.pop(next(iter(made)), None)
