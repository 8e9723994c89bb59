"""``bench``: a neuron beside the loop, on this machine."""

from __future__ import annotations

import copy
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from flexsn import FlexSN, explain
from flexsn.commands.command import Command, UsageError
from flexsn.commands.subject import add_subject, find_subject
from flexsn.commands.timing import take_turns

__all__ = ["COMMAND"]

_SIZES = ("16x4096", "100x2048", "4x262144")
_SECONDS = 2.0


def _arguments(parser: ArgumentParser) -> None:
    add_subject(parser, "LIF")
    parser.add_argument(
        "--size", action="append", metavar="TxN", help=f"steps and lanes; several times (default: {', '.join(_SIZES)})"
    )
    parser.add_argument("--backend", default="auto", choices=("auto", "triton", "cpp"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="to spend on each (default: %(default)s)")


def _run(options: Namespace) -> int:
    if options.device != "cpu" and not torch.cuda.is_available():
        raise UsageError(f"torch sees no GPU here, so there is no device {options.device!r}")
    neuron = find_subject(options.neuron).to(options.device)
    neuron.step_mode, neuron.time_dim = "m", 0
    unit = tuple(explain(neuron).step_shape)
    sizes = [_size(text) for text in options.size or _SIZES]
    where = (
        f"{torch.get_num_threads()} threads" if options.device == "cpu" else torch.cuda.get_device_name(options.device)
    )
    print(
        f"{options.neuron}, {options.device}, {where}: medians (quartiles) of runs in turns, and times of the loop's\n"
    )
    print(f"{'':24}{'T x lanes':>14}  {'fused':>26}  {'loop':>26}  {'loop/fused':>10}")
    for steps, lanes in sizes:
        step = (max(1, lanes // prod(unit)), *unit)
        for what, training in (("forward", False), ("forward and backward", True)):
            pair = {b: _job(neuron, b, (steps, *step), options.device, training) for b in (options.backend, "torch")}
            fused, loop = take_turns(pair, options.seconds).values()
            size = f"{steps} x {prod(step):,}"
            print(f"{what:24}{size:>14}  {fused!s:>26}  {loop!s:>26}  {loop.median / fused.median:>10.1f}", flush=True)
    return 0


def _size(text: str) -> tuple[int, int]:
    steps, _, lanes = text.replace(",", "").partition("x")
    if not (steps.isdigit() and lanes.isdigit() and int(steps) and int(lanes)):
        raise UsageError(f"--size {text}: steps x lanes are meant, such as 16x4096")
    return int(steps), int(lanes)


def _job(neuron: FlexSN, backend: str, shape: tuple[int, ...], device: str, training: bool) -> Callable[[], object]:
    """One call from rest; on a GPU, until it is done."""
    neuron = copy.deepcopy(neuron)
    neuron.backend = backend
    inputs = [torch.rand(shape, device=device).mul_(2).requires_grad_(training) for _ in range(neuron.num_inputs)]

    def run() -> None:
        neuron.reset()
        with torch.set_grad_enabled(training):
            outputs = FlexSN.forward(neuron, *inputs)
        if training:
            roots = [y for y in ((outputs,) if isinstance(outputs, Tensor) else outputs) if y.requires_grad]
            torch.autograd.grad([y.sum() for y in roots], inputs, allow_unused=True)
        if device != "cpu":
            torch.cuda.synchronize()

    return run


COMMAND = Command(
    "bench",
    "time a neuron beside the loop on this machine, both ways",
    _arguments,
    _run,
    ("bench", "bench ALIF", "bench my_file.py:core --size 100x2048"),
)
