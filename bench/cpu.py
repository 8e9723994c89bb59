"""LIF and PLIF on the CPU, forward + backward, beside the loop, ``torch.compile``, the peers and a plain copy.

    python bench/cpu.py            # everything: some minutes
    python bench/cpu.py --quick    # two shapes, no torch.compile

A peer takes part if it is installed. Ratios are times over flexsn's, taken in the same run.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from harness import Timing, keep_memory, machine, take_turns, write_csv
from torch import Tensor, nn

import flexsn
from flexsn import surrogate
from flexsn.kernels.cpp.compiler import find_compiler

RESULTS = Path(__file__).parent / "results"
SHAPES = [(4, 2**20), (16, 2**18), (16, 4096), (100, 2048), (1000, 1024)]
COMPILED_LOOP_STEPS = 16  # torch.compile unrolls the loop over time; beyond this one compiles for minutes
_spike = surrogate.ATan(alpha=2.0)


def lif_step(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) / 2.0
    s = _spike(h - 1.0)
    return s, h * (1.0 - s)


class PLIFStep(nn.Module):
    """LIF with a learnable time constant, 1/tau = sigmoid(w)."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = v + (x - v) * self.w.sigmoid()
        s = _spike(h - 1.0)
        return s, h * (1.0 - s)


def loop(step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], x_seq: Tensor) -> Tensor:
    """The loop at its best: one node of autograd hands out all inputs."""
    return _over(step, x_seq.unbind(0))


def indexing_loop(step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], x_seq: Tensor) -> Tensor:
    """The loop as most write it: backward of every ``x_seq[t]`` fills a tensor as large as ``x_seq``."""
    return _over(step, (x_seq[t] for t in range(len(x_seq))))


def _over(step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], steps: Iterable[Tensor]) -> Tensor:
    v: Tensor | None = None
    outputs = []
    for x in steps:
        s, v = step(x, torch.zeros_like(x) if v is None else v)
        outputs.append(s)
    return torch.stack(outputs)


def contenders(neuron: str, num_steps: int, num_lanes: int, compiled: bool) -> dict[str, Callable[[], object]]:
    """Functions that run one forward and backward pass each."""
    x = torch.randn(num_steps, num_lanes, requires_grad=True)
    grad = torch.randn(num_steps, num_lanes)

    def training(forward: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        def run() -> None:
            forward(x).backward(grad)
            x.grad = None

        return run

    step: nn.Module | Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lif_step if neuron == "LIF" else PLIFStep()
    fused = flexsn.FlexSN(step, backend="cpp")

    def flexsn_forward(x_seq: Tensor) -> Tensor:
        fused.reset()
        y: Tensor = fused(x_seq)
        return y

    runs = {"flexsn": training(flexsn_forward), "loop": training(functools.partial(loop, step))}
    runs["loop, x[t]"] = training(functools.partial(indexing_loop, step))
    if compiled:
        torch.compiler.reset()
        if num_steps <= COMPILED_LOOP_STEPS:
            runs["torch.compile"] = training(torch.compile(functools.partial(loop, step), dynamic=False))
        else:
            runs["torch.compile"] = training(functools.partial(loop, torch.compile(step, dynamic=False)))
    if importlib.util.find_spec("spikingjelly"):
        runs["spikingjelly"] = training(_spikingjelly(neuron))
    if importlib.util.find_spec("snntorch") and neuron == "LIF":
        runs["snntorch"] = training(_snntorch())
    runs["copy"] = _copy(x.detach(), grad)
    return runs


def _spikingjelly(neuron: str) -> Callable[[Tensor], Tensor]:
    from spikingjelly.activation_based import neuron as peer
    from spikingjelly.activation_based import surrogate as peer_surrogate

    kind = peer.LIFNode if neuron == "LIF" else peer.ParametricLIFNode
    node = kind(surrogate_function=peer_surrogate.ATan(), step_mode="m")

    def forward(x_seq: Tensor) -> Tensor:
        node.reset()
        y: Tensor = node(x_seq)
        return y

    return forward


def _snntorch() -> Callable[[Tensor], Tensor]:
    import snntorch
    from snntorch import surrogate as peer_surrogate

    node = snntorch.Leaky(beta=0.5, spike_grad=peer_surrogate.atan())

    def forward(x_seq: Tensor) -> Tensor:
        mem = node.init_leaky()
        outputs = []
        for x in x_seq.unbind(0):
            s, mem = node(x, mem)
            outputs.append(s)
        return torch.stack(outputs)

    return forward


def _copy(x: Tensor, grad: Tensor) -> Callable[[], object]:
    """Move the bytes a pass has to: read x, write y and the final state; read x and grad, write the gradient."""

    def run() -> None:
        y = torch.empty_like(x).copy_(x)
        final = torch.empty_like(x[0]).copy_(x[-1])
        gradient = torch.add(x, grad)
        del y, final, gradient

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    keep_memory()
    print(machine(), f"\n{find_compiler()}\n")
    print(
        "| neuron | T x N | flexsn, ms (quartiles) | loop | loop, x[t] | torch.compile | SpikingJelly | snnTorch "
        "| flexsn / copy |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    rows: list[dict[str, object]] = []
    for neuron in ("LIF", "PLIF"):
        for num_steps, num_lanes in SHAPES[2:4] if options.quick else SHAPES:
            times = take_turns(contenders(neuron, num_steps, num_lanes, compiled=not options.quick))
            print(_row(neuron, num_steps, num_lanes, times), flush=True)
            rows += [
                {
                    "neuron": neuron, "T": num_steps, "N": num_lanes, "who": who,
                    "median_ms": t.median * 1e3, "low_ms": t.low * 1e3, "high_ms": t.high * 1e3,
                }
                for who, t in times.items()
            ]  # fmt: skip
    if not options.quick:
        write_csv(RESULTS / "cpu.csv", rows)


def _row(neuron: str, num_steps: int, num_lanes: int, times: dict[str, Timing]) -> str:
    ours = times["flexsn"]
    ratios = [
        f"{times[who].median / ours.median:.1f}" if who in times else "-"
        for who in ("loop", "loop, x[t]", "torch.compile", "spikingjelly", "snntorch")
    ]
    cells = [neuron, f"{num_steps} x {num_lanes:,}", str(ours).removesuffix(" ms"), *ratios]
    return f"| {' | '.join(cells)} | {ours.median / times['copy'].median:.2f} |"


if __name__ == "__main__":
    main()
