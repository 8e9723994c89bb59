"""What NIR has without time: products, convolutions, pools. Each takes any dimensions before those of the node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["AvgPool2d", "Conv1d", "Conv2d", "MatrixStack", "Scale", "SumPool2d", "Threshold"]


def over_leading(layer: Callable[[Tensor], Tensor], x: Tensor, dims: int) -> Tensor:
    """A layer of ``dims`` dimensions and a batch, on all dimensions before these at once."""
    leading = x.shape[: x.dim() - dims]
    if not leading:
        return layer(x)
    y = layer(x.reshape(-1, *x.shape[x.dim() - dims :]))
    return y.reshape(*leading, *y.shape[1:])


class Conv1d(nn.Conv1d):
    """``nn.Conv1d`` on ``[..., C, L]``."""

    def forward(self, input: Tensor) -> Tensor:
        return over_leading(super().forward, input, 2)


class Conv2d(nn.Conv2d):
    """``nn.Conv2d`` on ``[..., C, H, W]``."""

    def forward(self, input: Tensor) -> Tensor:
        return over_leading(super().forward, input, 3)


class AvgPool2d(nn.AvgPool2d):
    """``nn.AvgPool2d`` on ``[..., C, H, W]``; padding counts as zeros."""

    def forward(self, input: Tensor) -> Tensor:
        return over_leading(super().forward, input, 3)


class SumPool2d(nn.AvgPool2d):
    """The sum over each window of ``[..., C, H, W]``."""

    def __init__(self, kernel_size: Any, stride: Any, padding: Any) -> None:
        super().__init__(kernel_size, stride, padding, divisor_override=1)

    def forward(self, input: Tensor) -> Tensor:
        return over_leading(super().forward, input, 3)


class MatrixStack(nn.Module):
    """A product with a matrix of its own in every place: weight ``[*places, out, in]``, input ``[..., *places, in]``.

    NIR's ``Linear`` and ``Affine`` with a weight of more than two dimensions.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x) if self.bias is None else self.product(x) + self.bias

    def product(self, x: Tensor) -> Tensor:
        """Without the bias."""
        return torch.einsum("...oi,...i->...o", self.weight, x)


class Scale(nn.Module):
    """``scale·x``, lane by lane."""

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x, self.scale)[0]

    def parameters_of_a_step(self) -> tuple[Tensor, ...]:
        return (self.scale,)

    def step(self, x: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        return (scale * x,)


class Threshold(nn.Module):
    """1 where ``x > threshold``, else 0."""

    threshold: Tensor

    def __init__(self, threshold: Tensor, spike: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.register_buffer("threshold", threshold)
        self.spike = spike

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x, self.threshold)[0]

    def parameters_of_a_step(self) -> tuple[Tensor, ...]:
        return (self.threshold,)

    def step(self, x: Tensor, threshold: Tensor) -> tuple[Tensor, ...]:
        return (self.spike(x - threshold),)
