"""Writes docs/errors.md: what a core that breaks a rule is told, by breaking each.

python docs/make_errors.py
"""

from __future__ import annotations

import linecache
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import flexsn
from flexsn import FlexSN, scan

TARGET = Path(__file__).with_name("errors.md")
FILE = "my_model.py"

HEAD = """# What a core is told

Written by `docs/make_errors.py`, which runs each of these programs and copies what it is told; a test keeps it current.

An error says what happened, *where* in your own code, *why*, and what to do (*hint*). `backend="auto"` runs the plain
loop where no kernel can be made, and says so once, as a `flexsn.FallbackWarning`; the programs here ask for
`backend="cpp"` by name, so they are told by an error. What a core raises itself comes through as it is.

| what is raised | why | what to do |
|---|---|---|
| `UnsupportedOpError` | no kernel can do it; the plain loop can | what the hint says, or leave it to `backend="auto"` |
| `CoreError`, a `ValueError` | the core breaks its contract, or is none | mend the core where it says |
| `GradientError` | a gradient is asked for where none flows | a surrogate, `reset()` or `detach()` |
| `BackendError` | the backend asked for cannot run here | install what is missing, or `backend="auto"` |
| `ValueError` | inputs, states, lengths, masks or options do not fit | the text has their shapes, and what would fit |
| `FallbackWarning` | the plain loop runs, once for every core or lack | the same as for the error it holds |

The first four are a `flexsn.FlexSNError`, with `what`, `where`, `why` and `hint` to read. Each program begins with

```py
{start}```
"""

START = """import torch
from torch import nn
from torch.nn import functional
from flexsn import FlexSN, scan, surrogate

spike = surrogate.ATan()
x = torch.rand(4, 2, 8, requires_grad=True)  # [T, B, N]
"""

NAMES: dict[str, Any] = {"torch": torch, "nn": nn, "functional": functional, "FlexSN": FlexSN, "scan": scan}

PROGRAMS = {
    "No kernel can do it": {
        "An operation that mixes lanes": """
def core(x, v):
    h = v + x
    return h.softmax(-1), h

FlexSN(core, backend="cpp")(x)
""",
        "A part of a step": """
def core(x, v):
    h = v + x[:, :1]
    return h, h

FlexSN(core, backend="cpp")(x)
""",
        "Python that decides by data": """
def core(x, v):
    h = v + x
    if h.max() > 1:
        h = h - 1.0
    return h, h

FlexSN(core, backend="cpp")(x)
""",
        "Random numbers": """
def core(x, v):
    h = v + x + 0.1 * torch.randn_like(x)
    return h, h

FlexSN(core, backend="cpp")(x)
""",
        "A counter on the side": """
class Counting(nn.Module):
    steps = 0

    def forward(self, x, v):
        self.steps += 1
        h = v + x
        return h, h

FlexSN(Counting(), backend="cpp")(x)
""",
        "A tensor from outside, changed in place": """
total = torch.zeros(8)

def core(x, v):
    total.add_(1.0)
    h = v + x
    return h, h

FlexSN(core, backend="cpp")(x)
""",
    },
    "It is no core": {
        "A class in the place of an object": """
class Cell(nn.Module):
    def forward(self, x, v):
        return v + x, v + x

FlexSN(Cell)(x)
""",
        "A core with two inputs": """
def core(x, gate, v):
    h = v + gate * x
    return spike(h - 1.0), h

FlexSN(core)(x, x)
""",
        "A scan without one of its states": """
def core(x, v, a):
    return spike(v + x - a), v + x, 0.9 * a

scan(core, x, torch.zeros(8))
""",
    },
    "The core breaks its contract": {
        "An argument changed in place": """
def core(x, v):
    v += x
    return v, v

FlexSN(core)(x)
""",
        "A state that changes its dtype": """
def core(x, v):
    h = v + x
    return h, h > 1

FlexSN(core)(x)
""",
        "A state that changes its shape": """
weight = torch.rand(3, 1, 1)

def core(x, v):
    h = v + weight * x
    return h, h

FlexSN(core)(x)
""",
        "Too few values returned": """
def core(x, v, a):
    return v + x, a

FlexSN(core)(x)
""",
        "Something else returned": """
def core(x, v):
    return {"spikes": spike(v + x - 1.0), "v": v + x}

FlexSN(core)(x)
""",
        "A spike without a surrogate": """
def core(x, v):
    h = v + x
    s = (h > 1.0).float()
    return s, h * (1.0 - s)

FlexSN(core)(x).sum().backward()
""",
    },
    "The call does not fit": {
        "A batch of another size": """
def core(x, v):
    h = v + x
    return spike(h - 1.0), h

neuron = FlexSN(core)
neuron(x)
neuron(x[:, :1])
""",
        "A backward pass through the batch before": """
gain = nn.Parameter(torch.ones(8))

def core(x, v):
    h = v + gain * x
    return spike(h - 1.0), h

neuron = FlexSN(core)
for batch in (x, x):
    neuron(batch).sum().backward()
""",
        "A parameter of another size": """
gain = nn.Parameter(torch.ones(5))

def core(x, v):
    h = v + gain * x
    return spike(h - 1.0), h

FlexSN(core)(x)
""",
        "Inputs of different lengths": """
def core(x, noise, v):
    h = v + x + noise
    return spike(h - 1.0), h

FlexSN(core, num_inputs=2)(x, torch.rand(3, 2, 8))
""",
    },
}


def document() -> str:
    """The whole document."""
    parts = [HEAD.format(start=START)]
    for section, programs in PROGRAMS.items():
        parts.append(f"\n## {section}\n")
        for title, program in programs.items():
            parts.append(f"\n### {title}\n\n```py\n{program.lstrip()}```\n\n```text\n{told(program.lstrip())}\n```\n")
    return "".join(parts)


def told(program: str) -> str:
    """The error that a program ends with.

    Raises:
        SystemExit: it ends without one.
    """
    source = f"{START}\n{program}"
    linecache.cache[FILE] = (len(source), None, program.splitlines(keepends=True), FILE)
    names: dict[str, Any] = dict(NAMES)
    exec(START, names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", flexsn.FallbackWarning)
        try:
            exec(compile(program, FILE, "exec"), names)
        except Exception as error:
            name = type(error).__name__
            prefix = "flexsn." if isinstance(error, flexsn.FlexSNError) else ""
            return f"{prefix}{name}: {error}"
        finally:
            del linecache.cache[FILE]
    raise SystemExit(f"this says nothing:\n{program}")


if __name__ == "__main__":
    TARGET.write_text(document())
