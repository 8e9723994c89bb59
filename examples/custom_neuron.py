"""A neuron of one's own: an adaptive threshold, two time constants per channel, between two linear layers.

python examples/custom_neuron.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flexsn import FlexSN, surrogate

spike = surrogate.ATan(alpha=2.0)


class AdaptiveThreshold(nn.Module):
    """One time step: leak towards the input, fire above ``1 + a``, reset, and let ``a`` follow the spikes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.leak = nn.Parameter(torch.zeros(channels))
        self.memory = nn.Parameter(torch.full((channels,), 2.0))

    def forward(self, x: Tensor, v: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = v + (x - v) * self.leak.sigmoid()
        s = spike(h - (1.0 + a))
        return s, h * (1.0 - s), a * self.memory.sigmoid() + 0.5 * s


def train(steps: int = 60) -> tuple[float, float]:
    """Learn to tell slow from fast sine waves; the first loss and the last."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 32), FlexSN(AdaptiveThreshold(32)), nn.Linear(32, 2))
    neuron = net[1]
    optimizer = torch.optim.Adam(net.parameters(), 2e-2)
    time = torch.linspace(0, 1, 50)
    losses = []
    for _ in range(steps):
        fast = torch.randint(0, 2, (64,))
        phase = torch.rand(64) * 6.28
        wave = torch.sin(time[:, None] * (6.28 * (2 + 4 * fast)) + phase) * 3  # [T, B]
        neuron.reset()
        scores = net(wave[..., None]).mean(0)
        loss = nn.functional.cross_entropy(scores, fast)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


if __name__ == "__main__":
    first, last = train()
    print(f"loss {first:.3f} -> {last:.3f}")
