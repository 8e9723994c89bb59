"""A thread with a small stack: cores of many parameters, many operations and deep nesting are traced and run in it."""

from __future__ import annotations

import pytest

from flexsn.execution.backends import supported_backends
from tests import fresh

PROGRAM = """
import threading, torch
from flexsn import scan, surrogate
from torch import nn

spike = surrogate.ATan()
weights = [nn.Parameter(torch.full((), 0.01 * i + 0.1)) for i in range(40)]

def fire(h):
    s = spike(h - 1.0)
    return s, h * (1.0 - s)

def parameters(x, v):
    for w in weights:
        v = v + (x - v) * w
    return fire(v)

def operations(x, v):
    for i in range(100):
        v = v * 0.5 + x * (0.01 * i)
    return fire(v)

def nested(core, depth=60):
    for _ in range(depth):
        core = (lambda inner: lambda x, v: inner(x, v))(core)
    return core

class Box(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, v):
        return self.inner(x, v)

boxes = Box(nested(lambda x, v: fire(v * number() + x)))
for _ in range(15):
    boxes = Box(boxes)
held = 0.5
for _ in range(90):
    held = (held,)

def number():
    found = held
    while isinstance(found, tuple):
        (found,) = found
    return found

x = torch.linspace(-1.0, 2.0, 120).reshape(6, 4, 5).requires_grad_()

def results(core, backend):
    y, v = scan(core, x, torch.zeros(4, 5), backend)
    return [y, v, *torch.autograd.grad(y.sum(), x)]

def everything(backend):
    return [result for core in (parameters, operations, boxes) for result in results(core, backend)]

found = []
threading.stack_size(512 << 10)
thread = threading.Thread(target=lambda: found.extend(everything('cpp')))
thread.start()
thread.join()
assert len(found) == 9 and all(map(torch.equal, found, everything("torch")))
"""


@pytest.mark.skipif("cpp" not in supported_backends(), reason="no C++ compiler")
def test_in_a_process_of_its_own() -> None:
    done = fresh.run(PROGRAM)
    assert done.returncode == 0, done.stderr[-2000:]
