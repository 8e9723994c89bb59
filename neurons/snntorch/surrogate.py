"""snnTorch's surrogate factories: its names, arguments and slopes, in a form that compiles.

All fire at ``x > 0``. ``SSO`` has random slopes: a neuron draws them for all steps at once, as one more input.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from flexsn import surrogate
from flexsn.neurons.arguments import SpikeFunction

__all__ = [
    "LSO",
    "SFS",
    "SSO",
    "atan",
    "custom_surrogate",
    "fast_sigmoid",
    "heaviside",
    "sigmoid",
    "spike_rate_escape",
    "straight_through_estimator",
    "triangular",
]


def atan(alpha: float = 2.0) -> SpikeFunction:
    """Slope ``(α/2) / (1 + (παx/2)²)``."""
    return surrogate.ATan(alpha, strict=True)


def fast_sigmoid(slope: float = 25) -> SpikeFunction:
    """Slope ``1 / (slope·|x| + 1)²``."""
    return surrogate.FastSigmoid(slope, strict=True)


def straight_through_estimator() -> SpikeFunction:
    """Slope 1."""
    return surrogate.DeterministicPass(strict=True)


def triangular(threshold: float = 1) -> SpikeFunction:
    """Slope ``threshold`` below 0, ``−threshold`` from 0 on, as snnTorch has it."""
    return surrogate.custom(partial(_triangular, threshold=threshold), strict=True)


def heaviside() -> SpikeFunction:
    """Slope 1 where it fires, else 0."""
    return surrogate.custom(_fired, strict=True)


def sigmoid(slope: float = 25) -> SpikeFunction:
    """Slope ``slope·e / (e + 1)²`` with ``e = exp(−slope·x)``."""
    return surrogate.custom(partial(_sigmoid, slope=slope), strict=True)


def spike_rate_escape(beta: float = 1, slope: float = 25) -> SpikeFunction:
    """Slope ``slope·exp(−β·|x − 1|)``."""
    return surrogate.custom(partial(_escape, beta=beta, slope=slope), strict=True)


def LSO(slope: float = 0.1) -> SpikeFunction:
    """Slope 1 where it fires, else ``slope``. snnTorch's raises a TypeError when called."""
    return surrogate.custom(partial(_leaky, slope=slope), strict=True)


def SFS(slope: float = 25, B: float = 1) -> SpikeFunction:
    """The slope of ``fast_sigmoid`` where ``x > B``, else 0."""
    return surrogate.custom(partial(_sparse, slope=slope, B=B), strict=True)


def SSO(mean: float = 0, variance: float = 0.2) -> SpikeFunction:
    """Slope 1 where it fires, else ``(u − 0.5 + mean)·variance`` with ``u`` uniform in [0, 1)."""
    return Stochastic(mean, variance)


def custom_surrogate(custom_surrogate_function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> SpikeFunction:
    """One's own backward: ``grad_x = custom_surrogate_function(x, grad_spike, spike)``."""
    return partial(_with_backward, backward=custom_surrogate_function)


def _with_backward(x: Tensor, backward: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    spike: Tensor = _Own.apply(x, backward)  # type: ignore[no-untyped-call]
    return spike


class _Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, backward: Any) -> Tensor:
        spike = surrogate.heaviside(x, strict=True)
        ctx.save_for_backward(x, spike)
        ctx.backward_function = backward
        return spike

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        x, spike = ctx.saved_tensors
        return ctx.backward_function(x, grad_outputs[0], spike), None


def _triangular(x: Tensor, threshold: float) -> Tensor:
    return torch.where(x >= 0, -threshold, threshold)


def _fired(x: Tensor) -> Tensor:
    return (x > 0).to(x)


def _sigmoid(x: Tensor, slope: float) -> Tensor:
    e = torch.exp(-slope * x)
    return slope * e / (e + 1) ** 2


def _escape(x: Tensor, beta: float, slope: float) -> Tensor:
    return slope * torch.exp(-beta * torch.abs(x - 1))


def _leaky(x: Tensor, slope: float) -> Tensor:
    return torch.where(x > 0, 1.0, slope)


def _sparse(x: Tensor, slope: float, B: float) -> Tensor:
    return (x > B).to(x) / (slope * torch.abs(x) + 1.0) ** 2


class Stochastic:
    """The spike function of :func:`SSO`.

    Args:
        mean, variance: of the slopes where it does not fire.
    """

    def __init__(self, mean: float, variance: float) -> None:
        self.mean, self.variance = mean, variance

    def __call__(self, x: Tensor) -> Tensor:
        return self.given(torch.rand_like(x))(x)

    def given(self, u: Tensor) -> SpikeFunction:
        """The spike function of these draws."""
        return surrogate.custom(lambda x: torch.where(x > 0, 1.0, (u - 0.5 + self.mean) * self.variance), strict=True)


def understood(spike: Any) -> Any:
    """A spike function of snnTorch's own that no kernel could be made of as ours, any other as it is."""
    if getattr(spike, "__module__", None) == "snntorch.surrogate":
        makers: dict[str, Callable[..., Any]] = {"SSO.<locals>.inner": SSO, "triangular.<locals>.inner": triangular}
        made = makers.get(getattr(spike, "__qualname__", ""))
        return spike if made is None else made(**inspect.getclosurevars(spike).nonlocals)
    return spike
