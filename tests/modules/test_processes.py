"""A neuron in other processes and threads: shared memory, fork and spawn, eight threads at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.multiprocessing
from torch import Tensor, nn

from flexsn import functional
from flexsn.neurons import LIF, PLIF
from tests import fresh
from tests.flexsn.contract_cores import sequence

X = sequence(6, 2, 3)


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), PLIF())


def train(net: nn.Module, x: Tensor) -> None:
    functional.reset_net(net)
    net(x).sum().backward()
    torch.optim.SGD(net.parameters(), 0.5).step()


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_process_trains_a_model_in_shared_memory(start: str) -> None:
    net, plain = model(), model()
    net(X)  # kernels and states are there before
    net.share_memory()
    assert all(p.is_shared() for p in net.parameters()) and net[1].v.is_shared()
    worker = torch.multiprocessing.get_context(start).Process(target=train, args=(net, X))
    worker.start()
    worker.join(120)
    assert worker.exitcode == 0
    train(plain, X)
    for a, b in zip(net.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("before", ["our threads", "torch's threads"])
def test_a_fork_of_a_process_with_threads_goes_on_alone(before: str) -> None:
    """The child has none of its parent's threads, and OpenMP waits for them for ever."""
    program = f"""
import os, time, torch
from flexsn.neurons import LIF
torch.set_num_threads(2)
neuron, x = LIF(), torch.ones(50, 200, 1000)
expected = neuron(x) if {before == "our threads"} else x + x
child = os.fork()
if child == 0:
    neuron.reset()
    ok = neuron(x).shape == x.shape
    os._exit(0 if ok else 1)
deadline = time.monotonic() + 60
while os.waitpid(child, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
    time.sleep(0.01)
try:
    os.kill(child, 9)
except ProcessLookupError:
    print("ended")
"""
    done = fresh.run(program)
    assert done.stdout == "ended\n", done.stderr


def test_eight_threads_each_with_a_model(backend: str) -> None:
    if backend == "triton":
        pytest.skip("Triton's interpreter patches Triton's globals for the length of a call, so it has one thread")
    inputs = [sequence(20, 50) * k for k in range(8)]

    def gradient(x: Tensor) -> Tensor:
        neuron, x = LIF(backend=backend), x.clone().requires_grad_()
        for _ in range(5):
            neuron.reset()
            x.grad = None
            neuron(x).sum().backward()
        assert x.grad is not None
        return x.grad

    expected = [gradient(x) for x in inputs]
    with ThreadPoolExecutor(8) as threads:
        assert all(map(torch.equal, threads.map(gradient, inputs), expected))
