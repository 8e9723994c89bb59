"""Samples of different lengths: with ``lengths=``, padded with a mask written by hand, and padded without any mask.

python bench/lengths.py

The lengths are those of Japanese Vowels (Kudo, Toyama & Shimbo, 1999), its 270 samples for training, padded to the
set's longest, 29 steps; a layer of 128 neurons. ``reset_mask=`` starts samples anew as often as if they were packed.
"""

from __future__ import annotations

from pathlib import Path

import torch
from harness import keep_memory, machine, take_turns, write_csv
from torch import Tensor

import flexsn
from flexsn import surrogate

RESULTS = Path(__file__).parent / "results"
STEPS, FEATURES = 29, 128
COUNTS = {7: 1, 9: 2, 10: 10, 11: 18, 12: 22, 13: 21, 14: 22, 15: 41, 16: 28, 17: 27, 18: 22, 19: 13, 20: 8, 21: 14}
COUNTS |= {22: 5, 23: 11, 24: 2, 25: 2, 26: 1}
"""How many samples have a length."""
_spike = surrogate.ATan(alpha=2.0)


def lif_step(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) / 2.0
    s = _spike(h - 1.0)
    return s, h * (1.0 - s)


def masked_step(x: Tensor, alive: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    s, new = lif_step(x, v)
    return torch.where(alive, s, 0.0), torch.where(alive, new, v)


def main() -> None:
    keep_memory()
    print(machine(), "\n")
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([length for length, count in COUNTS.items() for _ in range(count)])
    lengths = lengths[torch.randperm(len(lengths), generator=generator)]
    x = torch.randn(STEPS, len(lengths), FEATURES, generator=generator).requires_grad_()
    v, grad = torch.zeros_like(x[0]), torch.randn(x.shape, generator=generator)
    starts = torch.rand(STEPS, len(lengths), generator=generator) < 1 / lengths.float().mean()

    def step(**options: Tensor | str) -> None:
        y, _ = flexsn.scan(lif_step, x, v, **options)  # type: ignore[call-overload]
        torch.autograd.grad(y, x, grad if y.dim() == 3 else grad[0])

    def by_hand() -> None:
        alive = (torch.arange(STEPS).view(-1, 1, 1) < lengths.view(-1, 1)).expand(x.shape)
        y, _ = flexsn.scan(masked_step, (x, alive), v)
        torch.autograd.grad(y, x, grad)

    times = take_turns(
        {
            "lengths=": lambda: step(lengths=lengths),
            "padded, no mask": step,
            "padded, mask by hand": by_hand,
            "reset_mask=": lambda: step(reset_mask=starts),
            'lengths=, time_reduction="mean"': lambda: step(lengths=lengths, time_reduction="mean"),
        }
    )
    ours = times["lengths="].median
    print(f"| {STEPS} x {len(lengths)} x {FEATURES}, LIF, forward + backward | time | over lengths= |\n|---|---|---|")
    for who, timing in times.items():
        print(f"| {who} | {timing} | {timing.median / ours:.2f} |")
    rows = [
        {"what": what, "median_ms": t.median * 1e3, "low_ms": t.low * 1e3, "high_ms": t.high * 1e3}
        for what, t in times.items()
    ]
    write_csv(RESULTS / "lengths.csv", rows)


if __name__ == "__main__":
    main()
