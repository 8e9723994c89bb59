"""Every operation alone, on special and random values, against eager torch."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import pytest
import torch
from op_arguments import arguments
from op_cases import FLOATS, INTS, SAME_PROMISE, Case, cases
from torch import Tensor

import flexsn
from flexsn.errors import UnsupportedOpError
from flexsn.ir.layout import Layout
from flexsn.ir.ops import OPS
from flexsn.ir.plan import BackwardPlan, Plan
from flexsn.ir.promises import EXACT, EXACT_FUNCTIONS, FUNCTIONS
from flexsn.kernels.backend import Launch
from flexsn.kernels.backend import backend as kernels_for
from flexsn.kernels.triton import runtime as triton_runtime

BACKEND = "triton" if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0") else "cpp"
DTYPES = (*FLOATS, *INTS, torch.bool)
CHUNK = 16  # operations that share a kernel, to save compilations; each has outputs and inputs of its own
POWER_GRADIENT = {"pow_minus_half", "pow_minus_2"}  # their gradients need a general power
# what eager's vectors and its last few lanes, one by one, answer differently
UNSETTLED_AT_NAN = {"hardtanh", "relu6", "hardswish", "hardshrink", "softshrink", "elu", "elu_alpha", "selu", "celu"}
NO_GRADIENT = {"floor_divide", "floor_divide_number", "floor_divide_zero", "heaviside", "heaviside_number"}
_BITS = {torch.float32: torch.int32, torch.float64: torch.int64}


@pytest.fixture(scope="module", autouse=True)
def large_blocks() -> Iterator[None]:
    """The interpreter takes as long for a block of 32,768 lanes as for one of 1,024."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(triton_runtime, "_INTERPRETED", 1 << 15)
        yield


def _skip_missing(case: Case) -> None:
    if BACKEND == "triton" and "bfloat16" in case.name:
        pytest.skip("Triton's interpreter has no bf16")


def _id(value: object) -> str:
    return value.name if isinstance(value, Case) else str(value).removeprefix("torch.")


@cache
def _chunks(dtype: torch.dtype) -> list[list[Case]]:
    rows = []
    for arity in (1, 2, 3):
        of_arity = [c for c in cases(dtype) if c.arity == arity]
        rows += [of_arity[i : i + CHUNK] for i in range(0, len(of_arity), CHUNK)]
    return rows


ALL = [
    pytest.param(dtype, number, position, id=f"{_id(dtype)}-{case.name}-{case.arity}")
    for dtype in DTYPES
    for number, chunk in enumerate(_chunks(dtype))
    for position, case in enumerate(chunk)
]


@cache
def _computed(dtype: torch.dtype, number: int) -> tuple[Tensor, ...]:
    chunk = _chunks(dtype)[number]
    values = arguments(dtype, chunk[0].arity)
    functions = [c.function for c in chunk]  # all that the core reads
    out, _ = flexsn.scan(lambda *x: tuple(f(*x) for f in functions), values, (), backend=BACKEND)
    return (out,) if isinstance(out, Tensor) else tuple(out)


# where eager's vectors give inf or NaN, before its last lanes do
OVERFLOWS: dict[str, Callable[[torch.finfo], float]] = {
    **dict.fromkeys(["gelu", "gelu_tanh"], lambda info: 1e30),
    **dict.fromkeys(["sinh", "cosh"], lambda info: math.log(info.max)),
}
SIZES: dict[str, Callable[..., Tensor]] = {
    "result": lambda want, *x: want,
    "result + |x| 2^-126": lambda want, *x: want.abs() + x[0].abs() * torch.finfo(x[0].dtype).tiny,
    "x": lambda want, *x: x[0],
    "max(1, result)": lambda want, *x: torch.ones_like(want),
    "1 + |x| + |y|": lambda want, *x: 1 + x[0].abs() + x[1].abs(),
}


def _differ(got: Tensor, want: Tensor, same_zero: bool) -> Tensor:
    """Where the bits differ; all NaN are one."""
    if not want.is_floating_point():
        return got != want
    wrong = got.view(_BITS[got.dtype]) != want.view(_BITS[want.dtype])
    return wrong & ~(got.isnan() & want.isnan()) & ~((got == 0) & (want == 0) & (not same_zero))


def _ulps(got: Tensor, want: Tensor, size: Tensor) -> Tensor:
    """How far apart, in units in the last place of ``size`` or of what is wanted; of fp64, as of fp32 for fp32."""
    info = torch.finfo(got.dtype)
    _, exponent = torch.frexp(size.abs().maximum(want.abs()).double().clamp(info.tiny, info.max))
    far = (got.double() - want.double()).abs() / torch.ldexp(torch.full_like(want.double(), info.eps), exponent - 1)
    return torch.where((got == want) | (got.isnan() & want.isnan()), 0, far.nan_to_num(float("inf")))


def _distances(case: Case, got: Tensor, values: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """In ulp: from eager torch, and from the exact value where fp64 can tell it.

    Torch does not count where it is farther than promised from the exact value; nor does the exact value, where torch
    is no nearer to it.
    """
    want = _by_step(case.function, values)
    of = SIZES[case.promise.of]
    from_torch = _ulps(got, want, of(want, *values))
    if got.dtype != torch.float32 or want.dtype != values[0].dtype:
        return from_torch, torch.zeros_like(from_torch)
    exact = case.function(*(v.double() for v in values))
    size = of(exact, *values)
    info = torch.finfo(got.dtype)
    normal = (exact.abs() >= info.tiny) & (exact.abs() <= info.max)
    from_exact, of_torch = (_ulps(x, exact, size).masked_fill(~normal, 0) for x in (got, want))
    return from_torch.masked_fill(of_torch > case.promise.exact + 1, 0), from_exact.masked_fill(
        from_exact <= of_torch, 0
    )


def _by_step(function: Callable[..., Any], values: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([function(*(v[t] for v in values)) for t in range(2)])


@pytest.mark.parametrize(("dtype", "number", "position"), ALL)
def test_keeps_its_promise(dtype: torch.dtype, number: int, position: int) -> None:
    case = _chunks(dtype)[number][position]
    _skip_missing(case)
    values = arguments(dtype, case.arity)
    got = _computed(dtype, number)[position]
    want = _by_step(case.truth or case.function, values)
    assert got.dtype == want.dtype
    wrong = torch.zeros_like(got, dtype=torch.bool)
    if case.truth or not case.promise.torch:
        wrong |= _differ(got, want, case.same_zero)
    if case.promise.torch and got.is_floating_point():
        from_torch, from_exact = _distances(case, got, values)
        from_torch[values[0].abs() > OVERFLOWS.get(case.name, lambda info: math.inf)(torch.finfo(want.dtype))] = 0
        wrong |= (from_torch > case.promise.torch) | (from_exact > case.promise.exact)
    examples = [
        f"{tuple(v[at].item() for v in values)} gives {got[at].item()!r}, torch {want[at].item()!r}"
        for at in map(tuple, wrong.nonzero()[:5])
    ]
    assert not examples, f"{int(wrong.sum())} of {wrong.numel()} differ:\n" + "\n".join(examples)


def test_every_function_of_the_tables_is_tried() -> None:
    tried = {SAME_PROMISE.get(c.name, c.name) for dtype in DTYPES for c in cases(dtype)}
    assert {*FUNCTIONS, *EXACT_FUNCTIONS} <= tried
    assert {name for name, op in OPS.items() if op.promise != EXACT} - tried == {"fma"}  # by addcmul and lerp
    for name in EXACT_FUNCTIONS:
        assert next(c for c in cases(torch.float32) if c.name == name).promise == EXACT


@cache
def _differentiable(dtype: torch.dtype) -> list[list[Case]]:
    """Chunks of the operations eager torch can differentiate, whose results depend on their arguments smoothly."""
    x = torch.rand(8, dtype=dtype, requires_grad=True)
    rows = []
    for chunk in _chunks(dtype):
        kept = [c for c in chunk if c.name not in NO_GRADIENT and c.function(*[x] * c.arity).requires_grad]
        rows.append(kept)
    return rows


GRADIENTS = [
    pytest.param(dtype, number, position, id=f"{_id(dtype)}-{case.name}-{case.arity}")
    for dtype in FLOATS
    for number, chunk in enumerate(_differentiable(dtype))
    for position, case in enumerate(chunk)
]


def _leaves(dtype: torch.dtype, chunk: list[Case]) -> list[Tensor]:
    """Fresh arguments for each operation of a chunk, so that their gradients stay apart."""
    generator = torch.Generator().manual_seed(5)
    tiny, inf, nan = torch.finfo(dtype).tiny, float("inf"), float("nan")
    special = torch.tensor([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 3.0, -3.0, 6.0, 1e-30, 30.0, -30.0], dtype=dtype)
    special = torch.cat([special, torch.tensor([tiny / 2, -tiny, 1e4, -1e4, inf, -inf, nan], dtype=dtype)])
    leaves = []
    for case in chunk:
        for _ in range(case.arity):
            x = torch.randn(2, 128, generator=generator, dtype=dtype)
            x[:, : len(special)] = special[torch.randperm(len(special), generator=generator)]
            leaves.append(x.requires_grad_())
    return leaves


@contextmanager
def _backward_alone() -> Iterator[None]:
    """No kernel is built or run forward: the one backward computes what it needs from the inputs again."""
    kind = type(kernels_for(BACKEND))
    bind = kind.bind

    def bind_backward(self: Any, plan: Plan, layout: Layout) -> Launch:
        return bind(self, plan, layout) if isinstance(plan, BackwardPlan) else lambda tensors: None

    with patch.object(kind, "bind", bind_backward):
        yield


@cache
def _gradients(dtype: torch.dtype, number: int, backend: str) -> list[tuple[Tensor | None, ...]]:
    """Per operation of a chunk the gradients of its arguments."""
    chunk = _differentiable(dtype)[number]
    arity = chunk[0].arity
    functions = [c.function for c in chunk]
    leaves = _leaves(dtype, chunk)

    def core(*x: Tensor) -> tuple[Tensor, ...]:
        return tuple(f(*x[i * arity : (i + 1) * arity]) for i, f in enumerate(functions))

    with _backward_alone():
        out, _ = flexsn.scan(core, leaves, (), backend=backend)
        outputs = (out,) if isinstance(out, Tensor) else out
        seeds = [torch.linspace(-2, 2, y.numel(), dtype=y.dtype).reshape(y.shape) for y in outputs]
        found = torch.autograd.grad(outputs, leaves, seeds, allow_unused=True)
    return [found[i * arity : (i + 1) * arity] for i in range(len(chunk))]


@pytest.mark.parametrize(("dtype", "number", "position"), GRADIENTS)
def test_gradient_is_that_of_autograd(dtype: torch.dtype, number: int, position: int) -> None:
    case = _differentiable(dtype)[number][position]
    _skip_missing(case)
    if case.name == "sinc":
        pytest.skip("its gradient cancels near 0, where eager itself has hardly a digit right")
    wants = _gradients(dtype, number, "torch")[position]
    gots = _gradients(dtype, number, BACKEND)[position]
    leaves = _leaves(dtype, _differentiable(dtype)[number])[position * case.arity :]
    for got, want, x in zip(gots, wants, leaves, strict=False):
        if got is None or want is None:
            assert got is want
            continue
        if case.name in UNSETTLED_AT_NAN:
            got, want = got[~x.isnan()], want[~x.isnan()]
        if case.promise.same_gradient and case.name not in POWER_GRADIENT:
            wrong = (got != want) & ~(got.isnan() & want.isnan())
        else:
            eps = 64 * torch.finfo(dtype).eps
            wrong = ~torch.isclose(got, want, rtol=eps, atol=eps, equal_nan=True)
        assert not wrong.any(), f"{case.name}: {got[wrong][:4].tolist()}, autograd gives {want[wrong][:4].tolist()}"


@pytest.mark.parametrize(
    "name", ["lgamma", "digamma", "erfinv", "i0", "nextafter", "igamma", "special_bessel_j0", "polygamma"]
)
def test_operation_without_row_is_refused_by_name_and_line(name: str) -> None:
    functions = {
        "nextafter": lambda x: torch.nextafter(x, x),
        "igamma": lambda x: torch.igamma(x, x),
        "special_bessel_j0": torch.special.bessel_j0,
        "polygamma": lambda x: torch.polygamma(2, x),
    }
    function = functions.get(name) or getattr(torch, name)

    def core(x: Tensor) -> Tensor:
        return function(x) + 1  # here

    x = torch.rand(2, 64)
    with pytest.raises(UnsupportedOpError, match=name) as error:
        flexsn.scan(core, x, (), backend=BACKEND)
    assert "# here" in str(error.value) or "lambda x" in str(error.value)
    with pytest.warns(flexsn.FallbackWarning, match=name):
        y, _ = flexsn.scan(core, x, ())
    assert torch.equal(y, core(x))


@pytest.mark.parametrize(
    "function",
    [lambda x: x.int() // x.int(), lambda x: x.int() % (x > 0).int(), lambda x: x.int() ** 5],
    ids=["floor_divide", "remainder", "pow"],
)
def test_integer_operation_that_could_trap_is_refused(function: object) -> None:
    with pytest.raises(UnsupportedOpError, match="integer"):
        flexsn.scan(lambda x: function(x), torch.rand(2, 64) + 1, (), backend=BACKEND)


def test_half_conversions_round_as_torch_does() -> None:
    bits = torch.arange(0, 2**32, 9973, dtype=torch.int64).to(torch.int32).view(torch.float32)
    halves = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16).float()
    ties = (halves[1:] + halves[:-1]) / 2
    near = [torch.nextafter(ties, torch.tensor(x)) for x in (-1e9, 1e9)]
    x = torch.cat([bits, halves, ties, *near]).reshape(1, -1)
    (half, bfloat16), _ = flexsn.scan(lambda x: (x.half().float(), x.bfloat16().float()), x, (), backend=BACKEND)
    pairs = [(half, x.half().float()), (bfloat16, x.bfloat16().float())]
    for got, want in pairs[:1] if BACKEND == "triton" else pairs:  # Triton's interpreter has no bf16
        same = (got.view(torch.int32) == want.view(torch.int32)) | (got.isnan() & want.isnan())
        assert same.all(), x[~same][:5].tolist()
