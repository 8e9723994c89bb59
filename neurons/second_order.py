"""Neurons of a membrane and a current or two, all linear: CubaLIF, AlphaLIF, ResonateFire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import Unpack

from flexsn.neurons.arguments import NeuronOptions, Number, SpikeFunction, SpikingOptions, with_arguments_of
from flexsn.neurons.base import SpikingNeuron
from flexsn.neurons.coefficient import Coefficient, cos, exp, log, sin

__all__ = ["AlphaLIF", "CubaLIF", "ResonateFire"]


class CubaLIF(SpikingNeuron):
    """LIF driven by a decaying synaptic current; fires at ``h ≥ v_threshold``.

    ``i' = alpha·i + x``; ``h = beta·v + i'``.
    Source: the current-based LIF of Loihi and of SpikingJelly's ``CUBALIFNode`` (its ``c_decay`` and
    ``v_decay``).

    Args:
        alpha: what remains of the current after a step; 0 to 1.
        beta: what remains of the membrane after a step; 0 to 1.
        v_threshold, v_reset, surrogate_function, detach_reset: as for :class:`SpikingNeuron`.
        step_mode, backend, store_v_seq, learnable, shape: as for :class:`Neuron`.
            ``learnable`` may also name ``alpha``, ``beta``.

    Shapes:
        input and spikes ``[T, *step]`` (``step_mode="m"``) or ``[*step]`` (``"s"``).
        States: ``v``, ``i``, ``[*step]``.

    Example:
        >>> import torch
        >>> CubaLIF(step_mode="m", learnable=("alpha", "beta"))(torch.tensor([0.75, 0.0, 0.0, 1.0])).tolist()
        [0.0, 0.0, 0.0, 1.0]
    """

    alpha = Coefficient(above=0, below=1, closed=True)
    beta = Coefficient(above=0, below=1, closed=True)
    starts: ClassVar[Mapping[str, float | str]] = {"v": "v_reset", "i": 0.0}

    @with_arguments_of(SpikingNeuron)
    def __init__(
        self, alpha: Number = 0.5, beta: Number = 0.75, *common: Any, **options: Unpack[SpikingOptions]
    ) -> None:
        super().__init__(alpha=alpha, beta=beta, **options)

    def core(self, x: Tensor, v: Tensor, i: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        i = i * self.alpha + x
        h = v * self.beta + i
        s = self.fire(h)
        return s, self.discharge(h, s), i


class AlphaLIF(SpikingNeuron):
    """Alpha-function membrane, the difference of two exponentials; fires at ``v' ≥ v_threshold``.

    ``e' = alpha·e + x``; ``n' = beta·n − x``; ``v' = τ_α (e' + n')`` with ``τ_α = ln alpha/(ln beta − ln
    alpha) + 1``. The membrane is a sum of post-synaptic potentials and is not reset: it fires as long as they
    exceed the threshold. Source: the synapse of snnTorch's ``Alpha`` (Rossum's alpha-function kernel).

    Args:
        alpha: what remains of the slow, excitatory trace after a step; between ``beta`` and 1.
        beta: what remains of the fast, inhibitory trace after a step; between 0 and ``alpha``.
        v_threshold: membrane at which it fires.
        surrogate_function: as for :class:`SpikingNeuron`.
        step_mode, backend, store_v_seq, learnable, shape: as for :class:`Neuron`.
            ``learnable`` may name ``alpha``, ``beta``,
            ``v_threshold``; that ``alpha`` stays above ``beta`` is then up to the training.

    Shapes:
        input and spikes ``[T, *step]`` (``step_mode="m"``) or ``[*step]`` (``"s"``).
        States: ``v`` (not read by the step), ``e``, ``n``, ``[*step]``.

    Example:
        >>> import torch
        >>> alpha_lif = AlphaLIF(step_mode="m", store_v_seq=True)
        >>> alpha_lif(torch.tensor([4.0, 0.0, 0.0, 0.0])).tolist()
        [0.0, 0.0, 1.0, 1.0]
    """

    alpha = Coefficient(above=0, below=1)
    beta = Coefficient(above=0, below=1)
    starts: ClassVar[Mapping[str, float | str]] = {"v": 0.0, "e": 0.0, "n": 0.0}

    @with_arguments_of(SpikingNeuron)
    def __init__(
        self,
        alpha: Number = 0.9,
        beta: Number = 0.8,
        v_threshold: Number = 1.0,
        surrogate_function: SpikeFunction | None = None,
        *common: Any,
        **options: Unpack[NeuronOptions],
    ) -> None:
        super().__init__(v_threshold, None, surrogate_function, alpha=alpha, beta=beta, **options)
        self._check_order("alpha", ">", "beta")

    def core(self, x: Tensor, v: Tensor, e: Tensor, n: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        e = self.alpha * e + x
        n = self.beta * n - x
        log_alpha = log(self.alpha)
        h: Tensor = (log_alpha / (log(self.beta) - log_alpha) + 1.0) * (e + n)
        return self.fire(h), h, e, n

    def _options(self) -> dict[str, Any]:
        options = super()._options()
        del options["detach_reset"]
        return options


class ResonateFire(SpikingNeuron):
    """Resonate-and-fire: ``(u, v)`` turns by ``omega·dt`` and shrinks by ``exp(b·dt)`` each step.

    ``u' = ρ (u cos θ − v sin θ) + x``; ``h = ρ (u sin θ + v cos θ)`` with ``ρ = exp(b·dt)``, ``θ =
    omega·dt``; fires at ``h ≥ v_threshold`` and resets ``v`` only. A membrane turned by the step before: the
    input shows in ``v`` one step later. Source: Izhikevich, "Resonate-and-fire neurons", Neural Networks
    2001; arguments of SpikingJelly's ``RAFNode``.

    Args:
        b: decay rate, per unit of time; < 0.
        omega: angular frequency, in radians per unit of time; > 0.
        dt: duration of a step, in units of time; > 0.
        v_threshold, v_reset, surrogate_function, detach_reset: as for :class:`SpikingNeuron`.
        step_mode, backend, store_v_seq, learnable, shape: as for :class:`Neuron`.
            ``learnable`` may name any of the numbers.

    Shapes:
        input and spikes ``[T, *step]`` (``step_mode="m"``) or ``[*step]`` (``"s"``).
        States: ``v``, ``u``, ``[*step]``.

    Example:
        >>> import torch
        >>> ResonateFire(b=-0.1, omega=1.57, step_mode="m")(torch.tensor([1.25, 0.0, 0.0, 0.0])).tolist()
        [0.0, 1.0, 0.0, 0.0]
    """

    b = Coefficient(below=0)
    omega = Coefficient(above=0)
    dt = Coefficient(above=0)
    starts: ClassVar[Mapping[str, float | str]] = {"v": "v_reset", "u": 0.0}

    @with_arguments_of(SpikingNeuron)
    def __init__(
        self,
        b: Number = -0.2,
        omega: Number = 1.0,
        dt: Number = 1.0,
        *common: Any,
        **options: Unpack[SpikingOptions],
    ) -> None:
        super().__init__(b=b, omega=omega, dt=dt, **options)

    def core(self, x: Tensor, v: Tensor, u: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        rho, theta = exp(self.b * self.dt), self.omega * self.dt
        h: Tensor = rho * (u * sin(theta) + v * cos(theta))
        u = rho * (u * cos(theta) - v * sin(theta)) + x
        s = self.fire(h)
        return s, self.discharge(h, s), u
