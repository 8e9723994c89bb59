"""Norse's LIF neurons whose membranes are coupled: each is a compartment of a larger one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from flexsn.neurons.arguments import wrong
from flexsn.neurons.norse.base import per_step
from flexsn.neurons.norse.recurrent import LIFRecurrent, LIFRecurrentCell, LIFRefracRecurrentCell, RecurrentNeuron

__all__ = ["LIFMCRecurrentCell", "LIFMCRefracRecurrentCell"]


class Coupled(RecurrentNeuron):
    """What both have: the conductances between compartments in ``g_coupling``, and two products a step."""

    g_coupling: Tensor

    def __init__(
        self, input_size: int, hidden_size: int, p: Any = None, g_coupling: Tensor | None = None, **options: Any
    ) -> None:
        super().__init__(input_size, hidden_size, p, **options)
        if g_coupling is None:
            g_coupling = nn.Parameter(torch.randn(hidden_size, hidden_size) / np.sqrt(hidden_size))
        elif not isinstance(g_coupling, Tensor) or g_coupling.shape != (hidden_size, hidden_size):
            raise wrong(self, f"g_coupling must be a tensor [{hidden_size}, {hidden_size}]", g_coupling=g_coupling)
        self.g_coupling = g_coupling

    def coupling(self, v: Tensor) -> Tensor:
        """What the compartments' membranes ``v`` add to one another."""
        return nnf.linear(v, self.g_coupling)


class LIFMCRecurrentCell(Coupled, LIFRecurrentCell):
    r"""A :class:`LIFRecurrentCell` whose membrane goes on, after the reset, by what the other compartments add.

    .. math:: v' = v_{LIF}' + \Delta t\, G\, v_{LIF}'

    Args:
        input_size, hidden_size, p, options: as for :class:`~flexsn.neurons.norse.recurrent.RecurrentNeuron`.
        g_coupling: G, the conductances ``[hidden_size, hidden_size]``; by default normal, and learned.

    States:
        ``z``, the spikes, ``v`` (from ``v_leak``), ``i``.

    Example:
        >>> cell = LIFMCRecurrentCell(2, 3)
        >>> spikes, state = cell(torch.rand(4, 2))
        >>> spikes.shape, state.v.shape
        (torch.Size([4, 3]), torch.Size([4, 3]))
    """

    def core(self, x: Tensor, z: Tensor, v: Tensor, i: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """One step, of the input behind its weights."""
        z, _, v, i = LIFRecurrent.core(self, x, z, v, i)
        return z, z, v + self.dt * self.coupling(v), i


class LIFMCRefracRecurrentCell(Coupled, LIFRefracRecurrentCell):
    r"""Coupled compartments that do not charge for ``rho_reset`` steps after a spike.

    .. math:: m = \Theta(\rho), \quad h = v + (1 - m)\, \Delta t\, \tau_m^{-1} ((v_{leak} - v) + i) + G v, \quad
        s = \Theta(h - v_{th})

    .. math:: v' = (1 - s) h + s\, v_{reset}, \quad i' = i - \Delta t\, \tau_s^{-1} i + x + W z, \quad
        \rho' = (1 - s) \max(0, \rho - m) + s\, \rho_{reset}

    Args:
        input_size, hidden_size, p, g_coupling, options: as for :class:`LIFMCRecurrentCell`.

    States:
        those of the LIF, and ``rho``.

    Example:
        >>> cell = LIFMCRefracRecurrentCell(2, 3)
        >>> cell(torch.rand(4, 2))[1].rho.tolist()[0]
        [0.0, 0.0, 0.0]
    """

    def core(self, x: Tensor, z: Tensor, v: Tensor, i: Tensor, rho: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """One step, of the input behind its weights."""
        resting = self.spike(rho)
        charge = (1 - resting) * per_step(self, self.tau_mem_inv) * ((self.v_leak - v) + i)
        h = v + (charge + self.coupling(v))
        i = i + -per_step(self, self.tau_syn_inv) * i + x + self.recurrence(z)
        z = self.spike(h - self.v_th)
        rho = (1 - z) * torch.relu(rho - resting) + z * self.rho_reset
        return z, z, (1 - z) * h + z * self.v_reset, i, rho
