"""A file of a user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

FILE = """
import torch
from torch import nn
from flexsn import FlexSN, surrogate
from neighbour import THRESHOLD

spike = surrogate.ATan()

def core(x, v):
    h = v + (x - v) / 2.0
    s = spike(h - THRESHOLD)
    return s, h * (1.0 - s)

def mixing(x, v):
    h = v + x.cumsum(-1)  # the line
    return h, h

class Leaky(nn.Module):
    def __init__(self):
        super().__init__()
        self.decay = nn.Parameter(torch.zeros(3))

    def forward(self, x, v):
        return core(x, v * torch.sigmoid(self.decay))

class Made:
    neuron = FlexSN(core)

    def __init__(self, size):
        pass

number = 3
"""


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("THRESHOLD = 1.0\n")
    path = tmp_path / "my_file.py"
    path.write_text(FILE)
    return path
