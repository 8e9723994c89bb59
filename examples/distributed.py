"""Data-parallel training: torchrun --nproc-per-node 2 examples/distributed.py [--shard]

Every process takes its share of each batch; gradients are averaged. The processes share one kernel cache, so whoever
needs a kernel first builds it and the others load it. FSDP2 takes no parameters of one number, such as the time
constant of ``PLIF``: hand them to ``fully_shard(..., ignored_params=...)``.
"""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from flexsn import FlexSN, functional, surrogate

spike = surrogate.ATan()


class Layer(FlexSN):
    """Leaky integrate-and-fire with a learnable decay per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.zeros(channels))

    def core(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = v + (x - v) * torch.sigmoid(self.decay)
        s = spike(h - 1.0)
        return s, h * (1.0 - s)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 64), Layer(64), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self)
        y: Tensor = self.layers(x).mean(0)
        return y


def train(shard: bool = False, steps: int = 30) -> list[float]:
    """The losses, averaged over processes; ``shard`` splits the parameters as well (FSDP2)."""
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)  # the same model everywhere
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")
    net = Net().to(device)
    model = fully_shard(net) if shard else DistributedDataParallel(net)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    x, target = 2.0 * torch.rand(20, 64, 16), torch.randint(10, (64,))  # time first, then the batch
    mine = slice(rank * 64 // world, (rank + 1) * 64 // world)
    x, target = x[:, mine].to(device), target[mine].to(device)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        dist.all_reduce(loss.detach_())
        losses.append(loss.item() / world)
    return losses


def main() -> None:
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    losses = train(shard="--shard" in sys.argv)
    if dist.get_rank() == 0:
        print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
