"""What is found: every place a core reads, under the user's names, and nothing that no code mentions."""

from __future__ import annotations

import functools
import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from flexsn import FlexSN, surrogate
from flexsn.captures.discovery import discover
from flexsn.neurons import LIF

SCALE = 2.0
Returned = tuple[Tensor, Tensor]


def names(core: Any) -> list[str]:
    return sorted(source.name for source in discover(core).sources.values())


class Held:
    def __init__(self) -> None:
        self.gain = 2.0
        self.unread = 1.0

    def step(self, x: Tensor, v: Tensor) -> Returned:
        return v + x * self.gain, v

    def writes(self, x: Tensor, v: Tensor) -> Returned:
        self.count = 1
        return x, v


def test_only_what_code_mentions() -> None:
    assert names(Held().step) == ["gain"]
    assert names(lambda x, v: (torch.exp(x) * math.pi, v)) == []


def test_names_say_the_way() -> None:
    config, weights = SimpleNamespace(inner=SimpleNamespace(gain=2.0)), [torch.ones(3)]

    def core(x: Tensor, v: Tensor, bias: float = 1.0) -> Returned:
        return x * config.inner.gain * weights[0] * SCALE + bias, v

    assert {"config.inner.gain", "weights.0", "SCALE", "core.defaults"} <= set(names(core))


def test_equal_names_are_counted() -> None:
    gain = 1.0

    def inner(x: Tensor) -> Tensor:
        return x * gain

    def make(gain: float) -> Any:
        return lambda x, v: (inner(x) * gain, v)

    assert {"gain", "gain.2"} <= set(names(make(2.0)))


def test_a_copy_has_the_same_names() -> None:
    def make() -> Any:
        first, second = Held(), {"b": torch.ones(3), "a": torch.ones(3)}
        return lambda x, v: (x * first.gain * second["a"], v)

    assert [s.name for s in discover(make()).sources.values()] == [s.name for s in discover(make()).sources.values()]


def test_tensors_and_objects_in_containers_are_sources_and_numbers_are_content() -> None:
    table = {"weight": torch.ones(3), "gain": 2.0, "pair": (1.0, torch.ones(3))}
    found = discover(lambda x, v: (x * table["weight"], v))
    assert sorted(s.name for s in found.sources.values()) == ["table", "table.pair", "table.pair.1", "table.weight"]
    assert found.containers == [("table", table)]


def test_what_is_reached_through_a_global_is_shared() -> None:
    held = Held()

    def core(x: Tensor, v: Tensor) -> Returned:
        return x * SCALE * held.gain, v

    assert {s.name: s.shared for s in discover(core).sources.values()} == {
        "SCALE": True,
        "held": False,
        "held.gain": False,
    }


def test_what_is_written_is_watched_before_it_is_there() -> None:
    assert "count" in names(Held().writes)


def test_a_library_module_is_read_as_a_whole() -> None:
    linear = nn.LeakyReLU(0.5)
    assert "module.negative_slope" in names(lambda x, v, module=linear: (module(x), v))
    layers = nn.Sequential(nn.Linear(3, 3, bias=False))
    assert "layers.0.weight" in names(lambda x, v: (layers(x), v))


def test_a_neurons_own_affairs_are_not_read() -> None:
    class Neuron(FlexSN):
        def __init__(self) -> None:
            super().__init__()
            self.gain = 2.0

        def core(self, x: Tensor, v: Tensor) -> Returned:
            return x * self.gain * getattr(self, "absent", 1.0), v  # which asks for every attribute

    neuron = Neuron()
    assert set(names(neuron.core)) == {"gain", "absent", "absent.2", "absent.3", "absent.4"}
    before = names(neuron.core)
    neuron(torch.ones(2, 3))
    assert names(neuron.core) == before


def test_places_come_in_the_order_of_their_names_in_every_process() -> None:
    held = SimpleNamespace(e=1.0, c=1.0, f=1.0, a=1.0, d=1.0, b=1.0)
    core = lambda x, v: (x * held.e * held.c * held.f * held.a * held.d * held.b, v)  # noqa: E731
    found = [source.name for source in discover(core).sources.values()]
    assert [name for name in found if name.startswith("held.")] == [f"held.{name}" for name in "abcdef"]


def test_an_attribute_whose_name_is_no_text_is_not_read() -> None:
    held, name = SimpleNamespace(gain=2.0), "gain"
    vars(held)[1] = 3.0
    assert "held.gain" in names(lambda x, v: (x * getattr(held, name), v))


def test_a_users_own_state_names_are_read() -> None:
    held = SimpleNamespace(state_names=("gain",), gain=2.0)
    assert "held.gain" in names(lambda x, v: (x * held.gain, v))


def test_decorated_cores() -> None:
    def scaled(x: Tensor, v: Tensor) -> Returned:
        return x * SCALE, v

    @functools.wraps(torch.nn.functional.softplus)
    def wrapper(x: Tensor, v: Tensor) -> Returned:
        return x * SCALE, v

    assert "SCALE" in names(torch.no_grad()(scaled))
    assert names(wrapper) == ["SCALE"]


def test_a_surrogates_constants() -> None:
    spike = surrogate.ATan(alpha=3.0)
    assert names(lambda x, v: (spike(x), v)) == ["spike", "spike.alpha", "spike.spiking", "spike.strict"]


def test_a_built_in_neuron_reads_its_coefficients() -> None:
    class Mine(LIF):
        note = 1.0

    own = {"decay_input", "detach_reset", "tau", "v_reset", "v_threshold"}
    spike = {"surrogate_function" + rest for rest in ("", ".alpha", ".spiking", ".strict")}
    assert set(names(LIF().core)) == set(names(Mine().core)) == own | spike


def test_a_neuron_inside_a_core_does_not_spread_its_own_words() -> None:
    neuron, held = FlexSN(lambda x, v: (x, v)), SimpleNamespace(state_seqs=1.0, states=1.0, gain=2.0)
    assert {"held.state_seqs", "held.states"}.isdisjoint(names(lambda x, v: (neuron(x) * held.gain, v)))


def test_a_parametrized_module() -> None:
    class Double(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * 2.0

    class Core(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor, v: Tensor) -> Returned:
            return x * self.weight, v

    core = Core()
    torch.nn.utils.parametrize.register_parametrization(core, "weight", Double())
    assert "parametrizations.weight.original" in names(core)
