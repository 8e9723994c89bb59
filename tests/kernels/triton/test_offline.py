"""At the memory floor: what Triton kernels do, read from their machine code, with no GPU."""

from __future__ import annotations

import math
import os
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import flexsn
from flexsn import FlexSN, surrogate
from flexsn.ir.plan import Holds, Role
from flexsn.report.build import plan_kernels
from flexsn.report.report import Report

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"), reason="a process that interprets cannot compile"
)

from flexsn.kernels.triton.offline import TARGETS, compile_offline, dense_layout  # noqa: E402

NEURONS = ("IF", "LIF", "PLIF", "ALIF", "Izhikevich")
KERNELS = ("inference", "forward", "backward")
spike = surrogate.ATan()


@cache
def report(name: str, target: str, dtype: torch.dtype = torch.float32) -> Report:
    neurons = pytest.importorskip("flexsn.neurons")
    return flexsn.explain(getattr(neurons, name)(surrogate_function=spike), target, dtype)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NEURONS)
def test_kernels_are_at_the_floor(name: str, target: str) -> None:
    kernels = report(name, target).kernels
    assert tuple(kernels) == KERNELS
    interval = kernels["backward"].checkpoint
    states = len(kernels["backward"].plan.states)
    assert interval == kernels["forward"].checkpoint is not None
    assert kernels["inference"].bytes_per_lane_step == 8  # one input, one output
    assert kernels["forward"].bytes_per_lane_step == 8 + 4 * states / interval
    assert kernels["backward"].bytes_per_lane_step == 12 + 4 * states / interval
    for kernel in kernels.values():
        assert kernel.spill_bytes == 0
        # lanes stay in the thread that loaded them; only the sums of groups of lanes change places, after the loop
        sums = sum(slot.role is Role.GROUP_STORE for slot in kernel.plan.slots)
        assert (kernel.offline.shared_bytes == 0) if not sums else (kernel.offline.shared_bytes <= 64)
        assert kernel.offline.fused == 0
    # wide accesses; and not one more than the plan says
    for training in ("inference", "forward"):
        assert set(kernels[training].offline.loads) == {128} == set(kernels[training].offline.stores)
        assert kernels[training].offline.loads == {128: 1}
    assert kernels["inference"].offline.stores == {128: 1}
    backward, elements = kernels["backward"].offline, kernels["backward"].tiling.elements
    copies = backward.stores[32 * elements]  # of the loop's body; older compilers for AMD make a second one
    assert backward.stores == {32 * elements: copies} and copies in (1, 2)
    # a chunk asks for a checkpoint or the initial state
    assert backward.loads == {32 * elements: copies * (2 + 2 * states / interval)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_move_their_own_bytes_in_wide_accesses(dtype: torch.dtype) -> None:
    kernels = report("LIF", "sm_90", dtype).kernels
    size, state = dtype.itemsize, max(4, dtype.itemsize)
    interval = kernels["forward"].checkpoint
    assert kernels["inference"].bytes_per_lane_step == 2 * size
    assert kernels["forward"].bytes_per_lane_step == 2 * size + state / interval
    assert kernels["backward"].bytes_per_lane_step == 3 * size + state / interval
    for kernel in kernels.values():
        assert kernel.spill_bytes == kernel.offline.shared_bytes == 0
        assert min(*kernel.offline.loads, *kernel.offline.stores) >= (64 if size == 2 else 128)


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_spikes_in_a_byte_move_a_byte(target: str) -> None:
    def lif(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = v + (x - v) / 2.0
        s = spike(h - 1.0)
        return s, h * (1.0 - s)

    kernels = flexsn.explain(FlexSN(lif, output_dtype=torch.bool), target).kernels
    interval = kernels["forward"].checkpoint
    assert interval is not None
    assert kernels["inference"].bytes_per_lane_step == 5
    assert kernels["forward"].bytes_per_lane_step == 5 + 4 / interval
    assert kernels["backward"].bytes_per_lane_step == 12 + 4 / interval  # gradients stay fp32
    for kernel in kernels.values():
        assert kernel.spill_bytes == kernel.offline.shared_bytes == 0
    for name in ("inference", "forward"):
        loads, stores = kernels[name].offline.loads, dict(kernels[name].offline.stores)
        assert loads == {128: 1}
        assert stores.pop(8 * kernels[name].tiling.elements) == 1  # a thread's spikes of a step in one store
        assert set(stores) == ({128} if name == "forward" else set())  # the checkpoint


@pytest.mark.parametrize("name", NEURONS)
def test_the_model_predicts_registers(name: str) -> None:
    for kernel in report(name, "sm_90").kernels.values():
        assert kernel.registers is not None
        assert 0.8 <= kernel.registers / kernel.tiling.registers <= 1.2, kernel.name


def resident_blocks(registers: int) -> int:
    """Blocks of 128 threads on a multiprocessor: 64 K registers, which a warp gets by 256, and 2048 threads."""
    per_warp = math.ceil(registers * 32 / 256) * 256
    return min(2048 // 128, 65536 // (4 * per_warp))


@pytest.mark.parametrize("name", NEURONS)
def test_the_model_predicts_resident_threads(name: str) -> None:
    """Within a block, which is all that a fit to an assembler can promise."""
    assert [resident_blocks(r) for r in (32, 33, 168, 169, 176)] == [16, 12, 3, 2, 2]
    for kernel in report(name, "sm_90").kernels.values():
        assert kernel.registers is not None
        assert kernel.tiling.threads == 128 * resident_blocks(kernel.tiling.registers)
        assert abs(kernel.tiling.threads // 128 - resident_blocks(kernel.registers)) <= 1, kernel.name


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100"])
def test_lanes_narrow_before_registers_spill(target: str) -> None:
    """With four lanes of this one, the assembler spilled some registers."""
    backward = report("CLIF", target).kernels["backward"]
    assert backward.tiling.elements == 2
    assert backward.spill_bytes == 0 and set(backward.offline.loads) == {64}


@pytest.mark.parametrize("name", NEURONS)
def test_every_built_in_neuron_is_quick_to_compile(name: str) -> None:
    """Not a time, which depends on the machine, but what it follows from: one body per kernel, of limited length."""
    for kernel in report(name, "sm_90").kernels.values():
        assert kernel.source.count("for ") == 1
        assert len(kernel.source.splitlines()) < 600


@pytest.mark.parametrize("shape", [(), (8, 1, 1), (16, 8, 8)])
def test_parameters_cost_nothing_per_step(shape: tuple[int, ...]) -> None:
    decay = nn.Parameter(torch.rand(shape))

    def plif(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = v + (x - v) * decay.sigmoid()
        s = spike(h - 1.0)
        return s, h * (1.0 - s)

    kernels = flexsn.explain(plif, "sm_90").kernels
    assert kernels["inference"].offline.loads == {128: 1}
    assert kernels["inference"].offline.stores == {128: 1}
    assert kernels["backward"].bytes_per_lane_step == 12.5
    backward = kernels["backward"].offline
    assert sum(backward.loads.values()) == 2.25 and sum(backward.stores.values()) == 1


def test_unread_states_and_absent_gradients_cost_nothing() -> None:
    def counting(x: Tensor, keep: Tensor, v: Tensor, spikes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = torch.where(keep > 0, v + x, v)
        s = spike(h - 1.0)
        return s, h - s, spikes + s.detach()

    x_only = FlexSN(counting, num_inputs=2, requires_grad=(True, False, True, True))
    for neuron in (x_only, FlexSN(counting, num_inputs=2)):
        plans = plan_kernels(neuron, "triton", torch.float32).plans
        forward, backward = plans["forward"][0], plans["backward"][0]
        assert [slot.index for slot in forward.slots if slot.holds is Holds.CHECKPOINT] == [0]
        assert [state.index for state in backward.states] == [0]
        assert [carry.leaf.index for carry in backward.carries] == [0]
        held = sorted(slot.holds.name for slot in backward.slots if slot.role.per_step)
        assert held == ["COTANGENT", "GRAD_INPUT", "INPUT", "INPUT"]  # none for keep, which no gradient reaches


def test_a_memoryless_gradient_recomputes_nothing() -> None:
    plan = plan_kernels(FlexSN(lambda x, v: (x * 2.0 + v, v * 0.5)), "triton", torch.float32).plans["backward"][0]
    kernel = compile_offline(plan, "sm_90")
    assert kernel.bytes_per_lane_step == 8
    assert kernel.loads == {128: 1} and kernel.stores == {128: 1}


def test_unaligned_lanes_are_the_one_other_variant() -> None:
    plan = plan_kernels(FlexSN(lambda x, v: (v + x, v + x)), "triton", torch.float32).plans["inference"][0]
    even = compile_offline(plan, "sm_90")
    odd = compile_offline(plan, "sm_90", dense_layout(plan, 1_000_003), aligned=False)
    assert even.source == odd.source
    assert set(even.loads) == {128} and set(odd.loads) == {32}
    assert odd.spill_bytes == 0


def test_more_lanes_than_32_bits_count() -> None:
    plan = plan_kernels(FlexSN(lambda x, v: (v + x, v + x)), "triton", torch.float32).plans["inference"][0]
    kernel = compile_offline(plan, "sm_90", dense_layout(plan, 2**31 + 16))
    assert set(kernel.loads) == {128} and kernel.spill_bytes == 0


def test_an_unknown_target_is_named() -> None:
    with pytest.raises(flexsn.BackendError, match=r"no offline target 'sm_1'[\s\S]*sm_80, sm_90, sm_100, gfx942"):
        flexsn.explain(lambda x, v: (v + x, v + x), "sm_1")


def test_library_functions_may_fuse_inside() -> None:
    """And so the count of fused operations is not blind."""
    kernel = flexsn.explain(lambda x, v: ((v + x).exp(), v + x), "sm_90").kernels["inference"]
    assert kernel.spill_bytes == 0
    assert kernel.offline is not None and kernel.offline.fused > 0
