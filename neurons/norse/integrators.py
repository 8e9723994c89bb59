"""Norse's leaky integrators: LI, LIBoxCell and LILinearCell; they return the membrane."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as nnf

from flexsn.neurons.arguments import check_size
from flexsn.neurons.norse.base import Cell, NorseNeuron, per_step
from flexsn.neurons.norse.parameters import LIBoxParameters, LIBoxState, LIParameters, LIState

__all__ = ["LI", "LIBoxCell", "LICell", "LILinearCell"]


class LI(NorseNeuron):
    r"""Leaky integrator with a synaptic current.

    .. math:: j = i + x, \quad v' = v + \Delta t\, \tau_m^{-1} ((v_{leak} - v) + j), \quad
        i' = j - \Delta t\, \tau_s^{-1} j

    Args:
        p: the parameters.
        dt, record_states, options: as for :class:`~flexsn.neurons.norse.base.NorseNeuron`. States: ``v`` (from
            ``v_leak``), ``i``.

    Example:
        >>> v, state = LI()(torch.ones(2, 1))
        >>> v.flatten().tolist() == [state.v.item() * 0 + 0.10000000149011612, state.v.item()]
        True
    """

    parameter_type = LIParameters
    state_type = LIState
    starts = {"v": "v_leak"}  # noqa: RUF012

    def core(self, x: Tensor, v: Tensor, i: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        jump = i + x
        v = v + per_step(self, self.tau_mem_inv) * ((self.v_leak - v) + jump)
        return v, v, jump + -per_step(self, self.tau_syn_inv) * jump


class LICell(Cell, LI):
    """One step of :class:`LI` a call."""


class LIBoxCell(Cell, NorseNeuron):
    r"""Leaky integrator without synaptic current: ``v' = v + dt·tau_mem_inv·((v_leak − v) + x)``, one step a call.

    Args:
        p: the parameters.
        dt, options: as for :class:`~flexsn.neurons.norse.base.NorseNeuron`. State: ``v`` (from ``v_leak``).
    """

    parameter_type = LIBoxParameters
    state_type = LIBoxState
    starts = {"v": "v_leak"}  # noqa: RUF012

    def core(self, x: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        v = v + per_step(self, self.tau_mem_inv) * ((self.v_leak - v) + x)
        return v, v


class LILinearCell(LICell):
    """A linear layer without bias in front of an :class:`LICell`.

    Args:
        input_size, hidden_size: of the layer, whose weight is ``input_weights``.
        p, dt, options: as for :class:`LICell`.

    Shapes:
        input ``[B, input_size]``, membrane ``[B, hidden_size]``.
    """

    def __init__(self, input_size: int, hidden_size: int, p: Any = None, dt: float = 0.001, **options: Any) -> None:
        check_size(self, input_size=input_size, hidden_size=hidden_size)
        super().__init__(p, dt, **options)
        self.input_size, self.hidden_size = input_size, hidden_size
        self.input_weights = nn.Parameter(torch.randn(hidden_size, input_size) / np.sqrt(input_size))

    def drive(self, x: Tensor) -> Tensor:
        return nnf.linear(x, self.input_weights)
