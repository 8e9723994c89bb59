"""Two processes: DDP and FSDP2 give the gradients of one process on the joint batch, and build one kernel once."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from flexsn import FlexSN, functional
from flexsn.execution.backends import supported_backends
from flexsn.neurons import PLIF
from tests import fresh
from tests.flexsn.contract_cores import SPIKE

EXAMPLE = Path(__file__).parents[2] / "examples" / "distributed.py"

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")


def closed_over() -> FlexSN:
    weight = nn.Parameter(torch.tensor([0.5, 1.0, 0.25, 0.75]))

    def core(x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = v + x * weight
        s = SPIKE(h - 1.0)
        return s, h * (1.0 - s)

    return FlexSN(core)


class Net(nn.Module):
    def __init__(self, *last: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 4), closed_over(), nn.Linear(4, 2), *last)

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        y: Tensor = self.layers(x).mean(0)
        return y


def sharded(net: Net) -> nn.Module:
    for layer in net.layers:
        fully_shard(layer)
    return fully_shard(net)


def compiled(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="aot_eager")  # type: ignore[return-value]


WAYS: dict[str, tuple[Callable[[], Net], Callable[[Net], nn.Module]]] = {
    "DDP": (lambda: Net(PLIF()), DistributedDataParallel),
    "compiled DDP": (lambda: Net(PLIF()), lambda net: compiled(DistributedDataParallel(net))),
    "FSDP2": (Net, sharded),  # which takes no parameters of one number, as PLIF has
    "compiled FSDP2": (Net, lambda net: compiled(sharded(net))),
}


def gradients(net: Net, run: nn.Module, x: Tensor) -> list[Tensor]:
    for _ in range(2):  # the second time with everything made
        net.zero_grad()
        run(x).square().mean().backward()
    found = [p.grad for p in net.parameters()]
    return [g.full_tensor() if hasattr(g, "full_tensor") else g for g in found]  # type: ignore[misc]


def rank(number: int, port: int) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(number), WORLD_SIZE="2")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    x = torch.linspace(0.0, 3.0, 72).reshape(6, 4, 3)
    wrong = []
    for name, (make, wrap) in WAYS.items():
        torch._dynamo.reset()
        net, plain = make(), make()
        found = gradients(net, wrap(net), x[:, 2 * number : 2 * number + 2])
        expected = gradients(plain, plain, x)
        if not all(torch.allclose(a, b, atol=1e-7) for a, b in zip(found, expected, strict=True)):
            wrong.append(name)
    dist.destroy_process_group()
    assert not wrong, wrong


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def test_gradients_are_those_of_the_joint_batch() -> None:
    start = torch.multiprocessing.start_processes  # by the server that fresh programs come from too
    start(rank, args=(free_port(),), nprocs=2, start_method="forkserver")  # type: ignore[no-untyped-call]


@pytest.mark.skipif("cpp" not in supported_backends(), reason="needs a C++ compiler")
def test_the_example_learns_and_its_ranks_build_each_kernel_once(tmp_path: Path) -> None:
    built = tmp_path / "built"
    script = tmp_path / "cxx"
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *{tmp_path}/kernels*) echo >> {built};; esac\nexec {shutil.which("g++")} "$@"\n'
    )
    script.chmod(0o755)
    environment = {**os.environ, "CXX": str(script), "FLEXSN_CACHE_DIR": str(tmp_path / "kernels")}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    program = f"import runpy; runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')"

    def ran(number: int) -> fresh.Done:
        return fresh.run(program, environment={**environment, "RANK": str(number), "LOCAL_RANK": str(number)})

    with ThreadPoolExecutor(2) as pool:  # as torchrun starts them
        done, other = pool.map(ran, range(2))
    assert done.returncode == other.returncode == 0, done.stderr + other.stderr
    _, first, _, last = done.stdout.split()
    assert float(last) < float(first)
    names = [path.suffix for path in (tmp_path / "kernels").iterdir()]
    assert names == [".so", ".so"]
    assert len(built.read_text()) == 2  # forward and backward, in one of the processes
