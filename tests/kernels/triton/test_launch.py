"""The host's half of a launch, on devices that are not here: what is handed to a driver, and when.

Everything is the product's own but the device: Triton compiles for it, a driver writes the launches down and checks
them (``recording_driver.py``), torch takes ordinary memory for the device's (``elsewhere.py``).
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flexsn import FlexSN, surrogate
from flexsn.report.build import plan_kernels

pytest.importorskip("triton")
pytestmark = [
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"), reason="Triton interprets"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="a device is here"),
]

from elsewhere import Elsewhere  # noqa: E402
from recording_driver import RecordingDriver  # noqa: E402
from triton.runtime import driver as active  # noqa: E402

from flexsn.kernels.triton import backend as triton_backend  # noqa: E402
from flexsn.kernels.triton.offline import compile_offline, dense_layout  # noqa: E402
from flexsn.kernels.triton.runtime import bind, load  # noqa: E402

spike = surrogate.ATan()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Elsewhere]:
    found = Elsewhere()
    found.install(monkeypatch)
    with found:
        yield found


@pytest.fixture
def driver(request: pytest.FixtureRequest, elsewhere: Elsewhere) -> Iterator[RecordingDriver]:
    recording = RecordingDriver(getattr(request, "param", "sm_90"), elsewhere)
    active.set_active(recording)
    triton_backend._no_triton.cache_clear()
    load.cache_clear()
    yield recording
    recording.forget()
    load.cache_clear()
    triton_backend._no_triton.cache_clear()
    active._active = None


def lif(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) / 2.0
    s = spike(h - 1.0)
    return s, h * (1.0 - s)


def counting(x: Tensor, v: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    h = torch.where(count == 0, v * 0.5 + x, v)
    s = spike(h - 1.0)
    return s, h - s, torch.where(s > 0, torch.full_like(count, 3), (count - 1).clamp(min=0))


def damped(w: Tensor, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    s = spike(v + x - 1.0)
    return s, (v + x - s) * w


class PLIF(nn.Module):
    def __init__(self, *shape: int, device: str) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(shape, device=device))

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = v + (x - v) * self.w.sigmoid()
        s = spike(h - 1.0)
        return s, h * (1.0 - s)


def train(neuron: FlexSN, x: Tensor, **masks: Tensor) -> tuple[Tensor, Tensor]:
    """A call from zero; its output and the gradient of its input."""
    neuron.reset()
    x = x.detach().requires_grad_()
    y: Tensor = neuron(x, **masks)
    return y.detach(), torch.autograd.grad(y.float().sum(), x)[0]


Case = tuple[Callable[[], FlexSN], Callable[[], Tensor], Callable[[], dict[str, Tensor]]]


def case(name: str, neuron: Callable[[], Any], x: Callable[[], Tensor] | None = None, **masks: Any) -> Any:
    def made() -> dict[str, Tensor]:
        return {key: make() for key, make in masks.items()}

    return pytest.param((neuron, x or (lambda: torch.rand(9, 4, 32, device="cuda:1")), made), id=name)


CASES = [
    case("plain", lambda: FlexSN(lif)),
    case("a parameter per channel", lambda: FlexSN(PLIF(32, device="cuda:1"))),
    case("a number on the CPU", lambda: FlexSN(partial(damped, torch.tensor(0.25)), num_inputs=1, num_states=1)),
    case("batch first", lambda: FlexSN(lif, time_dim=1)),
    case("transposed", lambda: FlexSN(lif), lambda: torch.rand(9, 32, 4, device="cuda:1").transpose(1, 2)[..., ::2]),
    case("integers", lambda: FlexSN(counting, num_inputs=1), lambda: torch.rand(9, 1, device="cuda:1")),
    case("other outputs", lambda: FlexSN(lif, output_dtype=torch.float16)),
    case("half", lambda: FlexSN(lif), lambda: torch.rand(9, 33, device="cuda:1", dtype=torch.float16)),
    case(
        "lengths and resets",
        lambda: FlexSN(lif, time_reduction="sum"),
        lengths=lambda: torch.tensor([1, 9, 0, 5]).to("cuda:1"),
        reset_mask=lambda: torch.zeros(9, 4, dtype=torch.bool, device="cuda:1"),
    ),
    case("lengths on the CPU", lambda: FlexSN(lif), lengths=lambda: torch.tensor([1, 9, 0, 5])),
]


@pytest.mark.parametrize("made", CASES)
def test_a_launch_is_what_its_kernel_was_compiled_for(
    made: Case, driver: RecordingDriver, elsewhere: Elsewhere
) -> None:
    """Both of the first time, which Triton starts, and of all others, which it does not see. Each is checked.

    And the others wait for nothing, so that a CUDA graph can capture them.
    """
    neuron, x, masks = made[0](), made[1](), made[2]()
    for run in range(2):
        with elsewhere.none_waits() if run else nullcontext():
            y, grad = train(neuron, x, **masks)
        forward, backward = driver.launches[2 * run :]
        for launch in (forward, backward):
            lanes = launch.arguments["N"]
            assert launch.arguments["T"] * lanes == x.numel()
            assert (
                (launch.grid[0] - 1) * launch.arguments["BLOCK"] < lanes <= launch.grid[0] * launch.arguments["BLOCK"]
            )
            assert launch.metadata.num_warps == 4 and not launch.metadata.enable_fp_fusion
            assert launch.pointers["x0"] == x.data_ptr()
        assert backward.pointers["gx0"] == grad.data_ptr()
        if "y0" in forward.pointers:  # a sum over time goes on from an accumulator
            assert forward.pointers["y0"] == y.data_ptr()
    assert len(driver.loaded) == 2  # once each


def test_a_kernel_that_multiplies_has_blocks_of_16_samples(driver: RecordingDriver, elsewhere: Elsewhere) -> None:
    """And memory of torch's to put values aside, of all of them."""
    linear, x = nn.Linear(20, 20).to("cuda:0"), torch.rand(9, 33, 20, device="cuda:0")

    def recurrent(x: Tensor, v: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = v + (x + linear(z) - v) / 2.0
        s = spike(h - 1.0)
        return s, h * (1.0 - s), s

    neuron = FlexSN(recurrent, num_inputs=1)
    train(neuron, x)
    with elsewhere.none_waits():
        train(neuron, x)
    for launch in driver.launches:
        assert launch.grid == (3, 1, 1) and launch.metadata.num_warps == 8
        assert launch.arguments["H"] == 20 and launch.arguments["BLOCK"] == 16 * 32
        assert launch.arguments["aside0"].numel() == 3 * 16 * 20
    assert len(driver.launches) == 4 and len(driver.loaded) == 2


def test_16_bytes_tell_two_kernels_apart(driver: RecordingDriver) -> None:
    neuron, spare = FlexSN(lif), torch.rand(9 * 64 + 1, device="cuda:0")
    with torch.no_grad():
        for start in (0, 1, 0, 1):
            neuron.reset()
            neuron(spare[start:][: 9 * 64].view(9, 64))
    even, odd = driver.launches[:2]
    assert "x0" in even.aligned and odd.aligned == even.aligned - {"x0"}
    assert [launch.module for launch in driver.launches] == 2 * [even.module, odd.module]
    assert len(driver.loaded) == 2


def test_a_new_length_or_width_loads_nothing(driver: RecordingDriver) -> None:
    neuron = FlexSN(lif)
    for num_steps, lanes in ((8, 64), (1, 64), (16, 4096), (9, 16)):
        train(neuron, torch.rand(num_steps, lanes, device="cuda:0"))
        assert len(driver.loaded) == 2
    train(neuron, torch.rand(8, 65, device="cuda:0"))
    assert len(driver.loaded) == 4  # for widths that are no multiple of 16


def test_lanes_and_steps_pass_32_bits(driver: RecordingDriver) -> None:
    """Nothing is read, so the tensors may be small."""
    for plan, _ in plan_kernels(FlexSN(lif), "triton", torch.float32).plans.values():
        lanes = 2**31 + 16
        bind(plan, dense_layout(plan, lanes))([torch.zeros(16, dtype=s.dtype, device="cuda:0") for s in plan.slots])
        launch = driver.launches[-1]
        assert launch.source.signature["N"] == "i64" and launch.arguments["N"] == lanes
        assert launch.grid[0] * launch.arguments["BLOCK"] >= lanes


def test_the_tensors_decide_the_device(driver: RecordingDriver, elsewhere: Elsewhere) -> None:
    """A handle is of one device. The device that was current is so again afterwards, also where a launch fails."""
    plan, _ = plan_kernels(FlexSN(lif), "triton", torch.float32).plans["inference"]
    launch, x = bind(plan, dense_layout(plan, 64)), torch.rand(16, 64)
    for place in (0, 1, 0, 1):
        launch([x.to(f"cuda:{place}", s.dtype) for s in plan.slots])
        assert driver.launches[-1].device == place and elsewhere.current == 0
    assert [module.device for module in driver.loaded] == [0, 1]

    def broken(*args: Any) -> None:
        raise RuntimeError("out of memory")

    driver.load_binary = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="out of memory"):
        FlexSN(counting, num_inputs=1)(x.to("cuda:1"))
    assert elsewhere.current == 0


def test_the_stream_is_the_current_one(driver: RecordingDriver) -> None:
    neuron, x = FlexSN(lif), torch.rand(9, 64, device="cuda:1")
    for stream in (0, 7, 8, 7):
        driver.streams = {0: 3, 1: stream}
        train(neuron, x)
        assert [launch.stream for launch in driver.launches[-2:]] == [stream, stream]
    assert len(driver.loaded) == 2


def test_numbers_that_change_wait_for_nothing(driver: RecordingDriver, elsewhere: Elsewhere) -> None:
    held, x = {"tau": 2.0}, torch.rand(9, 64, device="cuda:0")

    def annealed(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = v + (x - v) / held["tau"]
        s = spike(h - 1.0)
        return s, h * (1.0 - s)

    neuron = FlexSN(annealed)
    for held["tau"] in (2.0, 2.1, 2.2):  # the third makes it an argument
        train(neuron, x)
    with elsewhere.none_waits():
        for held["tau"] in (2.3, 2.4):
            train(neuron, x)
    assert len(driver.launches) == 10


@pytest.mark.parametrize("driver", ["sm_90", "gfx942"], indirect=True)
def test_what_is_compiled_offline_is_what_runs(driver: RecordingDriver) -> None:
    target = {"cuda": "sm_90", "hip": "gfx942"}[driver.target.backend]
    kernels = []
    for plan, _ in plan_kernels(FlexSN(PLIF(device="cpu")), "triton", torch.float32).plans.values():
        layout = dense_layout(plan, 4096)
        offline = compile_offline(plan, target, layout)
        bind(plan, layout)([torch.zeros(16 * 4096, dtype=s.dtype, device="cuda:0") for s in plan.slots])
        (compiled,) = load(offline.source).device_caches[0][0].values()
        kernels.append((compiled.asm["ptx" if target == "sm_90" else "amdgcn"], offline.assembly))
    assert [launched == offline for launched, offline in kernels] == [True] * 3


def in_a_child(work: Callable[[], None]) -> None:
    """Run it in a fork of this process."""
    child = os.fork()
    if not child:
        failed = True
        try:
            work()
            failed = False
        finally:
            os._exit(failed)
    assert os.waitpid(child, 0)[1] == 0


def test_a_fork_launches_kernels_of_its_own(driver: RecordingDriver) -> None:
    """Where the device was not used yet, which is when torch lets it: what was traced and printed serves both."""
    neuron, x = FlexSN(lif), torch.rand(9, 64, device="cuda:0")

    def work() -> None:
        train(neuron, x)
        assert [module.process for module in driver.loaded] == [os.getpid()] * 2

    in_a_child(work)
    assert not driver.loaded
    train(neuron, x)
    in_a_child(lambda: None)
    assert len(driver.launches) == 2


def test_a_fork_of_a_process_that_used_the_device_is_told_so_by_torch(
    driver: RecordingDriver, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    neurons, x = [FlexSN(lif)], torch.rand(9, 64, device="cuda:0")
    train(neurons[0], x)

    def refused() -> int:
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")

    def work() -> None:
        monkeypatch.setattr(torch.cuda, "current_device", refused)
        launches = len(driver.launches)
        with pytest.raises(RuntimeError, match="forked subprocess"):
            train(neurons[0], x)
        with pytest.raises(RuntimeError, match="forked subprocess"):
            train(FlexSN(lif), x)
        neurons.clear()
        load.cache_clear()
        gc.collect()
        assert not driver.unloaded and not recwarn.list and len(driver.launches) == launches

    in_a_child(work)
    train(neurons[0], x)
    assert len(driver.launches) == 4 and len(driver.loaded) == 2
