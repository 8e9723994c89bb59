"""Norse's layers that spike: LIF, LIFEx, LIFAdEx, LSNN, IAF; a call takes a sequence."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from flexsn.neurons.norse.base import NorseNeuron, per_step
from flexsn.neurons.norse.parameters import (
    IAFFeedForwardState,
    IAFParameters,
    LIFAdExFeedForwardState,
    LIFAdExParameters,
    LIFExFeedForwardState,
    LIFExParameters,
    LIFFeedForwardState,
    LIFParameters,
    LSNNFeedForwardState,
    LSNNParameters,
)

__all__ = ["IAF", "LIF", "LSNN", "LIFAdEx", "LIFEx"]


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

    parameter_type: ClassVar[Any] = LIFParameters
    state_type: ClassVar[Any] = LIFFeedForwardState
    sparse_spikes = True
    starts = {"v": "v_leak"}  # noqa: RUF012

    def core(self, x: Tensor, v: Tensor, i: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        jump = i + x
        h = v + per_step(self, self.tau_mem_inv) * ((self.v_leak - v) + jump)
        i = jump + -per_step(self, self.tau_syn_inv) * jump
        s = self.spike(h - self.v_th)
        return s, (1 - s) * h + s * self.v_reset, i


class LIFEx(NorseNeuron):
    r"""Exponential integrate-and-fire with a synaptic current.

    .. math:: j = i + x, \quad h = v + \Delta t\, \tau_m^{-1}
        ((v_{leak} - v) + \Delta_T e^{(v - v_{th})/\Delta_T} + j), \quad s = \Theta(h - v_{th}),

    .. math:: v' = (1 - s) h + s\, v_{reset}, \quad i' = j - \Delta t\, \tau_s^{-1} j

    Args:
        p: the parameters.
        dt, record_states, options: as for :class:`~flexsn.neurons.norse.base.NorseNeuron`, with shapes,
            returned values and errors. States: ``v`` (from ``v_leak``), ``i``.

    Example:
        >>> spikes, state = LIFEx()(torch.full((4, 1), 4.0))
        >>> spikes.flatten().tolist()
        [0.0, 1.0, 0.0, 1.0]
    """

    parameter_type = LIFExParameters
    state_type = LIFExFeedForwardState
    starts = {"v": "v_leak"}  # noqa: RUF012

    def core(self, x: Tensor, v: Tensor, i: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        jump = i + x
        leak = self.v_leak - v
        rise = self.delta_T * torch.exp((v - self.v_th) / self.delta_T)
        h = v + per_step(self, self.tau_mem_inv) * (leak + rise + jump)
        i = jump + -per_step(self, self.tau_syn_inv) * jump
        s = self.spike(h - self.v_th)
        return s, (1 - s) * h + s * self.v_reset, i


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
        h = v + per_step(self, self.tau_mem_inv) * (leak + rise + jump - a)
        i = jump + -per_step(self, self.tau_syn_inv) * jump
        a = a + per_step(self, self.tau_ada_inv) * (self.adaptation_current * (v - self.v_leak) - a)
        s = self.spike(h - self.v_th)
        return s, (1 - s) * h + s * self.v_reset, i, a + s * self.adaptation_spike


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
        threshold: Tensor = b + per_step(self, self.tau_adapt_inv) * (self.v_th - b)
        return threshold

    def core(self, x: Tensor, v: Tensor, i: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        c = LSNN.firing_threshold(self, v, i, b)
        h = v + per_step(self, self.tau_mem_inv) * ((self.v_leak - v) + i)
        i = i + -per_step(self, self.tau_syn_inv) * i
        s = self.spike(h - c)
        return s, (1 - s) * h + s * self.v_reset, i + x, c + s * self.beta


class IAF(NorseNeuron):
    r"""Integrate-and-fire without leak or synaptic current.

    .. math:: h = v + x, \quad s = \Theta(h - v_{th}), \quad v' = (1 - s) h + s\, v_{reset}

    Args:
        p: the parameters.
        dt: not used.
        options: as for :class:`~flexsn.neurons.norse.base.NorseNeuron`. State: ``v`` (from ``v_reset``).

    Example:
        >>> IAF()(torch.full((4, 1), 0.75))[0].flatten().tolist()
        [0.0, 1.0, 0.0, 1.0]
    """

    parameter_type = IAFParameters
    state_type = IAFFeedForwardState
    starts = {"v": "v_reset"}  # noqa: RUF012

    def core(self, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        h = v + x
        s = self.spike(h - self.v_th)
        return s, (1 - s) * h + s * self.v_reset
