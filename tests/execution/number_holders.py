"""Cores that read a number, each with a way to change it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flexsn import surrogate

Core = Callable[..., Any]


Change = Callable[[float], Core]  # sets the number, and returns the core


def step(x: Tensor, v: Tensor, gain: float) -> tuple[Tensor, Tensor]:
    v = v + (x - v) / gain
    return v * gain, v


def in_a_closure() -> Change:
    gain = 1.0

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return step(x, v, gain)

    def change(number: float) -> Core:
        nonlocal gain
        gain = number
        return core

    return change


class Held(nn.Module):
    gain = 1.0

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return step(x, v, self.gain)


def in_a_module() -> Change:
    core = Held()

    def change(number: float) -> Core:
        core.gain = number
        return core

    return change


@dataclass
class Config:
    gain: float = 1.0


def in_a_dataclass() -> Change:
    config = Config()

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return step(x, v, config.gain)

    def change(number: float) -> Core:
        config.gain = number
        return core

    return change


def in_a_surrogate() -> Change:
    spike = surrogate.ATan()

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        s = spike(v + x - 1.0)
        return s, (v + x) * (1.0 - s)

    def change(number: float) -> Core:
        spike.alpha = number
        return core

    return change


def in_a_default_of_a_nested_function() -> Change:
    def nested(x: Tensor, v: Tensor, gain: float = 1.0) -> tuple[Tensor, Tensor]:
        return step(x, v, gain)

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return nested(x, v)

    def change(number: float) -> Core:
        nested.__defaults__ = (number,)
        return core

    return change


def in_a_core_made_anew() -> Change:
    def change(number: float) -> Core:
        weight = torch.tensor([0.5, 1.0, 2.0])
        return lambda x, v: step(x * weight, v, number)

    return change


def in_what_is_made_of_it() -> Change:
    numbers = {"tau": 1.0}

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return step(x, v, 1.0 + 0.5 / numbers["tau"])

    def change(number: float) -> Core:
        numbers["tau"] = number
        return core

    return change


def in_a_context_variable() -> Change:
    held = ContextVar("held", default=1.0)

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return step(x, v, held.get())

    def change(number: float) -> Core:
        held.set(number)
        return core

    return change


HOLDERS = [
    *(in_a_closure, in_a_module, in_a_dataclass, in_a_surrogate, in_a_default_of_a_nested_function),
    *(in_a_core_made_anew, in_what_is_made_of_it, in_a_context_variable),
]
