"""Remember: what was made once per kind of call, and failures with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flexsn.errors import BackendError, FlexSNError, UnsupportedOpError

__all__ = ["REMEMBERED", "forget", "once"]

REMEMBERED = 64
"""How many are kept."""


def once(made: dict[Any, Any], key: Any, make: Callable[[], Any]) -> Any:
    """``make()`` once per key; a failure is kept too, and raised again."""
    if key not in made:
        try:
            made[key] = make()
        except (UnsupportedOpError, BackendError) as error:
            made[key] = error.with_traceback(None)
        forget(made, REMEMBERED)
    found = made[key]
    if isinstance(found, FlexSNError):
        raise found.with_traceback(None)
    return found


def forget(made: dict[Any, Any], keep: int) -> None:
    """Drop the oldest entry beyond ``keep``."""
    if len(made) > keep:
        made.pop(next(iter(made)), None)
