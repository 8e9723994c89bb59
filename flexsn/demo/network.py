"""The neuron, the network and the digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flexsn import FlexSN, surrogate

__all__ = ["AdaptiveLIF", "Digits", "DigitsNet", "T"]

T = 6  # time steps per digit
spike = surrogate.ATan(alpha=2.0)


class AdaptiveLIF(FlexSN):
    """A leaky neuron whose threshold rises with every spike; both time constants are learned per channel.

    The core is one step on tensors of any shape. Its parameters, of shape ``(C, 1, 1)``, broadcast against
    the step ``[B, C, H, W]``; flexsn finds them by tracing and the kernel reads them in place.
    """

    def __init__(self, channels: int, **options: Any) -> None:
        super().__init__(**options)
        self.leak = nn.Parameter(torch.zeros(channels, 1, 1))
        self.memory = nn.Parameter(torch.ones(channels, 1, 1))

    def charge(self, x: Tensor, v: Tensor) -> Tensor:
        return v + (x - v) * torch.sigmoid(self.leak)

    def core(self, x: Tensor, v: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.charge(x, v)
        s = spike(h - (1.0 + a))  # fire above a moving threshold
        return s, h * (1.0 - s), a * torch.sigmoid(self.memory) + 0.2 * s


class DigitsNet(nn.Module):
    """Two convolutions, each followed by spiking neurons; the answer is read from the firing rates."""

    def __init__(self, backend: str = "auto") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(32)
        self.neuron1 = AdaptiveLIF(32, backend=backend)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(64)
        self.neuron2 = AdaptiveLIF(64, backend=backend)
        self.head = nn.Linear(64 * 4 * 4, 10)

    @property
    def neurons(self) -> tuple[AdaptiveLIF, AdaptiveLIF]:
        return self.neuron1, self.neuron2

    def use(self, backend: str) -> None:
        """Let ``backend`` run the neurons."""
        for neuron in self.neurons:
            neuron.backend = backend

    def layers(self, images: Tensor, steps: int = T) -> list[tuple[Tensor, Tensor]]:
        """``(input, spikes)`` of both spiking layers, ``[T, B, C, 8, 8]`` each, for images ``[B, 1, 8, 8]``."""
        for neuron in self.neurons:
            neuron.reset()  # every batch starts from rest
        x1 = self.norm1(self.conv1(images)).expand(steps, -1, -1, -1, -1)  # the same image at every step
        s1 = self.neuron1(x1)
        x2 = self.norm2(self.conv2(s1.flatten(0, 1))).unflatten(0, (steps, -1))
        s2 = self.neuron2(x2)
        return [(x1, s1), (x2, s2)]

    def forward(self, images: Tensor, steps: int = T) -> Tensor:
        """Class scores ``[B, 10]``."""
        _, spikes = self.layers(images, steps)[-1]
        scores: Tensor = self.head(F.avg_pool2d(spikes.mean(0), 2).flatten(1))
        return scores


@dataclass(frozen=True)
class Digits:
    """Images ``[N, 1, 8, 8]`` in [0, 1] and labels; a quarter is held out, a fixed, class-balanced quarter."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    @classmethod
    def load(cls, device: torch.device) -> Digits:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        raw = load_digits()
        parts = train_test_split(raw.images / 16.0, raw.target, test_size=0.25, stratify=raw.target, random_state=0)
        train_images, test_images = (torch.tensor(p, dtype=torch.float32, device=device) for p in parts[:2])
        train_labels, test_labels = (torch.tensor(p, device=device) for p in parts[2:])
        return cls(train_images.unsqueeze(1), train_labels, test_images.unsqueeze(1), test_labels)
