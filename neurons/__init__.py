"""The built-in neurons: each a core of a few lines and a thin class."""

from .adaptive import AdEx, Izhikevich
from .adaptive_threshold import ALIF, CLIF
from .base import Neuron, SpikingNeuron
from .base_node import AdaptBaseNode, BaseNode, SimpleBaseNode
from .coefficient import Coefficient
from .graded import ILIF, LIAF, SpikeCount, TernaryIF, TernaryLIF
from .integrate import IF, LIF, PLIF
from .nonlinear import EIF, KLIF, QIF
from .parallel import PSN, MaskedPSN, SlidingPSN
from .readout import NonSpikingIF, NonSpikingLIF
from .refractory import Refractory
from .resonate import ResonateFire
from .rnnbuilder import Discontinuous
from .synaptic import AlphaLIF, CubaLIF

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
    "AdaptBaseNode",
    "AlphaLIF",
    "BaseNode",
    "Coefficient",
    "CubaLIF",
    "Discontinuous",
    "Izhikevich",
    "MaskedPSN",
    "Neuron",
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
