"""Norse's steps as functions: ``(input, state, p, dt) -> (output, state)``, by the cores of its neurons."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from torch import Tensor
from torch.nn import functional as nnf

from flexsn.neurons.norse.base import NorseNeuron, spike_function
from flexsn.neurons.norse.cells import LIFBoxCell, LIFRefracCell
from flexsn.neurons.norse.integrators import LI, LIBoxCell
from flexsn.neurons.norse.izhikevich import Izhikevich
from flexsn.neurons.norse.parameters import LIFParameters, LIFState, Value
from flexsn.neurons.norse.spiking import IAF, LIF, LSNN, LIFAdEx, LIFEx

__all__ = [
    "iaf_feed_forward_step",
    "izhikevich_feed_forward_step",
    "li_box_feed_forward_step",
    "li_box_step",
    "li_feed_forward_step",
    "li_step",
    "lif_adex_feed_forward_step",
    "lif_box_feed_forward_step",
    "lif_current_encoder",
    "lif_ex_feed_forward_step",
    "lif_feed_forward_step",
    "lif_refrac_feed_forward_step",
    "lif_step",
    "lsnn_feed_forward_step",
    "threshold",
]


def threshold(x: Tensor, method: str, alpha: Value) -> Tensor:
    """The spike of ``x`` with the surrogate gradient that ``method`` names."""
    return spike_function(method, alpha)(x)


def _step_of(neuron: type[NorseNeuron], name: str) -> Callable[..., tuple[Tensor, Any]]:
    core: Callable[..., Any] = neuron.core

    def step(input_tensor: Tensor, state: Any = None, p: Any = None, dt: float = 0.001) -> tuple[Tensor, Any]:
        values = dict(neuron.values_of(neuron.parameter_type() if p is None else p))
        if "method" in values:
            values["spike"] = spike_function(values["method"], values["alpha"])
        states = [0.0] * len(neuron.state_type._fields) if state is None else neuron.states_of(state)
        output, *new = core(SimpleNamespace(dt=dt, **values), input_tensor, *states)
        return output, neuron.state_of(tuple(new))

    step.__name__ = step.__qualname__ = name
    step.__doc__ = f"One step of :class:`{neuron.__name__}`."
    return step


lif_feed_forward_step = _step_of(LIF, "lif_feed_forward_step")
lif_ex_feed_forward_step = _step_of(LIFEx, "lif_ex_feed_forward_step")
lif_adex_feed_forward_step = _step_of(LIFAdEx, "lif_adex_feed_forward_step")
lif_box_feed_forward_step = _step_of(LIFBoxCell, "lif_box_feed_forward_step")
lif_refrac_feed_forward_step = _step_of(LIFRefracCell, "lif_refrac_feed_forward_step")
lsnn_feed_forward_step = _step_of(LSNN, "lsnn_feed_forward_step")
iaf_feed_forward_step = _step_of(IAF, "iaf_feed_forward_step")
li_feed_forward_step = _step_of(LI, "li_feed_forward_step")
li_box_feed_forward_step = _step_of(LIBoxCell, "li_box_feed_forward_step")
izhikevich_feed_forward_step = _step_of(Izhikevich, "izhikevich_feed_forward_step")


def li_step(x: Tensor, state: Any, input_weights: Tensor, p: Any = None, dt: float = 0.001) -> tuple[Tensor, Any]:
    """One step of :class:`LI` behind a linear layer."""
    return li_feed_forward_step(nnf.linear(x, input_weights), state, p, dt)


def li_box_step(x: Tensor, state: Any, input_weights: Tensor, p: Any = None, dt: float = 0.001) -> tuple[Tensor, Any]:
    """One step of :class:`LIBoxCell` behind a linear layer."""
    return li_box_feed_forward_step(nnf.linear(x, input_weights), state, p, dt)


def lif_step(
    input_spikes: Tensor,
    state: LIFState,
    input_weights: Tensor,
    recurrent_weights: Tensor,
    p: Any = None,
    dt: float = 0.001,
) -> tuple[Tensor, LIFState]:
    """One step of a LIF that its own spikes come back to; the reset lets no gradient through."""
    p = LIFParameters() if p is None else p
    jump = state.i + nnf.linear(input_spikes, input_weights) + nnf.linear(state.z, recurrent_weights)
    h = state.v + dt * p.tau_mem_inv * ((p.v_leak - state.v) + jump)
    i = jump + -dt * p.tau_syn_inv * jump
    z = threshold(h - p.v_th, p.method, p.alpha)
    fired = z.detach()
    return z, LIFState(z, (1 - fired) * h + fired * p.v_reset, i)


def lif_current_encoder(
    input_current: Tensor, voltage: Tensor, p: Any = None, dt: float = 0.001
) -> tuple[Tensor, Tensor]:
    """``(spike, membrane)`` after one step of a LIF without synaptic current."""
    p = LIFParameters() if p is None else p
    h = voltage + dt * p.tau_mem_inv * ((p.v_leak - voltage) + input_current)
    z = threshold(h - p.v_th, p.method, p.alpha)
    return z, h - z * (h - p.v_reset)
