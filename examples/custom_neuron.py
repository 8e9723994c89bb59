# %% [markdown]
# # A neuron of one's own
#
# An adaptive threshold, two learned time constants per channel, between two linear layers. One time step is written in
# plain PyTorch; the loop over time, forward and backward, is a kernel made from it.
#
#     python examples/custom_neuron.py

# %%
from __future__ import annotations

import torch
from torch import Tensor, nn

from flexsn import FlexSN, plot, surrogate

spike = surrogate.ATan(alpha=2.0)


# %%
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


# %% [markdown]
# `FlexSN` finds the parameters by tracing and is a module like any other. The task: slow sine waves from fast ones.


# %%
def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(1, 32), FlexSN(AdaptiveThreshold(32)), nn.Linear(32, 2))


def train(net: nn.Sequential, steps: int = 60) -> tuple[float, float]:
    """The first loss and the last."""
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


# %%
if __name__ == "__main__":
    torch.manual_seed(0)
    net = network()
    first, last = train(net)
    print(f"loss {first:.3f} -> {last:.3f}")

# %% [markdown]
# What three of its neurons do with one wave: input, membrane, spikes.

# %%
if __name__ == "__main__":
    wave = 3.0 * torch.sin(torch.linspace(0, 20, 100))[:, None, None]
    figure = plot.neuron_report(net[1], net[0](wave).detach(), dpi=80)
