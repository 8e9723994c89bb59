"""The forms that docs/how-it-works.md shows are what the library prints."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from flexsn import FlexSN, surrogate
from flexsn.ir.passes import describe, watching
from flexsn.report.build import plan_kernels

DOCS = Path(__file__).parents[2] / "docs" / "how-it-works.md"
spike = surrogate.ATan()


class Leaky(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = v + (x - v) * torch.sigmoid(self.decay)
        s = spike(h - 1.0)
        return s, h * (1.0 - s)


def forms() -> dict[str, str]:
    """The first form of every name."""
    found: dict[str, str] = {}
    with watching(lambda name, form: found.setdefault(name, re.sub(r"\(forward:\d+\)", "(forward)", describe(form)))):
        plan_kernels(FlexSN(Leaky()), "triton", torch.float32)
    return found


def test_docs_show_every_form_of_a_core() -> None:
    found, text = forms(), DOCS.read_text()
    shown = re.findall(r"<!-- (.+) -->\n```python\n", text)
    assert len(shown) > 6 and set(shown) <= set(found)
    for name in shown:
        form = found[name]
        ast.parse(form)
        text = re.sub(
            rf"(<!-- {name} -->\n```python\n).*?(```\n)", lambda m, s=form: f"{m[1]}{s}\n{m[2]}", text, flags=re.S
        )
    if os.environ.get("UPDATE_GOLDEN"):
        DOCS.write_text(text)
    assert DOCS.read_text() == text, "the passes changed: UPDATE_GOLDEN=1 pytest tests/report/test_how_it_works.py"
