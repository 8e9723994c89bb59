"""Pullback: gradients from cotangents, by autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["pullback"]


def pullback(
    values: Sequence[Tensor], cotangents: Sequence[Tensor], sources: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """What ``torch.autograd.grad(values, sources, cotangents)`` gives, which would import sympy to compare shapes."""
    if not values or not sources:
        return (None,) * len(sources)
    root: Tensor = _Seed.apply(tuple(cotangents), *values)  # type: ignore[no-untyped-call]
    return torch.autograd.grad(root, sources, allow_unused=True)


class _Seed(torch.autograd.Function):
    """A number whose gradient in each of ``values`` is the cotangent given for it."""

    @staticmethod
    def forward(ctx: Any, cotangents: tuple[Tensor, ...], *values: Tensor) -> Tensor:
        ctx.cotangents = cotangents
        return torch.zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        return (None, *ctx.cotangents)
