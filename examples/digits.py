"""Handwritten digits: a convolutional network of built-in neurons, spikes kept in a byte each.

python examples/digits.py

The digits (8 x 8 pixels, 1,797 of them) ship inside scikit-learn.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from tqdm import tqdm

from flexsn import functional, neurons

STEPS = 6
Samples = tuple[Tensor, Tensor]
"""Images ``[N, 1, 8, 8]`` and their digits ``[N]``."""


def load() -> tuple[Samples, Samples]:
    """For training, and every fourth one for testing."""
    raw = load_digits()
    images, digits = torch.tensor(raw.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(raw.target)
    held_out = torch.arange(len(digits)) % 4 == 0
    return (images[~held_out], digits[~held_out]), (images[held_out], digits[held_out])


class PerStep(nn.Sequential):
    """Layers that know no time: all steps go through them as one large batch."""

    def forward(self, x_seq: Tensor) -> Tensor:
        return functional.seq_to_ann_forward(x_seq, list(self))


def network() -> nn.Sequential:
    """Scores ``[B, 10]`` of an image at every step, ``[T, B, 1, 8, 8]``."""
    first, second = neurons.PLIF(init_tau=2.0, step_mode="m"), neurons.LIF(tau=2.0, step_mode="m")
    first.output_dtype = second.output_dtype = torch.bool  # a byte a spike; a float tensor to every layer
    return nn.Sequential(
        PerStep(nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)),
        first,
        PerStep(nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)),
        second,
        PerStep(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64 * 2 * 2, 10)),
        neurons.NonSpikingLIF(tau=2.0, step_mode="m", time_reduction="mean"),
    )


def scores(net: nn.Module, images: Tensor) -> Tensor:
    functional.reset_net(net)  # every batch starts from rest
    found: Tensor = net(images.expand(STEPS, *images.shape))
    return found


def train(net: nn.Module, samples: Samples, epochs: int, batch: int = 64) -> None:
    images, digits = samples
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for epoch in range(epochs):
        bar = tqdm(torch.randperm(len(digits)).split(batch), desc=f"epoch {epoch + 1} of {epochs}")
        for chosen in bar:
            loss = nn.functional.cross_entropy(scores(net, images[chosen]), digits[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            bar.set_postfix(loss=f"{loss.item():.3f}")


@torch.no_grad()
def accuracy(net: nn.Module, samples: Samples) -> float:
    net.eval()
    right = (scores(net, samples[0]).argmax(-1) == samples[1]).float().mean().item()
    net.train()
    return right


if __name__ == "__main__":
    torch.manual_seed(0)
    training, test = load()
    net = network()
    train(net, training, epochs=4)
    print(f"{accuracy(net, test):.1%} of {len(test[1])} held-out digits")
