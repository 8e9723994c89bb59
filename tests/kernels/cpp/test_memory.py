"""Kernels in threads with small stacks, and what threads leave behind."""

from __future__ import annotations

import pytest

from flexsn.execution.backends import supported_backends
from tests import fresh

pytestmark = pytest.mark.skipif("cpp" not in supported_backends(), reason="no C++ compiler")

SMALL_STACK = """
import threading, torch, flexsn
weights = [torch.full((8,), 0.01 * i + 0.1, requires_grad=True) for i in range(40)]
def core(x, v):
    for w in weights:
        v = v * w + x
    return v, v
x = torch.randn(5, 1000, 8, requires_grad=True)
def results(backend):
    y, v = flexsn.scan(core, x, torch.zeros(8), backend)
    return [y, v, *torch.autograd.grad(y.sum(), [x, *weights])]
found = []
threading.stack_size(512 << 10)
thread = threading.Thread(target=lambda: found.extend(results("cpp")))
thread.start()
thread.join()
expected = results("torch")
assert all(map(torch.equal, found[:3], expected[:3]))
assert all(torch.allclose(a, b, rtol=1e-4) for a, b in zip(found[3:], expected[3:], strict=True))
"""

MANY_THREADS = """
import threading, torch, flexsn
torch.set_num_threads(1)
x = torch.randn(64, 512, requires_grad=True)
def core(x, v):
    h = v * 0.5 + x
    return h * h, h
def train():
    flexsn.scan(core, x, torch.zeros(512), "cpp", checkpoint=64)[0].sum().backward()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
def run(count):
    for _ in range(count):
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
run(20)
before = resident()
run(200)
grown = (resident() - before) / 200
assert grown < 50_000, grown  # what is recomputed takes 131,072 bytes
"""


@pytest.mark.parametrize("program", [SMALL_STACK, MANY_THREADS], ids=["small stack", "many threads"])
def test_in_a_process_of_its_own(program: str) -> None:
    done = fresh.run(program)
    assert done.returncode == 0, done.stderr[-2000:]
