"""Learnable time constants: a layer finds out how fast each neuron of another layer leaks, from its spikes alone.

python examples/learnable_parameters.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from tqdm import trange

from flexsn import FlexSN, surrogate

spike = surrogate.Sigmoid(alpha=4.0)


class Leaky(nn.Module):
    """One time step of a leaky neuron; the leak of every channel is a parameter, and so has a gradient."""

    def __init__(self, leak: Tensor) -> None:
        super().__init__()
        self.logit = nn.Parameter(leak.logit())

    @property
    def leak(self) -> Tensor:
        return self.logit.sigmoid()

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        h = v * self.leak + x
        s = spike(h - 1.0)
        return s, h - s


def smooth(spikes: Tensor) -> Tensor:
    """Spikes as a slow trace (van Rossum, 2001): two trains are as far apart as their traces."""
    return FlexSN(lambda s, trace: (0.9 * trace + s,) * 2)(spikes)


def train(channels: int = 16, steps: int = 150, progress: bool = True) -> tuple[Tensor, Tensor]:
    """The leaks of the teacher, and those that were found."""
    torch.manual_seed(0)
    teacher = FlexSN(Leaky(torch.linspace(0.3, 0.9, channels)))
    student = FlexSN(Leaky(torch.full((channels,), 0.6)))
    optimizer = torch.optim.Adam(student.parameters(), 5e-2)
    bar = trange(steps, disable=not progress)
    for _ in bar:
        x = 1.5 * torch.rand(100, 32, channels)  # [T, B, channels]
        teacher.reset()
        student.reset()
        with torch.no_grad():
            wanted = smooth(teacher(x))
        loss = (smooth(student(x)) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bar.set_postfix(loss=f"{loss.item():.4f}")
    return teacher.core.leak.detach(), student.core.leak.detach()


if __name__ == "__main__":
    wanted, found = train()
    for channel, (w, f) in enumerate(zip(wanted.tolist(), found.tolist(), strict=True)):
        print(f"channel {channel:2}: leak {w:.3f}, found {f:.3f}")
    print(f"farthest off: {(wanted - found).abs().max():.3f}")
