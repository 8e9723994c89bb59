"""Cores whose numbers lie in holders of every kind, each with a change of what is held."""

from __future__ import annotations

import contextvars
import copy
import enum
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flexsn import FlexSN

Core = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


Case = tuple[Core, Callable[[], object]]


class Held:
    """Whatever a core asks of it."""

    kept = 2.0

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)

    def method(self) -> float:
        return self.kept

    @property
    def shown(self) -> float:
        return self.kept


class Dict(dict[str, Any]):
    gain: float


class List(list[float]):
    gain: float


class Float(float):
    gain: float


@dataclass(slots=True)
class Slots:
    a: float = 2.0
    b: float = 1.0


class Pair(NamedTuple):
    gain: Any
    other: float = 0.0


class Mode(enum.Enum):
    FAST = 2.0
    SLOW = 3.0


def scaled(gain: Callable[[], Any]) -> Core:
    return lambda x, v: (v + x * gain(), v)


def with_attribute(held: Any) -> Case:
    held.gain = 2.0
    return (lambda x, v: (v + x * held.gain, v)), lambda: setattr(held, "gain", 3.0)


def of_a_function() -> Case:
    def helper() -> None: ...

    return with_attribute(helper)


def of_a_tensor(tensor: Tensor) -> Case:
    tensor.gain = 2.0  # type: ignore[attr-defined]
    return (lambda x, v: (v + x * tensor * tensor.gain, v)), lambda: setattr(tensor, "gain", 3.0)  # type: ignore[attr-defined]


def of_a_replaced_tensor() -> Case:
    held = Held(weight=torch.ones(2), other=torch.ones(2))
    held.weight.gain, held.other.gain = 2.0, 3.0
    return (lambda x, v: (v + x * held.weight * held.weight.gain, v)), lambda: setattr(held, "weight", held.other)


def state_of_that_name() -> Case:
    class Neuron(FlexSN):
        def __init__(self) -> None:
            super().__init__()
            self.b = 2.0

        def core(self, x: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            return b + x * self.b, b

    neuron = Neuron()
    return neuron.core, lambda: vars(neuron).update(b=3.0)


def in_what(make: Callable[[Held], Any], get: Callable[[Any], Any]) -> Case:
    held = Held(gain=2.0)
    container = make(held)
    return scaled(lambda: get(container).gain), lambda: setattr(held, "gain", 3.0)


def item(holder: Any, key: Any = "gain") -> Case:
    holder[key] = 2.0
    return scaled(lambda: holder[key]), lambda: holder.__setitem__(key, 3.0)


def of_a_dict_method() -> Case:
    table = {"gain": 2.0}
    get = table.get
    return scaled(lambda: get("gain")), lambda: table.update(gain=3.0)


def of_a_context() -> Case:
    variable = contextvars.ContextVar("gain", default=2.0)
    return scaled(lambda: variable.get()), lambda: variable.set(3.0)


def of_a_thread() -> Case:
    return with_attribute(threading.local())


def of_a_member() -> Case:
    held = Held(mode=Mode.FAST)
    return scaled(lambda: held.mode.value), lambda: setattr(held, "mode", Mode.SLOW)


def computed_names() -> Case:
    held = SimpleNamespace(gain=2.0)
    name = "".join(["ga", "in"])
    return scaled(lambda: vars(held)[name]), lambda: setattr(held, "gain", 3.0)


def listed_names() -> Case:
    held = SimpleNamespace(gain=2.0)
    before = len(dir(held))
    return scaled(lambda: float(2 + len(dir(held)) - before)), lambda: setattr(held, "other", 3.0)


def order_of_items() -> Case:
    table = OrderedDict(first=2.0, second=3.0)
    return scaled(lambda: next(iter(table.values()))), lambda: table.move_to_end("first")


def in_slots() -> Case:
    held = Slots()
    return scaled(lambda: getattr(held, "a", held.b)), lambda: setattr(held, "a", 3.0)


def copied() -> Case:
    held = Held(gain=2.0)
    return scaled(lambda: copy.deepcopy(held).gain), lambda: setattr(held, "gain", 3.0)


def rational() -> Case:
    held = Held(gain=Fraction(2))
    return scaled(lambda: float(getattr(held, "gain", 1.0))), lambda: setattr(held, "gain", Fraction(3))


def locked() -> Case:
    held = Held(gain=2.0, lock=threading.RLock())

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        with held.lock:
            return v + x * getattr(held, "gain", 1.0), v

    return core, lambda: setattr(held, "gain", 3.0)
