"""The neurons of NIR: differential equations, stepped by their exact solution or by Euler's rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from flexsn import FlexSN

__all__ = ["IF", "LI", "LIF", "CubaLI", "CubaLIF", "I", "Neuron", "SpikeFunction", "Stepping"]

SpikeFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Stepping:
    """How equations become steps.

    Args:
        dt: duration of a step, in the unit of the time constants.
        method: ``"exact"`` or ``"euler"``; see :func:`flexsn.nir.from_nir`.
        reset: ``"zero"`` or ``"subtract"``.
        spike: the spike function of ``v − v_threshold``.
    """

    dt: float
    method: str
    reset: str
    spike: SpikeFunction


class Neuron(FlexSN):
    """A neuron of NIR with its parameters, buffers that broadcast against the lanes.

    ``neuron.tau = nn.Parameter(neuron.tau)`` makes one learnable.

    Args:
        stepping: how the equation becomes steps.
        parameters: the node's own, by NIR's names.

    Shapes:
        input ``[T, *batch, *lanes]``, output alike; states ``[*batch, *lanes]``, 0 before the first step.
    """

    names: ClassVar[tuple[str, ...]]
    states_of_a_step: ClassVar[tuple[str, ...]] = ("v",)
    dt: float
    method: str

    def __init__(self, stepping: Stepping, **parameters: Tensor) -> None:
        super().__init__(num_inputs=1, num_states=len(self.states_of_a_step), num_outputs=1)
        self.state_names = self.states_of_a_step
        self.dt, self.method = stepping.dt, stepping.method
        for name in self.names:
            self.register_buffer(name, parameters[name])

    def core(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """One step, with the parameters that are registered."""
        return self.step(x, *states, *self.parameters_of_a_step())

    def step(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """One step of ``(input, *states, *parameters)``: the output and the new states."""
        raise NotImplementedError

    def parameters_of_a_step(self) -> tuple[Tensor, ...]:
        """What :meth:`step` takes besides input and states."""
        return tuple(getattr(self, name) for name in self.names)

    def share(self, tau: Tensor) -> Tensor:
        """How much of the way to its rest something with this time constant goes in a step."""
        return -torch.expm1(-self.dt / tau) if self.method == "exact" else self.dt / tau

    def extra_repr(self) -> str:
        return f"shape={tuple(self.r.shape)}, dt={self.dt!r}, method={self.method!r}"


class _Spiking(Neuron):
    v_threshold: Tensor
    v_reset: Tensor
    reset_by: str

    def __init__(self, stepping: Stepping, **parameters: Tensor) -> None:
        super().__init__(stepping, **parameters)
        self.reset_by, self.spike = stepping.reset, stepping.spike

    def fire(self, h: Tensor, v_threshold: Tensor, v_reset: Tensor) -> tuple[Tensor, Tensor]:
        """The spike of a charged membrane, and the membrane after it."""
        s = self.spike(h - v_threshold)
        return s, h - s * v_threshold if self.reset_by == "subtract" else (1.0 - s) * h + s * v_reset

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, reset={self.reset_by!r}"


class I(Neuron):  # noqa: E742
    """``v' = r·x``; returns the membrane."""

    names = ("r",)
    r: Tensor

    def step(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        x, v, r = arguments
        v = v + self.dt * r * x
        return v, v


class IF(_Spiking):
    """``v' = r·x``; fires at ``v > v_threshold``."""

    names = ("r", "v_threshold", "v_reset")
    r: Tensor

    def step(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        x, v, r, v_threshold, v_reset = arguments
        return self.fire(v + self.dt * r * x, v_threshold, v_reset)


class LI(Neuron):
    """``tau·v' = v_leak − v + r·x``; returns the membrane."""

    names = ("tau", "r", "v_leak")
    tau: Tensor
    r: Tensor
    v_leak: Tensor

    def step(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        x, v, tau, r, v_leak = arguments
        v = v + self.share(tau) * (v_leak + r * x - v)
        return v, v


class LIF(_Spiking):
    """``tau·v' = v_leak − v + r·x``; fires at ``v > v_threshold``."""

    names = ("tau", "r", "v_leak", "v_threshold", "v_reset")
    tau: Tensor
    r: Tensor
    v_leak: Tensor

    def step(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        x, v, tau, r, v_leak, v_threshold, v_reset = arguments
        return self.fire(v + self.share(tau) * (v_leak + r * x - v), v_threshold, v_reset)


class _CurrentBased(Neuron):
    states_of_a_step = ("v", "i")
    tau_syn: Tensor
    tau_mem: Tensor
    r: Tensor
    v_leak: Tensor
    w_in: Tensor

    def charge(self, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        """Membrane and current after a step without a spike."""
        x, v, i, tau_syn, tau_mem, r, v_leak, w_in = arguments
        held = w_in * x
        if self.method == "euler":
            i = i + self.share(tau_syn) * (held - i)
            return v + self.share(tau_mem) * (v_leak + r * i - v), i
        fading = i - held  # the current goes to what the input holds it at; what it differs by fades
        v = v + self.share(tau_mem) * (v_leak + r * held - v) + r * self.arrived(tau_syn, tau_mem) * fading
        return v, i - self.share(tau_syn) * fading

    def arrived(self, tau_syn: Tensor, tau_mem: Tensor) -> Tensor:
        """What a current of 1 that fades with ``tau_syn`` leaves on a membrane of ``tau_mem`` after a step.

        ``(exp(−a) − exp(−b))·b/(b − a)`` with ``a = dt/tau_syn``, ``b = dt/tau_mem``; its limit where they are equal.
        """
        a, b = self.dt / tau_syn, self.dt / tau_mem
        apart = (a - b).abs()
        divisor = torch.where(apart == 0, 1.0, apart)
        return b * torch.exp(-torch.minimum(a, b)) * torch.where(apart == 0, 1.0, -torch.expm1(-apart) / divisor)


class CubaLI(_CurrentBased):
    """``tau_syn·i' = −i + w_in·x``, ``tau_mem·v' = v_leak − v + r·i``; returns the membrane."""

    names = ("tau_syn", "tau_mem", "r", "v_leak", "w_in")

    def step(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        v, i = self.charge(*arguments)
        return v, v, i


class CubaLIF(_CurrentBased, _Spiking):
    """``tau_syn·i' = −i + w_in·x``, ``tau_mem·v' = v_leak − v + r·i``; fires at ``v > v_threshold``."""

    names = (*CubaLI.names, "v_threshold", "v_reset")

    def step(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        *membrane, v_threshold, v_reset = arguments
        h, i = self.charge(*membrane)
        return *self.fire(h, v_threshold, v_reset), i
