"""Unusual tensors, in every place a tensor comes in: written out, left to the loop, or refused by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flexsn import FallbackWarning, FlexSN, UnsupportedOpError, scan, surrogate
from flexsn.execution.arguments import KINDS, Treatment
from tests import fresh
from tests.conftest import ON_THE_CPU

COMPILED = [name for name in ON_THE_CPU if name != "torch"]
DOCS = Path(__file__).parents[2] / "docs" / "tensors.md"
Make = Callable[[Tensor], Tensor]
spike = surrogate.ATan()


def lif(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) / 2.0
    s = spike(h - 1.0)
    return s, h * (1.0 - s)


def add(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return v + x, v + x


def negated(t: Tensor) -> Tensor:
    return torch._neg_view(-t)  # type: ignore[no-any-return]


def imaginary(t: Tensor) -> Tensor:
    return torch.complex(torch.zeros_like(t), -t).conj().imag


def sliced(t: Tensor) -> Tensor:
    return imaginary(torch.stack([t, t], -1))[..., 0]


def no_memory(t: Tensor) -> Tensor:
    return torch._efficientzerotensor(t.shape)  # type: ignore[no-any-return]


def inference(t: Tensor) -> Tensor:
    with torch.inference_mode():
        return t.clone()


WRITTEN_OUT: dict[str, tuple[Make, Make]] = {  # how a tensor is made so, and the plain one of the same values
    "negated": (negated, torch.clone),
    "imaginary": (imaginary, torch.clone),
    "sliced": (sliced, torch.clone),
    "no memory": (no_memory, torch.zeros_like),
    "inference": (inference, torch.clone),
}
PLACES = ("input", "state", "read", "computed", "gradient", "final gradient")


def results(make: Make, places: set[str], backend: str, seed: int) -> list[Tensor]:
    """Everything a call and its backward pass give, with tensors made so in those places."""
    generator = torch.Generator().manual_seed(seed)

    def tensor(place: str, *shape: int) -> Tensor:
        plain = torch.randn(shape, generator=generator)
        return make(plain) if place in places else plain

    scale = torch.randn(5, generator=generator, requires_grad=True)
    pair = torch.complex(torch.zeros(5), torch.randn(5, generator=generator))
    read = {"read": tensor("read", 5)}

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        offset = pair.conj().imag if "computed" in places else -pair.imag
        s, v = lif(x * scale + offset, v)
        return s * read["read"], v

    y, final = scan(core, tensor("input", 4, 5), tensor("state", 5), backend)
    grads = [tensor("gradient", 4, 5), tensor("final gradient", 5)]
    return [y.detach(), final.detach(), *torch.autograd.grad([y, final], [scale], grads)]


@pytest.mark.parametrize("backend", ON_THE_CPU)
@pytest.mark.parametrize("kind", WRITTEN_OUT)
@pytest.mark.parametrize("place", PLACES)
def test_values_are_those_of_the_plain_tensor(place: str, kind: str, backend: str) -> None:
    made, plain = WRITTEN_OUT[kind]
    if (kind, place) == ("inference", "read"):
        pytest.skip("what the core does with a tensor of its own, the loop leaves to torch")
    if (kind, place) == ("no memory", "read"):
        backend = "torch"
    for seed in (0, 1):  # the second call finds the first one's kernels
        results(plain, {place}, backend, seed)
        got, want = results(made, {place}, backend, seed), results(plain, {place}, "torch", seed)
        for a, b in zip(got[:2], want[:2], strict=True):
            assert torch.equal(a, b)
        assert torch.allclose(got[2], want[2], rtol=1e-5, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(sorted(WRITTEN_OUT)), st.sets(st.sampled_from(PLACES)), st.sampled_from(ON_THE_CPU), st.integers(0)
)
def test_values_are_those_of_the_plain_tensor_in_any_places(
    kind: str, places: set[str], backend: str, seed: int
) -> None:
    made, plain = WRITTEN_OUT[kind]
    if kind in ("inference", "no memory"):
        places = places - {"read"}
    got, want = results(made, places, backend, seed % 2**31), results(plain, places, "torch", seed % 2**31)
    for a, b in zip(got[:2], want[:2], strict=True):
        assert torch.equal(a, b)
    assert torch.allclose(got[2], want[2], rtol=1e-5, atol=1e-6)


def test_gradients_of_inputs_have_the_sign_of_the_gradient(backend: str) -> None:
    x = torch.randn(4, 5, requires_grad=True)
    y, _ = scan(lif, x, torch.zeros(5), backend)
    g = torch.randn(4, 5)
    for made, plain in WRITTEN_OUT.values():
        (got,) = torch.autograd.grad(y, x, made(g), retain_graph=True)
        (want,) = torch.autograd.grad(y, x, plain(g), retain_graph=True)
        assert torch.equal(got, want)


REFUSED: dict[str, Make] = {
    "sparse or mkldnn": lambda t: t.to_sparse(),
    "quantized": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    "nested": lambda t: torch.nested.nested_tensor(list(torch.atleast_2d(t))),
}
MORE_SPARSE: list[Make] = [lambda t: t.to_mkldnn(), lambda t: torch.atleast_2d(t).to_sparse_csr()]


@pytest.mark.filterwarnings("ignore:.*prototype", "ignore:.*beta", "ignore:.*deprecated")
@pytest.mark.parametrize(("kind", "make"), [*REFUSED.items(), *(("sparse or mkldnn", make) for make in MORE_SPARSE)])
def test_what_no_loop_can_scan_is_refused_by_name(kind: str, make: Make, backend: str) -> None:
    x, v = torch.ones(4, 5), torch.zeros(5)
    scan(lif, x, v, backend)  # kernels for dense tensors of these shapes are there
    hint = next(k.hint for k in KINDS if k.name == kind)
    with pytest.raises(ValueError, match=f"input 0 is {kind}; a scan takes dense tensors") as caught:
        scan(lif, make(x), v, backend)
    assert hint in str(caught.value)
    with pytest.raises(ValueError, match=f"state 0 is {kind}"):
        scan(lif, x, make(v), backend)
    for mode in ("m", "s"):
        with pytest.raises(ValueError, match=f"input 0 is {kind}"):
            FlexSN(lif, backend=backend, step_mode=mode)(make(x))


def cast(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    v = v + x.to(v.dtype)
    return v, v


@pytest.mark.parametrize(
    "dtype", [torch.uint16, torch.uint32, torch.uint64, torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_a_dtype_no_kernel_has_is_the_loops(dtype: torch.dtype) -> None:
    x = torch.tensor([[1.0, 2.0], [0.5, 3.0]]).to(dtype)
    state = torch.complex64 if dtype.is_complex else torch.float32
    with pytest.warns(FallbackWarning, match=f"input 0 is {str(dtype)[6:]}"):
        y, v = FlexSN(cast, example_inputs=(x, torch.zeros((), dtype=state)))(x), None
    want, v = scan(cast, x, torch.zeros(2, dtype=state), "torch")
    assert torch.equal(y, want)
    assert v.dtype is state
    for backend in COMPILED:
        with pytest.raises(UnsupportedOpError, match="input 0 is"):
            scan(cast, x, torch.zeros(2, dtype=state), backend)


def test_so_is_one_that_the_core_reads_or_computes() -> None:
    unsigned, wave = torch.tensor([1, 2], dtype=torch.uint16), torch.tensor([1j, 2j])

    def reads(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return v + x * unsigned, v + x

    def computes(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return (x * wave).imag, v + x

    def converts(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return v + x * wave.imag, v + x * unsigned.float()

    x = torch.ones(3, 2)
    for core in (reads, computes):
        with pytest.warns(FallbackWarning):
            y, _ = scan(core, x, torch.zeros(2))
        assert torch.equal(y, scan(core, x, torch.zeros(2), "torch")[0])
    for backend in COMPILED:
        assert torch.equal(scan(converts, x, torch.zeros(2), backend)[0], scan(converts, x, torch.zeros(2), "torch")[0])


@pytest.mark.filterwarnings("ignore:.*beta")
@pytest.mark.parametrize("make", [Tensor.to_sparse, Tensor.to_sparse_csr])
def test_a_core_that_reads_a_sparse_tensor_is_the_loops(make: Make) -> None:
    eye = make(torch.eye(3))

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return v + x * eye.to_dense().sum(), v + x

    with pytest.warns(FallbackWarning, match="the core reads eye, which is sparse"):  # once for a neuron
        y = FlexSN(core)(torch.ones(2, 3))
    assert y.tolist() == [[3.0] * 3, [4.0] * 3]
    for backend in COMPILED:
        with pytest.raises(UnsupportedOpError, match="eye"):
            scan(core, torch.ones(2, 3), torch.zeros(3), backend)


def test_on_the_meta_device_shapes_come_out_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = FlexSN(lif)(torch.ones(4, 5, device="meta"))
    assert y.is_meta
    assert y.shape == (4, 5)


def test_batched_gradients(backend: str) -> None:
    x = torch.randn(3, 2, requires_grad=True)
    y, _ = scan(lif, x, torch.zeros(2), backend)
    each = torch.eye(6).view(6, 3, 2)
    (batched,) = torch.autograd.grad(y, x, each, is_grads_batched=True, retain_graph=True)
    assert torch.equal(batched, torch.stack([torch.autograd.grad(y, x, g, retain_graph=True)[0] for g in each]))

    def outputs(x: Tensor) -> Any:
        return scan(lif, x, torch.zeros(2), backend)[0]

    jacobian = torch.autograd.functional.jacobian
    assert torch.equal(jacobian(outputs, x, vectorize=True), jacobian(outputs, x))


MASKS: dict[str, tuple[Tensor, Make]] = {
    "lengths, negated": (torch.tensor([2, 0]), negated),
    "lengths, no memory": (torch.tensor([0, 0]), lambda t: torch._efficientzerotensor(t.shape, dtype=t.dtype)),
    "lengths, uint16": (torch.tensor([2, 1]), lambda t: t.to(torch.uint16)),
    "lengths, uint64": (torch.tensor([2, 3]), lambda t: t.to(torch.uint64)),
    "reset_mask, no memory": (
        torch.zeros(3, 2, dtype=torch.bool),
        lambda t: torch._efficientzerotensor(t.shape, dtype=t.dtype),
    ),
    "reset_mask, expanded": (torch.tensor([True]).expand(3, 2).clone(), lambda t: t[:1, :1].expand(3, 2)),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_pass_it_too(kind: str, backend: str) -> None:
    plain, make = MASKS[kind]
    name, x = kind.partition(",")[0], torch.randn(3, 2, 5)
    got, want = FlexSN(lif, backend=backend), FlexSN(lif, backend="torch")
    assert torch.equal(got(x, **{name: make(plain)}), want(x, **{name: plain}))
    assert torch.equal(got.v, want.v)


@pytest.mark.parametrize("name", ["lengths", "reset_mask"])
def test_masks_are_refused_by_name(name: str) -> None:
    mask = torch.tensor([2, 1]) if name == "lengths" else torch.ones(3, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=rf"{name} is sparse or mkldnn; .*x.to_dense\(\)"):
        FlexSN(lif)(torch.randn(3, 2, 5), **{name: mask.to_sparse()})


def test_spikes_in_shared_memory() -> None:
    run = "import torch, flexsn; s = flexsn.FlexSN(lambda x, v: ((x > v).float(), x), output_dtype=torch.bool)"
    run += "(torch.ones(3, 4)); assert s.share_memory_() is s and s.is_shared() and s.stored.is_shared()"
    done = fresh.run(run)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_table_in_the_docs_is_this_one() -> None:
    rows = []
    for kind in KINDS:
        said = kind.treatment.value + (f": `{kind.hint}`" if kind.treatment is Treatment.REFUSED else "")
        rows.append(f"| {kind.name} | {said} |\n")
    assert "| a tensor that is | what happens |\n|---|---|\n" + "".join(rows) in DOCS.read_text()
