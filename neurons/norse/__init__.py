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

from typing import Any, NamedTuple

import torch
from torch import Tensor

from flexsn.neurons.norse.base import NorseNeuron, Value
from flexsn.neurons.norse.izhikevich import (
    Izhikevich,
    IzhikevichParameters,
    IzhikevichSpikingBehavior,
    IzhikevichState,
    behaviors,
    create_izhikevich_spiking_behavior,
)
from flexsn.neurons.peer_class import from_peer

__all__ = [
    "LIF",
    "LSNN",
    "Izhikevich",
    "IzhikevichParameters",
    "IzhikevichSpikingBehavior",
    "IzhikevichState",
    "LIFAdEx",
    "LIFAdExFeedForwardState",
    "LIFAdExParameters",
    "LIFFeedForwardState",
    "LIFParameters",
    "LSNNFeedForwardState",
    "LSNNParameters",
    "behaviors",
    "create_izhikevich_spiking_behavior",
]


class LIFParameters(NamedTuple):
    """Inverse time constants in 1/s, potentials in units of the threshold."""

    tau_syn_inv: Value = 1.0 / 5e-3
    tau_mem_inv: Value = 1.0 / 1e-2
    v_leak: Value = 0.0
    v_th: Value = 1.0
    v_reset: Value = 0.0
    method: str = "super"
    alpha: Value = 100.0


class LIFFeedForwardState(NamedTuple):
    """Membrane and synaptic current."""

    v: Tensor
    i: Tensor


class LIF(NorseNeuron):
    r"""Leaky integrate-and-fire with a synaptic current.

    .. math:: j = i + x, \quad h = v + \Delta t\, \tau_m^{-1} ((v_{leak} - v) + j), \quad
        i' = j - \Delta t\, \tau_s^{-1} j, \quad s = \Theta(h - v_{th}), \quad v' = (1 - s) h + s\, v_{reset}

    Args:
        p: the parameters.
        dt, record_states, options: as for :class:`~flexsn.neurons.norse.base.NorseNeuron`, with shapes,
            returned values and errors. States: ``v`` (from ``v_leak``), ``i``.

    Example:
        >>> lif = LIF()
        >>> spikes, state = lif(torch.full((6, 1), 4.0))
        >>> spikes.flatten().tolist()
        [0.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    """

    parameter_type = LIFParameters
    state_type = LIFFeedForwardState
    starts = {"v": "v_leak"}  # noqa: RUF012

    def core(self, x: Tensor, v: Tensor, i: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        jump = i + x
        h = v + self.dt * self.tau_mem_inv * ((self.v_leak - v) + jump)
        i = jump + -self.dt * self.tau_syn_inv * jump
        s = self.spike(h - self.v_th)
        return s, (1 - s) * h + s * self.v_reset, i


class LSNNParameters(NamedTuple):
    """As for LIF, with the rate and the jump of the threshold."""

    tau_syn_inv: Value = 1.0 / 5e-3
    tau_mem_inv: Value = 1.0 / 1e-2
    tau_adapt_inv: Value = 1.0 / 800
    v_leak: Value = 0.0
    v_th: Value = 1.0
    v_reset: Value = 0.0
    beta: Value = 1.8
    method: str = "super"
    alpha: Value = 100.0


class LSNNFeedForwardState(NamedTuple):
    """Membrane, synaptic current and adaptive threshold."""

    v: Tensor
    i: Tensor
    b: Tensor


class LSNN(NorseNeuron):
    r"""Leaky integrate-and-fire whose threshold ``b`` jumps with every spike and relaxes to ``v_th``.

    .. math:: h = v + \Delta t\, \tau_m^{-1} ((v_{leak} - v) + i), \quad
        c = b + \Delta t\, \tau_b^{-1} (v_{th} - b), \quad s = \Theta(h - c),

    .. math:: v' = (1 - s) h + s\, v_{reset}, \quad b' = c + \beta s, \quad
        i' = i - \Delta t\, \tau_s^{-1} i + x

    This is what Norse computes; the equations of its documentation have the sign of ``b`` the other way and
    let it decay to 0. The input acts one step later than in :class:`LIF`. After Bellec et al., "Long short-term
    memory and learning-to-learn in networks of spiking neurons", NeurIPS 2018.

    Args:
        p: the parameters.
        dt, record_states, options: as for :class:`~flexsn.neurons.norse.base.NorseNeuron`, with shapes,
            returned values and errors. States: ``v`` (from ``v_leak``), ``i``, ``b`` (from ``v_th``).

    Example:
        >>> spikes, state = LSNN()(torch.full((5, 1), 4.0))
        >>> spikes.flatten().tolist(), round(state.b.item(), 3)
        ([0.0, 0.0, 1.0, 0.0, 0.0], 2.8)
    """

    parameter_type = LSNNParameters
    state_type = LSNNFeedForwardState
    starts = {"v": "v_leak", "b": "v_th"}  # noqa: RUF012

    def firing_threshold(self, v: Tensor, i: Tensor, b: Tensor) -> Tensor:
        """``c``, the threshold of a step from these states."""
        threshold: Tensor = b + self.dt * self.tau_adapt_inv * (self.v_th - b)
        return threshold

    def core(self, x: Tensor, v: Tensor, i: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        c = self.firing_threshold(v, i, b)
        h = v + self.dt * self.tau_mem_inv * ((self.v_leak - v) + i)
        i = i + -self.dt * self.tau_syn_inv * i
        s = self.spike(h - c)
        return s, (1 - s) * h + s * self.v_reset, i + x, c + s * self.beta


class LIFAdExParameters(NamedTuple):
    """As for LIF, with the coupling, jump and rate of the adaptation and the sharpness of the exponential."""

    adaptation_current: Value = 4
    adaptation_spike: Value = 0.02
    delta_T: Value = 0.5
    tau_ada_inv: Value = 2.0
    tau_syn_inv: Value = 1.0 / 5e-3
    tau_mem_inv: Value = 1.0 / 1e-2
    v_leak: Value = 0.0
    v_th: Value = 1.0
    v_reset: Value = 0.0
    method: str = "super"
    alpha: Value = 100.0


class LIFAdExFeedForwardState(NamedTuple):
    """Membrane, synaptic current and adaptation."""

    v: Tensor
    i: Tensor
    a: Tensor


class LIFAdEx(NorseNeuron):
    r"""Adaptive exponential integrate-and-fire with a synaptic current.

    .. math:: j = i + x, \quad h = v + \Delta t\, \tau_m^{-1}
        ((v_{leak} - v) + \Delta_T e^{(v - v_{th})/\Delta_T} + j - a), \quad s = \Theta(h - v_{th}),

    .. math:: v' = (1 - s) h + s\, v_{reset}, \quad i' = j - \Delta t\, \tau_s^{-1} j, \quad
        a' = a + \Delta t\, \tau_a^{-1} (a_{current} (v - v_{leak}) - a) + a_{spike} s

    After Brette & Gerstner, "Adaptive exponential integrate-and-fire model as an effective description of
    neuronal activity", J. Neurophysiol. 2005.

    Args:
        p: the parameters.
        dt, record_states, options: as for :class:`~flexsn.neurons.norse.base.NorseNeuron`, with shapes,
            returned values and errors. States: ``v`` (from ``v_leak``), ``i``, ``a``.

    Example:
        >>> spikes, state = LIFAdEx()(torch.full((4, 1), 4.0))
        >>> spikes.flatten().tolist()
        [0.0, 1.0, 0.0, 1.0]
    """

    parameter_type = LIFAdExParameters
    state_type = LIFAdExFeedForwardState
    starts = {"v": "v_leak"}  # noqa: RUF012

    def core(self, x: Tensor, v: Tensor, i: Tensor, a: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        jump = i + x
        leak = self.v_leak - v
        rise = self.delta_T * torch.exp((v - self.v_th) / self.delta_T)
        h = v + self.dt * self.tau_mem_inv * (leak + rise + jump - a)
        i = jump + -self.dt * self.tau_syn_inv * jump
        a = a + self.dt * self.tau_ada_inv * (self.adaptation_current * (v - self.v_leak) - a)
        s = self.spike(h - self.v_th)
        return s, (1 - s) * h + s * self.v_reset, i, a + s * self.adaptation_spike


def __getattr__(name: str) -> Any:
    """``norse.tonic_spiking`` and the other behaviors, by name."""
    return behaviors[name] if name in behaviors else from_peer(__name__, name)
