"""ResonateFire: a damped oscillator that spikes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from flexsn.neurons.base import SpikeFunction, SpikingNeuron
from flexsn.neurons.coefficient import Coefficient, Number, cos, exp, sin

__all__ = ["ResonateFire"]


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

    def __init__(
        self,
        b: Number = -0.2,
        omega: Number = 1.0,
        dt: Number = 1.0,
        v_threshold: Number = 1.0,
        v_reset: Number | None = 0.0,
        surrogate_function: SpikeFunction | None = None,
        detach_reset: bool = False,
        step_mode: str = "s",
        backend: str = "auto",
        store_v_seq: bool = False,
        *,
        learnable: Sequence[str] = (),
        shape: Sequence[int] = (),
    ) -> None:
        super().__init__(
            v_threshold,
            v_reset,
            surrogate_function,
            detach_reset,
            step_mode,
            backend,
            store_v_seq,
            learnable=learnable,
            shape=shape,
            b=b,
            omega=omega,
            dt=dt,
        )

    def core(self, x: Tensor, v: Tensor, u: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        rho, theta = exp(self.b * self.dt), self.omega * self.dt
        h: Tensor = rho * (u * sin(theta) + v * cos(theta))
        u = rho * (u * cos(theta) - v * sin(theta)) + x
        s = self.fire(h)
        return s, self.discharge(h, s), u
