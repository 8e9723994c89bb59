"""Surrogates whose slope is no bell: it stays above zero far away, repeats, or differs by side.

All of them share the arguments, shapes, dtypes and errors of :class:`flexsn.surrogate.Surrogate`.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from flexsn.surrogate.base import FINITE, POSITIVE, Coefficient, Rule, Surrogate, magnitude

__all__ = [
    "S2NN",
    "DeterministicPass",
    "FakeNumericalGradient",
    "LeakyKReLU",
    "LogTailedReLU",
    "NonzeroSignLogAbs",
    "PiecewiseLeakyReLU",
    "SquarewaveFourierSeries",
]


def _choose(condition: Tensor, yes: Coefficient, no: Coefficient, like: Tensor) -> Tensor:
    # Two Python numbers in torch.where give the default dtype; through `like` they take that of the input.
    return torch.where(condition, yes, torch.where(condition, like, no))


class NonzeroSignLogAbs(Surrogate):
    """``f(x) = 1 / (1/α + |x|)``, ``F(x) = sign(x) log(α|x| + 1)``.

    >>> NonzeroSignLogAbs(alpha=1.0).derivative(torch.tensor([0.0, -3.0]))
    tensor([1.0000, 0.2500])
    """

    rules: ClassVar = {"alpha": POSITIVE}

    def __init__(self, alpha: Coefficient = 1.0, spiking: bool = True, *, strict: bool = False) -> None:
        super().__init__(spiking, strict, alpha=alpha)

    @staticmethod
    def derivative_function(x: Tensor, alpha: Coefficient) -> Tensor:
        return (x.abs() + 1.0 / alpha).reciprocal()

    @staticmethod
    def primitive_function(x: Tensor, alpha: Coefficient) -> Tensor:
        y = torch.log1p(magnitude(x) * alpha)
        return torch.where(x < 0, -y, y)


class PiecewiseLeakyReLU(Surrogate):
    """``f(x) = 1/(2w)`` where ``|x| ≤ w``, else ``c``; ``F`` is continuous with ``F(0) = 1/2``.

    The edge ``|x| = w`` belongs to the inside, as the formula says; SpikingJelly's code gives it ``c``.
    ``w > 0``. Source: Yin, Corradi & Bohté 2017; Wu et al. 2018.

    >>> PiecewiseLeakyReLU(w=1.0, c=0.01).derivative(torch.tensor([0.5, 1.0, -2.0]))
    tensor([0.5000, 0.5000, 0.0100])
    """

    rules: ClassVar = {"w": POSITIVE, "c": FINITE}

    def __init__(
        self, w: Coefficient = 1.0, c: Coefficient = 0.01, spiking: bool = True, *, strict: bool = False
    ) -> None:
        super().__init__(spiking, strict, w=w, c=c)

    @staticmethod
    def derivative_function(x: Tensor, w: Coefficient, c: Coefficient) -> Tensor:
        return _choose(x.abs() <= w, 0.5 / w, c, x)

    @staticmethod
    def primitive_function(x: Tensor, w: Coefficient, c: Coefficient) -> Tensor:
        outside = torch.where(x < 0, (x + w) * c, (x - w) * c + 1.0)
        return torch.where(x.abs() <= w, x * (0.5 / w) + 0.5, outside)


class SquarewaveFourierSeries(Surrogate):
    """``f(x) = (4/T) Σ_{i=1..n} cos(2π(2i−1)x/T)``: the first ``n`` terms of a square wave of period ``T``.

    ``F(x) = 1/2 + (2/π) Σ_{i=1..n} sin(2π(2i−1)x/T)/(2i−1)``. ``n`` is an integer ≥ 1, ``T_period > 0``.
    SpikingJelly sums ``n − 1`` terms (none at all for ``n = 1``), as does the class of this name in
    ``flexsn.neurons.spikingjelly``.

    >>> SquarewaveFourierSeries(n=2, T_period=8).derivative(torch.tensor([0.0, 4.0]))
    tensor([ 1., -1.])
    """

    rules: ClassVar = {
        "n": Rule("an integer >= 1", lambda value: value >= 1),
        "T_period": POSITIVE,
    }

    def __init__(self, n: int = 2, T_period: Coefficient = 8.0, spiking: bool = True, *, strict: bool = False) -> None:
        if not isinstance(n, int) or isinstance(n, bool):
            raise ValueError(f"{type(self).__name__}(n={n!r}): n must be an integer, got {type(n).__name__}")
        super().__init__(spiking, strict, n=n, T_period=T_period)
        self.n = n

    @staticmethod
    def derivative_function(x: Tensor, n: int, T_period: Coefficient) -> Tensor:
        omega = (2 * math.pi) / T_period
        total = torch.cos(x * omega)
        for k in range(3, 2 * n, 2):
            total = total + torch.cos(x * (omega * k))
        return total * (4.0 / T_period)

    @staticmethod
    def primitive_function(x: Tensor, n: int, T_period: Coefficient) -> Tensor:
        omega = (2 * math.pi) / T_period
        total = torch.sin(x * omega)
        for k in range(3, 2 * n, 2):
            total = total + torch.sin(x * (omega * k)) * (1.0 / k)
        return total * (2.0 / math.pi) + 0.5


class S2NN(Surrogate):
    """``f(x) = α σ(αx)(1 − σ(αx))`` for ``x < 0``, ``β/(x + 1)`` for ``x ≥ 0``.

    ``F(x) = σ(αx)`` below 0 and ``β log(x + 1) + 1/2`` from 0 on, exactly; SpikingJelly's primitive adds
    1e-5 inside the logarithm, so that its derivative is not quite ``f``.
    Source: Suetake et al., "S2NN", 2022.

    >>> S2NN(alpha=4.0, beta=1.0).derivative(torch.tensor([0.0, 1.0]))
    tensor([1.0000, 0.5000])
    """

    rules: ClassVar = {"alpha": POSITIVE, "beta": POSITIVE}

    def __init__(
        self, alpha: Coefficient = 4.0, beta: Coefficient = 1.0, spiking: bool = True, *, strict: bool = False
    ) -> None:
        super().__init__(spiking, strict, alpha=alpha, beta=beta)

    @staticmethod
    def derivative_function(x: Tensor, alpha: Coefficient, beta: Coefficient) -> Tensor:
        y = torch.sigmoid(x * alpha)
        return torch.where(x < 0, (1.0 - y) * y * alpha, beta / (x + 1.0))

    @staticmethod
    def primitive_function(x: Tensor, alpha: Coefficient, beta: Coefficient) -> Tensor:
        return torch.where(x < 0, torch.sigmoid(x * alpha), torch.log1p(x.clamp_min(0.0)) * beta + 0.5)


class LeakyKReLU(Surrogate):
    """``f(x) = k`` for ``x ≥ 0``, ``leak`` below; ``F(x) = k x`` and ``leak·x``.

    >>> LeakyKReLU(leak=0.1, k=1.0).derivative(torch.tensor([-1.0, 0.0]))
    tensor([0.1000, 1.0000])
    """

    rules: ClassVar = {"leak": FINITE, "k": FINITE}

    def __init__(
        self, leak: Coefficient = 0.0, k: Coefficient = 1.0, spiking: bool = True, *, strict: bool = False
    ) -> None:
        super().__init__(spiking, strict, leak=leak, k=k)

    @staticmethod
    def derivative_function(x: Tensor, leak: Coefficient, k: Coefficient) -> Tensor:
        return _choose(x >= 0, k, leak, x)

    @staticmethod
    def primitive_function(x: Tensor, leak: Coefficient, k: Coefficient) -> Tensor:
        return torch.where(x >= 0, x * k, x * leak)


class FakeNumericalGradient(Surrogate):
    """``f(x) = min(1/|x|, α)``: the slope of the chord from 0, capped at ``α``.

    ``F(x) = αx + 1/2`` where ``α|x| ≤ 1``, else ``1/2 + sign(x)(1 + log(α|x|))``. At ``x = -0.0`` the
    slope is ``α`` like at ``0.0``; SpikingJelly's is minus infinity there, and it has no primitive.

    >>> FakeNumericalGradient(alpha=0.3).derivative(torch.tensor([-0.0, 1.0, -10.0]))
    tensor([0.3000, 0.3000, 0.1000])
    """

    rules: ClassVar = {"alpha": POSITIVE}

    def __init__(self, alpha: Coefficient = 0.3, spiking: bool = True, *, strict: bool = False) -> None:
        super().__init__(spiking, strict, alpha=alpha)

    @staticmethod
    def derivative_function(x: Tensor, alpha: Coefficient) -> Tensor:
        return x.abs().reciprocal().clamp(max=alpha)

    @staticmethod
    def primitive_function(x: Tensor, alpha: Coefficient) -> Tensor:
        t = x * alpha
        far = torch.log(t.abs().clamp_min(1.0)) + 1.0
        return torch.where(t.abs() <= 1.0, t, torch.where(t < 0, -far, far)) + 0.5


class LogTailedReLU(Surrogate):
    """``f(x) = α`` for ``x ≤ 0``, 1 in ``(0, 1]``, ``1/x`` above; ``F(x) = αx``, ``x``, ``log x + 1``.

    Source: Cai et al., "Deep Learning with Low Precision by Half-wave Gaussian Quantization", 2017.

    >>> LogTailedReLU(alpha=0.0).derivative(torch.tensor([-1.0, 0.0, 0.5, 4.0]))
    tensor([0.0000, 0.0000, 1.0000, 0.2500])
    """

    rules: ClassVar = {"alpha": FINITE}

    def __init__(self, alpha: Coefficient = 0.0, spiking: bool = True, *, strict: bool = False) -> None:
        super().__init__(spiking, strict, alpha=alpha)

    @staticmethod
    def derivative_function(x: Tensor, alpha: Coefficient) -> Tensor:
        return torch.where(x <= 0, alpha, x.clamp_min(1.0).reciprocal())

    @staticmethod
    def primitive_function(x: Tensor, alpha: Coefficient) -> Tensor:
        tail = torch.log(x.clamp_min(1.0)) + 1.0
        return torch.where(x <= 0, x * alpha, torch.where(x > 1, tail, x))


class DeterministicPass(Surrogate):
    """``f(x) = 1``, ``F(x) = x``: the straight-through estimator.

    Source: Bengio, Léonard & Courville, 2013.

    >>> x = torch.tensor([-1.0, 3.0], requires_grad=True)
    >>> DeterministicPass()(x).sum().backward()
    >>> x.grad
    tensor([1., 1.])
    """

    def __init__(self, spiking: bool = True, *, strict: bool = False) -> None:
        super().__init__(spiking, strict)

    @staticmethod
    def derivative_function(x: Tensor) -> float:
        return 1.0

    @staticmethod
    def primitive_function(x: Tensor) -> Tensor:
        return x
