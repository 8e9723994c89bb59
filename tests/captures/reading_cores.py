"""Cores that read 2.0 somewhere, each with a function that makes it something else."""

from __future__ import annotations

import functools
import threading
from collections import deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from torch import Tensor, nn

from flexsn import FlexSN, surrogate
from flexsn.captures.source import WRITING

GAIN = 2.0
CONFIG = SimpleNamespace(gain=2.0, deeper=SimpleNamespace(gain=2.0))
SETTINGS = ModuleType("settings")
SETTINGS.gain = 2.0  # type: ignore[attr-defined]
Change = Callable[[], object]
Case = tuple[Callable[..., Any], Change]


class Constants:
    gain = 2.0


class Base:
    scale = 2.0

    def __init__(self) -> None:
        self.gain = 2.0
        self._hidden = 2.0

    @property
    def shown(self) -> float:
        return self._hidden * 1.0

    def step(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return v + x * self.gain, v

    def step_of_property(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return v + x * self.shown, v

    def step_of_class_constant(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return v + x * self.scale, v

    def step_by_string(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return v + x * getattr(self, "ga" + "in"), v

    def step_with_default(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return v + x * getattr(self, "absent", 2.0), v


class Derived(Base):
    def step(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return super().step(x, v)


class Slotted:
    __slots__ = ("gain",)

    def __init__(self) -> None:
        self.gain = 2.0

    def __call__(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return v + x * self.gain, v


class Descriptor:
    def __set_name__(self, owner: type, name: str) -> None:
        self.place = f"_{name}"

    def __get__(self, held: Any, owner: type) -> Any:
        return vars(held)[self.place]


class Described:
    gain = Descriptor()

    def __init__(self) -> None:
        self._gain = 2.0

    def __call__(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return v + x * self.gain, v


@dataclass
class Config:
    gain: float = 2.0
    table: dict[str, float] = field(default_factory=lambda: {"gain": 2.0})


def of_object(held: Any, name: str, method: str | None = None) -> Case:
    return (getattr(held, method) if method else held), lambda: setattr(held, name, 3.0)


def closure_cell() -> Case:
    gain = 2.0

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return v + x * gain, v

    def change() -> None:
        nonlocal gain
        gain = 3.0

    return core, change


def read_global(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return v + x * GAIN, v


def read_global_object(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return v + x * CONFIG.deeper.gain, v


def read_module(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return v + x * SETTINGS.gain, v


def read_class(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return v + x * Constants.gain, v


def through_helper(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return read_global(x, v)


def with_default(x: Tensor, v: Tensor, gain: float = 2.0) -> tuple[Tensor, Tensor]:
    return v + x * gain, v


def change_default() -> Case:
    return with_default, lambda: setattr(with_default, "__defaults__", (3.0,))


def in_container(container: Any, key: Any, change: Change) -> Case:
    return (lambda x, v: (v + x * float(container[key]), v)), change


def containers() -> dict[str, Case]:
    numbers, table, queue, array = [2.0], {"gain": 2.0}, deque([2.0]), np.array([2.0])
    pair = namedtuple("pair", "gain rest")
    held = SimpleNamespace(pair=pair(2.0, 0.0), nested=[{"gain": 2.0}])
    members = {1.0}
    config = Config()
    return {
        "list item": in_container(numbers, 0, lambda: numbers.__setitem__(0, 3.0)),
        "dict item": in_container(table, "gain", lambda: table.update(gain=3.0)),
        "deque item": in_container(queue, 0, lambda: queue.__setitem__(0, 3.0)),
        "numpy item": in_container(array, 0, lambda: array.__setitem__(0, 3.0)),
        "set": ((lambda x, v: (v + x * sum(members), v)), lambda: members.add(2.0)),
        "length": ((lambda x, v: (v + x * len(numbers), v)), lambda: numbers.append(0.0)),
        "named tuple": ((lambda x, v: (v + x * held.pair.gain, v)), lambda: setattr(held, "pair", pair(3.0, 0.0))),
        "nested": ((lambda x, v: (v + x * held.nested[0]["gain"], v)), lambda: held.nested[0].update(gain=3.0)),
        "dataclass": ((lambda x, v: (v + x * config.gain, v)), lambda: setattr(config, "gain", 3.0)),
        "dataclass dict": ((lambda x, v: (v + x * config.table["gain"], v)), lambda: config.table.update(gain=3.0)),
    }


def of_surrogate() -> Case:
    spike = surrogate.ATan(alpha=2.0)
    return (lambda x, v: (spike(x + v), v)), lambda: setattr(spike, "alpha", 3.0)


def of_partial() -> Case:
    held = functools.partial(with_default, gain=2.0)
    return held, lambda: held.keywords.update(gain=3.0)


def of_neuron() -> Case:
    class Neuron(FlexSN):
        def __init__(self) -> None:
            super().__init__()
            self.gain = 2.0

        def core(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            return v + x * self.gain, v

    neuron = Neuron()
    return neuron.core, lambda: setattr(neuron, "gain", 3.0)


def of_module() -> Case:
    module = nn.LeakyReLU(0.5)
    return (lambda x, v: (v + module(x - 1.0), v)), lambda: setattr(module, "negative_slope", 0.25)


def global_changes() -> dict[str, Case]:
    def set_global() -> None:
        global GAIN
        GAIN = 3.0

    return {
        "global": (read_global, set_global),
        "global of a helper": (through_helper, set_global),
        "global object": (read_global_object, lambda: setattr(CONFIG.deeper, "gain", 3.0)),
        "global object replaced": (read_global_object, lambda: setattr(CONFIG, "deeper", SimpleNamespace(gain=3.0))),
        "module": (read_module, lambda: setattr(SETTINGS, "gain", 3.0)),
        "class constant": (read_class, lambda: setattr(Constants, "gain", 3.0)),
    }


CASES: dict[str, Callable[[], Case]] = {
    "attribute": lambda: of_object(Base(), "gain", "step"),
    "attribute through super": lambda: of_object(Derived(), "gain", "step"),
    "property": lambda: of_object(Base(), "_hidden", "step_of_property"),
    "class constant shadowed": lambda: of_object(Base(), "scale", "step_of_class_constant"),
    "name made at run time": lambda: of_object(Base(), "gain", "step_by_string"),
    "attribute that appears": lambda: of_object(Base(), "absent", "step_with_default"),
    "slots": lambda: of_object(Slotted(), "gain"),
    "descriptor": lambda: of_object(Described(), "_gain"),
    "closure cell": closure_cell,
    "default": change_default,
    "partial keyword": of_partial,
    "surrogate alpha": of_surrogate,
    "neuron attribute": of_neuron,
    "torch module attribute": of_module,
}
CASES |= {name: lambda name=name: containers()[name] for name in containers()}  # type: ignore[misc]
CASES |= {name: lambda name=name: global_changes()[name] for name in global_changes()}  # type: ignore[misc]


def restore_globals() -> None:
    global GAIN
    GAIN, CONFIG.deeper = 2.0, SimpleNamespace(gain=2.0)
    SETTINGS.gain = Constants.gain = 2.0  # type: ignore[attr-defined]
    with_default.__defaults__ = (2.0,)


def writing_is_free() -> bool:
    """Whether another thread could write now."""
    taken: list[bool] = []

    def take() -> None:
        taken.append(WRITING.acquire(blocking=False))
        if taken[0]:
            WRITING.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return taken[0]
