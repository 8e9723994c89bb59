"""Neurons whose spikes raise the threshold or deepen the reset: ALIF, CLIF."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import Unpack

from flexsn import surrogate
from flexsn.neurons.arguments import FiringOptions, NeuronOptions, Number, SpikeFunction, with_arguments_of
from flexsn.neurons.base import SpikingNeuron, hard_reset, soft_reset
from flexsn.neurons.coefficient import Coefficient, exp

__all__ = ["ALIF", "CLIF"]


class ALIF(SpikingNeuron):
    """LIF with a threshold that rises with each spike.

    ``ρ = exp(−1/tau)``; ``h = ρ_v·v + (1 − ρ_v)·x``; ``A = v_threshold + beta·a``; ``s = Θ(h − A)``;
    ``v' = h − s·A``, or hard to ``v_reset``; ``a' = ρ_a·a + (1 − ρ_a)·s``.
    Source: Bellec et al., "Long short-term memory and learning-to-learn in networks of spiking neurons",
    NeurIPS 2018.

    Args:
        tau: membrane time constant, in steps; > 0.
        tau_adapt: time constant of the threshold, in steps; > 0.
        beta: how much the threshold rises.
        v_threshold: threshold at rest.
        v_reset: membrane after a spike, or ``None`` (the default) for the soft reset by ``A``.
        surrogate_function, detach_reset: as for :class:`SpikingNeuron`.
        step_mode, backend, store_v_seq, learnable, shape: as for :class:`Neuron`.
            ``learnable`` may name any of the numbers.

    Shapes:
        input and spikes ``[T, *step]`` (``step_mode="m"``) or ``[*step]`` (``"s"``).
        States: ``v``, ``a``, ``[*step]``.

    Example:
        >>> import torch
        >>> alif = ALIF(tau=2.0, tau_adapt=4.0, step_mode="m", learnable=("tau", "tau_adapt"), shape=(3,))
        >>> alif(torch.full((6, 1, 3), 2.0))[:, 0, 0].tolist()
        [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]
    """

    tau = Coefficient(above=0)
    tau_adapt = Coefficient(above=0)
    beta = Coefficient()
    starts: ClassVar[Mapping[str, float | str]] = {"v": "v_reset", "a": 0.0}

    @with_arguments_of(SpikingNeuron)
    def __init__(
        self,
        tau: Number = 20.0,
        tau_adapt: Number = 200.0,
        beta: Number = 1.8,
        v_threshold: Number = 1.0,
        v_reset: Number | None = None,
        *common: Any,
        **options: Unpack[FiringOptions],
    ) -> None:
        super().__init__(v_threshold, v_reset, tau=tau, tau_adapt=tau_adapt, beta=beta, **options)

    def firing_threshold(self, v: Tensor, a: Tensor) -> Tensor:
        """``A``, the threshold of a step from these states."""
        threshold: Tensor = self.v_threshold + self.beta * a
        return threshold

    def core(self, x: Tensor, v: Tensor, a: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        rho_v, rho_a = exp(-1.0 / self.tau), exp(-1.0 / self.tau_adapt)
        h = rho_v * v + (1.0 - rho_v) * x
        threshold = self.firing_threshold(v, a)
        s = self.surrogate_function(h - threshold)
        fired = s.detach() if self.detach_reset else s
        v = soft_reset(h, fired, threshold) if self.v_reset is None else hard_reset(h, fired, self.v_reset)
        return s, v, rho_a * a + (1.0 - rho_a) * s


class CLIF(SpikingNeuron):
    """Complementary LIF: a second membrane ``m`` remembers spikes and deepens the reset.

    ``h = v − v/tau + x``; ``s = Θ(h − v_threshold)``; ``m' = m·sigmoid(h/tau) + s``;
    ``v' = h − s·(v_threshold + sigmoid(m'))``.
    Source: Huang et al., "CLIF: Complementary Leaky Integrate-and-Fire Neuron for Spiking Neural Networks",
    ICML 2024.

    Args:
        tau: membrane time constant, in steps; > 1.
        v_threshold: membrane at which it fires.
        surrogate_function: the spike function; by default ``Rect()``, as in the paper.
        step_mode, backend, store_v_seq, learnable, shape: as for :class:`Neuron`.
            ``learnable`` may name ``tau``, ``v_threshold``.

    Shapes:
        input and spikes ``[T, *step]`` (``step_mode="m"``) or ``[*step]`` (``"s"``).
        States: ``v``, ``m``, ``[*step]``.

    Example:
        >>> import torch
        >>> CLIF(step_mode="m")(torch.full((6,), 0.75)).tolist()
        [0.0, 1.0, 0.0, 0.0, 1.0, 0.0]
    """

    tau = Coefficient(above=1)
    starts: ClassVar[Mapping[str, float | str]] = {"v": 0.0, "m": 0.0}

    @with_arguments_of(SpikingNeuron)
    def __init__(
        self,
        tau: Number = 2.0,
        v_threshold: Number = 1.0,
        surrogate_function: SpikeFunction | None = None,
        *common: Any,
        **options: Unpack[NeuronOptions],
    ) -> None:
        spike = surrogate.Rect() if surrogate_function is None else surrogate_function
        super().__init__(v_threshold, None, spike, tau=tau, **options)

    def core(self, x: Tensor, v: Tensor, m: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        h = v - v / self.tau + x
        s = self.fire(h)
        m = m * (h / self.tau).sigmoid() + s
        return s, h - s * (self.v_threshold + m.sigmoid()), m

    def _options(self) -> dict[str, Any]:
        options = super()._options()
        del options["detach_reset"]
        return options
