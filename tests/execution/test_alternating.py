"""Cores with products, compiled, against the loop: bits where sums are exact, to rounding elsewhere."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fed_back import feeding
from torch import Tensor, nn

from flexsn import FallbackWarning, scan, surrogate
from flexsn.ir.layout import TensorSpec
from flexsn.kernels.cpp.backend import CppBackend
from flexsn.kernels.triton.backend import TritonBackend

INTERPRETING = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
KERNELS = "triton" if INTERPRETING else "cpp"
H = 5
spike = surrogate.ATan()
Core = Callable[..., Any]


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for backend in (CppBackend, TritonBackend):
        monkeypatch.setattr(backend, "largest_matrix", 0)  # none is fused
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        yield


def dyadic(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.randint(-96, 96, shape) / 64.0).to(dtype)


def parameter(*shape: int, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(dyadic(*shape, dtype=dtype))


def run(
    core: Core, parameters: Sequence[Tensor], x: Tensor, states: Sequence[Tensor], backend: str, **options: Any
) -> Any:
    """Outputs and final states; gradients of input and states; gradients of parameters."""
    x, states = x.clone().requires_grad_(), tuple(s.clone().requires_grad_() for s in states)
    y, finals = scan(core, x, states, backend=backend, **options)
    generator = torch.Generator().manual_seed(1)
    values = [y, *finals]
    weights = [torch.randint(-4, 5, v.shape, generator=generator) / 4.0 for v in values]
    total = sum((v.float() * w).sum() for v, w in zip(values, weights, strict=True))
    grads = torch.autograd.grad(total, (x, *states, *parameters), allow_unused=True)
    return values, grads[: 1 + len(states)], grads[1 + len(states) :]


def close(a: Sequence[Tensor], b: Sequence[Tensor], **tolerance: float) -> None:
    for mine, theirs in zip(a, b, strict=True):
        torch.testing.assert_close(mine, theirs, **tolerance)


TAU, W, B = nn.Parameter(torch.tensor(0.5)), parameter(H, H), parameter(H)
LINEAR, CONV = nn.Linear(H, H), nn.Conv2d(3, 3, 3, padding=1)
with torch.no_grad():
    for p in (*LINEAR.parameters(), *CONV.parameters()):
        p.copy_(dyadic(*p.shape))


def gated(x: Tensor, v: Tensor, z: Tensor) -> Any:
    """Several products of one state, and one of a value of the step."""
    gate = torch.sigmoid(x + F.linear(z, W, B))
    v = gate * v + (1 - gate) * torch.tanh(x + LINEAR(z * gate))
    y = gate * torch.tanh(v)
    return y, v, y


EXACT: dict[str, tuple[Core, list[Tensor], tuple[int, ...]]] = {
    "linear": (feeding(LINEAR, spike, TAU), [*LINEAR.parameters(), TAU], (H,)),
    "two products": (feeding(lambda z: LINEAR(z) + z @ W, spike, TAU), [*LINEAR.parameters(), W, TAU], (H,)),
    "a product of a product": (
        feeding(lambda z: LINEAR(torch.relu(z @ W)), spike, TAU),
        [*LINEAR.parameters(), W, TAU],
        (H,),
    ),
    "convolution": (feeding(CONV, spike, TAU), [*CONV.parameters(), TAU], (3, 4, 5)),
}


@pytest.mark.parametrize("backend", [KERNELS])
@pytest.mark.parametrize("core, parameters, lanes", EXACT.values(), ids=EXACT)
@pytest.mark.parametrize("num_steps, batch, checkpoint", [(1, 1, "auto"), (2, 3, 1), (11, 3, 4)])
def test_bits_are_those_of_the_loop_where_sums_are_exact(
    core: Core,
    parameters: list[Tensor],
    lanes: tuple[int, ...],
    num_steps: int,
    batch: int,
    checkpoint: int | str,
    backend: str,
) -> None:
    x, states = dyadic(num_steps, batch, *lanes), (dyadic(batch, *lanes), dyadic(batch, *lanes))
    mine = run(core, parameters, x, states, backend, checkpoint=checkpoint)
    loop = run(core, parameters, x, states, "torch")
    for a, b in zip(mine[0], loop[0], strict=True):
        assert torch.equal(a, b)
    close(mine[1], loop[1], rtol=1e-5, atol=1e-5)
    close(mine[2], loop[2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", [KERNELS])
@pytest.mark.parametrize("num_steps, checkpoint", [(1, 1), (13, 5), (40, "auto")])
def test_gates_are_those_of_the_loop_to_rounding(num_steps: int, checkpoint: int | str, backend: str) -> None:
    x, states = dyadic(num_steps, 3, H), (dyadic(3, H), dyadic(3, H))
    parameters = [W, B, *LINEAR.parameters()]
    mine = run(gated, parameters, x, states, backend, checkpoint=checkpoint)
    loop = run(gated, parameters, x, states, "torch")
    for a, b in zip(mine, loop, strict=True):
        close(a, b, rtol=1e-4, atol=1e-5)


def test_gradients_are_right_in_fp64() -> None:
    weight = nn.Parameter(torch.randn(H, H, dtype=torch.float64) / 3)

    def core(x: Tensor, v: Tensor) -> Any:
        v = torch.tanh(0.5 * v + x + v @ weight)
        return v, v

    x, v = torch.randn(6, 2, H, dtype=torch.float64), torch.randn(2, H, dtype=torch.float64)
    given = (x.requires_grad_(), v.requires_grad_(), weight)
    assert torch.autograd.gradcheck(
        lambda x, v, _: scan(core, x, v, backend=KERNELS, checkpoint=4), given, fast_mode=True, nondet_tol=0.0
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_inputs_are_computed_in_fp32(dtype: torch.dtype) -> None:
    x, states = dyadic(5, 3, H, dtype=dtype), (dyadic(3, H), dyadic(3, H))
    core = feeding(lambda z: LINEAR(z), spike, TAU)
    mine, loop = (run(core, [TAU], x, states, b) for b in (KERNELS, "torch"))
    assert mine[0][0].dtype == dtype
    for a, b in zip(mine[0], loop[0], strict=True):
        assert torch.equal(a, b)
    close(mine[1], loop[1], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("time_dim", [0, 1])
def test_sequences_are_used_where_they_lie(time_dim: int) -> None:
    x = dyadic(4, 3, H).transpose(0, 1) if time_dim else dyadic(4, 3, H)
    core, states = feeding(LINEAR, spike, TAU), (dyadic(3, H), torch.zeros(()))
    results = [scan(core, x, states, b, time_dim, return_state_seqs=True) for b in (KERNELS, "torch")]
    for a, b in zip(*((y, *finals, *seqs) for y, finals, seqs in results), strict=True):
        assert torch.equal(a, b)


def test_spikes_come_in_the_dtype_asked_for() -> None:
    x, states = dyadic(4, 3, H), (dyadic(3, H), dyadic(3, H))
    core = feeding(LINEAR, spike, TAU)
    y, _ = scan(core, x, states, KERNELS, output_dtype=torch.uint8)
    expected, _ = scan(core, x, states, "torch")
    assert torch.equal(y.dense(), expected)


def test_padding_may_be_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    make = TensorSpec.make
    monkeypatch.setattr(TensorSpec, "make", lambda self, device: make(self, device).fill_(float("nan")))
    lengths = torch.tensor([4, 0, 2])
    weight = parameter(H, H)
    core = feeding(lambda z: z @ weight, spike, TAU)

    def grads(padding: float) -> Sequence[Tensor]:
        x = (
            (dyadic(4, 3, H) * 4.0)
            .masked_fill(torch.arange(4)[:, None, None] >= lengths[:, None], padding)
            .requires_grad_()
        )
        y, _ = scan(core, x, (torch.zeros(3, H), torch.zeros(3, H)), KERNELS, lengths=lengths)
        return y, *torch.autograd.grad(y.sum(), (x, weight))

    torch.manual_seed(2)
    zeros = grads(0.0)
    torch.manual_seed(2)
    for a, b in zip(grads(float("nan")), zeros, strict=True):
        assert torch.equal(a, b) and b.any()


def test_no_steps_leave_the_states() -> None:
    states = (dyadic(3, H), dyadic(3, H))
    y, finals = scan(feeding(LINEAR, spike, TAU), torch.zeros(0, 3, H), states, KERNELS)
    assert y.shape == (0, 3, H) and torch.equal(finals[1], states[1])


def test_steps_without_a_batch() -> None:
    x, states = dyadic(6, H), (dyadic(H), dyadic(H))
    mine, loop = (scan(feeding(LINEAR, spike, TAU), x, states, b)[0] for b in (KERNELS, "torch"))
    assert torch.equal(mine, loop)


def test_two_runs_have_the_same_bits() -> None:
    x, states = torch.randn(20, 3, H), (torch.randn(3, H), torch.randn(3, H))
    parameters = [W, B, *LINEAR.parameters()]
    first, second = (run(gated, parameters, x, states, KERNELS) for _ in range(2))
    for a, b in zip((*first[0], *first[1], *first[2]), (*second[0], *second[1], *second[2]), strict=True):
        assert torch.equal(a, b)


def test_a_changed_matrix_counts_at_the_next_call() -> None:
    weight = nn.Parameter(torch.eye(H))
    core = feeding(lambda z: z @ weight, spike, TAU)
    x, states = dyadic(4, 3, H), (dyadic(3, H), dyadic(3, H))
    scan(core, x, states, KERNELS)
    with torch.no_grad():
        weight.mul_(-2.0)
    mine, loop = (scan(core, x, states, b)[0] for b in (KERNELS, "torch"))
    assert torch.equal(mine, loop)


def test_autocast_rounds_no_product() -> None:
    x, states = dyadic(4, 3, H), (dyadic(3, H), dyadic(3, H))
    weight = nn.Parameter(torch.randn(H, H))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mine, _ = scan(feeding(lambda z: z @ weight, spike, TAU), x, states, KERNELS)
    close([mine], [scan(feeding(lambda z: z @ weight, spike, TAU), x, states, "torch")[0]], rtol=1e-5, atol=1e-5)
