r"""Norse's neurons, compiled: same names, parameters, defaults and spike trains.

.. code-block:: python

    from flexsn.neurons import norse                 # was: import norse.torch as norse

    lif = norse.LIF(norse.LIFParameters(v_th=0.5), dt=0.001)
    spikes, state = lif(x_seq)                       # [T, ...]; starts from the initial state
    spikes, state = lif(more, state)                 # goes on from there

Euler steps of length ``dt`` (seconds) of the feed-forward models of Norse 1.1; all compare with ``>`` and
detach nothing. As in Norse, the state is an argument and a result: a call without one starts anew. Source:
Pehle & Pedersen, "Norse: A deep learning library for spiking neural networks", 2021.

A parameter may be a number, a tensor that broadcasts against the step shape, or an ``nn.Parameter``, which is
then learned. ``method`` names the surrogate gradient and ``alpha`` its coefficient: ``"super"`` (without α, as
in Norse), ``"triangle"``, ``"tanh"``, ``"circ"``, ``"heavi_erfc"``, or ``"heaviside"`` for none.
"""

from __future__ import annotations

from typing import Any

from flexsn.neurons.norse.cells import (
    IAFCell,
    IzhikevichCell,
    LIFAdExCell,
    LIFBoxCell,
    LIFCell,
    LIFExCell,
    LIFRefracCell,
    LSNNCell,
)
from flexsn.neurons.norse.encode import (
    ConstantCurrentLIFEncoder,
    PoissonEncoder,
    PopulationEncoder,
    SignedPoissonEncoder,
    SpikeLatencyEncoder,
    SpikeLatencyLIFEncoder,
    constant_current_lif_encode,
    euclidean_distance,
    gaussian_rbf,
    poisson_encode,
    poisson_encode_step,
    population_encode,
    signed_poisson_encode,
    signed_poisson_encode_step,
    spike_latency_encode,
    spike_latency_lif_encode,
)
from flexsn.neurons.norse.integrators import (
    LI,
    LIBoxCell,
    LICell,
    LILinearCell,
)
from flexsn.neurons.norse.izhikevich import (
    Izhikevich,
    IzhikevichParameters,
    IzhikevichSpikingBehavior,
    IzhikevichState,
    behaviors,
    create_izhikevich_spiking_behavior,
)
from flexsn.neurons.norse.parameters import (
    IAFFeedForwardState,
    IAFParameters,
    IzhikevichRecurrentState,
    LIBoxParameters,
    LIBoxState,
    LIFAdExFeedForwardState,
    LIFAdExParameters,
    LIFAdExState,
    LIFBoxFeedForwardState,
    LIFBoxParameters,
    LIFExFeedForwardState,
    LIFExParameters,
    LIFExState,
    LIFFeedForwardState,
    LIFParameters,
    LIFRefracFeedForwardState,
    LIFRefracParameters,
    LIFRefracState,
    LIFState,
    LIParameters,
    LIState,
    LSNNFeedForwardState,
    LSNNParameters,
    LSNNState,
    reset_subtract,
    reset_value,
)
from flexsn.neurons.norse.recurrent import (
    IzhikevichRecurrent,
    IzhikevichRecurrentCell,
    LIFAdExRecurrent,
    LIFAdExRecurrentCell,
    LIFExRecurrent,
    LIFExRecurrentCell,
    LIFRecurrent,
    LIFRecurrentCell,
    LIFRefracRecurrent,
    LIFRefracRecurrentCell,
    LSNNRecurrent,
    LSNNRecurrentCell,
)
from flexsn.neurons.norse.sequential import (
    Lift,
    RecurrentSequential,
    RecurrentSequentialState,
    SequentialState,
    lift,
)
from flexsn.neurons.norse.spiking import (
    IAF,
    LIF,
    LSNN,
    LIFAdEx,
    LIFEx,
)
from flexsn.neurons.norse.steps import (
    iaf_feed_forward_step,
    izhikevich_feed_forward_step,
    izhikevich_recurrent_step,
    li_box_feed_forward_step,
    li_box_step,
    li_feed_forward_step,
    li_step,
    lif_adex_feed_forward_step,
    lif_adex_step,
    lif_box_feed_forward_step,
    lif_current_encoder,
    lif_ex_feed_forward_step,
    lif_ex_step,
    lif_feed_forward_step,
    lif_refrac_feed_forward_step,
    lif_refrac_step,
    lif_step,
    lsnn_feed_forward_step,
    lsnn_step,
    threshold,
)
from flexsn.neurons.peer_class import from_peer

__all__ = [
    "IAF",
    "LI",
    "LIF",
    "LSNN",
    "ConstantCurrentLIFEncoder",
    "IAFCell",
    "IAFFeedForwardState",
    "IAFParameters",
    "Izhikevich",
    "IzhikevichCell",
    "IzhikevichParameters",
    "IzhikevichRecurrent",
    "IzhikevichRecurrentCell",
    "IzhikevichRecurrentState",
    "IzhikevichSpikingBehavior",
    "IzhikevichState",
    "LIBoxCell",
    "LIBoxParameters",
    "LIBoxState",
    "LICell",
    "LIFAdEx",
    "LIFAdExCell",
    "LIFAdExFeedForwardState",
    "LIFAdExParameters",
    "LIFAdExRecurrent",
    "LIFAdExRecurrentCell",
    "LIFAdExState",
    "LIFBoxCell",
    "LIFBoxFeedForwardState",
    "LIFBoxParameters",
    "LIFCell",
    "LIFEx",
    "LIFExCell",
    "LIFExFeedForwardState",
    "LIFExParameters",
    "LIFExRecurrent",
    "LIFExRecurrentCell",
    "LIFExState",
    "LIFFeedForwardState",
    "LIFParameters",
    "LIFRecurrent",
    "LIFRecurrentCell",
    "LIFRefracCell",
    "LIFRefracFeedForwardState",
    "LIFRefracParameters",
    "LIFRefracRecurrent",
    "LIFRefracRecurrentCell",
    "LIFRefracState",
    "LIFState",
    "LILinearCell",
    "LIParameters",
    "LIState",
    "LSNNCell",
    "LSNNFeedForwardState",
    "LSNNParameters",
    "LSNNRecurrent",
    "LSNNRecurrentCell",
    "LSNNState",
    "Lift",
    "PoissonEncoder",
    "PopulationEncoder",
    "RecurrentSequential",
    "RecurrentSequentialState",
    "SequentialState",
    "SignedPoissonEncoder",
    "SpikeLatencyEncoder",
    "SpikeLatencyLIFEncoder",
    "behaviors",
    "constant_current_lif_encode",
    "create_izhikevich_spiking_behavior",
    "euclidean_distance",
    "gaussian_rbf",
    "iaf_feed_forward_step",
    "izhikevich_feed_forward_step",
    "izhikevich_recurrent_step",
    "li_box_feed_forward_step",
    "li_box_step",
    "li_feed_forward_step",
    "li_step",
    "lif_adex_feed_forward_step",
    "lif_adex_step",
    "lif_box_feed_forward_step",
    "lif_current_encoder",
    "lif_ex_feed_forward_step",
    "lif_ex_step",
    "lif_feed_forward_step",
    "lif_refrac_feed_forward_step",
    "lif_refrac_step",
    "lif_step",
    "lift",
    "lsnn_feed_forward_step",
    "lsnn_step",
    "poisson_encode",
    "poisson_encode_step",
    "population_encode",
    "reset_subtract",
    "reset_value",
    "signed_poisson_encode",
    "signed_poisson_encode_step",
    "spike_latency_encode",
    "spike_latency_lif_encode",
    "threshold",
]


def __getattr__(name: str) -> Any:
    """``norse.tonic_spiking`` and the other behaviors, by name."""
    return behaviors[name] if name in behaviors else from_peer(__name__, name)
