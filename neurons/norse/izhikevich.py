"""Norse's Izhikevich neuron and the firing patterns it comes with; see :mod:`flexsn.neurons.norse`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flexsn import FlexSN
from flexsn.neurons.arguments import wrong
from flexsn.neurons.norse.base import NorseNeuron
from flexsn.neurons.norse.parameters import Value

__all__ = [
    "Izhikevich",
    "IzhikevichParameters",
    "IzhikevichSpikingBehavior",
    "IzhikevichState",
    "behaviors",
    "create_izhikevich_spiking_behavior",
]


class IzhikevichParameters(NamedTuple):
    """Of Izhikevich's equations in mV and ms; ``tau_inv`` steps of them (ms) make a second."""

    a: Value
    b: Value
    c: Value
    d: Value
    sq: Value = 0.04
    mn: Value = 5
    bias: Value = 140
    v_th: Value = 30
    tau_inv: Value = 250
    method: str = "super"
    alpha: Value = 100.0


class IzhikevichState(NamedTuple):
    """Membrane and its recovery."""

    v: Tensor
    u: Tensor


class IzhikevichSpikingBehavior(NamedTuple):
    """Parameters and the state to start from."""

    p: IzhikevichParameters
    s: IzhikevichState


def create_izhikevich_spiking_behavior(
    a: float, b: float, c: float, d: float, v_rest: float, u_rest: float, tau_inv: float = 250
) -> IzhikevichSpikingBehavior:
    """A behavior that starts from ``v = v_rest``, ``u = b·u_rest``; arguments as in Norse."""
    return _behavior(IzhikevichParameters(a, b, c, d, tau_inv=tau_inv), v_rest, u_rest)


def _behavior(p: IzhikevichParameters, v: float, u: float) -> IzhikevichSpikingBehavior:
    # in single precision, as Norse does it
    return IzhikevichSpikingBehavior(p, IzhikevichState(torch.tensor(float(v)), torch.tensor(u) * p.b))


class Izhikevich(NorseNeuron):
    r"""Izhikevich's two-variable neuron.

    .. math:: h = v + \tau^{-1} \Delta t\, (sq\, v^2 + mn\, v + bias - u + x), \quad
        g = u + \tau^{-1} \Delta t\, a (b\, v - u), \quad s = \Theta(h - v_{th}),

    .. math:: v' = (1 - s) h + s\, c, \quad u' = (1 - s) g + s (g + d)

    Source: Izhikevich, "Simple model of spiking neurons", IEEE Trans. Neural Networks 2003.

    Args:
        spiking_method: parameters and first state: one of ``behaviors``, also found by name in
            :mod:`flexsn.neurons.norse`, or what :func:`create_izhikevich_spiking_behavior` makes.
        dt, record_states, options: as for :class:`~flexsn.neurons.norse.base.NorseNeuron`, with shapes,
            returned values and errors. States: ``v``, ``u``.

    Example:
        >>> neuron = Izhikevich(behaviors["tonic_spiking"])
        >>> spikes, state = neuron(torch.full((250, 1), 14.0))
        >>> int(spikes.sum())
        4
    """

    parameter_type = IzhikevichParameters
    state_type = IzhikevichState
    exact_numbers = True

    def __init__(self, spiking_method: IzhikevichSpikingBehavior, dt: float = 0.001, **options: Any) -> None:
        if not (hasattr(spiking_method, "p") and hasattr(spiking_method, "s")):
            rule = "spiking_method must be an IzhikevichSpikingBehavior, such as behaviors['tonic_spiking']"
            raise wrong(self, rule, spiking_method=spiking_method)
        super().__init__(spiking_method.p, dt, **options)
        self.spiking_method = spiking_method

    def init_states(  # type: ignore[override]
        self, num_states: int, step_mode: str, *args: Tensor
    ) -> Sequence[Tensor]:
        """The first state of the behavior; the membrane with a gradient."""
        zero = FlexSN.init_states(1, step_mode, *args)[0]
        first = dict(zip("vu", self.spiking_method.s, strict=True))
        states = [torch.as_tensor(first.get(name, 0.0)).detach().to(zero).expand_as(zero) for name in self.state_names]
        return self._with_gradient(states)

    def core(self, x: Tensor, v: Tensor, u: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        rate = self.tau_inv * self.dt
        h = v + rate * (self.sq * v**2 + self.mn * v + self.bias - u + x)
        u = u + rate * self.a * (self.b * v - u)
        s = self.spike(h - self.v_th)
        return s, (1 - s) * h + s * self.c, (1 - s) * u + s * (u + self.d)


_LINEAR = {"mn": 4.1, "bias": 108}  # the class 1 and integrator variants of the quadratic
_PATTERNS: Mapping[str, tuple[tuple[float, ...], Mapping[str, float], float]] = {
    # name: (a, b, c, d), other parameters, v0 = u0 / b
    "tonic_spiking": ((0.02, 0.2, -65, 6), {}, -70),
    "phasic_spiking": ((0.02, 0.25, -65, 6), {}, -64),
    "tonic_bursting": ((0.02, 0.2, -50, 2), {}, -70),
    "phasic_bursting": ((0.02, 0.25, -55, 0.05), {"tau_inv": 200}, -64),
    "mixed_mode": ((0.02, 0.2, -55, 4), {}, -70),
    "spike_frequency_adaptation": ((0.01, 0.2, -65, 8), {}, -70),
    "class_1_exc": ((0.02, -0.1, -55, 6), _LINEAR, -60),
    "class_2_exc": ((0.2, 0.26, -65, 0), {}, -64),
    "spike_latency": ((0.02, 0.2, -65, 6), {}, -70),
    "subthreshold_oscillation": ((0.05, 0.26, -60, 0), {}, -62),
    "resonator": ((0.1, 0.26, -60, -1), {}, -62),
    "integrator": ((0.02, -0.1, -55, 6), _LINEAR, -60),
    "rebound_spike": ((0.03, 0.25, -60, 4), {"tau_inv": 200}, -64),
    "rebound_burst": ((0.03, 0.25, -52, 0), {"tau_inv": 200}, -64),
    "threshold_variability": ((0.03, 0.25, -60, 4), {}, -64),
    "bistability": ((0.1, 0.26, -60, 0), {}, -61),
    "dap": ((1.0, 0.2, -60, -21), {"tau_inv": 100}, -70),
    "accomodation": ((0.02, 1.0, -55, 4), {"tau_inv": 500}, -65),
    "inhibition_induced_spiking": ((-0.02, -1.0, -60, 8), {}, -63.8),
    "inhibition_induced_bursting": ((-0.026, -1.0, -45, -2), {}, -63.8),
}
behaviors: dict[str, IzhikevichSpikingBehavior] = {
    name: _behavior(IzhikevichParameters(*abcd, **others), v, -16 if name == "accomodation" else v)  # type: ignore[arg-type]
    for name, (abcd, others, v) in _PATTERNS.items()
}
