"""Kernels that multiply by matrices, compiled for GPUs that are not here: registers, accesses, what is rounded when."""

from __future__ import annotations

import os
import re

import pytest
import torch
from torch import Tensor, nn

from flexsn import FlexSN, surrogate
from flexsn.kernels.triton.memory import accesses
from flexsn.kernels.triton.printer import print_triton
from flexsn.kernels.triton.tiling import LARGEST_MATRIX
from flexsn.report.build import plan_kernels

pytest.importorskip("triton")
interpreted = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
spike = surrogate.ATan()


class Recurrent(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.connection = nn.Linear(size, size)

    def forward(self, x: Tensor, v: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = v + (x + self.connection(z) - v) / 2.0
        s = spike(h - 1.0)
        return s, h * (1.0 - s), s


def neuron(size: int) -> FlexSN:
    return FlexSN(Recurrent(size), num_inputs=1)


@pytest.mark.skipif(interpreted, reason="a process that interprets cannot compile")
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
@pytest.mark.parametrize("size", [64, 128, 256, 512])
def test_the_lanes_of_16_samples_fit_into_registers(target: str, size: int) -> None:
    from flexsn.kernels.triton.offline import compile_offline, dense_layout

    plans = plan_kernels(neuron(size), "triton", torch.float32).plans
    for name in ("forward", "backward"):
        kernel = compile_offline(plans[name][0], target, dense_layout(plans[name][0], 4096 * size, size))
        assert kernel.spill_bytes == 0
        assert kernel.shared_bytes <= 64 * 16 * size  # values that change hands; not the matrix
        assert kernel.fused == 0  # a product is rounded, then added
        assert not re.search(r"\bmma\b|wgmma|mfma|tcgen05", kernel.assembly)  # of full precision


def test_offsets_are_of_64_bits() -> None:
    """A sample's are small; where the samples of a block begin, and what a step is long, are not."""
    for plan, layout in plan_kernels(neuron(20), "triton", torch.float32).plans.values():
        text = print_triton(plan, accesses(plan, layout), len(layout.sizes)).text
        assert "first = tl.program_id(0).to(tl.int64) * 16 * H" in text
        assert "step = tl.cast(N, tl.int64)" in text
        assert not re.search(r"\* (N|T)\b|\b(N|T) \*", text)


@pytest.mark.parametrize("size", [LARGEST_MATRIX, LARGEST_MATRIX + 1])
def test_a_layer_that_is_too_wide_runs_in_the_alternating_way(size: int) -> None:
    way = plan_kernels(neuron(size), "triton", torch.float32).way
    assert way is not None and way.fused == (size <= LARGEST_MATRIX)


def test_what_gates_read_in_common_is_put_aside_once() -> None:
    first, second = nn.Linear(8, 8), nn.Linear(8, 8)

    def core(x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.sigmoid(first(h)) * torch.tanh(second(h) + x)
        return h, h

    plan, layout = plan_kernels(FlexSN(core), "triton", torch.float32).plans["inference"]
    text = print_triton(plan, accesses(plan, layout), len(layout.sizes)).text
    assert text.count("tl.store(aside0_p") == 1 and text.count("for j in") == 2


@pytest.mark.skipif(interpreted, reason="a process that interprets cannot compile")
def test_a_backward_pass_that_multiplies_nothing_moves_what_a_step_moves() -> None:
    """At least an access a step each way: the kernel walks one step at a time, and computes nothing again."""
    matrix = torch.ones(64, 64)

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        s = spike(v - 1.0)
        return s, v * 0.5 + x + s.detach() @ matrix

    kernel = FlexSN(core).explain("sm_90").kernels["backward"].offline
    assert kernel is not None
    assert sum(kernel.loads.values()) >= 1.0 and sum(kernel.stores.values()) >= 1.0
