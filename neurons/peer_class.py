"""What a preset owes to the library it is named after, where that is installed: its classes and its other names."""

from __future__ import annotations

import functools
import sys
from abc import ABCMeta
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["PeerClass", "from_peer"]

# where a library keeps the classes that those of its preset are named after
_MODULES = {
    "spikingjelly.layer": ("spikingjelly.activation_based.layer",),
    "spikingjelly": ("spikingjelly.activation_based.neuron", "spikingjelly.activation_based.base"),
    "snntorch": ("snntorch",),
    "norse": ("norse.torch",),
    "rnnbuilder": ("rnnbuilder.snn",),
}


class PeerClass(ABCMeta):
    """Metaclass of the presets' neurons: ``isinstance(ours, theirs)`` holds for the library's class of the same name.

    Tools of other libraries look for their own classes: to reset, to count, to export. The class that a class of a
    preset is named after stands, with its bases, behind all others in the method resolution order: it is a base, and
    nothing of it is called that the preset has.
    """

    def mro(cls) -> list[type]:
        line = super().mro()
        theirs = _namesake(cls)
        if theirs is None:
            return line
        behind = [base for base in theirs.__mro__ if _library(base) == _library(theirs)]
        return [*(base for base in line[:-1] if base not in behind), *behind, object]


def _library(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _namesake(cls: type) -> type | None:
    """The class of that name in the library whose preset this is."""
    # as an attribute it would be that of the metaclass until the order is there
    found = _found(vars(cls)["__module__"], cls.__name__)
    return found if isinstance(found, type) else None


@functools.cache
def _module(name: str) -> ModuleType | None:
    try:
        return import_module(name)
    except Exception:  # what cannot be imported has neither tools to please nor names to give
        return None


def _found(preset: str, name: str) -> Any:
    _, _, preset = preset.partition("flexsn.neurons.")
    modules = map(_module, _MODULES.get(preset) or _MODULES.get(preset.partition(".")[0], ()))
    return next((vars(module)[name] for module in modules if module is not None and name in vars(module)), None)


def from_peer(preset: str, name: str) -> Any:
    """What a preset does not have itself: the library's own, so that a program goes on with it as it was.

    Raises:
        AttributeError: the library is not installed, or has no such name either.
    """
    found = None if name.startswith("_") else _found(preset, name)
    if found is None:
        module = sys.modules.get(preset)  # from which Python makes its "Did you mean"
        raise AttributeError(f"module {preset!r} has no attribute {name!r}", name=name, obj=module)
    return found
