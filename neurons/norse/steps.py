"""Norse's steps as functions: ``(input, state, p, dt) -> (output, state)``, by the cores of its neurons."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nnf

from flexsn.neurons.norse.base import NorseNeuron, spike_function
from flexsn.neurons.norse.cells import LIFBoxCell, LIFRefracCell
from flexsn.neurons.norse.compartments import LIFMCRecurrentCell, LIFMCRefracRecurrentCell
from flexsn.neurons.norse.integrators import LI, LIBoxCell
from flexsn.neurons.norse.izhikevich import Izhikevich
from flexsn.neurons.norse.parameters import IAFFeedForwardState, IAFState, LIFParameters, Value
from flexsn.neurons.norse.recurrent import (
    IzhikevichRecurrent,
    LIFAdExRecurrent,
    LIFExRecurrent,
    LIFRecurrent,
    LIFRefracRecurrent,
    LSNNRecurrent,
    RecurrentNeuron,
)
from flexsn.neurons.norse.spiking import IAF, LIF, LSNN, LIFAdEx, LIFEx

__all__ = [
    "iaf_feed_forward_step",
    "iaf_step",
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
    "lif_mc_feed_forward_step",
    "lif_mc_refrac_feed_forward_step",
    "lif_mc_refrac_step",
    "lif_mc_step",
    "lif_refrac_feed_forward_step",
    "lif_refrac_step",
    "lif_step",
    "lsnn_feed_forward_step",
    "lsnn_step",
    "threshold",
]


def threshold(x: Tensor, method: str, alpha: Value) -> Tensor:
    """The spike of ``x`` with the surrogate gradient that ``method`` names."""
    return spike_function(method, alpha)(x)


def _owner(neuron: type[NorseNeuron], p: Any, dt: float) -> SimpleNamespace:
    """What a core of this neuron reads."""
    values = dict(neuron.values_of(neuron.parameter_type() if p is None else p))
    if "method" in values:
        values["spike"] = spike_function(values["method"], values["alpha"])
    return SimpleNamespace(dt=dt, single_precision=p is None, **values)


def _step_of(neuron: type[NorseNeuron], name: str) -> Callable[..., tuple[Tensor, Any]]:
    core: Callable[..., Any] = neuron.core

    def step(input_tensor: Tensor, state: Any = None, p: Any = None, dt: float = 0.001) -> tuple[Tensor, Any]:
        states = [0.0] * len(neuron.state_type._fields) if state is None else neuron.states_of(state)
        output, *new = core(_owner(neuron, p, dt), input_tensor, *states)
        return output, neuron.state_of(tuple(new))

    return _named(step, name, neuron)


def _named(step: Callable[..., Any], name: str, neuron: type[NorseNeuron]) -> Callable[..., Any]:
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


def _recurrent_step_of(neuron: type[RecurrentNeuron], name: str) -> Callable[..., tuple[Tensor, Any]]:
    def step(
        input_tensor: Tensor,
        state: Any,
        input_weights: Tensor,
        recurrent_weights: Tensor,
        p: Any = None,
        dt: float = 0.001,
    ) -> tuple[Tensor, Any]:
        owner = _owner(neuron, p, dt)
        owner.recurrence = partial(nnf.linear, weight=recurrent_weights)
        return _stepped(neuron, owner, nnf.linear(input_tensor, input_weights), state)

    return _named(step, name, neuron)


def _coupled_step_of(neuron: type[RecurrentNeuron], name: str) -> Callable[..., tuple[Tensor, Any]]:
    def step(
        input_tensor: Tensor,
        state: Any,
        input_weights: Tensor,
        recurrent_weights: Tensor,
        g_coupling: Tensor,
        p: Any = None,
        dt: float = 0.001,
    ) -> tuple[Tensor, Any]:
        owner = _owner(neuron, p, dt)
        owner.recurrence = partial(nnf.linear, weight=recurrent_weights)
        owner.coupling = partial(nnf.linear, weight=g_coupling)
        return _stepped(neuron, owner, nnf.linear(input_tensor, input_weights), state)

    return _named(step, name, neuron)


def _stepped(neuron: type[NorseNeuron], owner: SimpleNamespace, drive: Tensor, state: Any) -> tuple[Tensor, Any]:
    core: Callable[..., Any] = neuron.core
    output, *new = core(owner, drive, *neuron.states_of(state))
    return output, neuron.state_of(tuple(new))


lif_step = _recurrent_step_of(LIFRecurrent, "lif_step")
lif_ex_step = _recurrent_step_of(LIFExRecurrent, "lif_ex_step")
lif_adex_step = _recurrent_step_of(LIFAdExRecurrent, "lif_adex_step")
lif_refrac_step = _recurrent_step_of(LIFRefracRecurrent, "lif_refrac_step")
lsnn_step = _recurrent_step_of(LSNNRecurrent, "lsnn_step")
lif_mc_step = _coupled_step_of(LIFMCRecurrentCell, "lif_mc_step")
lif_mc_refrac_step = _coupled_step_of(LIFMCRefracRecurrentCell, "lif_mc_refrac_step")
izhikevich_recurrent_step = _recurrent_step_of(IzhikevichRecurrent, "izhikevich_recurrent_step")


def lif_mc_feed_forward_step(
    input_tensor: Tensor, state: Any, g_coupling: Tensor, p: Any = None, dt: float = 0.001
) -> tuple[Tensor, Any]:
    """One step of :class:`LIF` from a membrane that what other compartments add has charged."""
    v = state.v + dt * nnf.linear(state.v, g_coupling)
    return lif_feed_forward_step(input_tensor, state._replace(v=v), p, dt)


def lif_mc_refrac_feed_forward_step(
    input_tensor: Tensor, state: Any, g_coupling: Tensor, p: Any = None, dt: float = 0.001
) -> tuple[Tensor, Any]:
    """One step of :class:`LIFMCRefracRecurrentCell` without the way back."""
    owner = _owner(LIFMCRefracRecurrentCell, p, dt)
    owner.recurrence, owner.coupling = torch.zeros_like, partial(nnf.linear, weight=g_coupling)
    core: Callable[..., Any] = LIFMCRefracRecurrentCell.core
    z, _, *states = core(owner, input_tensor, state.lif.v, *LIFRefracCell.states_of(state))
    return z, LIFRefracCell.state_of(tuple(states))


def iaf_step(
    input_spikes: Tensor, state: Any, input_weights: Tensor, recurrent_weights: Tensor, p: Any = None, dt: float = 0.001
) -> tuple[Tensor, IAFState]:
    """One step of :class:`IAF` behind a linear layer, that its spikes come back to."""
    drive = nnf.linear(input_spikes, input_weights) + nnf.linear(state.z, recurrent_weights)
    z, (v,) = iaf_feed_forward_step(drive, IAFFeedForwardState(state.v), p, dt)
    return z, IAFState(z, v)


def lif_current_encoder(
    input_current: Tensor, voltage: Tensor, p: Any = None, dt: float = 0.001
) -> tuple[Tensor, Tensor]:
    """``(spike, membrane)`` after one step of a LIF without synaptic current."""
    p = LIFParameters() if p is None else p
    h = voltage + dt * p.tau_mem_inv * ((p.v_leak - voltage) + input_current)
    z = threshold(h - p.v_th, p.method, p.alpha)
    return z, h - z * (h - p.v_reset)
