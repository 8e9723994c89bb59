"""PickledCore: a neuron's core on its way into a pickle, where a function made inside another cannot go."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

from flexsn.errors import CoreError, defined_at

__all__ = ["PickledCore"]

_BY_VALUE = ("cloudpickle", "dill")  # these pickle any function


class PickledCore:
    """Stands for a core in the state of a neuron.

    Attributes:
        core: the core itself.
    """

    def __init__(self, core: Callable[..., Any]) -> None:
        self.core = core

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        core = self.core
        while isinstance(core, partial):
            core = core.func
        by_name = not isinstance(core, FunctionType) or "<" not in core.__qualname__  # <lambda>, <locals>
        if not by_name and not any(name in sys.modules for name in _BY_VALUE):
            raise pickle.PicklingError(
                str(
                    CoreError(
                        f"a neuron cannot be pickled with the core {core.__qualname__}",
                        where=defined_at(core),
                        why="Python pickles a function by its name, which a lambda or a function inside another lacks",
                        hint="define the core at the top level of a module, or in a subclass; or save state_dict()",
                    )
                )
            )
        return _itself, (self.core,)


def _itself(core: Callable[..., Any]) -> Callable[..., Any]:
    return core
