"""The examples run, and do what they say."""

from __future__ import annotations

import runpy
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent


def test_the_custom_neuron_learns() -> None:
    first, last = runpy.run_path(str(ROOT / "examples" / "custom_neuron.py"))["train"]()
    assert last < 0.5 * first


def test_vowels_of_different_lengths_are_told_apart() -> None:
    vowels = runpy.run_path(str(ROOT / "examples" / "vowels.py"))
    torch.manual_seed(0)
    speakers = torch.arange(24) % 3
    lines = []
    for speaker in speakers.tolist():
        length = int(torch.randint(5, 9, ()))
        channels = torch.randn(12, length) * 0.1 + torch.arange(12)[:, None].sub(4 * speaker).abs().lt(3)
        lines.append(":".join(",".join(f"{v:.3f}" for v in c.tolist()) for c in channels) + f":{speaker + 1}")
    samples = vowels["parse"]("@problemName tiny\n@data\n" + "\n".join(lines))
    assert samples[0].shape[1:] == (24, 12) and samples[1].min() < len(samples[0])
    assert torch.equal(samples[2], speakers)
    network = vowels["Network"](hidden=16, recurrent=True)
    first = vowels["train"](network, samples, epochs=1)
    assert vowels["train"](network, samples, epochs=15) < 0.7 * first
    assert vowels["accuracy"](network, samples) > 0.6
