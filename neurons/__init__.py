"""The built-in neurons: each a core of a few lines and a thin class."""

from flexsn.neurons.adaptive import AdEx, Izhikevich
from flexsn.neurons.adaptive_threshold import ALIF, CLIF
from flexsn.neurons.base import Neuron, SpikingNeuron
from flexsn.neurons.base_node import AdaptBaseNode, BaseNode, SimpleBaseNode
from flexsn.neurons.coefficient import Coefficient
from flexsn.neurons.discontinuous import Discontinuous
from flexsn.neurons.graded import ILIF, LIAF, SpikeCount, TernaryIF, TernaryLIF
from flexsn.neurons.integrate import IF, LIF, PLIF
from flexsn.neurons.nonlinear import EIF, KLIF, QIF
from flexsn.neurons.parallel import PSN, MaskedPSN, SlidingPSN
from flexsn.neurons.readout import NonSpikingIF, NonSpikingLIF
from flexsn.neurons.refractory import Refractory
from flexsn.neurons.second_order import AlphaLIF, CubaLIF, ResonateFire

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
