"""PeerClass: a neuron of another library's name passes for that library's own, where it is installed."""

from __future__ import annotations

from abc import ABCMeta
from importlib import import_module

__all__ = ["PeerClass"]

# where a library keeps the classes that those of its preset are named after
_MODULES = {
    "spikingjelly": ("spikingjelly.activation_based.neuron", "spikingjelly.activation_based.base"),
    "snntorch": ("snntorch",),
    "norse": ("norse.torch",),
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
    _, _, preset = vars(cls)["__module__"].partition("flexsn.neurons.")
    for module in _MODULES.get(preset.partition(".")[0], ()):
        try:
            found = getattr(import_module(module), cls.__name__, None)
        except Exception:  # what cannot be imported has no tools to please
            return None
        if isinstance(found, type):
            return found
    return None
