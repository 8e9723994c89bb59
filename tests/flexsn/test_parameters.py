"""Every nn.Parameter a core reaches is the neuron's: registered, trained, copied, saved, replaced."""

from __future__ import annotations

import copy
import functools
import io
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flexsn import FlexSN, surrogate

GLOBAL_GAIN = nn.Parameter(torch.tensor([0.5, 1.0, 1.5]))
X = torch.linspace(-1.0, 2.0, 24).reshape(4, 2, 3)
Returned = tuple[Tensor, Tensor]


def gain() -> nn.Parameter:
    return nn.Parameter(torch.tensor([0.5, 1.0, 1.5]))


def step(x: Tensor, v: Tensor, gain: Tensor) -> Returned:
    h = v * 0.5 + x * gain
    return h, h * 0.75


def of_closure() -> Callable[..., Returned]:
    weight = gain()

    def core(x: Tensor, v: Tensor) -> Returned:
        return step(x, v, weight)

    return core


def of_nested_function() -> Callable[..., Returned]:
    weight = gain()

    def inner(x: Tensor, v: Tensor) -> Returned:
        return step(x, v, weight)

    return lambda x, v: inner(x, v)


def of_list() -> Callable[..., Returned]:
    weights = [gain()]
    return lambda x, v: step(x, v, weights[0])


def of_dict() -> Callable[..., Returned]:
    weights = {"weight": gain()}
    return lambda x, v: step(x, v, weights["weight"])


def of_tuple() -> Callable[..., Returned]:
    weights = (gain(), 1.0)
    return lambda x, v: step(x, v, weights[0])


def of_object() -> Callable[..., Returned]:
    held = SimpleNamespace(weight=gain())
    return lambda x, v: step(x, v, held.weight)


def of_default() -> Callable[..., Returned]:
    def core(x: Tensor, v: Tensor, weight: Tensor = gain()) -> Returned:  # noqa: B008
        return step(x, v, weight)

    return core


def of_global(x: Tensor, v: Tensor) -> Returned:
    return step(x, v, GLOBAL_GAIN)


class Core(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = gain()
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor, v: Tensor) -> Returned:
        return step(x, v, self.weight)


class Parent(nn.Module):
    def __init__(self, backend: str = "auto") -> None:
        super().__init__()
        self.weight = gain()
        self.linear = nn.Linear(3, 3)
        self.neuron = FlexSN(self.step, backend=backend)

    def step(self, x: Tensor, v: Tensor) -> Returned:
        return step(x, v, self.weight)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.neuron(self.linear(x))
        return y


class Subclass(FlexSN):
    def __init__(self, backend: str = "auto") -> None:
        super().__init__(backend=backend)
        self.weight = gain()

    def core(self, x: Tensor, v: Tensor) -> Returned:
        return step(x, v, self.weight)


CORES: dict[str, tuple[Callable[[], Any], str]] = {
    "closure": (of_closure, "weight"),
    "nested function": (of_nested_function, "weight"),
    "list": (of_list, "weights_0"),
    "dict": (of_dict, "weights_weight"),
    "tuple": (of_tuple, "weights_0"),
    "object": (of_object, "held_weight"),
    "default": (of_default, "weight"),
    "global": (lambda: of_global, "GLOBAL_GAIN"),
    "partial argument": (lambda: functools.partial(lambda gain, x, v: step(x, v, gain), gain()), "gain"),
    "partial keyword": (lambda: functools.partial(step, gain=gain()), "gain"),
    "bound method": (lambda: Parent().step, "weight"),
    "module": (Core, "core.weight"),
}
REBUILT = ["closure", "nested function", "list", "dict", "tuple", "object", "default", "global", "partial argument"]
REBUILT += ["partial keyword", "bound method", "module"]


@pytest.fixture(autouse=True)
def restore_global() -> Any:
    yield
    with torch.no_grad():
        GLOBAL_GAIN.copy_(torch.tensor([0.5, 1.0, 1.5]))


def make(name: str, backend: str) -> tuple[FlexSN, str]:
    build, parameter = CORES[name]
    return FlexSN(build(), backend=backend), parameter


def loop_gradient(x: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    weight = start.detach().clone().requires_grad_()
    v, outputs = torch.zeros(2, 3), []
    for x_t in x:
        y, v = step(x_t, v, weight)
        outputs.append(y)
    y = torch.stack(outputs)
    y.square().sum().backward()
    assert weight.grad is not None
    return y.detach(), weight.grad


@pytest.mark.parametrize("name", CORES)
def test_registered_before_any_data_is_seen(name: str) -> None:
    neuron, parameter = make(name, "torch")
    named = {n: p for n, p in neuron.named_parameters() if "unused" not in n}
    assert list(named) == [parameter]
    assert list(neuron.state_dict())[:1] == [parameter]


@pytest.mark.parametrize("name", CORES)
def test_trains(name: str, backend: str) -> None:
    neuron, parameter = make(name, backend)
    weight = neuron.get_parameter(parameter)
    weight.grad = None
    y = neuron(X)
    y.square().sum().backward()
    expected, grad = loop_gradient(X, weight)
    assert torch.equal(y, expected)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, grad, rtol=1e-6, atol=1e-6)
    torch.optim.SGD(neuron.parameters(), lr=0.1).step()
    neuron.reset()
    assert torch.equal(neuron(X), loop_gradient(X, weight)[0])


@pytest.mark.parametrize("name", REBUILT)
def test_a_deep_copy_trains_its_own_parameters(name: str, backend: str) -> None:
    neuron, parameter = make(name, backend)
    first = neuron(X)
    neuron.reset()
    clone = copy.deepcopy(neuron)
    assert clone.get_parameter(parameter) is not neuron.get_parameter(parameter)
    with torch.no_grad():
        clone.get_parameter(parameter).mul_(2.0)
    clone(X).square().sum().backward()
    assert clone.get_parameter(parameter).grad is not None
    assert neuron.get_parameter(parameter).grad is None or name == "global"
    clone.reset()
    assert torch.equal(clone(X), loop_gradient(X, clone.get_parameter(parameter))[0])
    assert torch.equal(neuron(X), first)


def test_a_copied_global_is_read_for_the_call_only(backend: str) -> None:
    clone = copy.deepcopy(FlexSN(of_global, backend=backend))
    with torch.no_grad():
        clone.GLOBAL_GAIN.zero_()
    assert not clone(X).any()
    assert torch.equal(GLOBAL_GAIN, torch.tensor([0.5, 1.0, 1.5]))
    assert of_global(X[0], X[0])[0].any()


def test_a_deep_copied_parent_holds_one_parameter(backend: str) -> None:
    clone = copy.deepcopy(Parent(backend))
    assert clone.neuron.weight is clone.weight
    assert clone.neuron.core.__self__ is clone
    assert len(list(clone.parameters())) == 3
    clone(X).sum().backward()
    assert clone.weight.grad is not None


def test_a_bound_method_does_not_make_its_module_a_child() -> None:
    parent = Parent()
    assert [name for name, _ in parent.neuron.named_modules()] == [""]
    assert list(dict(parent.neuron.named_parameters())) == ["weight"]


@pytest.mark.parametrize("name", ["closure", "list", "tuple", "object", "default", "partial argument", "module"])
def test_functional_call_uses_the_given_tensor_and_forgets_it(name: str, backend: str) -> None:
    neuron, parameter = make(name, backend)
    before = neuron(X)
    neuron.reset()
    given = torch.tensor([2.0, 0.0, 1.0], requires_grad=True)
    y = torch.func.functional_call(neuron, {parameter: given * 1.0}, (X,))
    y.square().sum().backward()
    expected, grad = loop_gradient(X, given)
    assert torch.equal(y, expected)
    assert given.grad is not None
    torch.testing.assert_close(given.grad, grad)
    neuron.reset()
    assert torch.equal(neuron(X), before)


@pytest.mark.parametrize("name", ["closure", "tuple", "global", "partial keyword", "module", "bound method"])
def test_a_replaced_parameter_counts(name: str, backend: str) -> None:
    neuron, parameter = make(name, backend)
    neuron(X)
    neuron.reset()
    fresh = nn.Parameter(torch.tensor([2.0, 0.0, 1.0]))
    owner = neuron.get_submodule(parameter.rpartition(".")[0])
    setattr(owner, parameter.rpartition(".")[2], fresh)
    y = neuron(X)
    y.square().sum().backward()
    expected, grad = loop_gradient(X, fresh)
    assert torch.equal(y, expected)
    assert fresh.grad is not None
    torch.testing.assert_close(fresh.grad, grad)


def test_load_state_dict_assign(backend: str) -> None:
    neuron, parameter = make("closure", backend)
    neuron(X)
    neuron.reset()
    neuron.load_state_dict({parameter: torch.tensor([2.0, 0.0, 1.0])}, assign=True)
    assert torch.equal(neuron(X), loop_gradient(X, torch.tensor([2.0, 0.0, 1.0]))[0])


def test_a_rebound_variable_counts_too(backend: str) -> None:
    held = SimpleNamespace(weight=gain())
    neuron = FlexSN(lambda x, v: step(x, v, held.weight), backend=backend)
    neuron(X)
    neuron.reset()
    held.weight = nn.Parameter(torch.tensor([2.0, 0.0, 1.0]))
    assert torch.equal(neuron(X), loop_gradient(X, held.weight)[0])
    assert neuron.held_weight is held.weight


def test_second_derivative_after_the_parameter_was_swapped_out(backend: str) -> None:
    neuron, parameter = make("closure", backend)
    given = torch.tensor([2.0, 0.5, 1.0], requires_grad=True)
    x = X.clone().requires_grad_()
    y = torch.func.functional_call(neuron, {parameter: given}, (x,))
    (grad,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
    (mixed,) = torch.autograd.grad(grad.sum(), given)
    loop, _ = make("closure", "torch")
    y = torch.func.functional_call(loop, {parameter: given}, (x,))
    (grad,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
    torch.testing.assert_close(mixed, torch.autograd.grad(grad.sum(), given)[0])


def test_state_dict_round_trip(backend: str) -> None:
    neuron, parameter = make("closure", backend)
    other, _ = make("closure", backend)
    with torch.no_grad():
        neuron.get_parameter(parameter).mul_(3.0)
    other.load_state_dict(neuron.state_dict())
    assert torch.equal(other(X), neuron(X))


@pytest.mark.parametrize("build", [lambda: FlexSN(of_global), Subclass, lambda: FlexSN(Core()), Parent])
def test_pickle(build: Callable[[], nn.Module]) -> None:
    net = build()
    net(X)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2.0)
    file = io.BytesIO(pickle.dumps(net))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.5)
    clone = pickle.load(file)
    for mine, theirs in zip(net.parameters(), clone.parameters(), strict=True):
        assert torch.equal(mine * 2.0, theirs)
    for module in (net, clone):
        getattr(module, "neuron", module).reset()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2.0)
    assert torch.equal(net(X), clone(X))


def test_names_are_unique_and_clash_with_nothing() -> None:
    v, backend, first, second = gain(), gain(), [gain()], [gain()]

    def core(x: Tensor, v_: Tensor) -> Returned:
        def other(first: list[nn.Parameter]) -> Tensor:
            return first[0] * second[0]

        return x * v + backend, v_ * other(first)

    neuron = FlexSN(core)
    assert sorted(n for n, _ in neuron.named_parameters()) == ["backend_1", "first_0", "second_0", "v"]
    assert neuron.backend == "auto"

    def clashing(x: Tensor, w: Tensor) -> Returned:
        return x * held.w, w

    held = SimpleNamespace(w=gain())
    assert [n for n, _ in FlexSN(clashing).named_parameters()] == ["held_w"]
    w = gain()

    def inner(x: Tensor) -> Tensor:
        return x * w

    neuron = FlexSN(lambda x, w: (inner(x), w))  # a parameter called as the state
    assert [n for n, _ in neuron.named_parameters()] == ["w_1"]


def test_shared_parameters_are_registered_once() -> None:
    weight = gain()
    weights = [weight]
    neuron = FlexSN(lambda x, v: (x * weight * weights[0], v))
    assert len(list(neuron.parameters())) == 1
    neuron.weight = nn.Parameter(torch.zeros(3))
    assert not neuron(X).any()
    assert weights[0] is neuron.weight


def test_a_surrogate_parameter_is_found(backend: str) -> None:
    spike = surrogate.ATan(alpha=nn.Parameter(torch.tensor(2.0)))
    neuron = FlexSN(lambda x, v: (spike(x + v - 1.0), v), backend=backend)
    assert [n for n, _ in neuron.named_parameters()] == ["spike_alpha"]
    neuron(X).sum().backward()
    assert neuron.spike_alpha.grad is not None


def test_to_moves_the_parameters(backend: str) -> None:
    neuron, parameter = make("closure", backend)
    y = neuron.double()(X.double())
    assert neuron.get_parameter(parameter).dtype == y.dtype == torch.float64


def test_data_parallel_replicas_read_their_own_tensors(backend: str) -> None:
    for neuron in (make("closure", backend)[0], Subclass(backend), make("module", backend)[0]):
        before = neuron(X)
        neuron.reset()
        replica = neuron._replicate_for_data_parallel()
        replica._modules = {
            n: m._replicate_for_data_parallel()  # type: ignore[operator]
            for n, m in neuron._modules.items()
        }
        owner = replica.core if replica._modules else replica
        owner.weight = torch.zeros(3)
        assert not replica(X).any()
        neuron.reset()
        assert torch.equal(neuron(X), before)


@pytest.mark.parametrize("shape", [(), (1,), (5, 1), (70,)])
@pytest.mark.parametrize("num_steps", [1, 5])
def test_lanes_that_do_not_exist_add_nothing(backend: str, shape: tuple[int, ...], num_steps: int) -> None:
    """The last block of lanes is padded with zeros, whose logarithm is no number."""
    weight = nn.Parameter(torch.full(shape, 0.5, dtype=torch.float64))

    def core(x: Tensor, v: Tensor) -> Returned:
        h = v * 0.5 + weight * x.log()
        return h, h

    x = torch.linspace(1.0, 2.0, num_steps * 350, dtype=torch.float64).reshape(num_steps, 5, 70)
    found = []
    for chosen in (backend, "torch"):
        FlexSN(core, backend=chosen)(x).sum().backward()
        found.append(weight.grad)
        weight.grad = None
    torch.testing.assert_close(found[0], found[1], rtol=1e-14, atol=0)


def test_literals_of_the_shape_of_a_parameter(backend: str) -> None:
    weight = nn.Parameter(torch.tensor(1.5))

    def core(x: Tensor, v: Tensor) -> Returned:
        level = torch.nn.functional.hardtanh(torch.full_like(weight, 3.0)) * weight
        return x * level, v + level

    found = [FlexSN(core, backend=b)(X) for b in (backend, "torch")]
    assert torch.equal(*found)


def test_a_parameter_whose_gradient_is_zero(backend: str) -> None:
    for shape in ((), (3,)):
        weight = nn.Parameter(torch.full(shape, 1.5))
        y = FlexSN(lambda x, v, w=weight: (x * v, w.floor() + 0.5 * v), backend=backend)(X)
        y.sum().backward()
        assert weight.grad is not None and weight.grad.shape == shape and not weight.grad.any()
