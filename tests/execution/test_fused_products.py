"""Products inside a kernel: the bits of a plain sum in order, whatever fires; the loop's where sums are exact."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from fed_back import feeding
from torch import Tensor, nn

from flexsn import FallbackWarning, scan, surrogate
from flexsn.kernels.triton.tiling import LARGEST_MATRIX
from tests.conftest import ON_THE_CPU

Core = Callable[..., Any]
Connection = Callable[[Tensor], Tensor]
SIZES = [(1, 2), (3, 3), (5, 17), (9, 64), (21, 100), (3, 513)]
F32, F64 = torch.float32, torch.float64


@pytest.fixture(params=[name for name in ON_THE_CPU if name != "torch"])
def fused(request: pytest.FixtureRequest) -> str:
    """A backend that multiplies inside its kernels."""
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def compiled() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        yield


class InOrder(torch.autograd.Function):
    """A product whose sums run in ascending order of the index, forward and backward."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(source, matrix)
        total = torch.zeros_like(source)
        for value, row in zip(source.unbind(-1), matrix, strict=True):
            total = total + value.unsqueeze(-1) * row
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        source, matrix = ctx.saved_tensors
        return InOrder.apply(grad, matrix.t()), source.t() @ grad  # type: ignore[no-untyped-call]


def run(
    core: Core, parameters: Sequence[Tensor], x: Tensor, states: Sequence[Tensor], backend: str, **options: Any
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Outputs and final states; gradients of input and states; gradients of parameters."""
    x, states = x.clone().requires_grad_(), tuple(s.clone().requires_grad_() for s in states)
    outputs, finals = scan(core, x, states, backend=backend, **options)
    values = [*(outputs if isinstance(outputs, tuple) else (outputs,)), *finals]
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randint(-4, 5, v.shape, generator=generator) / 4.0 for v in values]
    total = sum((v.to(w) * w).sum() for v, w in zip(values, weights, strict=True))
    grads = torch.autograd.grad(total, (x, *states, *parameters), allow_unused=True)
    given = 1 + len(states)
    return values, list(grads[:given]), list(grads[given:])


def assert_same(a: Sequence[Tensor], b: Sequence[Tensor]) -> None:
    for mine, theirs in zip(a, b, strict=True):
        assert torch.equal(mine, theirs), f"{mine} is not {theirs}"


def close(a: Sequence[Tensor], b: Sequence[Tensor], tolerance: float = 1e-4) -> None:
    for mine, theirs in zip(a, b, strict=True):
        torch.testing.assert_close(
            mine, theirs, rtol=tolerance, atol=tolerance * (1 + float(theirs.detach().abs().max()))
        )


def drive(num_steps: int, batch: int, size: int, dtype: torch.dtype = F32) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Inputs under which some samples fire seldom and others mostly, and states."""
    generator = torch.Generator().manual_seed(size)
    per_sample = torch.linspace(-3.0, 6.0, batch)[:, None]
    x = torch.randn(num_steps, batch, size, generator=generator) + per_sample
    states = torch.randn(batch, size, generator=generator), (torch.rand(batch, size, generator=generator) < 0.1)
    return x.to(dtype), (states[0].to(dtype), states[1].to(dtype))


def dyadic(*shape: int) -> Tensor:
    return torch.randint(-96, 96, shape) / 64.0


@pytest.mark.parametrize("batch, size", SIZES)
@pytest.mark.parametrize(
    "spike", [surrogate.ATan(), surrogate.Rect()], ids=["gradients everywhere", "seldom gradients"]
)
def test_sums_run_in_order_of_the_index_however_many_fire(spike: Connection, batch: int, size: int, fused: str) -> None:
    if fused == "triton" and size > LARGEST_MATRIX:
        pytest.skip("a product of torch's own")
    weight = nn.Parameter(torch.randn(size, size, generator=torch.Generator().manual_seed(0)) / size**0.5)
    x, states = drive(6, batch, size)
    mine = run(feeding(lambda z: z @ weight, spike), [weight], x, states, fused)
    plain = run(feeding(lambda z: InOrder.apply(z, weight), spike), [weight], x, states, "torch")  # type: ignore[no-untyped-call]
    assert_same(mine[0], plain[0])
    assert_same(mine[1], plain[1])
    close(mine[2], plain[2])
    rates = mine[0][0].mean((0, 2))
    assert batch < 5 or (rates.min() < 0.3 and rates.max() > 0.7)


def test_the_same_in_fp64(fused: str) -> None:
    weight = nn.Parameter(torch.randn(50, 50, dtype=F64))
    x, states = drive(5, 7, 50, F64)
    mine = run(feeding(lambda z: z @ weight, surrogate.ATan()), [weight], x, states, fused)
    plain = run(feeding(lambda z: InOrder.apply(z, weight), surrogate.ATan()), [weight], x, states, "torch")  # type: ignore[no-untyped-call]
    assert_same((*mine[0], *mine[1]), (*plain[0], *plain[1]))
    close(mine[2], plain[2], 1e-12)


@pytest.mark.parametrize("num_steps", [1, 2, 300])
@pytest.mark.parametrize("checkpoint", ["auto", 1])
def test_any_number_of_steps(num_steps: int, checkpoint: Any, fused: str) -> None:
    if fused == "triton":
        num_steps = min(num_steps, 30)  # interpreted
    weight = nn.Parameter(torch.randn(17, 17) / 4)
    x, states = drive(num_steps, 5, 17)
    spike = surrogate.ATan()
    mine = run(feeding(lambda z: z @ weight, spike), [weight], x, states, fused, checkpoint=checkpoint)
    plain = run(feeding(lambda z: InOrder.apply(z, weight), spike), [weight], x, states, "torch")  # type: ignore[no-untyped-call]
    assert_same((*mine[0], *mine[1]), (*plain[0], *plain[1]))
    close(mine[2], plain[2])


# ---- all gradients, exactly ------------------------------------------------------------------------------------

RECT = surrogate.Rect()


def small(*shape: int) -> Tensor:
    """Numbers of whose products every sum is exact, for a few steps."""
    return torch.randint(-1, 2, shape).float()


def chained(first: Connection, second: Connection) -> Core:
    """A product of a value of the step, which depends on another product."""

    def core(x: Tensor, v: Tensor, z: Tensor) -> Any:
        h = v + x + second(RECT(first(z) - 0.5)) + first(x)
        s = RECT(h - 1.0)
        return s, h * (1.0 - s), s

    return core


@pytest.mark.parametrize("size", [3, 20])
@pytest.mark.parametrize("kind", ["linear", "two products", "a product of a product"])
def test_every_gradient_has_the_bits_of_the_loop_where_sums_are_exact(kind: str, size: int, fused: str) -> None:
    torch.manual_seed(size)
    linear, weight = nn.Linear(size, size), nn.Parameter(small(size, size))
    with torch.no_grad():
        for p in linear.parameters():
            p.copy_(small(*p.shape))
    core, parameters = {
        "linear": (feeding(linear, RECT), [*linear.parameters()]),
        "two products": (feeding(lambda z: linear(z) + z @ weight, RECT), [*linear.parameters(), weight]),
        "a product of a product": (chained(linear, lambda z: z @ weight), [*linear.parameters(), weight]),
    }[kind]
    x, states = small(4, 5, size), (small(5, size), (small(5, size) > 0).float())
    mine, loop = (run(core, parameters, x, states, backend) for backend in (fused, "torch"))
    for a, b in zip(mine, loop, strict=True):
        assert_same(a, b)


# ---- cores -----------------------------------------------------------------------------------------------------


def test_an_lstm(fused: str) -> None:
    """Four gates, each of two products."""
    torch.manual_seed(0)
    gates = nn.ModuleList(nn.Linear(12, 12) for _ in range(8))

    def core(x: Tensor, c: Tensor, h: Tensor) -> Any:
        i, f, o, g = (gates[k](x) + gates[k + 4](h) for k in range(4))
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, c, h

    x, states = torch.randn(9, 3, 12), (torch.randn(3, 12), torch.randn(3, 12))
    mine, loop = (run(core, list(gates.parameters()), x, states, backend) for backend in (fused, "torch"))
    for a, b in zip(mine, loop, strict=True):
        close(a, b)


@pytest.mark.parametrize("wanted", ["input", "states", "parameters", "final states alone"])
def test_some_gradients_alone(wanted: str, fused: str) -> None:
    torch.manual_seed(1)
    weight = nn.Parameter(torch.randn(8, 8) / 3)
    core = feeding(lambda z: z @ weight, surrogate.ATan())
    x, states = drive(6, 3, 8)
    found = []
    for backend in (fused, "torch"):
        x.requires_grad_(wanted == "input")
        given = tuple(s.clone().requires_grad_(wanted == "states") for s in states)
        y, finals = scan(core, x, given, backend=backend)
        total = finals[0].sum() if wanted == "final states alone" else (y * y.detach().cumsum(0)).sum()
        of = {"input": (x,), "states": given}.get(wanted, (weight,))
        found.append(torch.autograd.grad(total, of))
    close(*found)


def test_a_product_of_the_input(fused: str) -> None:
    weight = nn.Parameter(torch.randn(8, 8) / 3)

    def core(x: Tensor, v: Tensor) -> Any:
        v = torch.tanh(0.5 * v + x @ weight)
        return v, v

    x, states = torch.randn(5, 4, 8), (torch.randn(4, 8),)
    mine, loop = (run(core, [weight], x, states, backend) for backend in (fused, "torch"))
    for a, b in zip(mine, loop, strict=True):
        close(a, b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_inputs_are_computed_in_fp32(dtype: torch.dtype, fused: str) -> None:
    weight = nn.Parameter(dyadic(20, 20))
    x, states = dyadic(5, 3, 20).to(dtype), (dyadic(3, 20), dyadic(3, 20))
    core = feeding(lambda z: z @ weight, surrogate.ATan())
    mine, loop = (run(core, [weight], x, states, backend) for backend in (fused, "torch"))
    assert mine[0][0].dtype == dtype
    assert_same(mine[0], loop[0])
    for a, b in zip(mine[1:], loop[1:], strict=True):
        close(a, b, 1e-2)


# ---- where tensors lie, and what becomes of them ---------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 1, 3), (3, 1, 0, 2), (1, 2, 3, 0)])
def test_tensors_of_any_memory_order(order: tuple[int, ...], fused: str) -> None:
    """The lanes of a sample are numbered one by one, wherever they lie."""
    shape = [4, 2, 3, 20]
    weight, states = nn.Parameter(torch.randn(20, 20) / 4), (torch.randn(2, 3, 20), torch.zeros(2, 3, 20))
    back = [order.index(d) for d in range(4)]
    x = torch.randn([shape[d] for d in order]).permute(back)
    core = feeding(lambda z: z @ weight, surrogate.ATan())
    mine, loop = (run(core, [weight], x, states, backend) for backend in (fused, "torch"))
    for a, b in zip(mine, loop, strict=True):
        close(a, b)
    other, _ = scan(core, x.transpose(0, 1), states, fused, 1)
    assert torch.equal(other.transpose(0, 1), mine[0][0])


def test_outputs_that_were_changed_in_place_are_computed_once_more(fused: str) -> None:
    weight = nn.Parameter(torch.randn(8, 8) / 3)
    core = feeding(lambda z: z @ weight, surrogate.ATan())
    x, states = drive(6, 3, 8)
    grads = []
    for change in (False, True):
        y, _ = scan(core, x, states, fused)
        total = y.sum()
        if change:
            with torch.no_grad():
                y.mul_(0.0)
        grads.append(torch.autograd.grad(total, weight)[0])
    assert torch.equal(*grads)


def test_a_graph_that_is_kept_gives_the_same_again(fused: str) -> None:
    weight = nn.Parameter(torch.randn(8, 8) / 3)
    x, states = drive(6, 3, 8)
    y, _ = scan(feeding(lambda z: z @ weight, surrogate.ATan()), x, states, fused)
    first, second = (torch.autograd.grad(y.sum(), weight, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_no_samples(fused: str) -> None:
    weight = nn.Parameter(torch.randn(8, 8))
    x = torch.zeros(5, 0, 8)
    y, _ = scan(feeding(lambda z: z @ weight, surrogate.ATan()), x, (torch.zeros(0, 8), torch.zeros(0, 8)), fused)
    assert not torch.autograd.grad(y.sum(), weight)[0].any()


def test_how_many_threads_there_are_makes_no_difference() -> None:
    weight = nn.Parameter(torch.randn(100, 100) / 10)
    core, threads = feeding(lambda z: z @ weight, surrogate.ATan()), torch.get_num_threads()
    x, states = drive(30, 21, 100)
    try:
        found = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            values, grads, _ = run(core, [weight], x, states, "cpp")
            found.append([*values, *grads])
    finally:
        torch.set_num_threads(threads)
    assert_same(found[0], found[1])
    assert_same(found[0], found[2])
