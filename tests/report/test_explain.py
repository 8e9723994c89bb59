"""Reports, the command behind them, and warming up."""

from __future__ import annotations

import os
import re
from contextvars import ContextVar

import pytest
import torch
from torch import Tensor, nn

import flexsn
from flexsn import FlexSN, surrogate
from flexsn.__main__ import main

spike = surrogate.ATan()


def lif(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) / 2.0
    s = spike(h - 1.0)
    return s, h * (1.0 - s)


def test_cpp_report() -> None:
    report = flexsn.explain(lif)
    assert report.target == "cpp"
    assert list(report.kernels) == ["inference", "forward", "backward"]
    inference, backward = report.kernels["inference"], report.kernels["backward"]
    assert inference.bytes_per_lane_step == 8 and inference.checkpoint is None
    assert backward.bytes_per_lane_step == 12 + 4 / backward.checkpoint
    assert 'extern "C"' in backward.source
    assert inference.registers is None and inference.spill_bytes is None and inference.ptx == ""


def test_the_report_reads_well() -> None:
    text = str(FlexSN(lif).explain())
    for expected in (
        "lif on cpp, float32",
        "h = v + (x - v) / 2.0",  # the core's own lines
        "return dict(y0=t7, v=t9)",  # the step graph
        "return dict(grad_x=",
        "v: stored once in",
        "read input 0 (4) + write output 0 (4); the floor is 8",
        "Source of the backward kernel",
    ):
        assert expected in text, expected
    assert "gradient" not in text.split("One step backward")[0]


def test_without_a_gradient_the_report_says_why() -> None:
    report = flexsn.explain(lambda x, v: ((v + x > 1.0).float(), v.detach()))
    assert list(report.kernels) == ["inference", "forward"]
    assert report.no_backward is not None and "surrogate" in report.no_backward
    assert "No backward kernel" in str(report)


def test_the_report_says_what_is_not_watched() -> None:
    setting = ContextVar("setting", default=2.0)
    report = flexsn.explain(lambda x, v: (v + x * setting.get(), v))
    assert report.unwatched is not None and "'setting' is a _contextvars.ContextVar" in report.unwatched
    assert report.unwatched in str(report)
    assert flexsn.explain(lif).unwatched is None and "unseen" not in str(flexsn.explain(lif))


def test_states_of_any_dtype_and_several_inputs() -> None:
    def core(x: Tensor, z: Tensor, v: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = torch.where(count == 0, v + x * z, v)
        s = spike(h - 1.0)
        return s, h - s, (count - 1).clamp(min=0)

    class Counting(FlexSN):
        @staticmethod
        def init_states(num_states: int, step_mode: str, *args: Tensor) -> list[Tensor]:
            return [torch.zeros(()), torch.zeros((), dtype=torch.int32)]

    report = Counting(core, num_inputs=2).explain(dtype=torch.float16)
    assert report.arguments == ("x", "z", "v", "count")
    assert report.kernels["inference"].bytes_per_lane_step == 6


@pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"), reason="cannot compile while interpreting"
)
def test_gpu_report() -> None:
    pytest.importorskip("triton")
    report = flexsn.explain(lif, "sm_90")
    backward = report.kernels["backward"]
    assert backward.registers > 0 and backward.spill_bytes == 0 and ".version" in backward.ptx
    assert backward.checkpoint == 8
    text = str(report)
    assert re.search(r"walk back, t\d+ of each step", text)
    assert f"backward: {backward.registers} registers, 0 bytes spilled, no fused multiply-add" in text
    assert "threads per multiprocessor" in text


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "LIF"]) == 0
    assert "LIF on cpp, float32" in capsys.readouterr().out
    assert main(["explain", "Nothing"]) == 2
    assert "no neuron 'Nothing'; there are: ALIF" in capsys.readouterr().err
    assert main(["explain", "LIF", "--target", "sm_1"]) == 1
    assert "no offline target 'sm_1'" in capsys.readouterr().err


def test_warmup_leaves_no_trace() -> None:
    neuron = FlexSN(lif, store_state_seqs=True)
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.BatchNorm1d(5), neuron)
    net(torch.rand(7, 5, 3))
    states, seqs = neuron.states, neuron.state_seqs
    before = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(0)
    want = torch.rand(3)
    torch.manual_seed(0)
    flexsn.warmup(net, torch.ones(2, 5, 3))
    assert torch.equal(torch.rand(3), want)
    assert neuron.states is not None and states is not None
    assert all(a is b for a, b in zip(neuron.states, states, strict=True))
    assert neuron.state_seqs is seqs
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_a_core_with_products_is_reported_by_its_stages() -> None:
    connection = nn.Linear(1025, 1025)
    report = flexsn.explain(flexsn.Recurrent(FlexSN(lif), connection))
    assert list(report.kernels) == ["forward stage 1", "backward states", "backward stage 0"]
    text = str(report)
    assert "Alternating: every step runs 1 product(s) by torch" in text
    assert "a kernel of cpp multiplies by matrices of up to 1024 rows, not 1025." in text
    assert "product0 = matmul(y, operand0)  # float32" in text
    reduced = flexsn.explain(flexsn.Recurrent(FlexSN(lif, time_reduction="sum"), connection))
    assert list(reduced.kernels) == list(report.kernels) and "accumulator0" in str(reduced)


def test_a_core_whose_products_are_fused_is_reported_as_any_other() -> None:
    report = flexsn.explain(flexsn.Recurrent(FlexSN(lif), nn.Linear(6, 6)))
    assert list(report.kernels) == ["inference", "forward", "backward"]
    text = str(report)
    assert "Fused: one kernel runs all steps, the 1 product(s) of a step" in text
    assert "(saved0): stored at every step, the least from which the rest of it follows again" in text
    assert "the gradient of a matrix: one product after the loop, of the gradient of input 0 and output 0" in text


def test_factors_that_a_backward_pass_writes_are_named() -> None:
    matrix = torch.rand(6, 6, requires_grad=True)
    text = str(flexsn.explain(lambda x, v, y: (v + x * (y @ matrix), y + v, v + x)))
    assert re.search(r"return dict\(.*factor0=\w+", text) and "(factor0)" in text
