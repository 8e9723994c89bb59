"""Origin: whose code something is, a library's, flexsn's, or the user's."""

from __future__ import annotations

import types
from typing import Any

__all__ = ["is_foreign", "is_neuron", "is_ours"]

_FOREIGN = ("torch", "numpy", "math", "cmath", "builtins", "functools", "operator", "typing", "collections", "scipy")
_NEURON = ("flexsn.modules.flexsn", "flexsn.modules.stateful")


def is_foreign(thing: Any) -> bool:
    """Whether code belongs to a library whose globals are not the user's constants."""
    name = thing.__name__ if isinstance(thing, types.ModuleType) else getattr(thing, "__module__", None)
    return (name or "").split(".")[0] in _FOREIGN or is_neuron(thing)


def is_neuron(thing: Any) -> bool:
    return getattr(thing, "__module__", None) in _NEURON


def is_ours(thing: Any) -> bool:
    return (getattr(thing, "__module__", None) or "").split(".")[0] == "flexsn"
