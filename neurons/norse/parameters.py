"""The named tuples of Norse: parameters and states, with its names, fields and defaults."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

__all__ = [
    "IAFFeedForwardState",
    "IAFParameters",
    "IzhikevichRecurrentState",
    "LIBoxParameters",
    "LIBoxState",
    "LIFAdExFeedForwardState",
    "LIFAdExParameters",
    "LIFAdExState",
    "LIFBoxFeedForwardState",
    "LIFBoxParameters",
    "LIFExFeedForwardState",
    "LIFExParameters",
    "LIFExState",
    "LIFFeedForwardState",
    "LIFParameters",
    "LIFRefracFeedForwardState",
    "LIFRefracParameters",
    "LIFRefracState",
    "LIFState",
    "LIParameters",
    "LIState",
    "LSNNFeedForwardState",
    "LSNNParameters",
    "LSNNState",
    "Value",
    "reset_subtract",
    "reset_value",
]

Value = float | Tensor


def reset_value(z: Tensor, v: Tensor, v_reset: Value, v_th: Value) -> Tensor:
    """To ``v_reset`` where it fired."""
    reset: Tensor = (1 - z) * v + z * v_reset
    return reset


def reset_subtract(z: Tensor, v: Tensor, v_reset: Value, v_th: Value) -> Tensor:
    """Down by ``v_th − v_reset`` where it fired."""
    reset: Tensor = v - z * (v_th - v_reset)
    return reset


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


class LIFState(NamedTuple):
    """Spike, membrane and synaptic current, where the spike comes back."""

    z: Tensor
    v: Tensor
    i: Tensor


class LIFBoxParameters(NamedTuple):
    """As for LIF, without a synaptic current; ``reset_method`` is :func:`reset_value` or :func:`reset_subtract`."""

    tau_mem_inv: Value = 1.0 / 1e-2
    v_leak: Value = 0.0
    v_th: Value = 1.0
    v_reset: Value = 0.0
    method: str = "super"
    alpha: Value = 100.0
    reset_method: Callable[..., Tensor] = reset_value


class LIFBoxFeedForwardState(NamedTuple):
    """The membrane."""

    v: Tensor


class LIFExParameters(NamedTuple):
    """As for LIF, with the sharpness of the exponential."""

    delta_T: Value = 0.5
    tau_syn_inv: Value = 1.0 / 5e-3
    tau_mem_inv: Value = 1.0 / 1e-2
    v_leak: Value = 0.0
    v_th: Value = 1.0
    v_reset: Value = 0.0
    method: str = "super"
    alpha: Value = 100.0


class LIFExFeedForwardState(NamedTuple):
    """Membrane and synaptic current."""

    v: Tensor
    i: Tensor


class LIFExState(NamedTuple):
    """Spike, membrane and synaptic current, where the spike comes back."""

    z: Tensor
    v: Tensor
    i: Tensor


class LIFRefracParameters(NamedTuple):
    """Those of the LIF, and how many steps a spike keeps it from firing."""

    lif: LIFParameters = LIFParameters()
    rho_reset: Value = 5.0


class LIFRefracFeedForwardState(NamedTuple):
    """The state of the LIF, and how many steps it still rests."""

    lif: LIFFeedForwardState
    rho: Tensor


class LIFRefracState(NamedTuple):
    """The state of the LIF that its spike comes back to, and how many steps it still rests."""

    lif: LIFState
    rho: Tensor


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


class LSNNState(NamedTuple):
    """Spike, membrane, synaptic current and adaptive threshold, where the spike comes back."""

    z: Tensor
    v: Tensor
    i: Tensor
    b: Tensor


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


class LIFAdExState(NamedTuple):
    """Spike, membrane, synaptic current and adaptation, where the spike comes back."""

    z: Tensor
    v: Tensor
    i: Tensor
    a: Tensor


class LIFAdExRefracParameters(NamedTuple):
    """Those of the LIFAdEx, and how many steps a spike keeps it from firing."""

    lif_adex: LIFAdExParameters = LIFAdExParameters()
    rho_reset: Value = 5.0


class LIFAdExRefracFeedForwardState(NamedTuple):
    """The state of the LIFAdEx, and how many steps it still rests."""

    lif_adex: LIFAdExFeedForwardState
    rho: Tensor


class LIFAdExRefracState(NamedTuple):
    """The state of the LIFAdEx that its spike comes back to, and how many steps it still rests."""

    lif_adex: LIFAdExState
    rho: Tensor


class LIParameters(NamedTuple):
    """Inverse time constants in 1/s, and the potential it decays to."""

    tau_syn_inv: Value = 1.0 / 5e-3
    tau_mem_inv: Value = 1.0 / 1e-2
    v_leak: Value = 0.0


class LIState(NamedTuple):
    """Membrane and synaptic current."""

    v: Tensor
    i: Tensor


class LIBoxParameters(NamedTuple):
    """Inverse time constant in 1/s, and the potential it decays to."""

    tau_mem_inv: Value = 1.0 / 1e-2
    v_leak: Value = 0.0


class LIBoxState(NamedTuple):
    """The membrane."""

    v: Tensor


class IAFParameters(NamedTuple):
    """Potentials in units of the threshold."""

    v_th: Value = 1.0
    v_reset: Value = 0.0
    method: str = "super"
    alpha: Value = 100.0


class IAFState(NamedTuple):
    """Spike and membrane, where the spike comes back."""

    z: Tensor
    v: Tensor


class IAFFeedForwardState(NamedTuple):
    """The membrane."""

    v: Tensor


class IzhikevichRecurrentState(NamedTuple):
    """Spike, membrane and recovery, where the spike comes back."""

    z: Tensor
    v: Tensor
    u: Tensor
