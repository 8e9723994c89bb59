"""Norse's adaptive exponential neurons that rest after a spike, with and without a way back for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor

from flexsn.neurons.norse.cells import LIFAdExCell, LIFRefracCell
from flexsn.neurons.norse.parameters import (
    LIFAdExFeedForwardState,
    LIFAdExParameters,
    LIFAdExRefracFeedForwardState,
    LIFAdExRefracParameters,
    LIFAdExRefracState,
    LIFAdExState,
)
from flexsn.neurons.norse.recurrent import LIFAdExRecurrent, RecurrentNeuron
from flexsn.neurons.norse.spiking import LIFAdEx

__all__ = ["LIFAdExRefracCell", "LIFAdExRefracRecurrent", "LIFAdExRefracRecurrentCell"]


class LIFAdExRefracCell(LIFAdExCell):
    """A :class:`LIFAdEx` that rests after a spike, as :class:`LIFRefracCell` does.

    Args:
        p: the parameters.
        dt, options: as for :class:`~flexsn.neurons.norse.base.NorseNeuron`. States: those of the LIFAdEx, and ``rho``.

    Example:
        >>> import torch
        >>> cell, state, fired = LIFAdExRefracCell(), None, []
        >>> for _ in range(8):
        ...     spikes, state = cell(torch.tensor([20.0]), state)
        ...     fired.append(spikes.item())
        >>> fired
        [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    """

    parameter_type: ClassVar[Any] = LIFAdExRefracParameters
    state_type: ClassVar[Any] = LIFAdExRefracFeedForwardState

    def core(self, x: Tensor, v: Tensor, i: Tensor, a: Tensor, rho: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """One step."""
        s, new, i, a = LIFAdEx.core(self, x, v, i, a)
        s, v, rho = LIFRefracCell.rested(self, s, new, v, rho)  # type: ignore[arg-type]  # it is no more than a method
        return s, v, i, a, rho

    @classmethod
    def values_of(cls, p: Any) -> Iterator[tuple[str, Any]]:
        yield from p.lif_adex._asdict().items()
        yield "rho_reset", p.rho_reset

    @classmethod
    def parameters_of(cls, values: list[Any]) -> Any:
        return LIFAdExRefracParameters(LIFAdExParameters(*values[:-1]), values[-1])

    @staticmethod
    def states_of(state: Any) -> tuple[Any, ...]:
        return (*state.lif_adex, state.rho)

    @classmethod
    def state_of(cls, states: tuple[Any, ...]) -> Any:
        *lif_adex, rho = states
        return LIFAdExRefracFeedForwardState(LIFAdExFeedForwardState(*lif_adex), rho)


class LIFAdExRefracRecurrent(RecurrentNeuron, LIFAdExRefracCell):
    """A :class:`LIFAdExRecurrent` that rests after a spike, as :class:`LIFRefracCell` does.

    Args:
        options: as for :class:`RecurrentNeuron`. States: those of the LIFAdEx, and ``rho``.
    """

    state_type: ClassVar[Any] = LIFAdExRefracState

    def core(  # type: ignore[override]
        self, x: Tensor, z: Tensor, v: Tensor, i: Tensor, a: Tensor, rho: Tensor
    ) -> tuple[Tensor, ...]:
        """One step, of the input behind its weights."""
        z, _, new, i, a = LIFAdExRecurrent.core(self, x, z, v, i, a)  # type: ignore[arg-type]
        z, v, rho = LIFRefracCell.rested(self, z, new, v, rho)  # type: ignore[arg-type]
        return z, z, v, i, a, rho

    core.multiplies_once = True  # type: ignore[attr-defined]

    @classmethod
    def state_of(cls, states: tuple[Any, ...]) -> Any:
        *lif_adex, rho = states
        return LIFAdExRefracState(LIFAdExState(*lif_adex), rho)


class LIFAdExRefracRecurrentCell(LIFAdExRefracRecurrent):
    """One step of :class:`LIFAdExRefracRecurrent` a call."""

    step_mode_of_kind: ClassVar[str] = "s"
