"""The registered parameter and what its sources hold are one, whichever was replaced last."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from reading_cores import writing_is_free
from torch import Tensor, nn

from flexsn.captures.binding import NOTHING_BOUND, ParameterBinding, register_parameters
from flexsn.captures.guards import Captures

SHARED = nn.Parameter(torch.ones(3))


def bound_to(core: Any) -> tuple[nn.Module, ParameterBinding]:
    neuron, names = nn.Module(), {}  # type: ignore[var-annotated]
    captures = Captures(core)
    register_parameters(neuron, captures, names)
    return neuron, ParameterBinding(captures, names)


def of_object() -> tuple[SimpleNamespace, nn.Module, ParameterBinding]:
    held = SimpleNamespace(weight=nn.Parameter(torch.ones(3)))
    return held, *bound_to(lambda x, v: (x * held.weight, v))


def of_global(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return x * SHARED, v


def test_registered_under_the_name_of_its_source() -> None:
    _, neuron, _ = of_object()
    assert [name for name, _ in neuron.named_parameters()] == ["held_weight"]


def test_what_the_neuron_owns_already_is_not_registered_again() -> None:
    neuron, names = nn.Linear(3, 3), {}  # type: ignore[var-annotated]
    weight = neuron.weight
    register_parameters(neuron, Captures(lambda x, v: (x * weight, v)), names)
    assert names == {}


class Table(dict[str, Any]):
    def __call__(self, x: Tensor, v: Tensor) -> Any:
        return x, v


def test_a_name_that_is_taken_or_none() -> None:
    weights = {"0": nn.Parameter(torch.ones(1)), "type": nn.Parameter(torch.ones(2))}
    type = weights["type"]  # a name every module has

    def core(x: Tensor, v: Tensor) -> Any:
        return x * type * weights["0"], v

    neuron, _ = bound_to(core)
    assert sorted(name for name, _ in neuron.named_parameters()) == ["type_1", "weights_0"]
    neuron, _ = bound_to(nn.Sequential(nn.PReLU()).forward)
    assert [name for name, _ in neuron.named_parameters()] == ["parameter_0_weight"]
    neuron, _ = bound_to(Table({"+": nn.Parameter(torch.ones(1))}))
    assert [name for name, _ in neuron.named_parameters()] == ["parameter"]


def test_nothing_to_do_costs_no_lock() -> None:
    _, neuron, binding = of_object()
    assert binding.applied(neuron) is NOTHING_BOUND
    with binding.applied(neuron):
        assert writing_is_free()


def test_a_newly_registered_parameter_is_what_the_core_reads_from_then_on() -> None:
    held, neuron, binding = of_object()
    neuron.held_weight = fresh = nn.Parameter(torch.zeros(3))
    with binding.applied(neuron):
        assert held.weight is fresh
    assert held.weight is fresh
    assert binding.applied(neuron) is NOTHING_BOUND


def test_a_newly_bound_variable_is_what_is_registered_from_then_on() -> None:
    held, neuron, binding = of_object()
    held.weight = fresh = nn.Parameter(torch.zeros(3))
    with binding.applied(neuron):
        assert held.weight is fresh
    assert neuron.held_weight is fresh
    held.weight = newer = nn.Parameter(torch.zeros(3))
    with binding.applied(neuron):
        assert neuron.held_weight is newer


def test_whichever_was_replaced_last() -> None:
    held, neuron, binding = of_object()
    for fresh in (nn.Parameter(torch.zeros(3)) for _ in range(6)):
        for replaced in (neuron, neuron, held, held, neuron):
            setattr(replaced, "weight" if replaced is held else "held_weight", fresh)
            with binding.applied(neuron):
                assert held.weight is neuron.held_weight is fresh
            fresh = nn.Parameter(torch.zeros(3))


def test_a_variable_bound_to_no_parameter_is_read_and_not_registered() -> None:
    held, neuron, binding = of_object()
    weight = held.weight
    held.weight = plain = torch.zeros(3)
    with binding.applied(neuron):
        assert held.weight is plain
    assert neuron.held_weight is weight


def test_a_parameter_that_the_neuron_gave_up_is_read_where_it_was_found() -> None:
    held, neuron, binding = of_object()
    del neuron.held_weight
    for weight in (held.weight, nn.Parameter(torch.zeros(3))):
        held.weight = weight
        neuron.held_weight = None
        with binding.applied(neuron):
            assert held.weight is weight
        assert neuron._parameters == {}


def test_a_plain_tensor_in_its_place_is_read_for_the_call_only() -> None:
    held, neuron, binding = of_object()
    weight = held.weight
    neuron._parameters["held_weight"] = given = torch.zeros(3)  # as torch.func.functional_call does
    with binding.applied(neuron):
        assert held.weight is given
        assert not writing_is_free()
    assert held.weight is weight
    assert writing_is_free()


def test_it_is_taken_back_after_a_failure_too() -> None:
    held, neuron, binding = of_object()
    weight = held.weight
    neuron._parameters["held_weight"] = torch.zeros(3)
    with pytest.raises(ArithmeticError), binding.applied(neuron):
        raise ArithmeticError
    assert held.weight is weight
    assert writing_is_free()


def test_a_global_is_written_for_the_call_only() -> None:
    neuron, binding = bound_to(of_global)
    before = SHARED
    neuron.SHARED = fresh = nn.Parameter(torch.zeros(3))
    with binding.applied(neuron):
        assert SHARED is fresh
    assert SHARED is before


def test_every_source_of_one_parameter() -> None:
    weight = nn.Parameter(torch.ones(3))
    held, weights = SimpleNamespace(weight=weight), [weight]
    neuron, binding = bound_to(lambda x, v: (x * held.weight * weights[0], v))
    (name,) = dict(neuron.named_parameters())
    setattr(neuron, name, nn.Parameter(torch.zeros(3)))
    with binding.applied(neuron):
        assert held.weight is weights[0] is getattr(neuron, name)


def test_a_parametrized_one_is_read_as_the_module_gives_it() -> None:
    held, neuron, binding = of_object()
    weight = held.weight
    del neuron.held_weight
    neuron.held_weight = given = torch.zeros(3)  # an attribute, as a parametrization's property
    with binding.applied(neuron):
        assert held.weight is given
    assert held.weight is weight


def test_a_parametrized_one_is_not_registered_a_second_time() -> None:
    held, neuron, binding = of_object()
    del neuron.held_weight
    neuron.held_weight = torch.zeros(3)
    held.weight = fresh = nn.Parameter(torch.zeros(3))
    with binding.applied(neuron):
        assert held.weight is fresh
    assert neuron._parameters == {}


def test_a_later_binding_remembers_what_was_agreed() -> None:
    held, neuron, binding = of_object()
    captures, names = binding.captures, {"held_weight": "held.weight"}
    held.weight = fresh = nn.Parameter(torch.zeros(3))
    with ParameterBinding(captures, names, binding).applied(neuron):
        assert neuron.held_weight is fresh
    held.weight = nn.Parameter(torch.zeros(3))
    with ParameterBinding(captures, names).applied(neuron):  # one that cannot know takes what is registered
        assert held.weight is fresh


def test_a_global_that_another_place_holds_too_is_put_back() -> None:
    held, before = SimpleNamespace(weight=SHARED), SHARED
    neuron, binding = bound_to(lambda x, v: (x * held.weight, v + SHARED))
    (name,) = dict(neuron.named_parameters())
    replaced = nn.Parameter(torch.zeros(3))
    setattr(neuron, name, replaced)
    with binding.applied(neuron):
        assert held.weight is SHARED is replaced
    assert held.weight is SHARED is before
