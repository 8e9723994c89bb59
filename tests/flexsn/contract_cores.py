"""Cores that several tests of the contracts share, and the loop to hold results to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flexsn import FlexSN, surrogate

SPIKE = surrogate.ATan(alpha=2.0)
Returned = tuple[Tensor, ...]


def lif(x: Tensor, v: Tensor) -> Returned:
    h = v + (x - v) / 2.0
    s = SPIKE(h - 1.0)
    return s, h * (1.0 - s)


def two(x: Tensor, z: Tensor, v: Tensor, w: Tensor) -> Returned:
    v = v * 0.5 + x
    w = w * 0.25 + z * v
    return v + w, v - w, v, w


def smooth(x: Tensor, v: Tensor) -> Returned:
    v = v * 0.5 + x * x
    return v * v, v


def sequence(*shape: int) -> Tensor:
    return torch.linspace(-1.0, 4.0, torch.Size(shape).numel()).reshape(shape)


def loop(core: Any, *inputs: Tensor, **options: Any) -> Any:
    return FlexSN(core, backend="torch", **options)(*inputs)
