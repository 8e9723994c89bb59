r"""Spike functions with surrogate gradients.

``spike = ATan(alpha=2.0)`` is called as ``s = spike(h - threshold)``. Forward it is the step
:math:`s = \Theta(x)`; backward the gradient is multiplied by a slope :math:`f(x)`, listed here.
Arguments, shapes, dtypes and errors common to all are those of :class:`Surrogate`.

=========================  ==================  ============================================================
class                      defaults            :math:`f(x)`
=========================  ==================  ============================================================
`Sigmoid`                  alpha=4             α σ(αx) (1 − σ(αx))
`ATan`                     alpha=2             (α/2) / (1 + (παx/2)²)
`PiecewiseQuadratic`       alpha=1             max(0, α − α²|x|)
`PiecewiseExp`             alpha=1             (α/2) exp(−α|x|)
`SoftSign`                 alpha=2             1 / (2α (1/α + |x|)²)
`SuperSpike`               alpha=1             α / (1 + |x|)²
`FastSigmoid`              alpha=25            1 / (1 + α|x|)²
`Erf`                      alpha=2             (α/√π) exp(−α²x²)
`Gaussian`                 sigma=0.5           exp(−x²/2σ²) / (σ√(2π))
`QPseudoSpike`             alpha=2             (1 + 2|x|/(α−1))^(−α)
`Rect`                     alpha=1             α where |x| < 1/(2α), else 0
`SpikeLinear`, `Triangular`  alpha=0.3         α max(0, 1 − |x|)
`NonzeroSignLogAbs`        alpha=1             1 / (1/α + |x|)
`PiecewiseLeakyReLU`       w=1, c=0.01         1/(2w) where |x| ≤ w, else c
`SquarewaveFourierSeries`  n=2, T_period=8     (4/T) Σ_{i=1..n} cos(2π(2i−1)x/T)
`S2NN`                     alpha=4, beta=1     α σ(αx)(1 − σ(αx)) for x < 0, β/(x+1) for x ≥ 0
`LeakyKReLU`               leak=0, k=1         leak for x < 0, k for x ≥ 0
`FakeNumericalGradient`    alpha=0.3           min(1/|x|, α)
`LogTailedReLU`            alpha=0             α for x ≤ 0, 1 in (0, 1], 1/x above
`DeterministicPass`                            1
=========================  ==================  ============================================================

One's own slope: :func:`custom`, a subclass of :class:`Surrogate`, or any ``torch.autograd.Function``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from flexsn.surrogate.base import Surrogate, heaviside
from flexsn.surrogate.bells import (
    ATan,
    Erf,
    FastSigmoid,
    Gaussian,
    PiecewiseExp,
    PiecewiseQuadratic,
    QPseudoSpike,
    Rect,
    Sigmoid,
    SoftSign,
    SpikeLinear,
    SuperSpike,
    Triangular,
)
from flexsn.surrogate.tails import (
    S2NN,
    DeterministicPass,
    FakeNumericalGradient,
    LeakyKReLU,
    LogTailedReLU,
    NonzeroSignLogAbs,
    PiecewiseLeakyReLU,
    SquarewaveFourierSeries,
)

__all__ = [
    "S2NN",
    "ATan",
    "Custom",
    "DeterministicPass",
    "Erf",
    "FakeNumericalGradient",
    "FastSigmoid",
    "Gaussian",
    "LeakyKReLU",
    "LogTailedReLU",
    "NonzeroSignLogAbs",
    "PiecewiseExp",
    "PiecewiseLeakyReLU",
    "PiecewiseQuadratic",
    "QPseudoSpike",
    "Rect",
    "Sigmoid",
    "SoftSign",
    "SpikeLinear",
    "SquarewaveFourierSeries",
    "SuperSpike",
    "Surrogate",
    "Triangular",
    "custom",
    "heaviside",
]


class Custom(Surrogate):
    """A surrogate made of one's own functions; see :func:`custom`."""

    def __init__(
        self,
        derivative: Callable[[Tensor], Any],
        primitive: Callable[[Tensor], Tensor] | None = None,
        spiking: bool = True,
        *,
        strict: bool = False,
    ) -> None:
        super().__init__(spiking, strict)
        for name, function in (("derivative", derivative), ("primitive", primitive)):
            if not callable(function) and not (name == "primitive" and function is None):
                raise ValueError(
                    f"custom({name}={function!r}): {name} must be a function of one tensor, "
                    f"got {type(function).__name__}"
                )
        self.derivative_function = derivative
        self.primitive_function = primitive or _no_primitive
        self.has_primitive = primitive is not None
        if not spiking and primitive is None:
            raise ValueError(
                "custom(primitive=None, spiking=False): spiking=False needs a primitive, and none was given"
            )

    def extra_repr(self) -> str:
        named = {"derivative": self.derivative_function}
        if self.has_primitive:
            named["primitive"] = self.primitive_function
        parts = [f"{name}={getattr(f, '__name__', type(f).__name__)}" for name, f in named.items()]
        return ", ".join([*parts, *filter(None, [super().extra_repr()])])


def _no_primitive(x: Tensor) -> Tensor:
    raise ValueError("custom(primitive=None): spiking=False needs a primitive, and none was given")


def custom(
    derivative: Callable[[Tensor], Any],
    primitive: Callable[[Tensor], Tensor] | None = None,
    spiking: bool = True,
    *,
    strict: bool = False,
) -> Custom:
    """A spike function whose backward multiplies the gradient by ``derivative(x)``.

    Args:
        derivative: ``f(x)``, made of pointwise torch operations; the result has the shape of ``x``.
            Tensors it closes over are constants: for a learnable coefficient, subclass :class:`Surrogate`.
        primitive: ``F(x)`` with ``F' = f``; needed for ``spiking=False`` only.
        spiking: ``False`` computes ``primitive(x)`` instead of the step.
        strict: ``True`` fires at ``x > 0``, ``False`` at ``x >= 0``.

    Raises:
        ValueError: something that cannot be called; ``spiking=False`` without a primitive.

    Example:
        >>> import torch
        >>> spike = custom(lambda x: 1 / (1 + 10 * x.abs()) ** 2)
        >>> x = torch.tensor([-0.1, 0.0, 0.4], requires_grad=True)
        >>> s = spike(x)
        >>> s.sum().backward()
        >>> s.tolist(), x.grad
        ([0.0, 1.0, 1.0], tensor([0.2500, 1.0000, 0.0400]))
    """
    return Custom(derivative, primitive, spiking, strict=strict)
