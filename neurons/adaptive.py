"""Neurons with an adaptation current: Izhikevich, AdEx, AdLIF."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import Unpack

from flexsn.neurons.arguments import FiringOptions, Number, SpikingOptions, with_arguments_of, wrong
from flexsn.neurons.base import SpikingNeuron, hard_reset, is_zero
from flexsn.neurons.coefficient import Coefficient
from flexsn.neurons.nonlinear import exponential_drive, quadratic_drive

__all__ = ["AdEx", "AdLIF", "AdaptiveNeuron", "Izhikevich"]


class AdaptiveNeuron(SpikingNeuron):
    """A spiking neuron with an adaptation current ``w`` that follows the membrane and jumps with each spike.

    ``h = charge(x, v, w)``; ``w₁ = w + (a (h − v_rest) − w)/tau_w``; ``s = fire(h)``; ``w' = w₁ + b·s``.
    The reset is hard ``v' = s·v_reset + (1 − s_d)·h`` or soft ``v' = h − s_d·v_threshold``, with
    ``s_d = s.detach()`` if ``detach_reset``: the jump to ``v_reset`` itself keeps its gradient.

    Args:
        v_rest: membrane at which the adaptation has its equilibrium.
        w_rest: adaptation current before the first step.
        tau_w: time constant of the adaptation, in steps; > 0.
        a: coupling of the membrane into ``w``.
        b: jump of ``w`` with each spike.

    States:
        ``v`` from ``v_reset``, ``w`` from ``w_rest``.
    """

    v_rest = Coefficient()
    w_rest = Coefficient()
    tau_w = Coefficient(above=0)
    a = Coefficient()
    b = Coefficient()
    starts: ClassVar[Mapping[str, float | str]] = {"v": "v_reset", "w": "w_rest"}

    def charge(self, x: Tensor, v: Tensor, w: Tensor) -> Tensor:  # type: ignore[override]
        """The membrane after the input, before the spike."""
        raise NotImplementedError(f"{type(self).__name__} must define charge(self, x, v, w)")

    def adapt(self, h: Tensor, w: Tensor) -> Tensor:
        """The adaptation current after the charge, before the spike."""
        new: Tensor = w + (self.a * (h - self.v_rest) - w) / self.tau_w
        return new

    def discharge(self, h: Tensor, s: Tensor) -> Tensor:
        if self.v_reset is None or not self.detach_reset:
            return super().discharge(h, s)
        kept = hard_reset(h, s.detach(), 0.0)
        return kept if is_zero(self.v_reset) else s * self.v_reset + kept

    def core(self, x: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        h = self.charge(x, v, w)
        w = self.adapt(h, w)
        s = self.fire(h)
        return s, self.discharge(h, s), w + self.b * s


class Izhikevich(AdaptiveNeuron):
    """Quadratic integrate-and-fire with an adaptation current; fires at ``h ≥ v_threshold``.

    ``h = v + (x + a0 (v − v_rest)(v − v_c) − w)/tau``; ``w`` and the reset as in :class:`AdaptiveNeuron`.
    Source: Izhikevich, IEEE TNN 2003; arguments of SpikingJelly's ``IzhikevichNode``.

    Args:
        tau: membrane time constant, in steps; > 1.
        v_c: critical membrane, above which it runs away to a spike.
        a0: strength of the quadratic term; > 0.
        v_rest, w_rest, tau_w, a, b: as for :class:`AdaptiveNeuron`.
        v_threshold, v_reset, surrogate_function, detach_reset: as for :class:`SpikingNeuron`.
        step_mode, backend, store_v_seq, learnable, shape: as for :class:`Neuron`.
            ``learnable`` may name any of the numbers.

    Shapes:
        input and spikes ``[T, *step]`` (``step_mode="m"``) or ``[*step]`` (``"s"``).
        States: ``v``, ``w``, ``[*step]``.

    Example:
        >>> import torch
        >>> Izhikevich(a=0.1, b=1.0, tau_w=4.0, step_mode="m")(torch.full((8,), 1.5)).tolist()
        [0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    """

    tau = Coefficient(above=1)
    v_c = Coefficient()
    a0 = Coefficient(above=0)

    @with_arguments_of(SpikingNeuron)
    def __init__(
        self,
        tau: Number = 2.0,
        v_c: Number = 0.8,
        a0: Number = 1.0,
        v_threshold: Number = 1.0,
        v_reset: Number | None = 0.0,
        v_rest: Number = -0.1,
        w_rest: Number = 0.0,
        tau_w: Number = 2.0,
        a: Number = 0.0,
        b: Number = 0.0,
        *common: Any,
        **options: Unpack[FiringOptions],
    ) -> None:
        adaptation: dict[str, Any] = {"v_rest": v_rest, "w_rest": w_rest, "tau_w": tau_w, "a": a, "b": b}
        super().__init__(v_threshold, v_reset, tau=tau, v_c=v_c, a0=a0, **adaptation, **options)

    def charge(self, x: Tensor, v: Tensor, w: Tensor) -> Tensor:  # type: ignore[override]
        h: Tensor = v + (x + quadratic_drive(v, self.a0, self.v_rest, self.v_c) - w) / self.tau
        return h


class AdEx(AdaptiveNeuron):
    """Adaptive exponential integrate-and-fire; fires at ``h ≥ v_threshold``.

    ``h = v + (x + v_rest − v + delta_T·exp((v − theta_rh)/delta_T) − w)/tau``; ``w`` (from 0) and the
    reset as in :class:`AdaptiveNeuron`. Source: Brette and Gerstner, Journal of Neurophysiology 2005.

    Args:
        tau: membrane time constant, in steps; > 1.
        delta_T: sharpness of the upswing, in units of the membrane; > 0.
        theta_rh: rheobase threshold, where the upswing sets in.
        v_rest, tau_w, a, b: as for :class:`AdaptiveNeuron`; ``v_rest`` >= ``v_reset``.
        v_threshold, v_reset, surrogate_function, detach_reset: as for :class:`SpikingNeuron`.
        step_mode, backend, store_v_seq, learnable, shape: as for :class:`Neuron`.
            ``learnable`` may name any of the numbers.

    Shapes:
        input and spikes ``[T, *step]`` (``step_mode="m"``) or ``[*step]`` (``"s"``).
        States: ``v``, ``w``, ``[*step]``.

    Example:
        >>> import torch
        >>> AdEx(a=0.1, b=0.5, tau_w=4.0, step_mode="m")(torch.full((8,), 1.0)).tolist()
        [0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    """

    tau = Coefficient(above=1)
    delta_T = Coefficient(above=0)
    theta_rh = Coefficient()

    @with_arguments_of(SpikingNeuron)
    def __init__(
        self,
        tau: Number = 2.0,
        delta_T: Number = 1.0,
        theta_rh: Number = 0.8,
        v_rest: Number = 0.0,
        tau_w: Number = 2.0,
        a: Number = 0.0,
        b: Number = 0.0,
        *common: Any,
        **options: Unpack[SpikingOptions],
    ) -> None:
        adaptation: dict[str, Any] = {"v_rest": v_rest, "w_rest": 0.0, "tau_w": tau_w, "a": a, "b": b}
        super().__init__(tau=tau, delta_T=delta_T, theta_rh=theta_rh, **adaptation, **options)
        self._check_order("v_rest", ">=", "v_reset")

    def charge(self, x: Tensor, v: Tensor, w: Tensor) -> Tensor:  # type: ignore[override]
        drive = exponential_drive(v, self.delta_T, self.theta_rh)
        h: Tensor = v + (x + self.v_rest - v + drive - w) / self.tau
        return h


class AdLIF(SpikingNeuron):
    """LIF with an adaptation current ``w`` that follows the membrane and the spikes; fires at ``h ≥ v_threshold``.

    ``h = alpha·v + (1 − alpha)(x − w)``; ``w' = beta·w + (1 − beta)(a·v' + b·s)`` (``"symplectic"``) or
    ``w' = beta·w + a·h + b·s`` (``"euler"``).
    Source: symplectic, with the hard reset detached, SE-adLIF (Baronig et al., 2024; its ``q`` is part of ``a`` and
    ``b``); euler, with the soft reset, the adLIF of sparch (Bittar & Garner, 2022). Recurrent, the published
    baselines are ``Recurrent(AdLIF(...), nn.Linear(n, n))``.

    Args:
        alpha: what remains of the membrane after a step; 0 to 1.
        beta: what remains of the adaptation after a step; 0 to 1.
        a: coupling of the membrane into ``w``.
        b: jump of ``w`` with each spike.
        discretisation: whether ``w`` follows the membrane after the reset, ``"symplectic"``, or before, ``"euler"``.
        v_threshold, v_reset, surrogate_function, detach_reset: as for :class:`SpikingNeuron`.
        step_mode, backend, store_v_seq, learnable, shape: as for :class:`Neuron`.
            ``learnable`` may also name ``alpha``, ``beta``, ``a``, ``b``.

    Shapes:
        input and spikes ``[T, *step]`` (``step_mode="m"``) or ``[*step]`` (``"s"``).
        States: ``v``, ``w``, ``[*step]``.

    Raises:
        ValueError: another discretisation, or an argument outside its range.

    Example:
        >>> import torch
        >>> AdLIF(alpha=0.5, beta=0.5, step_mode="m")(torch.full((6,), 2.5)).tolist()
        [1.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    """

    alpha = Coefficient(above=0, below=1, closed=True)
    beta = Coefficient(above=0, below=1, closed=True)
    a = Coefficient()
    b = Coefficient()
    starts: ClassVar[Mapping[str, float | str]] = {"v": "v_reset", "w": 0.0}

    @with_arguments_of(SpikingNeuron)
    def __init__(
        self,
        alpha: Number = 0.9,
        beta: Number = 0.97,
        a: Number = 0.5,
        b: Number = 1.0,
        discretisation: str = "symplectic",
        *common: Any,
        **options: Unpack[SpikingOptions],
    ) -> None:
        super().__init__(alpha=alpha, beta=beta, a=a, b=b, **options)
        if discretisation not in ("symplectic", "euler"):
            raise wrong(self, "discretisation must be 'symplectic' or 'euler'", discretisation=discretisation)
        self.discretisation = discretisation

    def charge(self, x: Tensor, v: Tensor, w: Tensor) -> Tensor:  # type: ignore[override]
        """The membrane after the input, before the spike."""
        h: Tensor = self.alpha * v + (1.0 - self.alpha) * (x - w)
        return h

    def core(self, x: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        h = self.charge(x, v, w)
        s = self.fire(h)
        v = self.discharge(h, s)
        if self.discretisation == "symplectic":
            return s, v, self.beta * w + (1.0 - self.beta) * (self.a * v + self.b * s)
        return s, v, self.beta * w + self.a * h + self.b * s

    def _options(self) -> dict[str, Any]:
        return {**super()._options(), "discretisation": self.discretisation}
