"""FlexSN among what PyTorch offers: precisions, transforms, compilation, hooks, threads."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from flexsn import FlexSN, FlexSNKernel, scan
from tests.flexsn.contract_cores import lif, loop, sequence, smooth


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_compute_in_fp32(dtype: torch.dtype, backend: str) -> None:
    if backend == "triton" and dtype is torch.bfloat16:
        pytest.skip("Triton's interpreter has no bfloat16")
    x = sequence(5, 4).to(dtype).requires_grad_()
    neuron = FlexSN(lif, backend=backend)
    y = neuron(x)
    assert (y.dtype, neuron.v.dtype) == (dtype, torch.float32)
    expected = loop(lif, x.float())
    assert torch.equal(y.float(), expected)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(grad, torch.autograd.grad(expected.sum(), x)[0])


def test_autocast_changes_nothing(backend: str) -> None:
    x = sequence(5, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = FlexSN(lif, backend=backend)(x)
    assert torch.equal(y, loop(lif, x))


def test_no_grad_and_inference_mode(backend: str) -> None:
    x = sequence(5, 4).requires_grad_()
    neuron = FlexSN(lif, backend=backend)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            y = neuron(x)
            assert not y.requires_grad
        neuron.reset()
    y = neuron(x)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.autograd.grad(loop(lif, x).sum(), x)[0])


def test_second_derivative(backend: str) -> None:
    def hessian_row(chosen: str) -> Tensor:
        x = sequence(4, 3).double().requires_grad_()
        (grad,) = torch.autograd.grad(FlexSN(smooth, backend=chosen)(x).sum(), x, create_graph=True)
        return torch.autograd.grad(grad[0].sum(), x)[0]

    assert torch.equal(hessian_row(backend), hessian_row("torch"))


def test_vmap_grad_and_jvp(backend: str) -> None:
    x = sequence(2, 4, 3)

    def run(x: Tensor) -> Tensor:
        y: Tensor = FlexSN(smooth, backend=backend)(x)
        return y

    assert torch.equal(torch.vmap(run)(x), torch.stack([run(x_i) for x_i in x]))
    grad = torch.func.grad(lambda x: run(x).sum())(x[0])
    leaf = x[0].clone().requires_grad_()
    assert torch.equal(grad, torch.autograd.grad(run(leaf).sum(), leaf)[0])
    _, tangent = torch.func.jvp(run, (x[0],), (torch.ones_like(x[0]),))
    assert torch.isfinite(tangent).all()


def test_states_of_an_ended_transform_are_an_error(backend: str) -> None:
    neuron = FlexSN(smooth, backend=backend)
    torch.vmap(neuron)(sequence(2, 4, 3))
    with pytest.raises(ValueError, match=r"states of a vmap, grad or jvp that has ended; call reset"):
        neuron(sequence(4, 3))


@pytest.mark.parametrize("training", [True, False])
def test_what_is_left_of_an_ended_transform_is_the_tensor_it_was(training: bool, backend: str) -> None:
    x, left = sequence(4, 3).requires_grad_(), []
    torch.func.grad(lambda t: (left.append(t), t.sum())[1])(x)
    found = []
    for given in (x, left[0]):
        with torch.set_grad_enabled(training):
            y, _ = scan(smooth, given, torch.zeros(3), backend)
        found.append((y, *(torch.autograd.grad(y.sum(), x) if training else ())))
    assert all(map(torch.equal, *found))


def test_hooks(backend: str) -> None:
    neuron = FlexSN(lif, backend=backend)
    seen: list[str] = []
    neuron.register_forward_pre_hook(lambda module, args: seen.append("before"))
    neuron.register_forward_hook(lambda module, args, y: seen.append("after"))
    neuron.register_full_backward_hook(lambda module, grad_in, grad_out: seen.append("backward"))
    neuron(sequence(3, 2).requires_grad_()).sum().backward()
    assert seen == ["before", "after", "backward"]


def test_a_compiled_model(backend: str) -> None:
    torch.manual_seed(0)
    neuron = FlexSN(lif, backend=backend)
    net = nn.Sequential(nn.Linear(3, 4), neuron, nn.Linear(4, 2))
    x = sequence(5, 2, 3)
    expected = net(x)
    neuron.reset()
    compiled = torch.compile(net, backend="eager")
    y = compiled(x)
    assert torch.equal(y, expected)
    y.sum().backward()
    assert net[0].weight.grad is not None


def test_two_threads(backend: str) -> None:
    if backend == "triton":
        pytest.skip("Triton's interpreter patches Triton's globals for the length of a call, so it has one thread")
    kernel = FlexSNKernel(lif, 1, 1, 1, backend=backend)
    xs = [sequence(20, 50) * k for k in range(1, 5)]
    expected = [kernel(x, torch.zeros(50))[0] for x in xs]

    def work(i: int) -> bool:
        return all(torch.equal(kernel(xs[i], torch.zeros(50))[0], expected[i]) for _ in range(20))

    with ThreadPoolExecutor(len(xs)) as threads:
        assert list(threads.map(work, range(len(xs)))) == [True] * len(xs)  # a thread's exception is raised here


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_the_loops(value: float, backend: str) -> None:
    x = sequence(6, 3)
    x[2, 1] = value
    x = x.requires_grad_()
    y, expected = FlexSN(lif, backend=backend)(x), loop(lif, x)
    torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)
    grads = [torch.autograd.grad(out.sum(), x)[0] for out in (y, expected)]
    torch.testing.assert_close(*grads, rtol=0, atol=0, equal_nan=True)


def test_export() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), FlexSN(smooth))
    x = sequence(5, 2, 3)
    expected = net(x)
    net[1].reset()
    exported = torch.export.export(net, (x,))
    net[1].reset()
    torch.testing.assert_close(exported.module()(x), expected)
    net[1].reset()
    assert torch.equal(net(x), expected)


@pytest.mark.filterwarnings("ignore")  # of torch, about its tracer
def test_a_neuron_that_ran_is_traced_by_jit(backend: str) -> None:
    x, other = sequence(5, 2, 3), sequence(5, 2, 3) + 0.25
    neuron = FlexSN(smooth, backend=backend)
    neuron(x)
    neuron.reset()
    traced = torch.jit.trace(neuron, (x,), check_trace=False)
    torch.testing.assert_close(traced(other), loop(smooth, other))


def test_tensor_subclasses_run_the_loop(backend: str) -> None:
    class Marked(Tensor):
        pass

    x = sequence(5, 3)
    neuron = FlexSN(lif, backend=backend)
    neuron(x)
    neuron.reset()
    y = neuron(x.as_subclass(Marked))
    assert type(y) is Marked
    assert torch.equal(y.as_subclass(Tensor), loop(lif, x))


def test_fake_tensors(backend: str) -> None:
    neuron = FlexSN(lif, backend=backend)
    with FakeTensorMode():
        y = neuron(torch.rand(5, 2, 3))
    assert y.shape == (5, 2, 3)
    neuron.reset()
    assert torch.equal(neuron(sequence(5, 3)), loop(lif, sequence(5, 3)))


def test_a_parametrized_neuron(backend: str) -> None:
    class Double(nn.Module):
        def forward(self, w: Tensor) -> Tensor:
            return w * 2.0

    def build(chosen: str) -> FlexSN:
        weight = nn.Parameter(torch.tensor([0.5, 1.0, 1.5]))
        return FlexSN(lambda x, v: (v + x * weight, v * 0.5 + x), backend=chosen)

    neuron = build(backend)
    torch.nn.utils.parametrize.register_parametrization(neuron, "weight", Double())
    x = sequence(5, 3)
    y = copy.deepcopy(neuron)(x)
    assert torch.equal(y, neuron(x))
    plain = build("torch")
    with torch.no_grad():
        plain.weight.mul_(2.0)
    assert torch.equal(y, plain(x))
    neuron.reset()
    neuron(x).sum().backward()
    assert neuron.parametrizations.weight.original.grad is not None
