"""Mistakes as users make them: each is told by its own text, with what to do, whatever the backend."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from contract_cores import lif, sequence, two
from torch import Tensor, nn

from flexsn import CoreError, FlexSN, Recurrent, neurons, scan, surrogate

Returns = Callable[[Tensor, Tensor], Any]


def two_states(x: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return v + x, v + x, w


class Cell(nn.Module):
    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return v + x, v + x


async def waits(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return x, v


def yields(x: Tensor, v: Tensor) -> Iterator[Tensor]:
    yield from (x, v)


async def waits_and_yields(x: Tensor, v: Tensor) -> AsyncIterator[Tensor]:
    yield x


def without_arguments(x: float = 1.0) -> float:
    return x


class Holder:
    def core(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return x + v, v


@pytest.mark.parametrize("core, text", [
    (3, r"core must be callable, got int\n  hint:  pass a function"),
    (Cell, r"the core is the class Cell, not an object of it\n  hint:  make one: Cell\(\.\.\.\)"),
    (neurons.LIF, r"the core is the class LIF"),
    (waits, r"the core is an async function\n  where: .*test_mistakes\.py:\d+, waits\n[\s\S]*hint:  write def"),
    (yields, r"the core is a generator[\s\S]*hint:  write def in place of async def, return in place of yield"),
    (waits_and_yields, r"the core is a generator"),
])  # fmt: skip
def test_what_is_no_core(core: Any, text: str) -> None:
    with pytest.raises(CoreError, match=text):
        FlexSN(core)
    with pytest.raises(CoreError, match=text):
        scan(core, sequence(4, 3), torch.zeros(3))


def test_a_method_without_its_object() -> None:
    with pytest.raises(CoreError, match=r"without its object[\s\S]*Holder\.core\n  hint:  pass the method of an obj"):
        FlexSN(Holder.core)  # type: ignore[arg-type]
    with pytest.raises(CoreError, match=r"missing a required argument: 'v'[\s\S]*its arguments are \(self, x, v\)"):
        scan(Holder.core, sequence(4, 3), torch.zeros(3))


def test_a_core_of_constants_takes_no_inputs() -> None:
    with pytest.raises(CoreError, match=r"takes no inputs[\s\S]*default value is a constant\n  hint:  give it arg"):
        FlexSN(without_arguments)


@pytest.mark.parametrize("core, got, hint", [
    (lambda x, v: None, "NoneType as value 0", "end it with return"),
    (lambda x, v: {"s": x, "v": v}, "dict as value 0", "return the values alone"),
    (lambda x, v: (x, (v,)), "tuple as value 1", "side by side"),
    (lambda x, v: (1.0, v), "float as value 0", r"torch\.full_like"),
    (lambda x, v: (np.float32(1), v), "float32 as value 0", r"torch\.full_like"),
    (lambda x, v: (surrogate.ATan(), v), "ATan as value 0", "make the module once, outside"),
])  # fmt: skip
def test_what_a_core_cannot_return(core: Returns, got: str, hint: str, backend: str) -> None:
    with pytest.raises(CoreError, match=rf"core returned {got}, expected a tensor[\s\S]*hint:  .*{hint}") as caught:
        FlexSN(core, backend=backend)(sequence(4, 3))
    assert "During handling" not in "".join(traceback.format_exception(caught.value))  # it is said once


@pytest.mark.parametrize("core", [lambda x, v, w: x, lambda x, v, w: (x + v, v)])
def test_a_forgotten_state(core: Callable[..., Any], backend: str) -> None:
    with pytest.raises(CoreError, match=r"hint:  return every output first, then every new state \(v, w\)"):
        FlexSN(core, backend=backend)(sequence(4, 3))
    with pytest.raises(CoreError, match=r"hint:  return every output first, then every new state \(v, w\)"):
        scan(core, sequence(4, 3), (torch.zeros(3), torch.zeros(3)), backend)


@pytest.mark.parametrize("states, said", [
    ((torch.zeros(3),), r"1 input\(s\) and 1 state\(s\): missing a required argument: 'w'"),
    ((torch.zeros(3),) * 3, r"1 input\(s\) and 3 state\(s\): too many positional arguments"),
])  # fmt: skip
def test_a_scan_with_another_number_of_states(states: tuple[Tensor, ...], said: str, backend: str) -> None:
    with pytest.raises(CoreError, match=rf"cannot be called with {said}[\s\S]*its arguments are \(x, v, w\)"):
        scan(two_states, sequence(4, 3), states, backend)


def test_a_core_with_a_default_value_takes_one_state_more() -> None:
    def gated(x: Tensor, v: Tensor, w: Any = 1.0) -> tuple[Tensor, ...]:
        return v + x, v, w

    outputs, _ = scan(gated, sequence(4, 3), (torch.zeros(3), torch.zeros(3)), "torch")
    assert torch.equal(outputs, sequence(4, 3))


@pytest.mark.parametrize("states", [0.0, None])
def test_states_that_are_no_tensors(states: Any) -> None:
    with pytest.raises(ValueError, match=r"states must be a tensor or a tuple of tensors, \(\) for none; got \w+$"):
        scan(lif, sequence(4, 3), states)
    with pytest.raises(ValueError, match=r"inputs must be a tensor or a tuple of tensors; got \w+$"):
        scan(lif, states, torch.zeros(3))


def test_a_call_with_another_number_of_inputs_says_which_there_are() -> None:
    with pytest.raises(ValueError, match=r"expected 1 input\(s\), got 2; the inputs of the core are \(x\), its states "
                                         r"\(v\) stay in the neuron; FlexSN\(core, num_inputs=...\) says"):  # fmt: skip
        FlexSN(lif)(sequence(4, 3), sequence(4, 3))
    with pytest.raises(ValueError, match=r"expected 2 input\(s\), got 1; the inputs .* stay in the neuron$"):
        FlexSN(two, 2)(sequence(4, 3))
    with pytest.raises(ValueError, match=r"expected 1 input\(s\), got 2; .* stay in the neuron$"):
        neurons.LIF(step_mode="m")(sequence(4, 3), sequence(4, 3))


@pytest.mark.parametrize("given, text", [
    ((np.ones((4, 3)),), "input 0 must be a tensor, got ndarray"),
    (([1.0, 2.0],), "input 0 must be a tensor, got list"),
    ((torch.tensor(1.0),), r"input 0 of shape \(\) has no time axis 0"),
    ((sequence(4, 3), sequence(4, 2)), r"step shapes do not broadcast: inputs \(3,\), \(2,\)$"),
    ((sequence(4, 3), torch.ones(4, 3, device="meta")), r"cpu, meta \(input 0 on cpu, input 1 on meta, state 0 on"),
])  # fmt: skip
def test_inputs_that_are_refused(given: Any, text: str) -> None:
    core = lif if len(given) == 1 else two
    with pytest.raises(ValueError, match=text) as caught:
        FlexSN(core, len(given))(*given)
    assert "During handling" not in "".join(traceback.format_exception(caught.value))


def test_integer_states_say_where_they_come_from() -> None:
    with pytest.raises(CoreError, match=r"from torch.int64 to torch.float32[\s\S]*states of integer inputs"):
        FlexSN(lif)(torch.ones(4, 3, dtype=torch.int64))


def test_a_change_in_place_names_the_line_and_says_how_else(backend: str) -> None:
    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        v[v < x] = 0.0
        return x, v

    with pytest.raises(CoreError, match=r"'v' in place[\s\S]*hint: .*v = torch.where\(mask, a, v\)") as caught:
        FlexSN(core, backend=backend)(sequence(4, 3))
    assert backend == "torch" or "v[v < x] = 0.0" in str(caught.value)


class MyError(Exception):
    pass


def test_a_cores_own_exception_comes_through_unchanged() -> None:
    made = MyError("mine")

    def fails(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        raise made from KeyError("its cause")

    said = r"MyError: mine\n  where: .*test_mistakes.*raise made"
    with pytest.warns(UserWarning, match=said), pytest.raises(MyError) as caught:
        FlexSN(fails)(sequence(4, 3))
    assert caught.value is made and isinstance(made.__cause__, KeyError)
    assert traceback.extract_tb(made.__traceback__)[-1].name == "fails"


def test_arguments_that_are_no_tuples() -> None:
    with pytest.raises(CoreError, match=r"requires_grad must be a tuple, got bool\n  why:   one entry per argument"):
        FlexSN(lif, requires_grad=True)  # type: ignore[arg-type]
    with pytest.raises(CoreError, match=r"example_inputs must be a tuple, got Tensor"):
        FlexSN(lif, example_inputs=torch.zeros(2, 3))  # type: ignore[arg-type]
    with pytest.raises(CoreError, match=r"example_inputs must be tensors, got Tensor, float"):
        FlexSN(lif, example_inputs=(torch.zeros(3), 0.0))  # type: ignore[arg-type]


class Lost(FlexSN):
    """Its ``init_states`` returns nothing."""

    def core(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return x + v, v

    @staticmethod
    def init_states(num_states: int, step_mode: str, *args: Tensor) -> Any:
        return None


class Unmade(Lost):
    def __init__(self) -> None:
        self.tau = 2.0


def test_a_subclass_that_forgets_something() -> None:
    with pytest.raises(CoreError, match=r"init_states returned 0 value\(s\)[\s\S]*Lost.init_states\n  hint:  return a"):
        Lost()(sequence(4, 3))
    with pytest.raises(AttributeError, match=r"Unmade has no \w+ yet: its __init__ has to call super\(\).__init__\(\)"):
        Unmade()(sequence(4, 3))


def test_options_that_are_misspelt() -> None:
    for wrong in ("0", 1.0):
        with pytest.raises(ValueError, match=f"time_dim must be the number of an axis, got {wrong!r}"):
            FlexSN(lif, time_dim=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"every must be a number of steps, got 1\.5"):
        FlexSN(lif).record("v", every=1.5)  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match=r"no attribute 'rate'; rate=True, when it is made, keeps one"):
        FlexSN(lif).rate  # noqa: B018
    with pytest.raises(ValueError, match=r"surrogate_function must be callable, such as flexsn\.surrogate\.ATan\(\)"):
        neurons.LIF(surrogate_function=surrogate.ATan)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="connection must lead from a layer to itself, got 2 to 3"):
        Recurrent(FlexSN(lif), nn.Conv2d(2, 3, 3))


@pytest.mark.parametrize("module, name, meant", [
    (neurons, "Lif", "LIF"),
    (neurons.snntorch, "leaky", "Leaky"),
])  # fmt: skip
def test_python_can_tell_which_neuron_was_meant(module: Any, name: str, meant: str) -> None:
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'") as caught:
        getattr(module, name)
    assert caught.value.name == name and meant in dir(caught.value.obj)
