"""A neuron that is fed its own spikes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

Function = Callable[[Tensor], Tensor]


def feeding(connection: Function, spike: Function, decay: float | Tensor = 0.5) -> Callable[..., Any]:
    """An integrate-and-fire neuron that gets its last spikes through a connection."""

    def core(x: Tensor, v: Tensor, z: Tensor) -> Any:
        h = v + (x + connection(z) - v) * decay
        s = spike(h - 1.0)
        return s, h * (1.0 - s), s

    return core
