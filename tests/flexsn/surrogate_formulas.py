"""What each surrogate's slope is, in NumPy; coefficients other than the defaults to try it with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


# One row a class: its defaults, f(x) in NumPy, the abscissas where f jumps or has a corner.
FORMULAS: dict[str, tuple[dict[str, float], Callable[..., Array], list[float]]] = {
    "Sigmoid": ({"alpha": 4.0}, lambda x, alpha: alpha * sigmoid(alpha * x) * (1 - sigmoid(alpha * x)), []),
    "ATan": ({"alpha": 2.0}, lambda x, alpha: (alpha / 2) / (1 + (math.pi * alpha * x / 2) ** 2), []),
    "PiecewiseQuadratic": (
        {"alpha": 1.0},
        lambda x, alpha: np.maximum(0, alpha - alpha**2 * abs(x)),
        [-1.0, 0.0, 1.0],
    ),
    "PiecewiseExp": ({"alpha": 1.0}, lambda x, alpha: alpha / 2 * np.exp(-alpha * abs(x)), [0.0]),
    "SoftSign": ({"alpha": 2.0}, lambda x, alpha: 1 / (2 * alpha * (1 / alpha + abs(x)) ** 2), [0.0]),
    "SuperSpike": ({"alpha": 1.0}, lambda x, alpha: alpha / (1 + abs(x)) ** 2, [0.0]),
    "FastSigmoid": ({"alpha": 25.0}, lambda x, alpha: 1 / (alpha * abs(x) + 1) ** 2, [0.0]),
    "Erf": ({"alpha": 2.0}, lambda x, alpha: alpha / math.sqrt(math.pi) * np.exp(-((alpha * x) ** 2)), []),
    "Gaussian": (
        {"sigma": 0.5},
        lambda x, sigma: np.exp(-(x**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi)),
        [],
    ),
    "QPseudoSpike": ({"alpha": 2.0}, lambda x, alpha: (1 + 2 * abs(x) / (alpha - 1)) ** -alpha, [0.0]),
    "Rect": ({"alpha": 1.0}, lambda x, alpha: np.where(abs(x) < 1 / (2 * alpha), alpha, 0.0), [-0.5, 0.5]),
    "SpikeLinear": ({"alpha": 0.3}, lambda x, alpha: alpha * np.maximum(0, 1 - abs(x)), [-1.0, 0.0, 1.0]),
    "Triangular": ({"alpha": 0.3}, lambda x, alpha: alpha * np.maximum(0, 1 - abs(x)), [-1.0, 0.0, 1.0]),
    "NonzeroSignLogAbs": ({"alpha": 1.0}, lambda x, alpha: 1 / (1 / alpha + abs(x)), [0.0]),
    "PiecewiseLeakyReLU": (
        {"w": 1.0, "c": 0.01},
        lambda x, w, c: np.where(abs(x) <= w, 1 / (2 * w), c),
        [-1.0, 1.0],
    ),
    "SquarewaveFourierSeries": (
        {"n": 2, "T_period": 8.0},
        lambda x, n, T_period: (
            4 / T_period * sum(np.cos(2 * math.pi * (2 * i - 1) * x / T_period) for i in range(1, int(n) + 1))
        ),
        [],
    ),
    "S2NN": (
        {"alpha": 4.0, "beta": 1.0},
        lambda x, alpha, beta: np.where(
            x < 0, alpha * sigmoid(alpha * x) * (1 - sigmoid(alpha * x)), beta / (np.maximum(x, 0) + 1)
        ),
        [0.0],
    ),
    "LeakyKReLU": ({"leak": 0.0, "k": 1.0}, lambda x, leak, k: np.where(x >= 0, k, leak), [0.0]),
    "FakeNumericalGradient": (
        {"alpha": 0.3},
        lambda x, alpha: np.minimum(1 / np.maximum(abs(x), 1e-9), alpha),
        [-1 / 0.3, 1 / 0.3],
    ),
    "LogTailedReLU": (
        {"alpha": 0.0},
        lambda x, alpha: np.where(x <= 0, alpha, np.where(x <= 1, 1.0, 1 / np.maximum(x, 1))),
        [0.0, 1.0],
    ),
    "DeterministicPass": ({}, lambda x: np.ones_like(x), []),
}
OTHER_COEFFICIENTS: dict[str, dict[str, float]] = {
    "PiecewiseLeakyReLU": {"w": 0.7, "c": 0.1},
    "SquarewaveFourierSeries": {"n": 5, "T_period": 3.0},
    "S2NN": {"alpha": 2.5, "beta": 0.4},
    "LeakyKReLU": {"leak": 0.2, "k": 1.7},
    "Gaussian": {"sigma": 1.3},
    "DeterministicPass": {},
}


def others(name: str) -> dict[str, float]:
    return OTHER_COEFFICIENTS.get(name, {"alpha": 1.6})
