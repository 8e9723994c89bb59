"""Integrate-and-fire neurons with a nonlinear charge: QIF, EIF, KLIF."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from flexsn.neurons.arguments import (
    FiringOptions,
    Number,
    SpikingOptions,
    check_flag,
    check_shape,
    with_arguments_of,
)
from flexsn.neurons.base import SpikingNeuron, hard_reset, soft_reset
from flexsn.neurons.coefficient import Coefficient
from flexsn.neurons.integrate import leaky_charge

__all__ = ["EIF", "KLIF", "QIF", "exponential_drive", "quadratic_drive"]


def quadratic_drive(v: Tensor, a0: Number, v_rest: Number, v_c: Number) -> Tensor:
    """``a0 (v − v_rest)(v − v_c)``: pulls to rest below ``v_c``, drives up above."""
    drive: Tensor = a0 * (v - v_rest) * (v - v_c)
    return drive


def exponential_drive(v: Tensor, delta_T: Number, theta_rh: Number) -> Tensor:
    """``delta_T exp((v − theta_rh)/delta_T)``: the upswing of a spike, sharp for small ``delta_T``."""
    drive: Tensor = delta_T * ((v - theta_rh) / delta_T).exp()
    return drive


class QIF(SpikingNeuron):
    """Quadratic integrate-and-fire; fires at ``h ≥ v_threshold``.

    ``h = v + (x + a0 (v − v_rest)(v − v_c))/tau``.
    Source: Gerstner et al., "Neuronal Dynamics", section 5.3; arguments of SpikingJelly's ``QIFNode``.

    Args:
        tau: membrane time constant, in steps; > 1.
        v_c: critical membrane, above which it runs away to a spike.
        a0: strength of the quadratic term; > 0.
        v_threshold: membrane at which it fires; > ``v_reset``.
        v_rest: resting membrane; >= ``v_reset``.
        v_reset, surrogate_function, detach_reset: as for :class:`SpikingNeuron`.
        step_mode, backend, store_v_seq, learnable, shape: as for :class:`Neuron`.
            ``learnable`` may name any of the numbers.

    Shapes:
        input and spikes ``[T, *step]`` (``step_mode="m"``) or ``[*step]`` (``"s"``). State: ``v``,
        ``[*step]``.

    Example:
        >>> import torch
        >>> QIF(step_mode="m")(torch.full((6,), 1.0)).tolist()
        [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    """

    tau = Coefficient(above=1)
    v_c = Coefficient()
    a0 = Coefficient(above=0)
    v_rest = Coefficient()

    @with_arguments_of(SpikingNeuron)
    def __init__(
        self,
        tau: Number = 2.0,
        v_c: Number = 0.8,
        a0: Number = 1.0,
        v_threshold: Number = 1.0,
        v_rest: Number = 0.0,
        v_reset: Number | None = -0.1,
        *common: Any,
        **options: Unpack[FiringOptions],
    ) -> None:
        super().__init__(v_threshold, v_reset, tau=tau, v_c=v_c, a0=a0, v_rest=v_rest, **options)
        self._check_order("v_rest", ">=", "v_reset")

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        h: Tensor = v + (x + quadratic_drive(v, self.a0, self.v_rest, self.v_c)) / self.tau
        return h


class EIF(SpikingNeuron):
    """Exponential integrate-and-fire; fires at ``h ≥ v_threshold``.

    ``h = v + (x + v_rest − v + delta_T·exp((v − theta_rh)/delta_T))/tau``. The exponential may overflow to
    inf for a small ``delta_T`` and a membrane far above ``theta_rh`` (soft reset), as the equation says.
    Source: Fourcaud-Trocmé et al., Journal of Neuroscience 2003; arguments of SpikingJelly's ``EIFNode``.

    Args:
        tau: membrane time constant, in steps; > 1.
        delta_T: sharpness of the upswing, in units of the membrane; > 0.
        theta_rh: rheobase threshold, where the upswing sets in.
        v_threshold: membrane at which it fires; > ``v_reset``.
        v_rest: resting membrane; >= ``v_reset``.
        v_reset, surrogate_function, detach_reset: as for :class:`SpikingNeuron`.
        step_mode, backend, store_v_seq, learnable, shape: as for :class:`Neuron`.
            ``learnable`` may name any of the numbers.

    Shapes:
        input and spikes ``[T, *step]`` (``step_mode="m"``) or ``[*step]`` (``"s"``). State: ``v``,
        ``[*step]``.

    Example:
        >>> import torch
        >>> EIF(step_mode="m")(torch.full((6,), 0.5)).tolist()
        [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    """

    tau = Coefficient(above=1)
    delta_T = Coefficient(above=0)
    theta_rh = Coefficient()
    v_rest = Coefficient()

    @with_arguments_of(SpikingNeuron)
    def __init__(
        self,
        tau: Number = 2.0,
        delta_T: Number = 1.0,
        theta_rh: Number = 0.8,
        v_threshold: Number = 1.0,
        v_rest: Number = 0.0,
        v_reset: Number | None = -0.1,
        *common: Any,
        **options: Unpack[FiringOptions],
    ) -> None:
        super().__init__(v_threshold, v_reset, tau=tau, delta_T=delta_T, theta_rh=theta_rh, v_rest=v_rest, **options)
        self._check_order("v_rest", ">=", "v_reset")

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        h: Tensor = v + (x + self.v_rest - v + exponential_drive(v, self.delta_T, self.theta_rh)) / self.tau
        return h


class KLIF(SpikingNeuron):
    """LIF with a learned, rectified gain; fires at ``h ≥ v_threshold``.

    ``h = relu(k·charge)`` with the charge of ``LIF``.
    With ``scale_reset`` the membrane is scaled back at the reset: hard ``v' = s·v_reset + (1 − s)·h/k``, soft
    ``v' = h/k − s·v_threshold/k``. Source: Jiang and Zhang, "KLIF: An optimized spiking neuron unit for
    tuning surrogate gradient slope and membrane potential", 2023; arguments of SpikingJelly's ``KLIFNode``.

    Args:
        scale_reset: whether the reset divides by ``k``.
        tau: membrane time constant, in steps; > 1.
        decay_input: whether the input is divided by ``tau`` too.
        v_threshold, v_reset, surrogate_function, detach_reset: as for :class:`SpikingNeuron`.
        step_mode, backend, store_v_seq, learnable: as for :class:`Neuron`.
            ``learnable`` may also name ``tau``.
        shape: shape of ``k`` and of what ``learnable`` names.

    Parameters:
        ``k``, the gain, starts at 1.

    Shapes:
        input and spikes ``[T, *step]`` (``step_mode="m"``) or ``[*step]`` (``"s"``). State: ``v``,
        ``[*step]``.

    Example:
        >>> import torch
        >>> klif = KLIF(step_mode="m", store_v_seq=True)
        >>> klif(torch.tensor([1.5, -4.0, 1.5])).tolist(), klif.v_seq.tolist()
        ([0.0, 0.0, 0.0], [0.75, 0.0, 0.75])
    """

    tau = Coefficient(above=1)

    @with_arguments_of(SpikingNeuron)
    def __init__(
        self,
        scale_reset: bool = False,
        tau: Number = 2.0,
        decay_input: bool = True,
        *common: Any,
        **options: Unpack[SpikingOptions],
    ) -> None:
        shape = options.get("shape", ())
        options["shape"] = shape if options.get("learnable") else ()
        super().__init__(tau=tau, **options)
        check_flag(self, scale_reset=scale_reset, decay_input=decay_input)
        self.scale_reset = scale_reset
        self.decay_input = decay_input
        self.k = nn.Parameter(torch.ones(check_shape(self, shape=shape)))

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        return (self.k * leaky_charge(x, v, self.tau, self.decay_input, self.v_reset)).relu()

    def discharge(self, h: Tensor, s: Tensor) -> Tensor:
        if not self.scale_reset:
            return super().discharge(h, s)
        if self.detach_reset:
            s = s.detach()
        if self.v_reset is None:
            return soft_reset(h / self.k, s, self.v_threshold / self.k)
        return hard_reset(h / self.k, s, self.v_reset)

    def _options(self) -> dict[str, Any]:
        own = {"k": self.k, "scale_reset": self.scale_reset, "decay_input": self.decay_input}
        return {**own, **super()._options()}
