"""The built-in neurons: each a core of a few lines and a thin class."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from flexsn.neurons.adaptive import AdEx, AdLIF, Izhikevich
from flexsn.neurons.adaptive_threshold import ALIF, CLIF
from flexsn.neurons.base import Neuron, SpikingNeuron
from flexsn.neurons.base_node import AdaptBaseNode, BaseNode, NonSpikingBaseNode, SimpleBaseNode
from flexsn.neurons.coefficient import Coefficient
from flexsn.neurons.discontinuous import Discontinuous
from flexsn.neurons.graded import ILIF, LIAF, SpikeCount, TernaryIF, TernaryLIF
from flexsn.neurons.integrate import IF, LIF, PLIF
from flexsn.neurons.nonlinear import EIF, KLIF, QIF
from flexsn.neurons.parallel import PSN, MaskedPSN, SlidingPSN
from flexsn.neurons.readout import NonSpikingIF, NonSpikingLIF
from flexsn.neurons.refractory import Refractory
from flexsn.neurons.second_order import AlphaLIF, CubaLIF, ResonateFire

if TYPE_CHECKING:
    from flexsn.neurons import norse as norse
    from flexsn.neurons import rnnbuilder as rnnbuilder
    from flexsn.neurons import snntorch as snntorch
    from flexsn.neurons import spikingjelly as spikingjelly

__all__ = [
    "ALIF",
    "CLIF",
    "EIF",
    "IF",
    "ILIF",
    "KLIF",
    "LIAF",
    "LIF",
    "PLIF",
    "PSN",
    "QIF",
    "AdEx",
    "AdLIF",
    "AdaptBaseNode",
    "AlphaLIF",
    "BaseNode",
    "Coefficient",
    "CubaLIF",
    "Discontinuous",
    "Izhikevich",
    "MaskedPSN",
    "Neuron",
    "NonSpikingBaseNode",
    "NonSpikingIF",
    "NonSpikingLIF",
    "Refractory",
    "ResonateFire",
    "SimpleBaseNode",
    "SlidingPSN",
    "SpikeCount",
    "SpikingNeuron",
    "TernaryIF",
    "TernaryLIF",
]

if not TYPE_CHECKING:  # a type checker would take any name to be there
    _PRESETS = ("norse", "rnnbuilder", "snntorch", "spikingjelly")

    def __getattr__(name: str) -> object:
        """The neurons of other libraries, loaded when first used."""
        if name in _PRESETS:
            return import_module(f"flexsn.neurons.{name}")
        module = sys.modules[__name__]  # from which Python makes its "Did you mean"
        raise AttributeError(f"module 'flexsn.neurons' has no attribute {name!r}", name=name, obj=module)

    def __dir__() -> list[str]:
        return sorted({*globals(), *_PRESETS})
