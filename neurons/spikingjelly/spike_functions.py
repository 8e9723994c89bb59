"""The surrogates of SpikingJelly whose arguments mean something else in :mod:`flexsn.surrogate`."""

from __future__ import annotations

import torch
from torch import Tensor

from flexsn import surrogate
from flexsn.neurons.arguments import Number, wrong
from flexsn.neurons.graded import SpikeCount

__all__ = ["MultiLevelSpikeCount", "PiecewiseLeakyReLU", "SquarewaveFourierSeries"]


class MultiLevelSpikeCount(SpikeCount):
    """:class:`flexsn.neurons.SpikeCount` with the argument names of SpikingJelly's surrogate."""

    def __init__(
        self, max_spike_count: int, spiking: bool = True, grad_window: tuple[float, float] | None = None
    ) -> None:
        if spiking is not True:
            raise wrong(self, "spiking must be True", spiking=spiking)
        super().__init__(max_spike_count, grad_window)


class SquarewaveFourierSeries(surrogate.SquarewaveFourierSeries):
    """:class:`flexsn.surrogate.SquarewaveFourierSeries` with one term less: ``n − 1``, as SpikingJelly sums them.

    So ``n = 1`` has no slope at all, there as here.

    Args:
        n: one more than the number of terms; an integer >= 1.
        T_period: period of the square wave.
        spiking: as for :class:`~flexsn.surrogate.Surrogate`.

    Example:
        >>> import torch
        >>> SquarewaveFourierSeries(n=2).derivative(torch.tensor([0.0, 4.0]))  # SpikingJelly's default: one term
        tensor([ 0.5000, -0.5000])
    """

    def __init__(self, n: int = 2, T_period: Number = 8.0, spiking: bool = True) -> None:
        super().__init__(n, T_period, spiking)

    @staticmethod
    def derivative_function(x: Tensor, n: int, T_period: Number) -> Tensor:
        fewer = surrogate.SquarewaveFourierSeries.derivative_function
        return fewer(x, n - 1, T_period) if n > 1 else torch.zeros_like(x)

    @staticmethod
    def primitive_function(x: Tensor, n: int, T_period: Number) -> Tensor:
        fewer = surrogate.SquarewaveFourierSeries.primitive_function
        return fewer(x, n - 1, T_period) if n > 1 else torch.full_like(x, 0.5)


class PiecewiseLeakyReLU(surrogate.PiecewiseLeakyReLU):
    """:class:`flexsn.surrogate.PiecewiseLeakyReLU` with slope ``c`` at ``|x| = w``, as SpikingJelly's.

    Args:
        w, c, spiking: as there.

    Example:
        >>> import torch
        >>> PiecewiseLeakyReLU(w=1.0, c=0.25).derivative(torch.tensor([0.5, 1.0]))
        tensor([0.5000, 0.2500])
    """

    def __init__(self, w: Number = 1.0, c: Number = 0.01, spiking: bool = True) -> None:
        super().__init__(w, c, spiking)

    @staticmethod
    def derivative_function(x: Tensor, w: Number, c: Number) -> Tensor:
        inside = surrogate.PiecewiseLeakyReLU.derivative_function(x, w, c)
        return torch.where(x.abs() < w, inside, c)
