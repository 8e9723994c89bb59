"""A recurrent LIF layer on the CPU, forward + backward: the loop, ``torch.compile``, ``nn.RNN``, peers, products alone.

    python bench/recurrent.py            # six sizes at four firing rates: a quarter of an hour
    python bench/recurrent.py --quick    # four sizes at 3 %, no peers

A peer takes part if it is installed. Ratios are times over flexsn's, taken in the same run. "alternating" is flexsn
with torch's products between kernels, "torch.compile" the loop over a compiled step (it unrolls a loop over time, for
minutes), "products" the products alone, dense: two a step, and one of all steps. The peers, whose backward is quadratic
in T, and ``torch.compile`` are timed at the first rate.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from harness import Timing, keep_memory, machine, take_turns, write_csv
from torch import Tensor, nn

import flexsn
from flexsn import surrogate
from flexsn.kernels.backend import backend
from flexsn.kernels.cpp.compiler import find_compiler

RESULTS = Path(__file__).parent / "results"
SHAPES = [(256, 256, 128), (250, 128, 256), (100, 64, 512), (1000, 16, 128), (200, 64, 64), (50, 64, 1024)]
RATES = [0.03, 0.01, 0.1, 0.3]
OTHERS = ("alternating", "loop", "torch.compile", "nn.RNN", "spikingjelly", "snntorch", "products")
_spike = surrogate.ATan(alpha=2.0)


class Step(nn.Module):
    """A LIF neuron that is fed the spikes of the step before."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.recurrent = nn.Linear(size, size)

    def forward(self, x: Tensor, v: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = v + (x + self.recurrent(z) - v) / 2.0
        s = _spike(h - 1.0)
        return s, h * (1.0 - s), s


def over(step: Callable[..., tuple[Tensor, Tensor, Tensor]], x_seq: Tensor) -> Tensor:
    """The loop at its best: one node of autograd hands out all inputs."""
    v = z = torch.zeros_like(x_seq[0])
    outputs = []
    for x in x_seq.unbind(0):
        s, v, z = step(x, v, z)
        outputs.append(s)
    return torch.stack(outputs)


def inputs(step: Step, shape: tuple[int, int, int], rate: float) -> Tensor:
    """Random ones under which about that share of the neurons fires."""
    x, low, high = torch.randn(shape), 0.05, 50.0
    neuron = flexsn.FlexSN(step, backend="cpp")
    for _ in range(12):
        scale = (low * high) ** 0.5
        neuron.reset()
        with torch.no_grad():
            low, high = (low, scale) if float(neuron(x[:50] * scale).mean()) > rate else (scale, high)
    return x * scale


def contenders(shape: tuple[int, int, int], rate: float, peers: bool) -> dict[str, Callable[[], object]]:
    """Functions that run one forward and backward pass each."""
    step = Step(shape[-1])
    x = inputs(step, shape, rate).requires_grad_()
    grad = torch.randn(shape)

    def training(forward: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        def run() -> None:
            forward(x).backward(grad)
            x.grad = None

        return run

    def by_flexsn() -> Callable[[], object]:
        neuron: Any = flexsn.FlexSN(step, backend="cpp")

        def forward(x_seq: Tensor) -> Tensor:
            neuron.reset()
            y: Tensor = neuron(x_seq)
            return y

        run = training(forward)
        run()  # which way it runs is decided now
        return run

    runs = {"flexsn": by_flexsn()}
    with mock.patch.object(backend("cpp"), "largest_matrix", 0):
        runs["alternating"] = by_flexsn()
    runs["loop"] = training(lambda x_seq: over(step, x_seq))
    if peers:
        torch.compiler.reset()
        compiled = torch.compile(step, dynamic=False)
        runs["torch.compile"] = training(lambda x_seq: over(compiled, x_seq))
    rnn = nn.RNN(shape[-1], shape[-1])
    runs["nn.RNN"] = training(lambda x_seq: rnn(x_seq)[0])
    if peers and importlib.util.find_spec("spikingjelly"):
        runs["spikingjelly"] = training(_spikingjelly(shape[-1]))
    if peers and importlib.util.find_spec("snntorch"):
        runs["snntorch"] = training(_snntorch(shape[-1]))
    runs["products"] = _products(step.recurrent.weight.detach(), x.detach(), grad)
    return runs


def _spikingjelly(size: int) -> Callable[[Tensor], Tensor]:
    from spikingjelly.activation_based import functional, layer, neuron
    from spikingjelly.activation_based import surrogate as peer_surrogate

    node = neuron.LIFNode(surrogate_function=peer_surrogate.ATan())
    net = layer.LinearRecurrentContainer(node, in_features=size, out_features=size, step_mode="m")

    def forward(x_seq: Tensor) -> Tensor:
        functional.reset_net(net)
        y: Tensor = net(x_seq)
        return y

    return forward


def _snntorch(size: int) -> Callable[[Tensor], Tensor]:
    import snntorch
    from snntorch import surrogate as peer_surrogate

    node = snntorch.RLeaky(beta=0.5, linear_features=size, spike_grad=peer_surrogate.atan())

    def forward(x_seq: Tensor) -> Tensor:
        spikes, membrane = node.init_rleaky()
        outputs = []
        for x in x_seq.unbind(0):
            spikes, membrane = node(x, spikes, membrane)
            outputs.append(spikes)
        return torch.stack(outputs)

    return forward


def _products(weight: Tensor, x: Tensor, grad: Tensor) -> Callable[[], object]:
    """What a training step multiplies: forward and backward at every step, and once for the matrix."""

    def run() -> None:
        for z, g in zip(x.unbind(0), grad.unbind(0), strict=True):
            z @ weight.t()
            g @ weight
        grad.flatten(0, 1).t() @ x.flatten(0, 1)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    keep_memory()
    print(machine(), f"\n{find_compiler()}\n")
    print("| T x B x H | firing | flexsn, ms (quartiles) | " + " | ".join(OTHERS) + " |")
    print("|---" * (3 + len(OTHERS)) + "|")
    rows: list[dict[str, object]] = []
    for shape in SHAPES[:4] if options.quick else SHAPES:
        for rate in RATES[:1] if options.quick else RATES:
            times = take_turns(contenders(shape, rate, peers=not options.quick and rate == RATES[0]))
            print(_row(shape, rate, times), flush=True)
            rows += [
                {
                    "T": shape[0], "B": shape[1], "H": shape[2], "rate": rate, "who": who,
                    "median_ms": t.median * 1e3, "low_ms": t.low * 1e3, "high_ms": t.high * 1e3,
                }
                for who, t in times.items()
            ]  # fmt: skip
    if not options.quick:
        write_csv(RESULTS / "recurrent.csv", rows)


def _row(shape: tuple[int, int, int], rate: float, times: dict[str, Timing]) -> str:
    ours = times["flexsn"]
    ratios = [f"{times[who].median / ours.median:.2g}" if who in times else "-" for who in OTHERS]
    cells = [" x ".join(map(str, shape)), f"{rate:.0%}", str(ours).removesuffix(" ms"), *ratios]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
