r"""Spike functions with surrogate gradients.

``spike = ATan(alpha=2.0)`` is called as ``s = spike(h - threshold)``. Forward it is the step
:math:`s = \Theta(x)`; backward the gradient is multiplied by a slope :math:`f(x)`, listed here.
Arguments, shapes, dtypes and errors common to all are those of :class:`Surrogate`.

============================  ==================  ============================================================
class                         defaults            :math:`f(x)`
============================  ==================  ============================================================
`Sigmoid`                     alpha=4             ``α σ(αx) (1 − σ(αx))``
`ATan`                        alpha=2             ``(α/2) / (1 + (παx/2)²)``
`PiecewiseQuadratic`          alpha=1             ``max(0, α − α²|x|)``
`PiecewiseExp`                alpha=1             ``(α/2) exp(−α|x|)``
`SoftSign`                    alpha=2             ``1 / (2α (1/α + |x|)²)``
`SuperSpike`                  alpha=1             ``α / (1 + |x|)²``
`FastSigmoid`                 alpha=25            ``1 / (1 + α|x|)²``
`Erf`                         alpha=2             ``(α/√π) exp(−α²x²)``
`Gaussian`                    sigma=0.5           ``exp(−x²/(2σ²)) / (σ√(2π))``
`QPseudoSpike`                alpha=2             ``(1 + 2|x|/(α−1))^(−α)``
`Rect`                        alpha=1             ``α where |x| < 1/(2α), else 0``
`SpikeLinear`, `Triangular`   alpha=0.3           ``α max(0, 1 − |x|)``
`NonzeroSignLogAbs`           alpha=1             ``1 / (1/α + |x|)``
`PiecewiseLeakyReLU`          w=1, c=0.01         ``1/(2w) where |x| ≤ w, else c``
`SquarewaveFourierSeries`     n=2, T_period=8     ``(4/T) Σ_{i=1..n} cos(2π(2i−1)x/T)``
`S2NN`                        alpha=4, beta=1     ``α σ(αx)(1 − σ(αx)) for x < 0, β/(x+1) for x ≥ 0``
`LeakyKReLU`                  leak=0, k=1         ``leak for x < 0, k for x ≥ 0``
`FakeNumericalGradient`       alpha=0.3           ``min(1/|x|, α)``
`LogTailedReLU`               alpha=0             ``α for x ≤ 0, 1 in (0, 1], 1/x above``
`DeterministicPass`                               ``1``
============================  ==================  ============================================================

One's own slope: :func:`custom`, a subclass of :class:`Surrogate`, or any ``torch.autograd.Function``.
"""

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
from flexsn.surrogate.custom_slope import Custom, custom
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
