"""Cores that come compiled, scripted, or on their way into a pickle."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flexsn import CoreError, FlexSN, neurons, scan
from flexsn.neurons import LIF, norse, rnnbuilder, snntorch, spikingjelly


class Leaky(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.leak = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = v * self.leak + x
        return h, h


def leaky(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v * 0.5 + x
    return h, h


WRAPPED: dict[str, Callable[[], Any]] = {
    "compiled function": lambda: torch.compile(leaky),
    "compiled module": lambda: torch.compile(Leaky()),
    "compiled method": lambda: torch.compile(Leaky().forward),
    "scripted module": lambda: torch.jit.script(Leaky()),
}


@pytest.mark.filterwarnings("ignore:.*deprecated")
@pytest.mark.parametrize("kind", WRAPPED)
def test_it_is_what_was_wrapped(kind: str, backend: str) -> None:
    x, core = torch.randn(4, 3), WRAPPED[kind]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # nobody can watch what is inside a scripted module
        warnings.filterwarnings("ignore" if kind == "scripted module" else "error", ".*\\n.*may change unseen")
        neuron = FlexSN(core, backend=backend)
        y = neuron(x)
        again, _ = scan(core, x, torch.zeros(3), backend)
    want, _ = scan(leaky, x, torch.zeros(3), "torch")
    assert torch.equal(y, want)
    assert torch.equal(again, want)
    assert neuron.state_names == ("v",)
    assert len(list(neuron.parameters())) == (kind != "compiled function")


def made_inside() -> Callable[..., Any]:
    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return leaky(x, v)

    return core


nameless: Callable[..., Any] = lambda x, v: leaky(x, v)  # noqa: E731


@pytest.mark.parametrize("core", [made_inside(), nameless, partial(nameless)])
def test_a_core_without_a_name_cannot_be_pickled_and_says_what_to_do(core: Callable[..., Any]) -> None:
    neuron = FlexSN(core)
    with pytest.raises(pickle.PicklingError, match=r"where: [\s\S]*top level of a module[\s\S]*state_dict\(\)"):
        pickle.dumps(neuron)
    x = torch.randn(4, 3)
    for copied in (copy.copy(neuron), copy.deepcopy(neuron)):
        assert torch.equal(copied(x), FlexSN(leaky)(x))


def test_others_can() -> None:
    neuron = pickle.loads(pickle.dumps(FlexSN(leaky)))
    assert neuron.core is leaky
    assert pickle.loads(pickle.dumps(FlexSN(Leaky()))).core.leak.item() == 0.5


def test_numpy_numbers_are_numbers_and_arrays_say_what_they_do(backend: str) -> None:
    held = {"leak": np.float64(0.5)}

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = v * held["leak"] + x
        return h, h

    x = torch.randn(4, 3)
    assert torch.equal(FlexSN(core, backend=backend)(x), FlexSN(leaky, backend=backend)(x))
    held["leak"] = np.array([0.5])  # type: ignore[assignment]
    with pytest.raises(CoreError, match=r"from torch.float32 to torch.float64[\s\S]*a NumPy array is float64"):
        FlexSN(core, backend="torch")(x)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.int64, torch.bool])
@pytest.mark.parametrize(
    "make", [LIF, spikingjelly.LIFNode, spikingjelly.IFNode, norse.LIF, partial(snntorch.Leaky, 0.5), rnnbuilder.LIF]
)
@pytest.mark.parametrize("step_mode", ["m", "s"])
def test_built_in_neurons_take_integers_as_floats(
    make: Callable[..., FlexSN], dtype: torch.dtype, step_mode: str, backend: str
) -> None:
    x = (torch.rand(4, 3) * 3).to(dtype)
    got, want = make(step_mode=step_mode, backend=backend), make(step_mode=step_mode, backend=backend)
    spikes, expected = got(x), want(x.float())
    assert torch.equal(*(r[0] if isinstance(r, tuple) else r for r in (spikes, expected)))
    assert all(map(torch.equal, got.states, want.states))


def test_all_of_them_do() -> None:
    rooms = (neurons, norse, rnnbuilder, snntorch, spikingjelly)
    classes = [found for room in rooms for name in room.__all__ if isinstance(found := getattr(room, name), type)]
    refuse = {found for found in classes if issubclass(found, FlexSN) and not found.integers_as_floats}
    # one begins with a linear layer, the other has a core of the user's
    assert refuse == {snntorch.LeakyParallel, spikingjelly.FlexSN}
