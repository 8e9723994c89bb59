"""Modules with states, and a network of them, as the network-level helpers see them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Stateful(nn.Module):
    """A small neuron-like module that records what is done to it."""

    def __init__(self, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.inner = inner
        self.step_mode = "s"
        self.backend = "auto"
        self.v_threshold: Any = 1.0
        self.v: Tensor | float = 0.0
        self.calls: list[str] = []

    def forward(self, x: Tensor) -> Tensor:
        self.v = self.v + x
        return self.v

    def reset(self) -> None:
        self.calls.append("reset")
        self.v = 0.0

    def detach(self) -> None:
        self.calls.append("detach")
        if isinstance(self.v, Tensor):
            self.v = self.v.detach()


def network() -> tuple[nn.Sequential, list[Stateful]]:
    inner = Stateful()
    outer = Stateful(inner)
    last = Stateful()
    return nn.Sequential(nn.Linear(3, 3), outer, nn.Sequential(last)), [outer, inner, last]
