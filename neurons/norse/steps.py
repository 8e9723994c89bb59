"""Norse's steps as functions: ``(input, state, p, dt) -> (output, state)``, by the cores of its neurons."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

from torch import Tensor
from torch.nn import functional as nnf

from flexsn.neurons.norse.base import NorseNeuron, spike_function
from flexsn.neurons.norse.cells import LIFBoxCell, LIFRefracCell
from flexsn.neurons.norse.integrators import LI, LIBoxCell
from flexsn.neurons.norse.izhikevich import Izhikevich
from flexsn.neurons.norse.parameters import LIFParameters, Value
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
    core: Callable[..., Any] = neuron.core

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
        output, *new = core(owner, nnf.linear(input_tensor, input_weights), *neuron.states_of(state))
        return output, neuron.state_of(tuple(new))

    return _named(step, name, neuron)


lif_step = _recurrent_step_of(LIFRecurrent, "lif_step")
lif_ex_step = _recurrent_step_of(LIFExRecurrent, "lif_ex_step")
lif_adex_step = _recurrent_step_of(LIFAdExRecurrent, "lif_adex_step")
lif_refrac_step = _recurrent_step_of(LIFRefracRecurrent, "lif_refrac_step")
lsnn_step = _recurrent_step_of(LSNNRecurrent, "lsnn_step")
izhikevich_recurrent_step = _recurrent_step_of(IzhikevichRecurrent, "izhikevich_recurrent_step")


def lif_current_encoder(
    input_current: Tensor, voltage: Tensor, p: Any = None, dt: float = 0.001
) -> tuple[Tensor, Tensor]:
    """``(spike, membrane)`` after one step of a LIF without synaptic current."""
    p = LIFParameters() if p is None else p
    h = voltage + dt * p.tau_mem_inv * ((p.v_leak - voltage) + input_current)
    z = threshold(h - p.v_th, p.method, p.alpha)
    return z, h - z * (h - p.v_reset)
