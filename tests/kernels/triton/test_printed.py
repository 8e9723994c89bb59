"""The printed Triton kernels: inside the portable subset, and as the docs show them.

``UPDATE_GOLDEN=1 pytest tests/kernels/triton/test_printed.py`` writes the docs anew.
"""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flexsn import FlexSN, surrogate
from flexsn.kernels.triton.memory import accesses
from flexsn.kernels.triton.printer import print_triton
from flexsn.kernels.triton.spelling import SPELLINGS
from flexsn.report.build import plan_kernels

DOCS = Path(__file__).parents[3] / "docs" / "kernels.md"
PORTABLE = {
    *("load", "store", "arange", "program_id", "zeros", "full", "cast", "cdiv", "where", "broadcast_to"),
    *("constexpr", "reshape", "sum"),
    *("float16", "bfloat16", "float32", "float64", "int1", "int8", "uint8", "int16", "int32", "int64"),
}
spike = surrogate.ATan()
weight = nn.Parameter(torch.rand(3, 1, 1))


def lif(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    h = v + (x - v) / 2.0
    s = spike(h - 1.0)
    return s, h * (1.0 - s)


def everything(x: Tensor, z: Tensor, v: Tensor, count: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    h = torch.where(count == 0, v * weight.sigmoid() + x / 3.0 - b / z, v)
    s = spike((h - 1.0).tanh())
    return s, h.clamp(-2, 2), h - s, (count - 1).clamp(min=0), b * 0.5 + s.sqrt()


def sources(core: FlexSN) -> dict[str, str]:
    plans = plan_kernels(core, "triton", torch.float32).plans
    return {
        name: print_triton(plan, accesses(plan, layout), len(layout.sizes)).text
        for name, (plan, layout) in plans.items()
    }


@pytest.mark.parametrize("core", [lif, everything])
def test_portable_subset(core: object) -> None:
    neuron = FlexSN(core, num_inputs=1 if core is lif else 2)  # type: ignore[arg-type]
    rows = " ".join(map(str, SPELLINGS.values()))
    allowed = PORTABLE | set(re.findall(r"tl\.(\w+)", rows))
    for text in sources(neuron).values():
        tree = ast.parse(text)
        function = next(n for n in tree.body if isinstance(n, ast.FunctionDef))
        assigned = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        known = assigned | {a.arg for a in function.args.args}
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tl":
                assert node.attr in allowed, f"tl.{node.attr}"  # no block pointers or descriptors
            if isinstance(node, ast.BinOp):
                assert not isinstance(node.op, ast.Div), "fp32 `/` is approximate"
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in known:
                helpers = {"tl", "triton", "range", "libdevice", "remainder", "fmod", "floor_divide", "INF", "NAN"}
                assert node.id in helpers, f"reads the global {node.id}"


@pytest.mark.parametrize("core", [lif, everything])
def test_offsets_are_of_64_bits(core: object) -> None:
    """T times N passes 2**31: what is multiplied with a stride in elements was cast before."""
    for text in sources(FlexSN(core, num_inputs=1 if core is lif else 2)).values():  # type: ignore[arg-type]
        assert "lane = tl.program_id(0).to(tl.int64) * BLOCK" in text
        assert "step = tl.cast(N, tl.int64)" in text
        for line in text.splitlines():
            assert not re.search(r"\* (N|T)\b|\b(N|T) \*", line), line


def test_a_kernel_prints_the_same_every_time() -> None:
    assert sources(FlexSN(everything, num_inputs=2)) == sources(FlexSN(everything, num_inputs=2))


def test_docs_show_the_kernels_of_lif() -> None:
    text = DOCS.read_text()
    for name, source in sources(FlexSN(lif)).items():
        text = re.sub(
            rf"(<!-- {name} -->\n```python\n).*?(```\n)", lambda m, s=source: m[1] + s + m[2], text, flags=re.DOTALL
        )
    if os.environ.get("UPDATE_GOLDEN"):
        DOCS.write_text(text)
    assert DOCS.read_text() == text, "the kernels changed: UPDATE_GOLDEN=1 pytest tests/kernels/triton/test_printed.py"
