"""Norse's cells: one step a call, the state an argument and a result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from flexsn.neurons.norse.base import Cell, NorseNeuron, per_step
from flexsn.neurons.norse.izhikevich import Izhikevich
from flexsn.neurons.norse.parameters import (
    LIFBoxFeedForwardState,
    LIFBoxParameters,
    LIFFeedForwardState,
    LIFRefracFeedForwardState,
    LIFRefracParameters,
)
from flexsn.neurons.norse.spiking import IAF, LIF, LSNN, LIFAdEx, LIFEx

__all__ = [
    "IAFCell",
    "IzhikevichCell",
    "LIFAdExCell",
    "LIFBoxCell",
    "LIFCell",
    "LIFExCell",
    "LIFRefracCell",
    "LSNNCell",
]


class LIFCell(Cell, LIF):
    """One step of :class:`LIF` a call."""


class LIFExCell(Cell, LIFEx):
    """One step of :class:`LIFEx` a call."""


class LIFAdExCell(Cell, LIFAdEx):
    """One step of :class:`LIFAdEx` a call."""


class LSNNCell(Cell, LSNN):
    """One step of :class:`LSNN` a call."""


class IAFCell(Cell, IAF):
    """One step of :class:`IAF` a call."""


class IzhikevichCell(Cell, Izhikevich):
    """One step of :class:`Izhikevich` a call."""


class LIFBoxCell(Cell, NorseNeuron):
    r"""Leaky integrate-and-fire without synaptic current.

    .. math:: h = v + \Delta t\, \tau_m^{-1} (x + v_{leak} - v), \quad s = \Theta(h - v_{th})

    and the reset that ``p.reset_method`` says.

    Args:
        p: the parameters.
        dt, options: as for :class:`~flexsn.neurons.norse.base.NorseNeuron`. State: ``v`` (from ``v_leak``).

    Example:
        >>> spikes, state = LIFBoxCell()(torch.tensor([12.0]))
        >>> spikes.tolist(), state.v.tolist()
        ([1.0], [0.0])
    """

    parameter_type = LIFBoxParameters
    state_type = LIFBoxFeedForwardState
    starts = {"v": "v_leak"}  # noqa: RUF012

    def core(self, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        h = v + per_step(self, self.tau_mem_inv) * (x + self.v_leak - v)
        s = self.spike(h - self.v_th)
        return s, self.reset_method(s, h, self.v_reset, self.v_th)


class LIFRefracCell(LIFCell):
    r"""A LIF that rests for ``rho_reset`` steps after a spike: its membrane stays, and it does not fire.

    .. math:: m = \Theta(\rho), \quad v' = (1 - m)\, v'_{LIF} + m\, v, \quad s = (1 - m)\, s_{LIF}, \quad
        \rho' = (1 - s) \max(0, \rho - m) + s\, \rho_{reset}

    Args:
        p: the parameters.
        dt, options: as for :class:`~flexsn.neurons.norse.base.NorseNeuron`. States: those of the LIF, and ``rho``.

    Example:
        >>> cell, state, fired = LIFRefracCell(), None, []
        >>> for _ in range(8):
        ...     spikes, state = cell(torch.tensor([20.0]), state)
        ...     fired.append(spikes.item())
        >>> fired
        [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    """

    parameter_type: ClassVar[Any] = LIFRefracParameters
    state_type: ClassVar[Any] = LIFRefracFeedForwardState
    sparse_spikes = False

    def core(self, x: Tensor, v: Tensor, i: Tensor, rho: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """One step."""
        s, new, i = LIF.core(self, x, v, i)
        s, v, rho = LIFRefracCell.rested(self, s, new, v, rho)
        return s, v, i, rho

    def rested(self, s: Tensor, new: Tensor, v: Tensor, rho: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Spike, membrane and rest of a step that would spike ``s`` and charge ``v`` to ``new``."""
        resting = self.spike(rho)
        s = (1 - resting) * s
        rho = (1 - s) * torch.relu(rho - resting) + s * self.rho_reset
        return s, (1 - resting) * new + resting * v, rho

    @classmethod
    def values_of(cls, p: Any) -> Iterator[tuple[str, Any]]:
        yield from p.lif._asdict().items()
        yield "rho_reset", p.rho_reset

    @classmethod
    def parameters_of(cls, values: list[Any]) -> Any:
        return LIFRefracParameters(type(LIFRefracParameters().lif)(*values[:-1]), values[-1])

    @staticmethod
    def states_of(state: Any) -> tuple[Any, ...]:
        return (*state.lif, state.rho)

    @classmethod
    def state_of(cls, states: tuple[Any, ...]) -> Any:
        v, i, rho = states
        return LIFRefracFeedForwardState(LIFFeedForwardState(v, i), rho)
