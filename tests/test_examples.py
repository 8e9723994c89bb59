"""The examples and the README's code run, and do what they say."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent


def test_the_custom_neuron_learns() -> None:
    first, last = runpy.run_path(str(ROOT / "examples" / "custom_neuron.py"))["train"]()
    assert last < 0.5 * first


def test_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 2
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(block, namespace)
    y = namespace["y"]
    assert isinstance(y, torch.Tensor) and y.shape == (32, 8, 128)
    assert set(y.unique().tolist()) <= {0.0, 1.0}
    assert capsys.readouterr().out.strip() == "torch.Size([128])"
