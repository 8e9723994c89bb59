"""Surrogates whose slope is a bell: highest at the threshold, falling to zero on both sides.

All of them share the arguments, shapes, dtypes and errors of :class:`flexsn.surrogate.Surrogate`.
Each slope is written with as few operations as the maths needs, since it runs at every step of the
backward scan; coefficients combine as Python numbers before they meet the tensor.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from flexsn.surrogate.base import POSITIVE, Coefficient, Rule, Surrogate, magnitude

__all__ = [
    "ATan",
    "Erf",
    "FastSigmoid",
    "Gaussian",
    "PiecewiseExp",
    "PiecewiseQuadratic",
    "QPseudoSpike",
    "Rect",
    "Sigmoid",
    "SoftSign",
    "SpikeLinear",
    "SuperSpike",
    "Triangular",
]


class Bell(Surrogate):
    """A surrogate with one coefficient, ``alpha > 0``: the larger, the steeper."""

    rules: ClassVar = {"alpha": POSITIVE}

    def __init__(self, alpha: Coefficient, spiking: bool = True, *, strict: bool = False) -> None:
        super().__init__(spiking, strict, alpha=alpha)


class Sigmoid(Bell):
    """``f(x) = α σ(αx) (1 − σ(αx))``, ``F(x) = σ(αx)``.

    >>> spike = Sigmoid(alpha=4.0)
    >>> spike(torch.tensor([-0.5, 0.5])), spike.derivative(torch.tensor(0.0))
    (tensor([0., 1.]), tensor(1.))
    """

    def __init__(self, alpha: Coefficient = 4.0, spiking: bool = True, *, strict: bool = False) -> None:
        super().__init__(alpha, spiking, strict=strict)

    @staticmethod
    def derivative_function(x: Tensor, alpha: Coefficient) -> Tensor:
        y = torch.sigmoid(x * alpha)
        return (1.0 - y) * y * alpha

    @staticmethod
    def primitive_function(x: Tensor, alpha: Coefficient) -> Tensor:
        return torch.sigmoid(x * alpha)


class ATan(Bell):
    """``f(x) = (α/2) / (1 + (παx/2)²)``, ``F(x) = atan(παx/2)/π + 1/2``.

    Source: Fang et al., "Incorporating Learnable Membrane Time Constant ...", ICCV 2021.

    >>> ATan(alpha=2.0).derivative(torch.tensor([0.0, 1 / math.pi]))
    tensor([1.0000, 0.5000])
    """

    def __init__(self, alpha: Coefficient = 2.0, spiking: bool = True, *, strict: bool = False) -> None:
        super().__init__(alpha, spiking, strict=strict)

    @staticmethod
    def derivative_function(x: Tensor, alpha: Coefficient) -> Tensor:
        t = x * (alpha * (math.pi / 2))
        return (alpha / 2) / (t * t + 1.0)

    @staticmethod
    def primitive_function(x: Tensor, alpha: Coefficient) -> Tensor:
        return torch.atan(x * (alpha * (math.pi / 2))) * (1 / math.pi) + 0.5


class PiecewiseQuadratic(Bell):
    """``f(x) = max(0, α − α²|x|)``; ``F`` rises from 0 at ``−1/α`` to 1 at ``1/α``.

    Source: Esser et al., PNAS 2016; Bellec et al., NeurIPS 2018.

    >>> PiecewiseQuadratic(alpha=1.0).derivative(torch.tensor([-0.25, 2.0]))
    tensor([0.7500, 0.0000])
    """

    def __init__(self, alpha: Coefficient = 1.0, spiking: bool = True, *, strict: bool = False) -> None:
        super().__init__(alpha, spiking, strict=strict)

    @staticmethod
    def derivative_function(x: Tensor, alpha: Coefficient) -> Tensor:
        return (x.abs() * -(alpha * alpha) + alpha).clamp_min(0.0)

    @staticmethod
    def primitive_function(x: Tensor, alpha: Coefficient) -> Tensor:
        t = (x * alpha).clamp(-1.0, 1.0)
        return t - t * t.abs() * 0.5 + 0.5


class PiecewiseExp(Bell):
    """``f(x) = (α/2) exp(−α|x|)``; ``F(x) = exp(αx)/2`` below 0, ``1 − exp(−αx)/2`` from 0 on.

    Source: Neftci, Mostafa & Zenke, "Surrogate Gradient Learning in SNNs", 2019.

    >>> PiecewiseExp(alpha=2.0).derivative(torch.tensor([-0.5, 0.0]))
    tensor([0.3679, 1.0000])
    """

    def __init__(self, alpha: Coefficient = 1.0, spiking: bool = True, *, strict: bool = False) -> None:
        super().__init__(alpha, spiking, strict=strict)

    @staticmethod
    def derivative_function(x: Tensor, alpha: Coefficient) -> Tensor:
        return torch.exp(x.abs() * -alpha) * (alpha / 2)

    @staticmethod
    def primitive_function(x: Tensor, alpha: Coefficient) -> Tensor:
        tail = torch.exp(magnitude(x) * -alpha) * 0.5
        return torch.where(x < 0, tail, 1.0 - tail)


class SoftSign(Bell):
    """``f(x) = 1 / (2α (1/α + |x|)²)``, ``F(x) = (αx/(1 + α|x|) + 1)/2``.

    >>> SoftSign(alpha=2.0).derivative(torch.tensor([0.0, 0.5]))
    tensor([1.0000, 0.2500])
    """

    def __init__(self, alpha: Coefficient = 2.0, spiking: bool = True, *, strict: bool = False) -> None:
        super().__init__(alpha, spiking, strict=strict)

    @staticmethod
    def derivative_function(x: Tensor, alpha: Coefficient) -> Tensor:
        t = x.abs() * alpha + 1.0
        return (alpha / 2) / (t * t)

    @staticmethod
    def primitive_function(x: Tensor, alpha: Coefficient) -> Tensor:
        return x / (x.abs() + 1.0 / alpha) * 0.5 + 0.5


class SuperSpike(Bell):
    """``f(x) = α / (1 + |x|)²``, ``F(x) = αx/(1 + |x|) + 1/2``.

    Source: Zenke & Ganguli, "SuperSpike", 2018. The primitive is ours; SpikingJelly has none.

    >>> SuperSpike(alpha=1.0).derivative(torch.tensor([0.0, -1.0]))
    tensor([1.0000, 0.2500])
    """

    def __init__(self, alpha: Coefficient = 1.0, spiking: bool = True, *, strict: bool = False) -> None:
        super().__init__(alpha, spiking, strict=strict)

    @staticmethod
    def derivative_function(x: Tensor, alpha: Coefficient) -> Tensor:
        t = x.abs() + 1.0
        return alpha / (t * t)

    @staticmethod
    def primitive_function(x: Tensor, alpha: Coefficient) -> Tensor:
        return x / (x.abs() + 1.0) * alpha + 0.5


class FastSigmoid(Bell):
    """``f(x) = 1 / (1 + α|x|)²``, ``F(x) = x/(1 + α|x|) + 1/2``.

    Source: snnTorch's ``fast_sigmoid(slope=25)``, after Zenke & Ganguli 2018.

    >>> FastSigmoid(alpha=25.0).derivative(torch.tensor([0.0, 0.04]))
    tensor([1.0000, 0.2500])
    """

    def __init__(self, alpha: Coefficient = 25.0, spiking: bool = True, *, strict: bool = False) -> None:
        super().__init__(alpha, spiking, strict=strict)

    @staticmethod
    def derivative_function(x: Tensor, alpha: Coefficient) -> Tensor:
        t = x.abs() * alpha + 1.0
        return (t * t).reciprocal()

    @staticmethod
    def primitive_function(x: Tensor, alpha: Coefficient) -> Tensor:
        return x / (x.abs() + 1.0 / alpha) * (1.0 / alpha) + 0.5


class Erf(Bell):
    """``f(x) = (α/√π) exp(−α²x²)``, ``F(x) = erfc(−αx)/2``.

    Source: Esser et al., "Backpropagation for energy-efficient neuromorphic computing", 2015.

    >>> Erf(alpha=2.0).derivative(torch.tensor([0.0, 0.5]))
    tensor([1.1284, 0.4151])
    """

    def __init__(self, alpha: Coefficient = 2.0, spiking: bool = True, *, strict: bool = False) -> None:
        super().__init__(alpha, spiking, strict=strict)

    @staticmethod
    def derivative_function(x: Tensor, alpha: Coefficient) -> Tensor:
        t = x * alpha
        return torch.exp(t * -t) * (alpha * (1 / math.sqrt(math.pi)))

    @staticmethod
    def primitive_function(x: Tensor, alpha: Coefficient) -> Tensor:
        return torch.erfc(x * -alpha) * 0.5


class Gaussian(Surrogate):
    """The normal density ``f(x) = exp(−x²/(2σ²)) / (σ√(2π))``; ``F`` is its distribution function.

    >>> Gaussian(sigma=0.5).derivative(torch.tensor([0.0, 0.5]))
    tensor([0.7979, 0.4839])
    """

    rules: ClassVar = {"sigma": POSITIVE}

    def __init__(self, sigma: Coefficient = 0.5, spiking: bool = True, *, strict: bool = False) -> None:
        super().__init__(spiking, strict, sigma=sigma)

    @staticmethod
    def derivative_function(x: Tensor, sigma: Coefficient) -> Tensor:
        t = x * (math.sqrt(0.5) / sigma)
        return torch.exp(t * -t) * (1 / math.sqrt(2 * math.pi) / sigma)

    @staticmethod
    def primitive_function(x: Tensor, sigma: Coefficient) -> Tensor:
        return torch.erfc(x * (-math.sqrt(0.5) / sigma)) * 0.5


class QPseudoSpike(Surrogate):
    """``f(x) = (1 + 2|x|/(α−1))^(−α)`` with ``α > 1``; ``F`` runs from 0 to 1.

    Source: Herranz-Celotti & Rouat, "Surrogate Gradients Design", 2022.

    >>> QPseudoSpike(alpha=2.0).derivative(torch.tensor([0.0, 0.5]))
    tensor([1.0000, 0.2500])
    """

    rules: ClassVar = {"alpha": Rule("a finite number > 1", lambda value: value > 1)}

    def __init__(self, alpha: Coefficient = 2.0, spiking: bool = True, *, strict: bool = False) -> None:
        super().__init__(spiking, strict, alpha=alpha)

    @staticmethod
    def derivative_function(x: Tensor, alpha: Coefficient) -> Tensor:
        return (x.abs() * (2.0 / (alpha - 1.0)) + 1.0) ** -alpha

    @staticmethod
    def primitive_function(x: Tensor, alpha: Coefficient) -> Tensor:
        tail = (magnitude(x) * (2.0 / (alpha - 1.0)) + 1.0) ** (1.0 - alpha) * 0.5
        return torch.where(x < 0, tail, 1.0 - tail)


class Rect(Bell):
    """``f(x) = α`` where ``|x| < 1/(2α)``, else 0; ``F(x) = clamp(αx + 1/2, 0, 1)``.

    Source: Wu et al., "Spatio-Temporal Backpropagation", 2018.

    >>> Rect(alpha=1.0).derivative(torch.tensor([0.25, -0.5, 1.0]))
    tensor([1., 0., 0.])
    """

    def __init__(self, alpha: Coefficient = 1.0, spiking: bool = True, *, strict: bool = False) -> None:
        super().__init__(alpha, spiking, strict=strict)

    @staticmethod
    def derivative_function(x: Tensor, alpha: Coefficient) -> Tensor:
        return (x.abs() < 0.5 / alpha).to(x) * alpha

    @staticmethod
    def primitive_function(x: Tensor, alpha: Coefficient) -> Tensor:
        return (x * alpha + 0.5).clamp(0.0, 1.0)


class SpikeLinear(Bell):
    """``f(x) = α max(0, 1 − |x|)``, ``F(x) = α(t − t|t|/2) + 1/2`` with ``t = clamp(x, −1, 1)``.

    Source: Bellec et al., "Long short-term memory and learning-to-learn in SNNs", NeurIPS 2018;
    the spike function of rnnbuilder (there with ``x > 0``: ``strict=True``).

    >>> SpikeLinear(alpha=0.3).derivative(torch.tensor([0.0, 0.5, -2.0]))
    tensor([0.3000, 0.1500, 0.0000])
    """

    def __init__(self, alpha: Coefficient = 0.3, spiking: bool = True, *, strict: bool = False) -> None:
        super().__init__(alpha, spiking, strict=strict)

    @staticmethod
    def derivative_function(x: Tensor, alpha: Coefficient) -> Tensor:
        return (1.0 - x.abs()).clamp_min(0.0) * alpha

    @staticmethod
    def primitive_function(x: Tensor, alpha: Coefficient) -> Tensor:
        t = x.clamp(-1.0, 1.0)
        return (t - t * t.abs() * 0.5) * alpha + 0.5


class Triangular(SpikeLinear):
    """Another name of :class:`SpikeLinear`, for the shape of its slope.

    >>> Triangular()
    Triangular(alpha=0.3)
    """
