"""The examples run, and do what they say."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch

ROOT = Path(__file__).parent.parent
NOTEBOOKS = runpy.run_path(str(ROOT / "docs" / "make_notebooks.py"))


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "examples" / f"{name}.py"))


@pytest.mark.parametrize("path", NOTEBOOKS["NOTEBOOKS"], ids=lambda path: path.stem)
def test_a_notebook_is_its_example_runs_and_learns(path: Path) -> None:
    notebook, kept = NOTEBOOKS["made"](path), nbformat.read(path, as_version=4)
    assert [c.source for c in kept.cells] == [c.source for c in notebook.cells], "run docs/make_notebooks.py"
    outputs = [output for c in NOTEBOOKS["run"](notebook).cells for output in c.get("outputs", ())]
    before, after = map(float, re.findall(r"\d+(?:\.\d+)?(?=%| ->|$)", outputs[0].text, re.MULTILINE))
    assert after < 0.5 * before if path.stem == "custom_neuron" else after > 1.4 * before
    assert "image/png" in outputs[1].data


def test_leaks_are_found_from_spikes() -> None:
    wanted, found = example("learnable_parameters")["train"](channels=4, steps=120, progress=False)
    assert (wanted - found).abs().max() < 0.05 < (wanted - 0.6).abs().max()


def test_digits_are_told_apart() -> None:
    digits = example("digits")
    training, test = digits["load"]()
    net = digits["network"]()
    digits["train"](net, training, epochs=1)
    assert digits["accuracy"](net, test) > 0.6


def test_a_kernel_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / "read_a_kernel.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert "One step backward" in said and "#pragma omp simd" in said


def test_vowels_of_different_lengths_are_told_apart() -> None:
    vowels = example("vowels")
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
