"""output_dtype: outputs kept small, with the gradients of large ones."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flexsn
from flexsn import FlexSN, SpikeTensor, surrogate

spike = surrogate.ATan()
SMALL = [torch.bool, torch.uint8, torch.int8]
X = (torch.randn(5, 4, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 16).round() / 8


class TwoOutputs(nn.Module):
    """A spike and a membrane, so that gradients come in from both; all of it exact."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((3, 1, 1), 0.5))

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = v * 0.5 + x * self.gain
        s = spike(h - 1.0)
        return s, h, h * (1.0 - s)


def lif(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) * 0.5
    s = spike(h - 1.0)
    return s, h * (1.0 - s)


def spikes(dtype: torch.dtype = torch.bool, x: Tensor = X, **options: Any) -> SpikeTensor:
    y = FlexSN(lif, output_dtype=dtype, **options)(x)
    assert isinstance(y, SpikeTensor) and y.stored.dtype == dtype
    return y


def trained(backend: str, output_dtype: Any, x: Tensor = X, **options: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, and gradients of the input and the parameter."""
    torch.manual_seed(1)
    core, x = TwoOutputs(), x.clone().requires_grad_()
    s, h = FlexSN(core, backend=backend, output_dtype=output_dtype, **options)(x)
    weight = torch.linspace(-1.0, 1.0, s.numel()).reshape(s.shape).to(s.dtype)
    ((s * weight).sum() + (h.float() * h.float()).sum()).backward()
    assert x.grad is not None and core.gain.grad is not None
    return [s, h], [x.grad, core.gain.grad]


@pytest.mark.parametrize("time_dim", [0, 1])
@pytest.mark.parametrize("dtype", SMALL)
def test_small_spikes_are_the_spikes_and_have_their_gradients(backend: str, dtype: torch.dtype, time_dim: int) -> None:
    small, gradients = trained(backend, (dtype, None), time_dim=time_dim)
    large, expected = trained(backend, None, time_dim=time_dim)
    assert isinstance(small[0], SpikeTensor) and small[0].stored.dtype == dtype and type(small[1]) is Tensor
    assert 0 < large[0].sum() < large[0].numel()
    for got, want in zip([*small, *gradients], [*large, *expected], strict=True):
        assert got.dtype == want.dtype and torch.equal(got, want)
    assert torch.equal(small[0].stored, large[0].to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_float_dtype_is_that_of_a_plain_tensor(backend: str, dtype: torch.dtype) -> None:
    small, gradients = trained(backend, dtype)
    loop, expected = trained("torch", dtype)
    assert [y.dtype for y in small] == [dtype, dtype] and {type(y) for y in small} == {Tensor}
    for got, want in zip([*small, gradients[0]], [*loop, expected[0]], strict=True):
        assert torch.equal(got, want)


def test_bfloat16_outputs() -> None:
    small, gradients = trained("cpp", torch.bfloat16)
    loop, expected = trained("torch", torch.bfloat16)
    assert all(torch.equal(a, b) for a, b in zip([*small, gradients[0]], [*loop, expected[0]], strict=True))


def test_of_16_bit_inputs(backend: str) -> None:
    small, gradients = trained(backend, (torch.bool, None), X.half())
    large, expected = trained(backend, None, X.half())
    assert small[0].dtype == torch.float16 and isinstance(small[0], SpikeTensor)
    assert torch.equal(small[0], large[0]) and torch.equal(gradients[0], expected[0])


def test_every_kind_of_call(backend: str) -> None:
    neuron = FlexSN(lif, backend=backend, output_dtype=torch.bool, step_mode="s", store_state_seqs=True)
    one = neuron(X[0])
    assert isinstance(one, SpikeTensor) and one.shape == X[0].shape
    neuron.step_mode = "m"
    assert isinstance(neuron(X[:0]), SpikeTensor)
    assert torch.equal(neuron(X[1:]), FlexSN(lif, backend="torch")(X)[1:])
    assert neuron.state_seqs is not None and neuron.state_seqs[0].dtype == torch.float32
    neuron.output_dtype = None
    assert type(neuron(X)) is Tensor
    y, _ = flexsn.scan(lif, X, torch.zeros(()), backend, output_dtype=torch.uint8)
    assert isinstance(y, SpikeTensor) and y.stored.dtype == torch.uint8


def test_an_output_that_is_no_float_is_cast(backend: str) -> None:
    y = FlexSN(lambda x, v: (x > v, x), backend=backend, output_dtype=torch.uint8)(X)
    assert type(y) is Tensor and torch.equal(y, FlexSN(lambda x, v: (x > v, x))(X).to(torch.uint8))


def test_the_kernels_move_a_byte_per_spike() -> None:
    kernels = FlexSN(lif, output_dtype=torch.bool).explain().kernels
    interval = kernels["forward"].checkpoint
    assert interval is not None
    assert kernels["inference"].bytes_per_lane_step == 5
    assert kernels["forward"].bytes_per_lane_step == 5 + 4 / interval
    assert kernels["backward"].bytes_per_lane_step == 12 + 4 / interval


def test_the_next_layer_keeps_the_small_tensor() -> None:
    layer, kept = nn.Conv2d(3, 4, 3), []
    x = X.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(type(t)) or t, lambda t: t):
        y = layer(spikes(x=x).flatten(0, 1))
    assert SpikeTensor in kept
    y.sum().backward()
    gradient, weight = x.grad, layer.weight.grad
    x.grad = layer.weight.grad = None
    layer(FlexSN(lif)(x).flatten(0, 1)).sum().backward()
    assert gradient is not None and weight is not None and x.grad is not None and layer.weight.grad is not None
    assert torch.equal(gradient, x.grad) and torch.equal(weight, layer.weight.grad)


def test_spikes_as_the_input_of_a_neuron(backend: str) -> None:
    x = X.clone().requires_grad_()
    FlexSN(lif, backend=backend)(spikes(x=x, backend=backend) * 2.0).sum().backward()
    through, x.grad = x.grad, None
    leaf = spikes().detach().requires_grad_()
    y = FlexSN(lif, backend=backend)(leaf)
    assert torch.equal(y, FlexSN(lif, backend=backend)(leaf.dense()))
    y.sum().backward()
    assert leaf.grad is not None and type(leaf.grad) is Tensor and through is not None


def test_a_gradient_of_spikes_may_be_spikes(backend: str) -> None:
    found = []
    for gradient in (spikes().detach(), spikes().dense()):
        x = X.clone().requires_grad_()
        FlexSN(lif, backend=backend)(x).backward(gradient)
        found.append(x.grad)
    assert torch.equal(*found)


def test_double_backward_goes_through_the_loop() -> None:
    def smooth(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return x * x + v, x * v

    found = []
    for dtype in (torch.uint8, None):
        x = torch.tensor([[1.0], [2.0], [3.0]], requires_grad=True)
        (y, _) = flexsn.scan(smooth, x, torch.ones(1), output_dtype=dtype)
        (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        found.append(torch.autograd.grad(first.sum(), x)[0])
    assert torch.equal(*found)


def test_views_and_copies_stay_small() -> None:
    s = spikes()
    dense = s.dense()
    for change in (
        lambda t: t.flatten(1), lambda t: t[1:3, 0], lambda t: t.movedim(0, 1), lambda t: t.unbind(0)[2],
        lambda t: t.clone(), lambda t: t.detach(), lambda t: t.to("cpu"), lambda t: t.unsqueeze(0).expand(2, *t.shape),
        lambda t: t.split(2)[1], lambda t: t.chunk(2)[0], lambda t: t.contiguous(), lambda t: t.squeeze(),
    ):  # fmt: skip
        changed = change(s)
        assert isinstance(changed, SpikeTensor) and changed.stored.dtype == torch.bool
        assert torch.equal(changed, change(dense)) and changed.stride() == change(dense).stride()


def test_it_is_a_float_tensor_to_everybody() -> None:
    s = spikes()
    dense = s.dense()
    assert s.dtype == dense.dtype == torch.float32 and type(dense) is Tensor
    assert torch.equal(s.mean(0), dense.mean(0)) and type(s.mean(0)) is Tensor
    assert s.double().dtype == torch.float64 and torch.equal(torch.stack([s, s])[1], dense)
    assert s.numpy().dtype == "float32" and s.tolist() == dense.tolist() and s.sum().item() == dense.sum().item()
    assert repr(s[0, 0, 0, 0]).endswith("stored=torch.bool)")
    assert isinstance(copy.deepcopy(s), SpikeTensor)
    file = io.BytesIO()
    torch.save(s, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert isinstance(again, SpikeTensor) and torch.equal(again, s)
    batched = torch.func.vmap(
        lambda x: flexsn.scan(lambda x, v: ((x > v).float(), x), x, X[0, 0], output_dtype=torch.bool)[0]
    )
    assert torch.equal(batched(X), torch.stack([(x > torch.cat([X[:1, 0], x[:-1]])).float() for x in X]))


def test_a_compiled_layer_takes_it() -> None:
    layer = torch.compile(nn.Linear(6, 2), backend="eager")
    assert torch.equal(layer(spikes()), layer(spikes().dense()))


@pytest.mark.parametrize("change", [lambda s: s.add_(1.0), lambda s: s.zero_(), lambda s: s[0].mul_(2.0)])
def test_it_cannot_be_changed_in_place(change: Any) -> None:
    with pytest.raises(RuntimeError, match=r"would change spikes that are stored as torch.bool in place; use the form"):
        change(spikes())
    with pytest.raises(RuntimeError, match="copy_ would change spikes"):
        spikes().copy_(X)
    with pytest.raises(RuntimeError, match="would change spikes"):
        torch.add(X, 1.0, out=spikes())


def test_wrong_dtypes() -> None:
    rule = "output_dtype must be None or one of torch's bool, uint8, int8, float16, .*; got "
    with pytest.raises(ValueError, match=rule + "torch.complex64"):
        FlexSN(lif, output_dtype=torch.complex64)
    with pytest.raises(ValueError, match=rule + "'bool'"):
        flexsn.scan(lif, X, torch.zeros(()), output_dtype="bool")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match=r"output_dtype names 2 dtype\(s\), the core has 1 output\(s\)"):
        FlexSN(lif, output_dtype=(torch.bool, None))(X)
    with pytest.raises(ValueError, match=r"names 2 dtype\(s\), the core has 1"):
        FlexSN(lif, output_dtype=(torch.bool, None), backend="torch")(X)
