"""On a GPU: kernels against the loop on the same device, layouts, streams, graphs, memory. Skipped without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flexsn
from flexsn import FlexSN, surrogate

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
pytest.importorskip("triton")

DEVICE = "cuda"
spike = surrogate.ATan()
Core = Callable[..., Any]


def lif(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) / 2.0
    s = spike(h - 1.0)
    return s, h * (1.0 - s)


def lif_third(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Eager CUDA multiplies by the inverse of a number; so must the kernel."""
    h = v + (x - v) / 3.0
    s = spike(h - 1.0)
    return s, torch.where(s > 0, -0.1, h)


def division(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """But it divides by tensors, and numbers by tensors."""
    h = v / (x.abs() + 1.5) + 1.0 / (v * v + 3.0) + x.abs().sqrt()
    s = spike(h - 1.0)
    return s, h - s


def adaptive(x: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    h = v * 0.7 + x
    s = spike(h - (1.0 + 1.6 * b))
    return s, h - s, b * 0.9 + s * 0.1


def refractory(x: Tensor, v: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    ready = count == 0
    h = torch.where(ready, v * 0.5 + x, v)
    s = spike(h - 1.0) * ready
    return s, h * (1 - s), torch.where(s > 0, torch.full_like(count, 3), (count - 1).clamp(min=0))


def rand(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 0.3).to(DEVICE, dtype)


def train(
    core: Core,
    inputs: Sequence[Tensor],
    states: Sequence[Tensor],
    parameters: Sequence[Tensor],
    backend: str,
    **options: Any,
) -> tuple[list[Tensor], list[Tensor]]:
    """Results, then gradients of inputs, states and parameters."""
    xs = [x.detach().requires_grad_(x.is_floating_point()) for x in inputs]
    vs = [v.detach().requires_grad_(v.is_floating_point()) for v in states]
    y, v = flexsn.scan(core, tuple(xs), tuple(vs), backend=backend, **options)
    results = [*((y,) if isinstance(y, Tensor) else y), *v]
    roots = [r for r in results if r.requires_grad]
    weights = [rand(*r.shape, dtype=r.dtype, seed=i) for i, r in enumerate(roots)]
    sources = [t for t in (*xs, *vs, *parameters) if t.requires_grad]
    return results, list(torch.autograd.grad(roots, sources, weights))


def check(
    core: Core, inputs: Sequence[Tensor], states: Sequence[Tensor], parameters: Sequence[Tensor] = (), **options: Any
) -> None:
    results, grads = train(core, inputs, states, parameters, "triton", **options)
    true_results, true_grads = train(core, inputs, states, parameters, "torch", **options)
    for a, b in zip(results, true_results, strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)
    exact = len(grads) - len(parameters)
    for g, h in zip(grads[:exact], true_grads[:exact], strict=True):
        assert torch.equal(g, h)
    for g, h in zip(grads[exact:], true_grads[exact:], strict=True):
        torch.testing.assert_close(g, h, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_steps", [1, 2, 4, 7, 8, 9, 33])
@pytest.mark.parametrize("lanes", [1, 1000, 4096])
def test_lif_bit_for_bit(num_steps: int, lanes: int) -> None:
    check(lif, [rand(num_steps, lanes)], [rand(lanes, seed=1)])


@pytest.mark.parametrize("core", [lif_third, division])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_division_as_eager_cuda_does_it(core: Core, dtype: torch.dtype) -> None:
    check(core, [rand(20, 5000, dtype=dtype)], [rand(5000, dtype=dtype, seed=1)])


def test_several_states_and_integer_states() -> None:
    check(adaptive, [rand(20, 5000)], [rand(5000, seed=1), rand(5000, seed=2)])
    check(refractory, [rand(20, 5000)], [rand(5000, seed=1), torch.zeros(5000, dtype=torch.int32, device=DEVICE)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits_in_and_out(dtype: torch.dtype) -> None:
    check(lif, [rand(20, 5000, dtype=dtype)], [rand(5000, seed=1)])


@pytest.mark.parametrize("shape", [(), (16, 1, 1), (16, 8, 8)])
def test_parameters(shape: tuple[int, ...]) -> None:
    w = nn.Parameter(rand(*shape))

    def plif(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = v + (x - v) * (w * 0.5)
        s = spike(h - 1.0)
        return s, h * (1.0 - s)

    check(plif, [rand(12, 4, 16, 8, 8)], [rand(4, 16, 8, 8, seed=1)], [w])


def test_a_number_on_the_cpu_is_a_parameter_too() -> None:
    """Torch mixes tensors without dimensions from the CPU with any others; they train there."""
    weight = nn.Parameter(torch.tensor(0.5))
    found = []
    for backend in ("triton", "torch"):
        x = rand(5, 70).requires_grad_()
        FlexSN(lambda x, v: (x * weight + v, 0.5 * v + x * weight), backend=backend)(x).sum().backward()
        assert weight.grad is not None and weight.grad.device.type == "cpu"
        found.append((x.grad, weight.grad))
        weight.grad = None
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])


def test_small_spikes() -> None:
    for dtype in (torch.bool, torch.uint8):
        x = rand(5, 70).requires_grad_()
        small, large = (FlexSN(lif, backend="triton", output_dtype=d)(x) for d in (dtype, None))
        assert isinstance(small, flexsn.SpikeTensor) and small.stored.dtype == dtype and torch.equal(small, large)
        weight = rand(5, 70, seed=1)
        assert torch.equal(*(torch.autograd.grad((y * weight).sum(), x)[0] for y in (small, large)))


def test_parameter_gradients_are_the_same_in_every_run() -> None:
    w = nn.Parameter(rand(16, 1, 1))
    runs = []
    for _ in range(3):
        y, _ = flexsn.scan(
            lambda x, v: (spike(v * w + x - 1.0), v * w + x), rand(12, 4, 16, 8, 8), torch.zeros((), device=DEVICE)
        )
        runs.append(torch.autograd.grad(y.sum(), w)[0])
    assert torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2])


@pytest.mark.parametrize(
    "x",
    [
        pytest.param(lambda: rand(9, 8, 16, 4, 4).to(memory_format=torch.channels_last_3d), id="channels last"),
        pytest.param(lambda: rand(9, 64, 32).transpose(1, 2), id="transposed"),
        pytest.param(lambda: rand(9, 64, 64)[..., ::2], id="every other lane"),
        pytest.param(lambda: rand(9 * 512 + 1)[1:].view(9, 512), id="unaligned"),
        pytest.param(lambda: rand(1, 512).expand(9, 512), id="one step for all"),
    ],
)
def test_layouts(x: Callable[[], Tensor]) -> None:
    check(lif, [x()], [rand(*x().shape[1:], seed=1)])


def test_dense_inputs_are_not_copied() -> None:
    x = rand(8, 2**20)
    neuron = FlexSN(lif)
    flexsn.warmup(neuron, x)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.no_grad():
        y = neuron(x)
    used = torch.cuda.max_memory_allocated() - before
    assert used <= (y.numel() + 2 * 2**20) * 4 + 2**21  # outputs, states before and after, a little slack


def test_another_length_or_width_compiles_nothing() -> None:
    from flexsn.kernels.triton.runtime import load

    neuron = FlexSN(lif)
    flexsn.warmup(neuron, rand(8, 4096))
    printed = load.cache_info().misses
    for num_steps, lanes in ((9, 4096), (100, 4096), (8, 8192), (3, 16)):
        neuron.reset()
        neuron(rand(num_steps, lanes).requires_grad_()).sum().backward()
    assert load.cache_info().misses == printed


def test_the_current_stream_is_used() -> None:
    x, neuron = rand(16, 2**20), FlexSN(lif)
    with torch.no_grad():
        want = neuron(x)
        neuron.reset()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            late = x * 1.0
            for _ in range(20):
                late = late * 1.0
            got = neuron(late)
        stream.synchronize()
    assert torch.equal(got, want)


def test_a_cuda_graph_captures_a_scan() -> None:
    x, v = rand(8, 4096), torch.zeros(4096, device=DEVICE)

    def run() -> tuple[Tensor, Tensor]:
        y, final = flexsn.scan(lif, x, v)
        return y, final

    with torch.no_grad():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y, final = run()
        x.copy_(rand(8, 4096, seed=5))
        graph.replay()
        torch.cuda.synchronize()
        want, want_final = flexsn.scan(lif, x, v, backend="torch")
    assert torch.equal(y, want) and torch.equal(final, want_final)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_tensor_decides_the_device() -> None:
    x = rand(8, 4096).to("cuda:1")
    y, _ = flexsn.scan(lif, x, torch.zeros(4096, device="cuda:1"))
    assert y.device == x.device
    assert torch.equal(y.cpu(), flexsn.scan(lif, x.to("cuda:0"), torch.zeros(4096, device="cuda:0"))[0].cpu())


def test_more_elements_than_32_bits_count() -> None:
    num_steps, lanes = 33, 2**26
    if torch.cuda.mem_get_info()[0] < 16 * 2**30:
        pytest.skip("needs 16 GiB")
    x = torch.zeros(num_steps, lanes, dtype=torch.float16, device=DEVICE)
    x[-1, -5:] = 3.0
    with torch.no_grad():
        y, _ = flexsn.scan(lif, x, torch.zeros((), device=DEVICE))
    assert y.sum() == 5 and y[-1, -5:].sum() == 5


def test_a_number_that_became_an_argument_divides_as_a_number_does() -> None:
    held = {"tau": 1.0}

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = v + (x - v) / held["tau"]
        s = spike(h - 1.0)
        return s, h * (1.0 - s) * held["tau"]

    x = torch.randn(6, 512, device=DEVICE, requires_grad=True)
    for held["tau"] in (1.7, 2.3, 3.0, 2.9, 1.1, 3.7):
        found = []
        for backend in ("triton", "torch"):
            y, v = flexsn.scan(core, x, torch.zeros(512, device=DEVICE), backend=backend)
            found.append((y, v, *torch.autograd.grad(y.sum() + v.sum(), x)))
        assert all(map(torch.equal, *found))
