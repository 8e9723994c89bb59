"""The values every operation is tried on."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor


@cache
def arguments(dtype: torch.dtype, arity: int) -> tuple[Tensor, ...]:
    """Special values in every combination, random ones, of one argument all of fp16; each ``[2, N]``."""
    special, random = _special(dtype), _random(dtype, arity)
    if arity == 1 and dtype.is_floating_point:
        random = torch.cat([random, _halves(dtype)], 1)
    if arity == 3:
        special = special[:: max(1, len(special) // 11)]
    combined = torch.cartesian_prod(*[special] * arity).reshape(-1, arity).T
    whole = torch.cat([combined, random], 1)
    whole = whole[:, : whole.shape[1] // 2 * 2]
    return tuple(row.reshape(2, -1).contiguous() for row in whole)


def _special(dtype: torch.dtype) -> Tensor:
    if dtype == torch.bool:
        return torch.tensor([False, True])
    if dtype.is_floating_point:
        info = torch.finfo(dtype)
        tiny, subnormal = info.tiny, info.smallest_normal * info.eps
        positive = [
            0.0,
            1.0,
            0.5,
            1.5,
            2.5,
            0.49999997,
            0.3,
            1 / 3,
            2.0,
            3.0,
            7.0,
            20.5,
            88.0,
            100.25,
            1e4,
            123456.789,
            2.0**23 + 1,
            2.0**31,
            1e30,
            info.eps,
            1 - info.eps,
            1 + info.eps,
            tiny,
            subnormal,
            tiny * 0.75,
            info.max,
            math.inf,
            math.pi / 2,
            math.pi,
            1e-4,
            1e-20,
        ]
        return torch.tensor([*positive, *(-p for p in positive), math.nan], dtype=dtype)
    info = torch.iinfo(dtype)
    values = {0, 1, 2, 3, 5, 7, 8, 31, 63, 64, 100, info.max, info.max - 1, info.min, info.min + 1, -1, -2, -3, -7}
    return torch.tensor(sorted(v for v in values if info.min <= v <= info.max), dtype=dtype)


def _halves(dtype: torch.dtype) -> Tensor:
    """All that fp16 can hold."""
    halves = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16).to(dtype)
    return halves[~halves.isnan()][None]


def _random(dtype: torch.dtype, arity: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    count = 1024
    if dtype == torch.bool:
        return torch.rand(arity, count, generator=generator) < 0.5
    if dtype.is_floating_point:
        normal = torch.randn(arity, count, generator=generator, dtype=dtype)
        scale = torch.tensor([1.0, 10.0, 1e-3, 1e3], dtype=dtype).repeat(count // 4)
        uniform = torch.rand(arity, 32 * count, generator=generator, dtype=dtype) * 2 - 1
        return torch.cat([normal * scale, uniform[:, ::2] * 1.5, uniform[:, 1::2] * 110], 1)
    info = torch.iinfo(dtype)
    return torch.randint(info.min, info.max, (arity, count), generator=generator, dtype=dtype)
