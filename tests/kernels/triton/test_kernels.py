"""Generated Triton kernels, run by Triton's interpreter, against the loop."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from compare import bits_equal, check
from torch import Tensor, nn

import flexsn
from flexsn import surrogate

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET", "0") in ("", "0"),
    reason="run as `TRITON_INTERPRET=1 pytest tests/kernels/triton`",
)

spike = surrogate.ATan(alpha=2.0)
Core = Callable[..., Any]


def integrate(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + x
    s = spike(h - 1.0)
    return s, h - s


def leaky(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) / 2.0
    s = spike(h - 1.0)
    return s, h * (1.0 - s)


def leaky_third(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) / 3.0
    s = spike(h - 1.0)
    return s, torch.where(s > 0, 0.0, h)


def adaptive(x: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    h = v * 0.75 + x
    s = spike(h - (1.0 + 1.5 * b))
    return s, h - s, b * 0.875 + s * 0.125


def izhikevich(x: Tensor, v: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    h = v + (0.04 * v * v + 5.0 * v + 1.4 - u + x) * 0.25
    s = spike(h - 0.3)
    return s, torch.where(s > 0, -0.65, h), u + 0.02 * (0.2 * v - u) + s * 0.08


def delayed(x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    """Each state comes from another one a step later: gradients appear one after another."""
    return a * b + x, b * x, c - x, spike(a - 0.5) + a


def two_of_each(x: Tensor, z: Tensor, v: Tensor, i: Tensor) -> tuple[Tensor, ...]:
    current = i * 0.5 + x
    h = v * z + current
    s = spike(h - 1.0)
    return s, h.abs(), h - s, current


def refractory(x: Tensor, v: Tensor, count: Tensor, fired: Tensor) -> tuple[Tensor, ...]:
    ready = count == 0
    h = torch.where(ready, v * 0.5 + x, v)
    s = spike(h - 1.0) * ready
    count = torch.where(s > 0, torch.full_like(count, 3), (count - 1).clamp(min=0))
    return s, h * (1 - s), count, fired | (s > 0)


def detached(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v * 0.5 + x
    s = spike(h - 1.0)
    return s, h * (1.0 - s.detach())


def memoryless(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return x * x + v, v


def forgetful(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return v * x, torch.full_like(v, 0.25)


CORES: dict[str, tuple[Core, int, int]] = {
    f.__name__: (f, inputs, states)
    for f, inputs, states in [
        (integrate, 1, 1),
        (leaky, 1, 1),
        (leaky_third, 1, 1),
        (adaptive, 1, 2),
        (izhikevich, 1, 2),
        (delayed, 1, 3),
        (two_of_each, 2, 2),
        (detached, 1, 1),
        (memoryless, 1, 1),
        (forgetful, 1, 1),
    ]
}


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 0.3).to(dtype)


def numbers(
    name: str, num_steps: int, *step: int, dtype: torch.dtype = torch.float32
) -> tuple[list[Tensor], list[Tensor]]:
    _, inputs, states = CORES[name]
    return (
        [rand(num_steps, *step, seed=i, dtype=dtype) for i in range(inputs)],
        [rand(*step, seed=10 + j, dtype=dtype) for j in range(states)],
    )


@pytest.mark.parametrize("num_steps", [0, 1, 2, 3, 7, 8, 9, 17])
@pytest.mark.parametrize("name", ["leaky", "delayed"])
def test_every_length_of_sequence(name: str, num_steps: int) -> None:
    check(CORES[name][0], *numbers(name, num_steps, 3, 5))


@pytest.mark.parametrize("name", CORES)
@pytest.mark.parametrize("use", ["y", "v", "yv"])
def test_every_core_and_pattern_of_gradients(name: str, use: str) -> None:
    if name == "forgetful" and use == "v":
        pytest.skip("its state has no gradient at all")
    check(CORES[name][0], *numbers(name, 10, 7), use=use)


@pytest.mark.parametrize("name", ["leaky_third", "adaptive", "izhikevich"])
def test_fp64(name: str) -> None:
    check(CORES[name][0], *numbers(name, 9, 6, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["leaky", "two_of_each"])
def test_16_bit_inputs_and_outputs_with_fp32_states(name: str, dtype: torch.dtype) -> None:
    if dtype is torch.bfloat16 and not interprets_bfloat16():
        pytest.skip("this Triton's interpreter has no bfloat16")
    inputs, states = numbers(name, 9, 6)
    check(CORES[name][0], [x.to(dtype) for x in inputs], states)


def interprets_bfloat16() -> bool:
    """Triton 3.9's interpreter cuts bfloat16 off instead of rounding."""
    x = torch.ones(1, 4, dtype=torch.bfloat16)
    v = torch.full((4,), 1.5 * 2.0**-8)
    try:
        y, _ = flexsn.scan(lambda x, v: (x + v, v), x, v, backend="triton")
    except Exception:
        return False
    return bool((y == (x + v).bfloat16()).all())


@pytest.mark.parametrize("checkpoint", [1, 2, 3, 4, 8, 16, 100])
@pytest.mark.parametrize("name", ["leaky", "adaptive"])
def test_checkpoint_interval_changes_no_bit(name: str, checkpoint: int) -> None:
    check(CORES[name][0], *numbers(name, 19, 5), checkpoint=checkpoint)


@pytest.mark.parametrize("lanes", [1, 2, 511, 513, 2049])
def test_any_number_of_lanes(lanes: int) -> None:
    check(leaky, *numbers("leaky", 5, lanes))


def test_integer_and_bool_states() -> None:
    count, fired = torch.arange(6, dtype=torch.int32) % 3, torch.arange(6) % 2 == 0
    check(refractory, [rand(9, 6)], [rand(6, seed=3), count, fired], state_seqs=True)
    check(refractory, [rand(9, 6)], [rand(6, seed=3), count.long(), fired])


def test_state_sequences_and_their_gradients() -> None:
    for name in ("leaky", "adaptive"):
        # the loop adds the gradient of a state sequence before, the kernel after the other uses of the state
        check(CORES[name][0], *numbers(name, 9, 5), state_seqs=True, exact=False)
        check(CORES[name][0], *numbers(name, 9, 5), state_seqs=True, use="s", exact=False)


@pytest.mark.parametrize("shape", [(), (5,), (4, 1), (3, 1, 1), (3, 4, 5)])
def test_parameters_of_every_shape(shape: tuple[int, ...]) -> None:
    w, threshold = nn.Parameter(rand(*shape)), nn.Parameter(rand(*shape, seed=9) + 0.5)

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = v + (x - v) * w.sigmoid()
        s = spike(h - threshold)
        return s, h - s * threshold

    check(core, [rand(10, 3, 4, 5)], [rand(3, 4, 5, seed=4)], [w, threshold])
    check(core, [rand(10, 3, 4, 5)], [rand(3, 4, 5, seed=4)], [w, threshold], use="v")


def test_parameters_alone_want_a_gradient() -> None:
    w = nn.Parameter(rand(5))

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = v * w + x
        s = spike(h - 1.0)
        return s, h - s

    check(core, [rand(10, 4, 5)], [rand(4, 5)], [w], want=lambda t: False)


LAYOUTS: dict[str, Callable[[], Tensor]] = {
    "channels last": lambda: rand(9, 2, 4, 5, 3).permute(0, 1, 4, 2, 3),
    "transposed": lambda: rand(9, 4, 6).transpose(1, 2),
    "every other lane": lambda: rand(9, 4, 12)[..., ::2],
    "every other step": lambda: rand(18, 4, 6)[::2],
    "unaligned": lambda: rand(9 * 24 + 1)[1:].view(9, 4, 6),
    "one step for all": lambda: rand(1, 4, 6).expand(9, 4, 6),
    "one lane for all": lambda: rand(9, 1, 1).expand(9, 4, 6),
    "one row for all": lambda: rand(9, 1, 6).expand(9, 4, 6),
    "backwards in memory": lambda: rand(6, 4, 9).permute(2, 1, 0),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_read_in_place(layout: str) -> None:
    x = LAYOUTS[layout]()
    check(leaky, [x], [rand(*x.shape[1:], seed=5)])
    check(adaptive, [x], [rand(*x.shape[1:], seed=5), torch.zeros(()).expand(x.shape[1:])])


@pytest.mark.parametrize("time_dim", [1, 2])
def test_time_axis_anywhere(time_dim: int) -> None:
    x = rand(4, 5, 9) if time_dim != 1 else rand(4, 9, 5)
    check(leaky, [x], [rand(4, 5, seed=5)], time_dim=time_dim)


def test_differently_laid_out_operands_together() -> None:
    w = nn.Parameter(rand(6, 4).t())

    def core(x: Tensor, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = v * w + x * z
        s = spike(h - 1.0)
        return s, h - s

    check(core, [rand(9, 6, 4).transpose(1, 2), rand(9, 4, 12)[..., ::2]], [rand(4, 6)], [w])


def test_inputs_of_several_dtypes() -> None:
    def core(x: Tensor, n: Tensor, keep: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.where(keep, v * 0.5 + x * n, v)
        s = spike(h - 1.0)
        return s, h - s

    n, keep = torch.arange(45, dtype=torch.int32).view(9, 5) % 3, torch.arange(45).view(9, 5) % 4 != 0
    check(core, [rand(9, 5), n, keep], [rand(5)])
    check(core, [rand(9, 5), n.to(torch.uint8), keep], [rand(5, dtype=torch.float64)])


def test_nan_and_infinity_as_in_the_loop() -> None:
    x = rand(9, 6)
    x[2, 0], x[3, 1], x[4, 2] = float("nan"), float("inf"), -float("inf")
    check(leaky, [x], [rand(6)])
    check(lambda x, v: (torch.maximum(x, v), torch.minimum(x, v * 2)), [x], [rand(6)])


def test_two_runs_give_the_same_bits() -> None:
    w = nn.Parameter(rand(5))

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        s = spike(v * w + x - 1.0)
        return s, v * w + x - s

    grads = []
    for _ in range(2):
        y, v = flexsn.scan(core, rand(9, 40, 5), torch.zeros(40, 5), backend="triton")
        grads.append(torch.autograd.grad(y.sum() + v.sum(), w)[0])
    assert bits_equal(*grads)


def test_offsets_beyond_32_bits() -> None:
    """Steps that lie 2**31 elements apart in one big tensor, of which only the touched pages exist."""
    stride = 2**30 + 16
    big = torch.empty(2 * stride + 64, dtype=torch.float16)
    x = big.as_strided((3, 40), (stride, 1))
    assert 2 * x.stride(0) > 2**31
    x.copy_(rand(3, 40))
    check(leaky, [x], [rand(40, seed=3)])
