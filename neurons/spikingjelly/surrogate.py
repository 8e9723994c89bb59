"""SpikingJelly's surrogates: the classes, a base for one's own, and the functions ``sigmoid.apply(x, alpha)``.

.. code-block:: python

    from spikingjelly.activation_based import surrogate      # before
    from flexsn.neurons.spikingjelly import surrogate         # after
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from flexsn.neurons.spikingjelly.spike_functions import (
    MultiLevelSpikeCount,
    PiecewiseLeakyReLU,
    SquarewaveFourierSeries,
)
from flexsn.surrogate import (
    S2NN,
    ATan,
    DeterministicPass,
    Erf,
    FakeNumericalGradient,
    LeakyKReLU,
    LogTailedReLU,
    NonzeroSignLogAbs,
    PiecewiseExp,
    PiecewiseQuadratic,
    QPseudoSpike,
    Rect,
    Sigmoid,
    SoftSign,
    SuperSpike,
    Surrogate,
    heaviside,
)

_FUNCTIONS: dict[str, type[Surrogate]] = {
    "atan": ATan,
    "deterministic_pass": DeterministicPass,
    "erf": Erf,
    "fake_numerical_gradient": FakeNumericalGradient,
    "leaky_k_relu": LeakyKReLU,
    "log_tailed_relu": LogTailedReLU,
    "nonzero_sign_log_abs": NonzeroSignLogAbs,
    "piecewise_exp": PiecewiseExp,
    "piecewise_leaky_relu": PiecewiseLeakyReLU,
    "piecewise_quadratic": PiecewiseQuadratic,
    "q_pseudo_spike": QPseudoSpike,
    "rect": Rect,
    "s2nn": S2NN,
    "sigmoid": Sigmoid,
    "soft_sign": SoftSign,
    "squarewave_fourier_series": SquarewaveFourierSeries,
    "super_spike": SuperSpike,
}
__all__ = [
    "S2NN",
    "ATan",
    "DeterministicPass",
    "Erf",
    "FakeNumericalGradient",
    "LeakyKReLU",
    "LogTailedReLU",
    "MultiLevelSpikeCount",
    "NonzeroSignLogAbs",
    "PiecewiseExp",
    "PiecewiseLeakyReLU",
    "PiecewiseQuadratic",
    "QPseudoSpike",
    "Rect",
    "Sigmoid",
    "SoftSign",
    "SquarewaveFourierSeries",
    "SuperSpike",
    "SurrogateFunctionBase",
    "heaviside",
    *_FUNCTIONS,
]


class SurrogateFunctionBase(nn.Module):
    """A base for one's own: ``spiking_function`` and ``primitive_function`` are static methods of ``(x, **kwargs)``.

    Args:
        spiking: ``True`` calls the first, ``False`` the second.
        kwargs: what both are given besides ``x``; attributes, too.

    Example:
        >>> import torch
        >>> class Halved(SurrogateFunctionBase):
        ...     spiking_function = staticmethod(lambda x, alpha: sigmoid.apply(x, alpha / 2))
        >>> Halved(alpha=8.0)(torch.tensor([-1.0, 0.0])).tolist()
        [0.0, 1.0]
    """

    spiking_function: Callable[..., Tensor]
    primitive_function: Callable[..., Tensor]

    def __init__(self, spiking: bool = True, **kwargs: Any) -> None:
        super().__init__()
        self.spiking = spiking
        self._names = tuple(kwargs)
        for name, value in kwargs.items():
            setattr(self, name, value)

    def set_spiking_mode(self, spiking: bool) -> None:
        """Choose between the two functions."""
        self.spiking = spiking

    def forward(self, x: Tensor) -> Tensor:
        function = self.spiking_function if self.spiking else self.primitive_function
        return function(x, **{name: getattr(self, name) for name in self._names})

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in (*self._names, "spiking"))


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Callable[..., Any], *coefficients: Any) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope, ctx.coefficients = slope, coefficients
        return heaviside(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (x,) = ctx.saved_tensors
        slope = ctx.slope(x, *ctx.coefficients)
        return grad_outputs[0] * slope, None, *(None for _ in ctx.coefficients)


class _Function:
    """A surrogate as a function of ``x`` and its coefficients: ``sigmoid.apply(x, alpha)``."""

    def __init__(self, name: str, slope: Callable[..., Any]) -> None:
        self.__name__, self._slope = name, slope

    def apply(self, x: Tensor, *coefficients: Any) -> Tensor:
        """The spikes of ``x``, with the slope of these coefficients."""
        spikes: Tensor = _Spike.apply(x, self._slope, *coefficients)  # type: ignore[no-untyped-call]
        return spikes

    __call__ = apply


globals().update({name: _Function(name, made.derivative_function) for name, made in _FUNCTIONS.items()})
