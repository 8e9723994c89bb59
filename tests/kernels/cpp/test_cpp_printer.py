"""Generated C++: every lane loop is vectorised, a new T or N builds nothing, and every lane is written."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flexsn
from flexsn.kernels.cache import content_key
from flexsn.kernels.cpp import compiler as cpp_compiler
from flexsn.kernels.cpp import runtime as cpp_runtime
from flexsn.kernels.cpp.values import VALUE
from flexsn.surrogate import ATan, PiecewiseQuadratic

spike, soft = ATan(), PiecewiseQuadratic()
connection = nn.Parameter(torch.randn(50, 50) / 8)
leak = nn.Parameter(torch.tensor([0.3, -0.2, 1.0]).view(3, 1))


def lif(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) / 2.0
    s = spike(h - 1.0)
    return s, h * (1.0 - s)


def plif(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) * leak.sigmoid()
    s = spike(h - 1.0)
    return s, torch.where(s > 0, 0.0, h)


def adex(x: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    h = v + 0.1 * (x - v + 0.5 * ((v - 1.0) / 0.5).clamp(max=4.0).exp() - w)
    s = soft(h - 2.0)
    return s, torch.where(s > 0, 0.0, h), w + 0.05 * (v * 0.2 - w) + 0.3 * s


def gated(x: Tensor, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    forget = torch.sigmoid(z + v)
    h = forget * v + (1.0 - forget) * torch.tanh(x)
    return spike(h - 0.5), h


def refractory(x: Tensor, v: Tensor, wait: Tensor, fired: Tensor) -> tuple[Tensor, ...]:
    ready = (wait == 0) & ~fired
    h = torch.where(ready, v * 0.9 + x, v)
    s = spike(h - 1.0)
    out = torch.where(ready, s, 0.0)
    return out, h - out, torch.where(out > 0, 3, (wait - 1).clamp(min=0)), out > 0


def choices(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = torch.nn.functional.softplus(v) + torch.where(x > 0, torch.log1p(x.abs()), torch.nn.functional.elu(x)) % 0.7
    return h.clamp(-3.0, 3.0).half().float(), torch.where(h > 1, torch.where(h > 2, h * 0.5, h - 1), h)


def recurrent(x: Tensor, v: Tensor, z: Tensor) -> tuple[Tensor, ...]:
    h = v + (x + torch.tanh(z @ connection.to(z.dtype)) @ connection.to(z.dtype) - v) / 2.0
    s = spike(h - 1.0)
    return s, h * (1.0 - s), s


CORES: dict[str, tuple[Callable[..., Any], int, tuple[torch.dtype, ...]]] = {
    "lif": (lif, 1, (torch.float32,)),
    "plif": (plif, 1, (torch.float32,)),
    "adex": (adex, 1, (torch.float32,) * 2),
    "gated": (gated, 2, (torch.float32,)),
    "refractory": (refractory, 1, (torch.float32, torch.int32, torch.bool)),
    "choices": (choices, 1, (torch.float32,)),
    "recurrent": (recurrent, 1, (torch.float32,) * 2),
}
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def call(name: str, dtype: torch.dtype, num_steps: int = 5, batch: int = 4, backend: str = "cpp") -> list[Tensor]:
    """Outputs, final states and gradients of one training step."""
    core, num_inputs, states = CORES[name]
    shape = (batch, 3, 50)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(num_steps, *shape, generator=generator).to(dtype).requires_grad_() for _ in range(num_inputs)]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    initial = tuple(torch.zeros(shape, dtype=wide if d.is_floating_point else d) for d in states)
    outputs, finals = flexsn.scan(core, inputs, initial, backend, checkpoint=4)
    grads = torch.autograd.grad(outputs.float().square().sum(), [*inputs, leak], allow_unused=True)
    return [outputs, *finals, *(g for g in grads if g is not None)]


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that calls ask for from here on."""
    seen: list[str] = []
    build = cpp_runtime.build

    def watched(source: str) -> cpp_runtime.CppKernel:
        seen.append(source)
        return build(source)

    monkeypatch.setattr(cpp_runtime, "build", watched)
    return seen


@pytest.fixture
def unbuilt(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels that calls ask for from here on; instead of them nothing runs."""
    seen: list[str] = []
    monkeypatch.setattr(cpp_runtime, "build", lambda source: (seen.append(source), lambda record: 0.0)[1])
    return seen


def lane_loops(source: str) -> list[tuple[int, int]]:
    """First and last line of every loop over lanes."""
    rows = source.splitlines()
    found = []
    for i, row in enumerate(rows):
        if row.strip() == "#pragma omp simd":
            depth = re.match(r" *", rows[i + 1]).end()  # type: ignore[union-attr]
            end = next(j for j in range(i + 2, len(rows)) if rows[j] == " " * depth + "}")
            found.append((i + 2, end + 1))
    return found


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CORES)
def test_every_lane_loop_is_vectorised(
    name: str, dtype: torch.dtype, unbuilt: list[str], tmp_path: Path, cache: pytest.Cache
) -> None:
    compiler = cpp_compiler.find_compiler()
    if not cpp_compiler.vector_math(compiler):
        pytest.skip("no vector math library here")
    # a fresh core object: a kernel that was asked for before is not asked for again
    core, num_inputs, states = CORES[name]
    CORES["fresh"] = ((lambda *a: core(*a)), num_inputs, states)
    call("fresh", dtype)
    assert len(unbuilt) == 2, "one kernel forward, one backward"
    for source in unbuilt:
        loops = lane_loops(source)
        # kept as the kernels are: the same compiler says the same of the same text
        key = f"flexsn/{content_key(*cpp_compiler.identity(compiler), cpp_compiler.whole_source(source))}"
        reported = cache.get(key, None) or cpp_compiler.vectorized_loops(source, tmp_path)
        cache.set(key, reported)
        rows = source.splitlines()
        scalar = [rows[a - 1 : b] for a, b in loops if not any(a <= line <= b for line in reported)]
        assert loops and not scalar, "\n".join(scalar[0])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.bool])
def test_integers_smaller_than_an_int_are_cut_to_their_size(dtype: torch.dtype, unbuilt: list[str]) -> None:
    def core(n: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return (~n if dtype == torch.bool else n * n), v

    flexsn.scan(core, torch.ones(3, 4, dtype=dtype), torch.zeros(4), "cpp")
    (computed,) = re.findall(r"const [\w: ]+ t\d+ = (.*);", unbuilt[0])
    small = dtype in (torch.uint8, torch.int16)
    assert computed.startswith(f"static_cast<{VALUE[dtype]}>(") if small else "static_cast" not in computed


@pytest.mark.parametrize("name", CORES)
def test_a_new_number_of_steps_or_lanes_builds_nothing(name: str, sources: list[str]) -> None:
    call(name, torch.float32)
    before = set(sources)
    for num_steps, batch in ((9, 4), (1, 4), (5, 11), (70, 1)):
        call(name, torch.float32, num_steps, batch)
    compiled = cpp_runtime._build.cache_info().misses
    for num_steps, batch in ((8, 4), (5, 7)):
        call(name, torch.float32, num_steps, batch)
    assert cpp_runtime._build.cache_info().misses == compiled
    assert len(set(sources) | before) <= len(before) + 2


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("name", CORES)
def test_every_lane_is_written(name: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    want = call(name, torch.float32, 5, batch)
    empty_strided = torch.empty_strided

    def poisoned(*args: Any, **options: Any) -> Tensor:
        fresh = empty_strided(*args, **options)
        return fresh.fill_(float("nan")) if fresh.is_floating_point() else fresh.fill_(1)

    monkeypatch.setattr(torch, "empty_strided", poisoned)
    for got, expected in zip(call(name, torch.float32, 5, batch), want, strict=True):
        assert torch.equal(got, expected)


def test_states_may_change_places() -> None:
    def core(x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        return x + a, c, a * 0.5, b

    x, states = torch.randn(5, 70, requires_grad=True), torch.randn(3, 70, requires_grad=True)
    for seed in ([0, 1, 2], [2]):
        results = []
        for backend in ("torch", "cpp"):
            y, finals = flexsn.scan(core, x, tuple(states), backend)
            loss = y.square().sum() + sum((finals[i].sin().sum() for i in seed), torch.zeros(()))
            results.append([y, *finals, *torch.autograd.grad(loss, [x, states])])
        for want, got in zip(*results, strict=True):
            assert torch.equal(got, want)


def test_library_functions_round_the_same_in_every_kernel() -> None:
    """An operation the compiler cannot vectorise does not make the others scalar, which would round differently."""
    x = torch.linspace(-3, 3, 1024).view(2, 512)
    alone, _ = flexsn.scan(torch.tanh, x, (), "cpp")
    (beside, _), _ = flexsn.scan(lambda x: (torch.tanh(x), torch.fmod(x, x.abs() + 0.1)), x, (), "cpp")
    assert torch.equal(alone, beside)


def test_a_float_in_an_integer_it_does_not_fit_wraps_around_as_in_torch() -> None:
    """And stays so if it is a float again in the same kernel."""
    x = torch.tensor([[-4.0, -1.0, -3.5, 255.0, 256.0, 300.0, -300.0, 70000.0]])

    def core(x: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.to(dtype).float() * 0.5 for dtype in (torch.uint8, torch.int8, torch.int16))

    assert all(map(torch.equal, flexsn.scan(core, x, (), "cpp")[0], flexsn.scan(core, x, (), "torch")[0]))


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (-(2**63), torch.int64, "(-9223372036854775807LL - 1)"),
        (7, torch.uint8, "static_cast<fx::u8>(7)"),
        (True, torch.bool, "static_cast<int>(1)"),
        (float("inf"), torch.float32, "(__builtin_inff())"),
        (float("nan"), torch.float64, '__builtin_nan("")'),
        (-0.0, torch.float32, "(-0.0f)"),
        (0.1, torch.float32, "(0.10000000149011612f)"),
        (1e-45, torch.float32, "(1.401298464324817e-45f)"),
    ],
)
def test_literals(value: float, dtype: torch.dtype, text: str) -> None:
    from flexsn.ir.graph import Builder
    from flexsn.kernels.cpp.values import literal

    assert literal(Builder().const(value, dtype)) == text
